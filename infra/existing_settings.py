"""Settings that name a cluster which is there already, and the reading of its kubeconfig.

Reads a file to check what it is told; never talks to a cluster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from adk_gke_sandbox.errors import ConfigError
from infra.configuration import full_key, repair, shown

_GKE_CLUSTER: Final = re.compile(
    r"projects/(?P<project>[a-z][-a-z0-9]{4,28}[a-z0-9])/locations/(?P<location>[a-z]+-[a-z]+\d{1,2}(-[a-z])?)"
    r"/clusters/(?P<name>[a-z]([-a-z0-9]{0,38}[a-z0-9])?)"
)
_EXAMPLES: Final = {
    "kubeconfig": "~/.kube/config",
    "context": "my-cluster",
    "gke_cluster": "projects/my-project/locations/europe-west4/clusters/my-cluster",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GkeClusterName:
    """The full name of a GKE cluster.

    Attributes:
        project: Id of its project.
        location: Its region or zone.
        name: Its own name.
    """

    project: str
    location: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingSettings:
    """Settings of `clusterMode: existing`: either a kubeconfig and a context, or the name of a GKE cluster.

    Raises:
        ConfigError: a value that cannot work.
    """

    kubeconfig: str = ""
    """Path of the kubeconfig file of the cluster."""
    context: str = ""
    """Context in that kubeconfig.

    Never the current context: what a shell has selected must not decide which cluster is changed.
    """
    gke_cluster: str = ""
    """Full name of a GKE cluster, `projects/PROJECT/locations/LOCATION/clusters/NAME`, instead of a kubeconfig.

    It is reached by its DNS endpoint, and needs a gVisor node pool (or Autopilot) and Dataplane V2.
    """

    def __post_init__(self) -> None:
        if self.gke_cluster and not _GKE_CLUSTER.fullmatch(self.gke_cluster):
            raise ConfigError(
                f"{shown('gke_cluster', self.gke_cluster)} is not the full name of a GKE cluster",
                repair("gke_cluster", _EXAMPLES["gke_cluster"]),
            )
        if self.gke_cluster and (self.kubeconfig or self.context):
            other = "kubeconfig" if self.kubeconfig else "context"
            raise ConfigError(
                f"{full_key('gke_cluster')} and {full_key(other)} are both set",
                "Name the cluster in one way: remove the other with `pulumi config rm gkeCluster`, or "
                "`pulumi config rm kubeconfig` and `pulumi config rm context`",
            )

    @property
    def named(self) -> GkeClusterName | None:
        """The GKE cluster, if one is named."""
        found = _GKE_CLUSTER.fullmatch(self.gke_cluster)
        return GkeClusterName(**found.groupdict()) if found else None

    @property
    def kubeconfig_path(self) -> Path:
        """The kubeconfig file; ``~`` is the home directory."""
        return Path(self.kubeconfig).expanduser()

    def server(self) -> str:
        """Return the URL of the API server that kubeconfig and context lead to.

        Raises:
            ConfigError: no such file, not a kubeconfig, no such context.
        """
        for name in ("kubeconfig", "context"):
            if not getattr(self, name):
                raise ConfigError(f"{full_key(name)} is not set", repair(name, _EXAMPLES[name]))
        try:
            document = yaml.safe_load(self.kubeconfig_path.read_text(encoding="utf-8"))
            contexts = {str(entry["name"]): str(entry["context"]["cluster"]) for entry in document["contexts"]}
            servers = {str(entry["name"]): str(entry["cluster"]["server"]) for entry in document["clusters"]}
        except FileNotFoundError:
            raise ConfigError(
                f"{shown('kubeconfig', self.kubeconfig)}: no such file",
                "Start the cluster with `python infra/local up`, or "
                + repair("kubeconfig", _EXAMPLES["kubeconfig"], "set"),
            ) from None
        # RuntimeError: the home directory of nobody.
        except (OSError, RuntimeError, ValueError, yaml.YAMLError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{shown('kubeconfig', self.kubeconfig)} is not a readable kubeconfig ({type(error).__name__})",
                repair("kubeconfig", _EXAMPLES["kubeconfig"]),
            ) from error
        if self.context not in contexts:
            raise ConfigError(
                f"{shown('context', self.context)} is not in {self.kubeconfig}, which has: "
                f"{', '.join(sorted(contexts)) or 'none'}",
                repair("context", _EXAMPLES["context"]),
            )
        if (cluster := contexts[self.context]) not in servers:
            raise ConfigError(
                f"{shown('context', self.context)} leads to the cluster {cluster!r}, which is not in {self.kubeconfig}",
                repair("context", _EXAMPLES["context"]),
            )
        return servers[cluster]
