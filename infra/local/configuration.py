"""The daemons' command lines and configuration files. Writes the files; starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from infra.local.layout import Layout

PAUSE_IMAGE = "adk-gke-sandbox.local/pause:1"
CNI_PLUGINS = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins are."""

SERVICE_RANGE = "10.96.0.0/16"


def commands(layout: Layout, binaries: Mapping[str, Path]) -> dict[str, list[str]]:
    """Write the configuration files and return the command line of each daemon."""
    state, pki = layout.state, layout.pki
    for folder in (layout.logs, state / "cni"):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(layout)))
    (state / "runsc.toml").write_text(_RUNSC.format(state=state))
    (state / "containerd.toml").write_text(
        _CONTAINERD.format(state=state, socket=layout.containerd_socket, pause=PAUSE_IMAGE, cni=CNI_PLUGINS)
    )
    (state / "kubelet.yaml").write_text(json.dumps(_kubelet(layout)))
    etcd = "http://127.0.0.1:2379"
    found = {
        "containerd": ["--config", f"{state}/containerd.toml"],
        "etcd": [
            f"--data-dir={state}/etcd",
            # The cluster is thrown away, never recovered.
            "--unsafe-no-fsync",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd}",
            f"--bind-address={layout.node_address}",
            f"--advertise-address={layout.node_address}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            # The node's name is in no DNS.
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={pki}/service-account.pub",
            f"--service-account-signing-key-file={pki}/service-account.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={pki}/controller-manager.kubeconfig",
            "--leader-elect=false",
            "--use-service-account-credentials",
            "--allocate-node-cidrs",
            f"--cluster-cidr={layout.pod_range}",
            "--node-cidr-mask-size=24",
            f"--service-account-private-key-file={pki}/service-account.key",
            f"--root-ca-file={pki}/ca.crt",
            "--bind-address=127.0.0.1",
        ],
        "kube-scheduler": [
            f"--kubeconfig={pki}/scheduler.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "kubelet": [
            f"--config={state}/kubelet.yaml",
            f"--kubeconfig={pki}/node.kubeconfig",
            f"--root-dir={state}/kubelet",
            f"--cert-dir={state}/kubelet/pki",
            f"--hostname-override={layout.node}",
            f"--node-ip={layout.node_address}",
            "--node-labels=sandbox.gke.io/runtime=gvisor",
        ],
        "kube-router": [
            f"--kubeconfig={pki}/kube-router.kubeconfig",
            "--run-firewall=true",
            "--run-router=false",
            "--run-service-proxy=false",
            "--run-loadbalancer=false",
            f"--hostname-override={layout.node}",
            "--health-port=0",
            "--metrics-port=0",
        ],
    }
    return {name: [str(binaries[name]), *arguments] for name, arguments in found.items()}


def _cni(layout: Layout) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": layout.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": f"{layout.state}/cni/addresses",
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _kubelet(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "containerLogMaxSize": "64Mi",
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        # A developer's disk is often nearly full; the node must not evict for that.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # Kubernetes 1.36 refuses cgroup v1 otherwise.
        "failCgroupV1": False,
        "failSwapOn": False,
        "healthzBindAddress": "127.0.0.1",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # Lowering it needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        # Each kubelet deletes the logs of pods that it does not know: a folder of its own, not /var/log/pods.
        "podLogsDir": f"{layout.state}/pod-logs",
        "resolvConf": "",
        "serializeImagePulls": False,
        "tlsCertFile": f"{layout.pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{layout.pki}/kubelet.key",
    }


_RUNSC = """\
log_path = "{state}/log/shim-%ID%.log"

[runsc_config]
platform = "systrap"
"""

_CONTAINERD = """\
version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE every pod would die in runc's init.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{state}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
runtime_type = "io.containerd.runsc.v1"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
TypeUrl = "io.containerd.runsc.v1.options"
ConfigPath = "{state}/runsc.toml"
"""
