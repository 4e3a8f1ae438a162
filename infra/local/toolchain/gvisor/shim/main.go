// Command containerd-shim-runsc-v1 is gVisor's containerd shim for machines whose kernel
// refuses a lower OOM score (no CAP_SYS_RESOURCE).
//
// The stock shim ends its start-up when it may not set oom_score_adj to -999 on itself
// (https://github.com/google/gvisor/blob/master/pkg/shim/v1/manager.go). Everything but
// that one step is gVisor's own code.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	shimv1 "gvisor.dev/gvisor/pkg/shim/v1"
	_ "gvisor.dev/gvisor/pkg/shim/v1/plugin"
)

type manager struct{ shim.Manager }

// Start launches the shim's long-lived process, one for each container, on a socket of its own.
func (m manager) Start(ctx context.Context, id string, opts shim.StartOpts) (_ shim.BootstrapParams, err error) {
	var none shim.BootstrapParams
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return none, err
	}
	self, err := os.Executable()
	if err != nil {
		return none, err
	}
	address, err := shim.SocketAddress(ctx, opts.Address, id, opts.Debug)
	if err != nil {
		return none, err
	}
	socket, err := shim.NewSocket(address)
	if shim.SocketEaddrinuse(err) {
		if shim.CanConnect(address) {
			if err := os.WriteFile("address", []byte(address), 0o644); err != nil {
				return none, err
			}
			return shim.BootstrapParams{Version: 2, Address: address, Protocol: "ttrpc"}, nil
		}
		if err := shim.RemoveSocket(address); err != nil {
			return none, err
		}
		socket, err = shim.NewSocket(address)
	}
	if err != nil {
		return none, fmt.Errorf("create shim socket: %w", err)
	}
	defer func() {
		if err != nil {
			socket.Close()
			_ = shim.RemoveSocket(address)
		}
	}()
	listener, err := socket.File()
	if err != nil {
		return none, err
	}
	if err := os.WriteFile("address", []byte(address), 0o644); err != nil {
		return none, err
	}

	child := exec.Command(self, "-namespace", namespace, "-address", opts.Address, "-id", id)
	child.Env = append(os.Environ(), "GOMAXPROCS=2")
	child.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	child.ExtraFiles = []*os.File{listener}
	if err := child.Start(); err != nil {
		return none, err
	}
	go child.Wait()
	if err := shim.WritePidFile("shim.pid", child.Process.Pid); err != nil {
		_ = child.Process.Kill()
		return none, err
	}
	score := fmt.Sprintf("/proc/%d/oom_score_adj", child.Process.Pid)
	if err := os.WriteFile(score, []byte("-999"), 0o644); err != nil {
		log.G(ctx).WithError(err).Debug("the kernel keeps the shim's OOM score; going on")
	}
	return shim.BootstrapParams{Version: 2, Address: address, Protocol: "ttrpc"}, nil
}

func main() {
	shim.Run(context.Background(), manager{shimv1.NewShimManager("io.containerd.runsc.v1")})
}
