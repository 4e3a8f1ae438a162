"""Settings of one executor: checked when built, frozen afterwards. No I/O, no Kubernetes client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from adk_gke_sandbox.contract import GVISOR_TOLERATION, Contract, Toleration
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import File, Limits, Request

MIB: Final = 1024 * 1024
MIN_MEMORY_BYTES: Final = 128 * MIB
"""Below this a Python interpreter under gVisor has no room for a program."""

_RESERVED_BYTES: Final = 150 * MIB
"""Memory of gVisor's kernel and the supervisor, which the program's address space must leave free."""

_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
_FACTORS: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}
EPHEMERAL_STORAGE: Final = "256Mi"
"""Disk of a sandbox unless it is told otherwise; only the container's log and the mounted request use any."""

OUTPUT_BYTES_MAX: Final = 5 * MIB
"""The most of both streams together: encoded it is up to 1.4 times as long, and the reply has room for 8 MiB."""

_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_POLICIES: Final = ("None", "ClusterFirst")
_PULL_POLICIES: Final = ("IfNotPresent", "Always", "Never")


def quantity(text: str, *, setting: str) -> Decimal:
    """Return the number that a Kubernetes quantity stands for.

    See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.

    Raises:
        ConfigError: not a positive quantity.
    """
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    value = Decimal(match[1]) * _FACTORS[match[2] or ""] if match else Decimal(0)
    if value <= 0:
        raise ConfigError(
            f"{setting}={text!r} is not a Kubernetes quantity",
            'Write for example "500m" or "2" for CPU, "512Mi" or "1Gi" for memory',
        )
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorConfig:
    """How an executor runs programs. The first nine settings have ADK's names and defaults.

    Attributes:
        namespace: Namespace of the sandboxes.
        image: Image with a ``python3`` of version 3.8 or later.
        timeout_seconds: Wall-clock time of a program, from its start.
        cpu_requested: CPU request, a Kubernetes quantity.
        mem_requested: Memory request, a Kubernetes quantity.
        cpu_limit: CPU limit, a Kubernetes quantity.
        mem_limit: Memory limit, a Kubernetes quantity of at least 128Mi.
        kubeconfig_path: Kubeconfig file; ``None`` means in-cluster, then the default kubeconfig.
        kubeconfig_context: Context in it; alone it selects a context of the default kubeconfig.
        schedule_timeout_seconds: Time for everything before the program starts.
        service_account: ServiceAccount of the sandbox pods; its token is never mounted.
        runtime_class: RuntimeClass of the sandbox pods.
        node_selector: Node labels that the sandbox pods ask for.
        tolerations: Taints that the sandbox pods tolerate.
        dns_policy: ``None``: a sandbox resolves no names; ``ClusterFirst`` where it may connect to hosts.
        image_pull_policy: ``IfNotPresent``, ``Always`` or ``Never``.
        image_pull_secrets: Names of Secrets in the namespace with credentials of a registry.
        env: Environment variables of every program.
        labels: Labels of Job, pod and ConfigMaps, to select and to account by.
        scratch_limit: Size of each of the working and the temporary directory, a Kubernetes quantity; a quarter
            of ``mem_limit`` when ``None``. They are in memory, and count against it.
        ephemeral_storage: Disk of a sandbox, a Kubernetes quantity; its log and the mounted request use it.
        limits: Bounds inside the sandbox.

    Raises:
        ConfigError: a value that cannot work.
    """

    namespace: str = "default"
    image: str = "python:3.11-slim"
    timeout_seconds: float = 300
    cpu_requested: str = "200m"
    mem_requested: str = "256Mi"
    cpu_limit: str = "500m"
    mem_limit: str = "512Mi"
    kubeconfig_path: str | None = None
    kubeconfig_context: str | None = None
    schedule_timeout_seconds: float = 300
    service_account: str = "default"
    runtime_class: str = "gvisor"
    node_selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tolerations: tuple[Toleration, ...] = (GVISOR_TOLERATION,)
    dns_policy: str = "None"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    scratch_limit: str | None = None
    ephemeral_storage: str = EPHEMERAL_STORAGE
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for setting in ("namespace", "service_account", "runtime_class"):
            value = getattr(self, setting)
            if not isinstance(value, str) or not _DNS_LABEL.fullmatch(value):
                raise ConfigError(
                    f"{setting}={value!r} is not a Kubernetes name",
                    "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
                )
        if not isinstance(self.image, str) or not self.image or re.search(r"\s", self.image):
            raise ConfigError(f"image={self.image!r} is not an image reference", 'Write for example "python:3.11-slim"')
        for setting in ("timeout_seconds", "schedule_timeout_seconds"):
            value = getattr(self, setting)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86400:
                raise ConfigError(f"{setting}={value!r} is out of range", "Give seconds, above 0 and at most 86400")
        for kind in ("cpu", "mem"):
            asked = quantity(getattr(self, f"{kind}_requested"), setting=f"{kind}_requested")
            limit = quantity(getattr(self, f"{kind}_limit"), setting=f"{kind}_limit")
            if asked > limit:
                raise ConfigError(
                    f"{kind}_requested={getattr(self, f'{kind}_requested')!r} is above "
                    f"{kind}_limit={getattr(self, f'{kind}_limit')!r}",
                    "Lower the request or raise the limit",
                )
        if self.memory_bytes < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"mem_limit={self.mem_limit!r} is too small for Python under gVisor", "Give at least 128Mi"
            )
        for setting, choices in (("dns_policy", _DNS_POLICIES), ("image_pull_policy", _PULL_POLICIES)):
            if getattr(self, setting) not in choices:
                raise ConfigError(
                    f"{setting}={getattr(self, setting)!r} is unknown", f"Use one of {', '.join(choices)}"
                )
        quantity(self.ephemeral_storage, setting="ephemeral_storage")
        if self.scratch_bytes > self.memory_bytes:
            raise ConfigError(
                f"scratch_limit={self.scratch_limit!r} is above mem_limit={self.mem_limit!r}",
                "These directories are in memory: lower scratch_limit or raise mem_limit",
            )
        for key, value in self.labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise ConfigError(
                    f"labels has {key!r}={value!r}, which is not a Kubernetes label",
                    "Use letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or digit",
                )
        kept = self.limits.stdout_bytes + self.limits.stderr_bytes
        if kept > OUTPUT_BYTES_MAX:
            raise ConfigError(
                f"limits.stdout_bytes and limits.stderr_bytes together are {kept}",
                f"Keep them below {OUTPUT_BYTES_MAX}: a reply has 8 MiB. Let programs write large results to files",
            )

    @property
    def memory_bytes(self) -> int:
        """The container's memory limit in bytes."""
        return int(quantity(self.mem_limit, setting="mem_limit"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What these settings give up."""
        return ()

    @property
    def scratch_bytes(self) -> int:
        """Size of each of the working and the temporary directory, in bytes."""
        return (
            self.memory_bytes // 4
            if self.scratch_limit is None
            else int(quantity(self.scratch_limit, setting="scratch_limit"))
        )

    def request(
        self,
        code: str,
        *,
        files: tuple[File, ...] = (),
        argv: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Request:
        """Return what the runner is asked for: a program under these settings, its own ones in place of them.

        The address space stays below the memory limit, so that a program gets a ``MemoryError`` before
        the whole sandbox is killed.
        """
        return Request(
            code=code,
            files=files,
            argv=argv,
            env={**self.env, **(env or {})},
            limits=self.limits if limits is None else limits,
            timeout_seconds=self.timeout_seconds,
            memory_bytes=max(self.memory_bytes - _RESERVED_BYTES, self.memory_bytes // 2),
            cpu_count=max(1, int(quantity(self.cpu_limit, setting="cpu_limit"))),
        )

    @classmethod
    def from_contract(cls, contract: Contract, **overrides: Any) -> ExecutorConfig:
        """Return the settings that a contract asks for, with overrides that stay under its ceilings.

        Raises:
            ConfigError: an override is above a ceiling, or a value cannot work.
        """
        given: dict[str, Any] = {
            "namespace": contract.namespace,
            "image": contract.image,
            "timeout_seconds": contract.timeout_seconds,
            "schedule_timeout_seconds": contract.schedule_timeout_seconds,
            **contract.resources.model_dump(),
            "service_account": contract.sandbox_service_account,
            "runtime_class": contract.runtime_class,
            "node_selector": MappingProxyType(dict(contract.node_selector)),
            "tolerations": contract.tolerations,
            "dns_policy": contract.dns_policy,
            **overrides,
        }
        config = cls(**given)
        ceilings = contract.ceilings
        for setting, ceiling in (("cpu_limit", ceilings.cpu), ("mem_limit", ceilings.memory)):
            if quantity(getattr(config, setting), setting=setting) > quantity(ceiling, setting="ceiling"):
                raise ConfigError(
                    f"{setting}={getattr(config, setting)!r} is above the stack's ceiling {ceiling!r}",
                    "Ask for less, or have the platform team raise the ceiling in the stack's settings",
                )
        if config.timeout_seconds > ceilings.timeout_seconds:
            raise ConfigError(
                f"timeout_seconds={config.timeout_seconds!r} is above the stack's ceiling {ceilings.timeout_seconds}",
                "Ask for less, or have the platform team raise the ceiling in the stack's settings",
            )
        return config
