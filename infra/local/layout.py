"""Where a local cluster keeps what, and what its parts are called; everything follows from its name. No I/O."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from adk_gke_sandbox.contract import CONTRACT_KEY, LOCAL_KUBECONFIG
from adk_gke_sandbox.errors import ConfigError

PROJECT = "adk-gke-sandbox"


def cache_root() -> Path:
    """Return the folder of everything that is built once and used by all clusters."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / PROJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths, names and addresses of the cluster ``name``.

    Raises:
        ConfigError: the name is no lower-case DNS label of at most 20 characters.
    """

    name: str = "local"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,18}[a-z0-9])?", self.name):
            raise ConfigError(
                f"{self.name!r} is no name for a cluster", "Use up to 20 lower-case letters, digits and '-'"
            )

    @property
    def state(self) -> Path:
        """Folder of all that belongs to this cluster alone; `down` removes it."""
        root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(root) / PROJECT / self.name

    @property
    def lock(self) -> Path:
        """File that `up` and `down` hold while they work; beside the state, which `down` removes."""
        return self.state.with_suffix(".lock")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def contract(self) -> Path:
        """The contract of the stack on this cluster, where the package looks for it when no other is named."""
        return self.state / CONTRACT_KEY

    @property
    def agent_kubeconfig(self) -> Path:
        """The agents' kubeconfig, which the package uses with this contract."""
        return self.state / LOCAL_KUBECONFIG

    @property
    def images(self) -> Path:
        """What was imported: variant -> references and digest."""
        return self.state / "images.json"

    @property
    def processes(self) -> Path:
        """Process ids of the supervisor and its daemons."""
        return self.state / "processes.json"

    @property
    def logs(self) -> Path:
        """Folder with a log for each daemon."""
        return self.state / "log"

    @property
    def pki(self) -> Path:
        """Folder of keys and certificates."""
        return self.state / "pki"

    @property
    def containerd_socket(self) -> Path:
        """Containerd's gRPC socket."""
        return self.state / "containerd.sock"

    @property
    def context(self) -> str:
        """Name of the context in the kubeconfig."""
        return f"{PROJECT}-{self.name}"

    @property
    def namespace(self) -> str:
        """Network namespace of all daemons."""
        return f"{PROJECT}-{self.name}"

    @property
    def cgroup(self) -> str:
        """Cgroup under which the kubelet puts its pods."""
        return f"{PROJECT}-{self.name}"

    @property
    def node(self) -> str:
        """Name of the one node."""
        return f"{self.name}-node"

    @property
    def host_link(self) -> str:
        """Interface on the machine's side; the kernel takes 15 characters."""
        return f"adkgs{self._number:05d}"

    @property
    def _number(self) -> int:
        return zlib.crc32(self.name.encode()) % 50_000

    @property
    def _block(self) -> str:
        return str(self._number % 250 + 1)

    @property
    def host_address(self) -> str:
        """Address of the machine on the link into the namespace."""
        return f"10.213.{self._block}.1"

    @property
    def node_address(self) -> str:
        """Address of the node, and of the API server."""
        return f"10.213.{self._block}.2"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://{self.node_address}:6443"

    @property
    def pod_range(self) -> str:
        """Addresses of the pods."""
        return f"10.214.{self._block}.0/24"
