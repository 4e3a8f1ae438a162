"""The cluster's network namespace: made, closed by default, removed.

The machine itself gets one veth link and a route to it; its iptables, bridges and sockets are not touched.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from adk_gke_sandbox.errors import SandboxError
from infra.local.layout import Layout

_NAMESPACES = Path("/run/netns")


def create(layout: Layout) -> None:
    """Make the namespace with its link, and drop the pods' traffic until a policy lets it through.

    Raises:
        SandboxError: a step failed; most often the address range is taken.
    """
    inside = enter(layout)
    steps = [
        ["ip", "netns", "add", layout.namespace],
        ["ip", "link", "add", layout.host_link, "type", "veth", "peer", "name", "eth0", "netns", layout.namespace],
        ["ip", "address", "add", f"{layout.host_address}/30", "dev", layout.host_link],
        ["ip", "link", "set", layout.host_link, "up"],
        [*inside, "ip", "address", "add", f"{layout.node_address}/30", "dev", "eth0"],
        [*inside, "ip", "link", "set", "eth0", "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
        [*inside, "ip", "route", "add", "default", "via", layout.host_address],
        [*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        [*inside, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"],
        [*inside, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"],
        # kube-router takes a second or two to know a new pod. Until its chains accept a packet explicitly,
        # nothing of a pod is forwarded, and nothing of it reaches the node itself.
        [*inside, "iptables", "-P", "FORWARD", "DROP"],
        [*inside, "iptables", "-A", "INPUT", "-s", layout.pod_range, "-j", "DROP"],
    ]
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SandboxError(
                f"`{' '.join(step)}` failed: {done.stderr.strip()}",
                "Run `python infra/local down` and try again; another cluster may need another --name",
            )


def enter(layout: Layout) -> list[str]:
    """Return the command prefix that runs in the namespace.

    Not `ip netns exec`, which mounts /sys anew and hides the cgroup hierarchies.
    """
    return ["nsenter", f"--net={_NAMESPACES / layout.namespace}"]


def exists(layout: Layout) -> bool:
    """Return whether the namespace is there."""
    return (_NAMESPACES / layout.namespace).exists()


def remove(layout: Layout) -> None:
    """Remove link and namespace, whichever are there."""
    for command in (["ip", "link", "delete", layout.host_link], ["ip", "netns", "delete", layout.namespace]):
        subprocess.run(command, check=False, capture_output=True)
