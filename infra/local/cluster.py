"""A real one-node Kubernetes with gVisor: up, down, status.

It stands in for the GKE cluster only: node, RuntimeClass and an enforcing NetworkPolicy controller. Every
other Kubernetes object comes from the Pulumi program. What it changes on the machine: a network namespace
with one veth link, cgroups of its own, `fs.inotify.max_user_instances`; mounts live in a namespace of the
daemons and end with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adk_gke_sandbox.errors import SandboxError
from infra.local import configuration, images, network, pki, processes, toolchain
from infra.local.layout import Layout, cache_root

Report = Callable[[str], None]

DAEMONS = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-router",
)
VARIANTS = ("pause", "slim", "data")

_START_SECONDS = 120.0
_MOUNTS = 'mount --make-rshared / && mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && exec "$@"'
"""What the daemons' mount namespace needs: propagation into containers, and containerd's shim sockets to itself."""

_INOTIFY_INSTANCES = 8192
_RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "gvisor"},
    "handler": "runsc",
    "scheduling": {
        "nodeSelector": {"sandbox.gke.io/runtime": "gvisor"},
        "tolerations": [
            {"key": "sandbox.gke.io/runtime", "operator": "Equal", "value": "gvisor", "effect": "NoSchedule"}
        ],
    },
}
"""As GKE makes it (https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods)."""


def up(layout: Layout, report: Report) -> None:
    """Bring the cluster up; one that is up already is left as it is, one that is half dead is started anew.

    Raises:
        SandboxError: a part cannot be built or does not start.
    """
    begin = time.monotonic()
    with _held(layout, report):
        binaries = toolchain.ensure(["cluster"], cache_root(), report)
        found = images.ensure(VARIANTS, cache_root(), report)
        if healthy(layout):
            _import(layout, found, binaries, report)
            report(f"cluster {layout.name} is up; checked in {time.monotonic() - begin:.1f} s")
            return
        if layout.state.exists() or network.exists(layout):
            report(f"cluster {layout.name} is not healthy: starting it anew")
            _remove(layout)
        started = time.monotonic()
        _start(layout, {name: binary.path for name, binary in binaries.items()})
        _wait(layout, "kube-apiserver", lambda: _answers(layout, "/readyz"))
        report(f"API server ready after {time.monotonic() - started:.1f} s")
        _create(layout, "/apis/node.k8s.io/v1/runtimeclasses", _RUNTIME_CLASS)
        _import(layout, found, binaries, report)
        _wait(layout, "kubelet", lambda: _node_ready(layout))
        _wait(layout, "kube-router", lambda: _policies_enforced(layout))
        report(f"node ready, policies enforced after {time.monotonic() - started:.1f} s")
        report(f"cluster {layout.name} is up; kubeconfig: {layout.kubeconfig}")


def down(layout: Layout, report: Report) -> None:
    """Remove the cluster with everything that it has put on the machine, whatever state it is in."""
    with _held(layout, report):
        _remove(layout)
    layout.lock.unlink(missing_ok=True)
    report(f"cluster {layout.name} is down")


def healthy(layout: Layout) -> bool:
    """Return whether every daemon lives, the API server is ready and the node is."""
    alive = processes.running(layout)
    return all(name in alive for name in ("supervisor", *DAEMONS)) and (
        _answers(layout, "/readyz") and _node_ready(layout)
    )


def _start(layout: Layout, binaries: Mapping[str, Path]) -> None:
    layout.state.mkdir(parents=True, mode=0o700)
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(instances.read_text()) < _INOTIFY_INSTANCES:
        instances.write_text(str(_INOTIFY_INSTANCES))
    pki.create(layout)
    processes.create_cgroups(layout)
    network.create(layout)
    plan = {
        "commands": configuration.commands(layout, binaries),
        # The controller manager ends without RBAC's bootstrap roles, kube-router without its node.
        "needs": {
            "kube-controller-manager": "/readyz",
            "kube-scheduler": "/readyz",
            "kubelet": "/readyz",
            "kube-router": f"/api/v1/nodes/{layout.node}",
        },
        "logs": str(layout.logs),
        "processes": str(layout.processes),
        "server": layout.server,
        "authority": str(layout.pki / "ca.crt"),
        "certificate": str(layout.pki / "admin.crt"),
        "key": str(layout.pki / "admin.key"),
    }
    (layout.state / "plan.json").write_text(json.dumps(plan, indent=2))
    folders = dict.fromkeys(str(path.parent) for path in binaries.values())
    environment = {
        **os.environ,
        **processes.marks(layout),
        # containerd looks for shims, runsc and runc there.
        "PATH": os.pathsep.join([*folders, os.environ.get("PATH", ""), "/usr/sbin:/usr/bin:/sbin:/bin"]),
    }
    command = [
        *network.enter(layout),
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", _MOUNTS, "sh"),
        *(sys.executable, str(Path(__file__).with_name("supervisor.py")), str(layout.state / "plan.json")),
    ]
    with (layout.logs / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def _remove(layout: Layout) -> None:
    processes.end(layout)
    network.remove(layout)
    processes.remove_cgroups(layout)
    if layout.state.exists():
        shutil.rmtree(layout.state)


@contextlib.contextmanager
def _held(layout: Layout, report: Report) -> Iterator[None]:
    """Hold the cluster's lock, so that two at once do not fight."""
    layout.lock.parent.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another command works on cluster {layout.name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _wait(layout: Layout, daemon: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            log = layout.logs / f"{daemon}.log"
            lines = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
            raise SandboxError(f"{daemon} is not ready: {''.join(lines)}"[:600], f"Its log is {log}")
        time.sleep(0.05)


def _import(
    layout: Layout,
    found: list[images.Image],
    binaries: Mapping[str, toolchain.Binary],
    report: Report,
) -> None:
    """Import the images that the node does not have yet."""
    wanted = {image.variant: {"digest": image.digest, "references": list(image.references)} for image in found}
    try:
        present = json.loads(layout.images.read_text())
    except (OSError, ValueError):
        present = {}
    ctr = [str(binaries["ctr"].path), f"--address={layout.containerd_socket}", "--namespace=k8s.io"]
    begin = time.monotonic()
    for image in found:
        if present.get(image.variant) == wanted[image.variant]:
            continue
        _wait(layout, "containerd", layout.containerd_socket.exists)
        _run([*ctr, "images", "import", "--digests", str(image.archive)])
        first, *others = image.references
        for reference in others:
            _run([*ctr, "images", "tag", "--force", first, reference])
    if present != wanted:
        layout.images.write_text(json.dumps(wanted, indent=2))
        report(f"images imported in {time.monotonic() - begin:.1f} s")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SandboxError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-400:]}")


def _policies_enforced(layout: Layout) -> bool:
    """Return whether kube-router has put its chains in place."""
    listed = subprocess.run(
        [*network.enter(layout), "iptables", "-S", "FORWARD"], check=False, capture_output=True, text=True
    )
    return "KUBE-ROUTER-FORWARD" in listed.stdout


def _node_ready(layout: Layout) -> bool:
    node = _get(layout, f"/api/v1/nodes/{layout.node}")
    conditions = node.get("status", {}).get("conditions", []) if node else []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _answers(layout: Layout, path: str) -> bool:
    try:
        return _request(layout, path) != b""
    except OSError:
        return False


def _get(layout: Layout, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_request(layout, path))
    except (OSError, ValueError):
        return None
    return found


def _create(layout: Layout, path: str, document: Mapping[str, Any]) -> None:
    try:
        _request(layout, path, json.dumps(document).encode())
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise SandboxError(f"cannot create {document['kind']}: {error}") from error


def _request(layout: Layout, path: str, body: bytes | None = None) -> bytes:
    context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    request = urllib.request.Request(  # noqa: S310 - an https address of our own
        layout.server + path, data=body, headers={"Content-Type": "application/json"}
    )
    # Not through a proxy that the environment names: the address is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=5) as answer:
        data: bytes = answer.read()
    return data
