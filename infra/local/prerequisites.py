"""What the machine must have before anything starts; says so, and installs what a package manager can."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from adk_gke_sandbox.errors import SandboxError
from infra.local.configuration import CNI_PLUGINS

_PACKAGES = {
    "runc": "runc",
    "iptables": "iptables",
    "ipset": "ipset",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "sysctl": "procps",
}
"""Command -> Debian package."""

_ALTERNATIVE = (
    "Use any other cluster instead by naming its kubeconfig context: kind, minikube with its gVisor add-on, or GKE"
)


def check_platform() -> None:
    """Refuse a system that cannot run the cluster.

    Raises:
        SandboxError: not Linux on x86-64.
    """
    if sys.platform != "linux":
        raise SandboxError(f"the local cluster needs Linux; this is {sys.platform}", _ALTERNATIVE)
    if os.uname().machine != "x86_64":
        raise SandboxError(f"the local cluster needs an x86-64 machine; this is {os.uname().machine}", _ALTERNATIVE)


def missing_packages() -> list[str]:
    """Return the Debian packages that have to be installed."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = {package for command, package in _PACKAGES.items() if shutil.which(command, path=search) is None}
    if not Path(CNI_PLUGINS, "bridge").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)


def install_commands(packages: list[str]) -> list[list[str]]:
    """Return the commands that install packages.

    Raises:
        SandboxError: this is no Debian or Ubuntu.
    """
    if shutil.which("apt-get") is None:
        raise SandboxError(
            f"these are missing and there is no apt-get to install them: {', '.join(packages)}",
            f"Install them by hand. {_ALTERNATIVE}",
        )
    return [
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ]
