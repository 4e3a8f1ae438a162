"""Settings of a stack: read from Pulumi's configuration, checked, frozen.

Every value is checked before the first resource is registered; an error names the key, the value and
the repair. Creates nothing and never talks to a cluster; the kubeconfig is read only to check it.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pulumi
import yaml
from pulumi.runtime.config import CONFIG

from adk_gke_sandbox.config import MIN_MEMORY_BYTES, quantity
from adk_gke_sandbox.contract import Ceilings, Cluster, Contract, Resources
from adk_gke_sandbox.errors import ConfigError

PROJECT: Final = "adk-gke-sandbox"

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A namespace is an RFC 1123 label
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names)."""

_IMAGE: Final = re.compile(r"[a-z0-9][\w.\-/:]*@sha256:[0-9a-f]{64}")
_POD_SECURITY_VERSION: Final = re.compile(r"v1\.\d{1,3}")
_TAKEN_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
_DAY_SECONDS: Final = 86_400


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
class Settings:
    """All settings of a stack. A field ``some_name`` is the configuration key ``adk-gke-sandbox:someName``.

    Attributes:
        stack: Name of the stack; not a configuration key.
        kubeconfig: Path of the kubeconfig file of the cluster.
        context: Context in it. Never the current context: what a shell has selected must not decide
            which cluster is changed.
        image: Sandbox image by digest. A tag is refused: what runs untrusted code must not change by itself.
        namespace: Namespace of the sandboxes. ``create`` on Jobs is use of every ServiceAccount, Secret and
            ConfigMap of the namespace, so nothing else may live in it.
        agents_namespace: Namespace of the agents.
        pod_security_version: Version of the Pod Security Standards, such as ``v1.36``; pinned, so that a
            cluster upgrade cannot start to refuse sandboxes.
        node_selector: Node labels that sandbox pods ask for, beyond those of the RuntimeClass.
        cpu_requested: CPU request of an execution that does not say otherwise.
        mem_requested: Memory request of an execution that does not say otherwise.
        cpu_limit: CPU limit of an execution that does not say otherwise.
        mem_limit: Memory limit of an execution that does not say otherwise.
        cpu_ceiling: The most CPU one execution may ask for.
        mem_ceiling: The most memory one execution may ask for.
        timeout_seconds: Wall-clock time of a program that does not say otherwise.
        timeout_ceiling_seconds: The most wall-clock time one execution may ask for.
        schedule_timeout_seconds: Time for everything before a program starts.
        quota_pods: Sandbox pods that may be live at once.
        quota_jobs: Executions that may exist at once, finished ones until their TTL included.
        quota_cpu: CPU of all live sandboxes together.
        quota_memory: Memory of all live sandboxes together.

    Raises:
        ConfigError: a value that cannot work.
    """

    stack: str
    kubeconfig: str = ""
    context: str = ""
    image: str = ""
    namespace: str = "agent-sandbox"
    agents_namespace: str = "agents"
    pod_security_version: str = "v1.34"
    node_selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cpu_requested: str = "200m"
    mem_requested: str = "256Mi"
    cpu_limit: str = "500m"
    mem_limit: str = "512Mi"
    cpu_ceiling: str = "4"
    mem_ceiling: str = "8Gi"
    timeout_seconds: int = 300
    timeout_ceiling_seconds: int = 3600
    schedule_timeout_seconds: int = 300
    quota_pods: int = 60
    quota_jobs: int = 120
    quota_cpu: str = "60"
    quota_memory: str = "60Gi"

    def __post_init__(self) -> None:
        self._check_image()
        self._check_namespaces()
        self._check_pod_security()
        self._check_amounts()
        self.server()

    @classmethod
    def from_config(cls, stack: str) -> Settings:
        """Return the settings in Pulumi's configuration of the running program.

        Raises:
            ConfigError: an unknown key, a value of the wrong type, a value that cannot work.
        """
        config = pulumi.Config(PROJECT)
        known = {key(entry.name): entry for entry in fields(cls) if entry.name != "stack"}
        _refuse_unknown({**CONFIG.get(), **pulumi.runtime.config.get_config_env()}, tuple(known))
        values: dict[str, Any] = {"stack": stack}
        for name, entry in known.items():
            text = config.get(name)
            if text is None:
                continue
            values[entry.name] = _converted(name, text, str(entry.type))
        return cls(**values)

    @property
    def quota(self) -> Quota:
        """The namespace's quota."""
        return Quota(pods=self.quota_pods, jobs=self.quota_jobs, cpu=self.quota_cpu, memory=self.quota_memory)

    def server(self) -> str:
        """Return the URL of the API server that kubeconfig and context lead to.

        Raises:
            ConfigError: no such file, not a kubeconfig, no such context.
        """
        for name in ("kubeconfig", "context"):
            if not getattr(self, name):
                raise ConfigError(f"{PROJECT}:{name} is not set", _repair(name, _EXAMPLES[name]))
        path = Path(self.kubeconfig).expanduser()
        problem = ConfigError(
            f"{PROJECT}:kubeconfig={self.kubeconfig!r}: no such file",
            "Start the cluster with `python infra/local up`, or "
            + _repair("kubeconfig", _EXAMPLES["kubeconfig"], "set"),
        )
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            contexts = {entry["name"]: entry["context"]["cluster"] for entry in document["contexts"]}
            servers = {entry["name"]: str(entry["cluster"]["server"]) for entry in document["clusters"]}
        except FileNotFoundError:
            raise problem from None
        except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{PROJECT}:kubeconfig={self.kubeconfig!r} is not a readable kubeconfig ({type(error).__name__})",
                _repair("kubeconfig", _EXAMPLES["kubeconfig"]),
            ) from error
        server = servers.get(contexts.get(self.context, ""))
        if server is None:
            raise ConfigError(
                f"{PROJECT}:context={self.context!r} is not in {self.kubeconfig}, which has: "
                f"{', '.join(sorted(contexts)) or 'none'}",
                _repair("context", _EXAMPLES["context"]),
            )
        return server

    def contract(self) -> Contract:
        """Return the contract: everything that is provisioned is derived from it."""
        return Contract(
            stack=self.stack,
            cluster=Cluster(context=self.context, endpoint=self.server()),
            namespace=self.namespace,
            agents_namespace=self.agents_namespace,
            node_selector=dict(self.node_selector),
            image=self.image,
            resources=Resources(
                cpu_requested=self.cpu_requested,
                mem_requested=self.mem_requested,
                cpu_limit=self.cpu_limit,
                mem_limit=self.mem_limit,
            ),
            ceilings=Ceilings(
                cpu=self.cpu_ceiling, memory=self.mem_ceiling, timeout_seconds=self.timeout_ceiling_seconds
            ),
            timeout_seconds=self.timeout_seconds,
            schedule_timeout_seconds=self.schedule_timeout_seconds,
        )

    def _check_image(self) -> None:
        if not self.image:
            raise ConfigError(f"{PROJECT}:image is not set", _repair("image", _EXAMPLES["image"]))
        if not _IMAGE.fullmatch(self.image):
            raise ConfigError(
                f"{PROJECT}:image={self.image!r} is not an image by digest",
                _repair("image", _EXAMPLES["image"]),
            )

    def _check_namespaces(self) -> None:
        for name, value in (("namespace", self.namespace), ("agentsNamespace", self.agents_namespace)):
            if not _DNS_LABEL.fullmatch(value):
                raise ConfigError(
                    f"{PROJECT}:{name}={value!r} is not a namespace name",
                    "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
                )
            if value in _TAKEN_NAMESPACES:
                raise ConfigError(
                    f"{PROJECT}:{name}={value!r} is Kubernetes' own namespace",
                    "Name one that this stack may create and delete",
                )
        if self.namespace == self.agents_namespace:
            raise ConfigError(
                f"{PROJECT}:namespace and {PROJECT}:agentsNamespace are both {self.namespace!r}",
                "Name two namespaces: who may create Jobs can use every secret and identity of their namespace",
            )

    def _check_pod_security(self) -> None:
        if not _POD_SECURITY_VERSION.fullmatch(self.pod_security_version):
            raise ConfigError(
                f"{PROJECT}:podSecurityVersion={self.pod_security_version!r} is not a Kubernetes minor version",
                _repair("podSecurityVersion", "v1.36"),
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
                raise ConfigError(f"{PROJECT}:{key(name)}={value} is out of range", f"Give 1 to {most}")
        # Each pair must not shrink: request, default limit, ceiling of one execution, quota of all.
        for chain in (
            ("cpu_requested", "cpu_limit", "cpu_ceiling", "quota_cpu"),
            ("mem_requested", "mem_limit", "mem_ceiling", "quota_memory"),
            ("timeout_seconds", "timeout_ceiling_seconds"),
            ("quota_pods", "quota_jobs"),
        ):
            for lower, upper in itertools.pairwise(chain):
                if self._amount(lower) > self._amount(upper):
                    raise ConfigError(
                        f"{PROJECT}:{key(lower)}={getattr(self, lower)} is above "
                        f"{PROJECT}:{key(upper)}={getattr(self, upper)}",
                        f"Lower {key(lower)} or raise {key(upper)}",
                    )

        if self._amount("mem_limit") < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"{PROJECT}:memLimit={self.mem_limit} is too small for Python under gVisor",
                "Give at least 128Mi",
            )

    def _amount(self, name: str) -> Decimal:
        value = getattr(self, name)
        return quantity(value, setting=f"{PROJECT}:{key(name)}") if isinstance(value, str) else Decimal(value)


_EXAMPLES: Final = MappingProxyType(
    {
        "kubeconfig": "~/.kube/config",
        "context": "my-cluster",
        "image": "europe-docker.pkg.dev/my-project/sandbox/data@sha256:DIGEST",
    }
)


def key(field_name: str) -> str:
    """Return the configuration key of a field: ``cpu_limit`` is ``cpuLimit``."""
    first, *rest = field_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _repair(name: str, example: str, verb: str = "Set") -> str:
    return f"{verb} it with `pulumi config set {name} {example}`"


def _refuse_unknown(config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for full in sorted(config):
        namespace, _, name = full.partition(":")
        if namespace != PROJECT or name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"{full} is not a setting",
            (f"Did you mean {close[0]}? " if close else f"There are: {', '.join(known)}. ")
            + f"Remove it with `pulumi config rm {name}`",
        )


def _converted(name: str, text: str, kind: str) -> Any:
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{PROJECT}:{name}={text!r} is not a whole number", _repair(name, "NUMBER")) from None
    if kind.startswith("Mapping"):
        labels = yaml.safe_load(text)
        if not isinstance(labels, dict) or not all(isinstance(item, str) for pair in labels.items() for item in pair):
            raise ConfigError(
                f"{PROJECT}:{name}={text!r} does not map names to strings",
                f"Set it with `pulumi config set --path {name}.LABEL VALUE`",
            )
        return MappingProxyType(labels)
    return text
