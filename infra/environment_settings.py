"""Settings of what is inside the cluster: namespaces, image, limits, quota, network. The same on every cluster.

Every value is checked when the object is built. Creates nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Final, Literal, get_args

from adk_gke_sandbox.config import MIN_MEMORY_BYTES
from adk_gke_sandbox.contract import Ceilings, Resources
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.values import quantity
from infra.address_ranges import LINK_LOCAL, is_private
from infra.configuration import choose, full_key, key, repair, shown

Egress = Literal["none", "fqdn", "internet"]

HTTPS: Final = 443
"""The port on which every host answers to agents: NetworkPolicies cannot name the addresses of APIs."""

EXAMPLE_IMAGE: Final = f"python@sha256:{'0' * 64}"
"""What the committed stack files say. No such image exists: the digest of a public image that was right on the day
of a commit is a risk on any later one, so whoever runs the stack looks it up."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A namespace is an RFC 1123 label
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names)."""

_IMAGE: Final = re.compile(
    r"[a-z0-9]+(?:(?:[._/]|__|-+|:(?=\d+/))[a-z0-9]+)*(?::\w[\w.-]{0,127})?@sha256:[0-9a-f]{64}", re.ASCII
)
"""https://pkg.go.dev/github.com/distribution/reference; a tag beside the digest is allowed there, and ignored."""

_LABEL_NAME: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set."""

_POD_SECURITY_VERSION: Final = re.compile(r"v1\.\d{1,3}")
_TAKEN_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
_DAY_SECONDS: Final = 86_400

_HOST: Final = re.compile(r"(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""A host name, or all names below one
(https://cloud.google.com/kubernetes-engine/docs/how-to/fqdn-network-policies#specification)."""


_DESTINATION: Final = re.compile(r"(?P<where>[^:]+):(?P<port>[0-9]{1,5})")
_RANGE: Final = re.compile(r"[0-9.]+(/[0-9]{1,2})?")
_WITHOUT_NAT: Final = (".internal", ".googleapis.com")
"""Names of a VPC's own (https://cloud.google.com/compute/docs/internal-dns), and of what Private Google Access
reaches (https://cloud.google.com/vpc/docs/private-google-access)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where agents may connect to by TCP: a host by its name, or a range of addresses.

    Attributes:
        port: The port.
        host: Name of the host, or a pattern; empty for a range.
        block: The range; ``None`` for a host.
    """

    port: int
    host: str = ""
    block: IPv4Network | None = None

    @property
    def outside(self) -> bool:
        """Whether the way there leads over the internet."""
        return not (is_private(str(self.block)) if self.block else self.host.endswith(_WITHOUT_NAT))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What of the range is not meant: the metadata server."""
        return (str(LINK_LOCAL),) if self.block and self.block.overlaps(LINK_LOCAL) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What the sandbox namespace may use as a whole.

    Attributes:
        pods: Live pods.
        jobs: Jobs, finished ones until their TTL included.
        cpu: CPU of all live pods together, a Kubernetes quantity.
        memory: Memory of all live pods together, a Kubernetes quantity.
    """

    pods: int = 60
    jobs: int = 120
    cpu: str = "60"
    memory: str = "60Gi"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """Settings of the namespaces and of what runs in them.

    Raises:
        ConfigError: a value that cannot work.
    """

    image: str = ""
    """Sandbox image by digest, `REPOSITORY@sha256:DIGEST`; required.

    A tag is refused: what runs untrusted code must not change by itself. An image of Docker Hub, such as
    `python@sha256:DIGEST`, is pulled through the stack's own repository where the stack makes the cluster.
    """
    namespace: str = "agent-sandbox"
    """Namespace of the sandboxes; nothing else may live in it.

    `create` on Jobs is use of every ServiceAccount, Secret and ConfigMap of the namespace.
    """
    agents_namespace: str = "agents"
    """Namespace of the agents."""
    pod_security_version: str = "v1.34"
    """Version of the Pod Security Standards that both namespaces are held to.

    Pinned, so that a cluster upgrade cannot start to refuse sandboxes.
    """
    node_selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Node labels that sandbox pods ask for, beyond those of the RuntimeClass."""
    egress: Egress = "none"
    """What sandboxes may connect to: `none`, `fqdn` (hosts in `egressHosts`) or `internet` (all but private ranges).

    Anything but `none` also gives the nodes a way out, Cloud NAT, where the stack makes the network, and lets sandboxes
    resolve names: a program can send data out in the names that it asks for.
    """
    egress_hosts: tuple[str, ...] = ()
    """Host names that sandboxes may connect to on port 443 with `egress: fqdn`; `*.example.com` is all below it.

    Takes GKE with Dataplane V2 and FQDN network policies.
    """
    agents_egress: tuple[str, ...] = ()
    """What agents may connect to by TCP beyond the Kubernetes and Google APIs: `HOST:PORT` or `RANGE:PORT`.

    For example `10.20.0.5/32:5432`, `otlp.example.com:4317`, `api.anthropic.com:443`; a range that does not say `/`
    is one address. What is on the internet also gives the nodes a way out, Cloud NAT, where the stack makes the
    network; private ranges, hosts below `.internal` and `.googleapis.com` take none. Hosts on other ports than 443
    take GKE with Dataplane V2 and FQDN network policies. On port 443 no host is refused to agents: with a way out,
    they reach every one.
    """
    secret_env: bool = False
    """Whether executors may take environment variables of a sandbox from Secrets of its namespace.

    A program can read what it is given, and whoever may create Jobs there can give it any of them: keep others
    elsewhere. The quota of the namespace then does not forbid Secrets.
    """
    cpu_requested: str = "200m"
    """CPU request of an execution that does not say otherwise."""
    mem_requested: str = "256Mi"
    """Memory request of an execution that does not say otherwise."""
    cpu_limit: str = "500m"
    """CPU limit of an execution that does not say otherwise."""
    mem_limit: str = "512Mi"
    """Memory limit of an execution that does not say otherwise."""
    cpu_ceiling: str = "4"
    """The most CPU one execution may ask for."""
    mem_ceiling: str = "8Gi"
    """The most memory one execution may ask for."""
    timeout_seconds: int = 300
    """Wall-clock seconds of a program that does not say otherwise."""
    timeout_ceiling_seconds: int = 3600
    """The most wall-clock seconds one execution may ask for."""
    schedule_timeout_seconds: int = 300
    """Seconds for everything before a program starts."""
    quota_pods: int = 60
    """Sandbox pods that may be live at once."""
    quota_jobs: int = 120
    """Executions that may exist at once, finished ones until their TTL included."""
    quota_cpu: str = "60"
    """CPU of all live sandboxes together."""
    quota_memory: str = "60Gi"
    """Memory of all live sandboxes together."""

    def __post_init__(self) -> None:
        self._check_image()
        self._check_namespaces()
        self._check_pod_security()
        self._check_node_selector()
        self._check_egress()
        self._check_agents_egress()
        self._check_amounts()

    @property
    def quota(self) -> Quota:
        """The namespace's quota."""
        return Quota(pods=self.quota_pods, jobs=self.quota_jobs, cpu=self.quota_cpu, memory=self.quota_memory)

    @property
    def resources(self) -> Resources:
        """Requests and limits of an execution that does not say otherwise."""
        return Resources(
            cpu_requested=self.cpu_requested,
            mem_requested=self.mem_requested,
            cpu_limit=self.cpu_limit,
            mem_limit=self.mem_limit,
        )

    @property
    def ceilings(self) -> Ceilings:
        """The most that one execution may ask for."""
        return Ceilings(cpu=self.cpu_ceiling, memory=self.mem_ceiling, timeout_seconds=self.timeout_ceiling_seconds)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """Where agents may connect to."""
        return tuple(map(_destination, self.agents_egress))

    @property
    def way_out(self) -> bool:
        """Whether sandboxes or agents connect to the internet."""
        return self.egress != "none" or any(each.outside for each in self.destinations)

    @property
    def names_hosts(self) -> bool:
        """Whether network policies name hosts."""
        return self.egress == "fqdn" or any(each.host and each.port != HTTPS for each in self.destinations)

    def require_image(self) -> None:
        """Refuse the image of the committed stack files.

        Raises:
            ConfigError: nobody has named one.
        """
        if self.image == EXAMPLE_IMAGE:
            raise ConfigError(
                f"{full_key('image')} is still the example of the stack file, which is no image",
                "Find the digest of one with `docker buildx imagetools inspect python:3.11-slim "
                "--format '{{.Manifest.Digest}}'`, then set it with `pulumi config set image python@DIGEST`",
            )

    def _check_image(self) -> None:
        example = "europe-docker.pkg.dev/my-project/sandbox/data@sha256:DIGEST"
        if not self.image:
            raise ConfigError(f"{full_key('image')} is not set", repair("image", example))
        if not _IMAGE.fullmatch(self.image):
            raise ConfigError(f"{shown('image', self.image)} is not an image by digest", repair("image", example))

    def _check_namespaces(self) -> None:
        for name in ("namespace", "agents_namespace"):
            value = getattr(self, name)
            if not _DNS_LABEL.fullmatch(value):
                raise ConfigError(
                    f"{shown(name, value)} is not a namespace name",
                    "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
                )
            if value in _TAKEN_NAMESPACES:
                raise ConfigError(
                    f"{shown(name, value)} is Kubernetes' own namespace",
                    "Name one that this stack may create and delete",
                )
        if self.namespace == self.agents_namespace:
            raise ConfigError(
                f"{full_key('namespace')} and {full_key('agents_namespace')} are both {self.namespace!r}",
                "Name two namespaces: who may create Jobs can use every secret and identity of their namespace",
            )

    def _check_pod_security(self) -> None:
        if not _POD_SECURITY_VERSION.fullmatch(self.pod_security_version):
            raise ConfigError(
                f"{shown('pod_security_version', self.pod_security_version)} is not a Kubernetes minor version",
                repair("pod_security_version", "v1.36"),
            )

    def _check_node_selector(self) -> None:
        for name, value in self.node_selector.items():
            if not _LABEL_NAME.fullmatch(name) or not _LABEL_VALUE.fullmatch(value):
                raise ConfigError(
                    f"{full_key('node_selector')} has {name!r}: {value!r}, which is not a label of Kubernetes",
                    "Write for example cloud.google.com/gke-spot: 'true'",
                )

    def _check_egress(self) -> None:
        choose("egress", self.egress, get_args(Egress))
        if self.egress == "fqdn" and not self.egress_hosts:
            raise ConfigError(
                f"{shown('egress', self.egress)} without {full_key('egress_hosts')} opens nothing",
                "Set it with `pulumi config set --path 'egressHosts[0]' pypi.org`, or set egress to none",
            )
        if self.egress_hosts and self.egress != "fqdn":
            raise ConfigError(
                f"{full_key('egress_hosts')} has no effect with {shown('egress', self.egress)}",
                "Remove it with `pulumi config rm egressHosts`, or allow only these hosts with "
                "`pulumi config set egress fqdn`",
            )
        for host in self.egress_hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(
                    f"{full_key('egress_hosts')} has {host!r}, which is not a host name",
                    "Write a name such as pypi.org, or *.example.com for all names below it; no address, port or path",
                )

    def _check_agents_egress(self) -> None:
        for text, found in zip(self.agents_egress, self.destinations, strict=True):
            if self.agents_egress.count(text) > 1:
                raise ConfigError(f"{full_key('agents_egress')} has {text!r} twice", "Remove one of them")
            if found.block and found.block.subnet_of(LINK_LOCAL):
                raise ConfigError(
                    f"{full_key('agents_egress')} has {text!r}, which is where the metadata server is",
                    "Remove it: agents reach it for their own identity, and name servers, without being told",
                )
            if found.host.endswith((".cluster.local", ".svc")):
                # https://cloud.google.com/kubernetes-engine/docs/how-to/fqdn-network-policies#limitations
                raise ConfigError(
                    f"{full_key('agents_egress')} has {text!r}, a Service, of which a policy sees only the pods",
                    "Make a NetworkPolicy of your own in the agents' namespace that selects these pods",
                )

    def _check_amounts(self) -> None:
        for name in (
            "timeout_seconds",
            "timeout_ceiling_seconds",
            "schedule_timeout_seconds",
            "quota_pods",
            "quota_jobs",
        ):
            most = _DAY_SECONDS if name.endswith("seconds") else 100_000
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ConfigError(f"{shown(name, value)} is out of range", f"Give 1 to {most}")
        # Each pair must not shrink: request, default limit, ceiling of one execution, quota of all.
        for chain in (
            ("cpu_requested", "cpu_limit", "cpu_ceiling", "quota_cpu"),
            ("mem_requested", "mem_limit", "mem_ceiling", "quota_memory"),
            ("timeout_seconds", "timeout_ceiling_seconds"),
            ("quota_pods", "quota_jobs"),
        ):
            for lower, upper in itertools.pairwise(chain):
                if self.amount(lower) > self.amount(upper):
                    raise ConfigError(
                        f"{full_key(lower)}={getattr(self, lower)} is above {full_key(upper)}={getattr(self, upper)}",
                        f"Lower {key(lower)} or raise {key(upper)}",
                    )
        if self.amount("mem_limit") < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"{full_key('mem_limit')}={self.mem_limit} is too small for Python under gVisor",
                "Give at least 128Mi",
            )

    def amount(self, name: str) -> Decimal:
        """Return the number that a setting of an amount stands for: cores, bytes, seconds or pieces."""
        value = getattr(self, name)
        return quantity(value, setting=full_key(name)) if isinstance(value, str) else Decimal(value)


def _destination(text: str) -> Destination:
    """Return what an entry of ``agentsEgress`` means.

    Raises:
        ConfigError: nothing.
    """
    found = _DESTINATION.fullmatch(text)
    port = int(found["port"]) if found else 0
    if found and 1 <= port <= 65_535:
        if _HOST.fullmatch(found["where"]):
            return Destination(host=found["where"], port=port)
        if _RANGE.fullmatch(found["where"]):
            with contextlib.suppress(ValueError):
                return Destination(block=IPv4Network(found["where"]), port=port)
    raise ConfigError(
        f"{full_key('agents_egress')} has {text!r}, which is neither HOST:PORT nor RANGE:PORT",
        "Write for example db.example.com:5432 or 10.20.0.0/24:5432; a range begins at its first address",
    )
