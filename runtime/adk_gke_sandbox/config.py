"""Settings of one executor: checked when built, frozen afterwards. No I/O, no Kubernetes client, no ADK.

Whatever a user gives is checked here, once, be it for an executor or for one execution. The environment is read here
only: where a contract's cluster is reached from depends on it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from adk_gke_sandbox.contract import (
    APP_LABEL,
    EXECUTION_LABEL,
    GVISOR_TOLERATION,
    MANAGED_BY_LABEL,
    Contract,
    Toleration,
    load,
)
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

NAME_CHARACTERS_MAX: Final = 60
"""A Job's name is a label value of at most 63 characters, and its ConfigMaps are called NAME-0 to NAME-31."""

_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
"""https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set."""

_OWN_LABELS: Final = frozenset({APP_LABEL, MANAGED_BY_LABEL, EXECUTION_LABEL})
"""Labels by which an execution's objects are found again."""

_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SECRET_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SECRET_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_CONTAINER_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
"""What Kubernetes takes for a container's environment before version 1.34."""

RUNNERS_OWN_ENV: Final = re.compile(
    "HOME|KUBERNETES_.*|LOGNAME|MALLOC_ARENA_MAX|(MKL|NUMEXPR|OMP|OPENBLAS)_NUM_THREADS|MPLBACKEND|MPLCONFIGDIR|"
    "PYTHONDONTWRITEBYTECODE|PYTHONUNBUFFERED|TMPDIR|USER|XDG_CACHE_HOME"
)
"""Variables that the runner sets or removes in place of the container's; the request's win over the runner's."""

_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api."""


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
class SecretKey:
    """A value of ``env`` that comes from a Kubernetes Secret in the namespace of the sandboxes.

    The stack's contract must allow it. The value itself is never seen here: the kubelet gives it to the container.

    Attributes:
        secret: Name of the Secret.
        key: Key in it.

    Raises:
        ConfigError: no name of a Secret, or of a key.
    """

    secret: str
    key: str

    def __post_init__(self) -> None:
        for value, known, what in ((self.secret, _SECRET_NAME, "a Secret"), (self.key, _SECRET_KEY, "a Secret's key")):
            if not isinstance(value, str) or not known.fullmatch(value):
                raise ConfigError(f"{value!r} is not the name of {what}", 'Write SecretKey(secret="NAME", key="KEY")')


def check_name(name: str) -> str:
    """Return the name of an execution: of its Job, of what its objects are labelled with, and the start of others.

    Raises:
        ConfigError: Kubernetes would not take it for all of these.
    """
    if not isinstance(name, str) or not _DNS_LABEL.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise ConfigError(
            f"name={name!r} cannot be the name of a Job",
            f"Use 1 to {NAME_CHARACTERS_MAX} lower-case letters, digits and '-', beginning and ending with a letter "
            "or digit",
        )
    return name


def check_labels(labels: Mapping[str, str], *, setting: str = "labels") -> dict[str, str]:
    """Return labels that Kubernetes takes and that are not this package's own.

    Raises:
        ConfigError: one of them is not such a label.
    """
    for key, value in _items(labels, setting):
        if not isinstance(value, str) or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ConfigError(
                f"{setting} has {key!r}={value!r}, which is not a Kubernetes label",
                "Use letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or digit",
            )
        if key in _OWN_LABELS:
            raise ConfigError(f"{setting} has {key!r}, by which executions are found", "Choose another name for it")
    return dict(labels)


def check_env(env: Mapping[str, str | SecretKey]) -> dict[str, str | SecretKey]:
    """Return environment variables that a process can have. Messages name them and never show a value.

    Raises:
        ConfigError: a name or a value that cannot be one.
    """
    for name, value in _items(env, "env"):
        if not name or "=" in name or not _encodes(name):
            raise ConfigError(
                f"env has {name!r}, which is not the name of a variable",
                "Use letters, digits and '_'; there can be no '=' and no NUL in it",
            )
        if isinstance(value, SecretKey):
            if not _CONTAINER_ENV_NAME.fullmatch(name) or RUNNERS_OWN_ENV.fullmatch(name):
                raise ConfigError(
                    f"env has {name!r}, which cannot come from a Secret",
                    "Choose another name: Kubernetes takes letters, digits, '_', '-' and '.', and the runner sets "
                    "some itself",
                )
        elif not isinstance(value, str) or not _encodes(value):
            raise ConfigError(f"env has no text for {name!r}", "Give a string without NUL characters")
    return dict(env)


def _items(given: Any, setting: str) -> Iterable[tuple[str, Any]]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{setting} does not map names to values", f'Write for example {setting}={{"name": "value"}}')
    return given.items()


def _encodes(text: str) -> bool:
    """Whether the operating system takes a text: no NUL, and no half of a surrogate pair but an undecoded byte."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def in_pod(environment: Mapping[str, str] | None = None, token: Path = _SERVICE_ACCOUNT_TOKEN) -> bool:
    """Return whether this process runs in a pod that has a ServiceAccount's token."""
    return "KUBERNETES_SERVICE_HOST" in (os.environ if environment is None else environment) and token.exists()


def connection(
    contract: Contract, kubeconfig_path: str | None = None, kubeconfig_context: str | None = None, *, inside: bool
) -> tuple[str | None, str | None]:
    """Return kubeconfig and context by which the cluster of a contract is reached; ``None`` as of ``ExecutorConfig``.

    What is given wins. Without a context it is the contract's, whichever kubeconfig it is in, so that no other cluster
    is taken for it; inside a pod it is not, where there is no kubeconfig that could have the contract's context.

    Args:
        contract: The stack's contract.
        kubeconfig_path: As given by the user.
        kubeconfig_context: As given by the user.
        inside: Whether this is a pod, see ``in_pod``.
    """
    return kubeconfig_path, kubeconfig_context or (None if inside else contract.cluster.context or None)


class ExecutorConfig(BaseModel):
    """How an executor runs programs. The first nine settings have ADK's names and defaults.

    A setting cannot be assigned; ``model_copy(update={...})`` returns settings with other values, which are checked.

    Raises:
        ConfigError: an unknown setting, or a value that cannot work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    namespace: str = "default"
    """Namespace of the sandboxes."""
    image: str = "python:3.11-slim"
    """Image with a ``python3`` of version 3.8 or later."""
    timeout_seconds: float = 300
    """Wall-clock time of a program, from its start."""
    cpu_requested: str = "200m"
    """CPU request, a Kubernetes quantity; at most ``cpu_limit``, to which it is lowered unless it is given."""
    mem_requested: str = "256Mi"
    """Memory request, a Kubernetes quantity; at most ``mem_limit``, to which it is lowered unless it is given."""
    cpu_limit: str = "500m"
    """CPU limit, a Kubernetes quantity."""
    mem_limit: str = "512Mi"
    """Memory limit, a Kubernetes quantity of at least 128Mi."""
    kubeconfig_path: str | None = None
    """Kubeconfig file; ``None`` means in-cluster, then the default kubeconfig."""
    kubeconfig_context: str | None = None
    """Context in it; alone it selects a context of the default kubeconfig."""
    schedule_timeout_seconds: float = 300
    """Time for everything before the program starts."""
    service_account: str = "default"
    """ServiceAccount of the sandbox pods; its token is never mounted."""
    runtime_class: str | None = "gvisor"
    """RuntimeClass of the sandbox pods, which must lead to gVisor: otherwise no program is started. ``None`` says that
    the cluster has no gVisor; programs then share the kernel of their node, and every outcome warns of it."""
    node_selector: Mapping[str, str] = {}
    """Node labels that the sandbox pods ask for."""
    tolerations: tuple[Toleration, ...] = (GVISOR_TOLERATION,)
    """Taints that the sandbox pods tolerate."""
    dns_policy: Literal["None", "ClusterFirst"] = "None"
    """``None``: a sandbox resolves no names; ``ClusterFirst`` where it may connect to hosts."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """``IfNotPresent``, ``Always`` or ``Never``."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the namespace with credentials of a registry."""
    env: Mapping[str, str | SecretKey] = {}
    """Environment variables of every program. They travel in a ConfigMap; a value that is a
    ``SecretKey(secret=..., key=...)`` comes from a Secret in the namespace, where the stack's contract allows it."""
    labels: Mapping[str, str] = {}
    """Labels of Job, pod and ConfigMaps, to select and to account by."""
    scratch_limit: str | None = None
    """Size of each of the working and the temporary directory, a Kubernetes quantity; a quarter of ``mem_limit`` when
    ``None``. They are in memory, and count against it."""
    ephemeral_storage: str = EPHEMERAL_STORAGE
    """Disk of a sandbox, a Kubernetes quantity; its log and the mounted request use it."""
    limits: Limits = Limits()
    """Bounds inside the sandbox."""

    _secret_env: bool = PrivateAttr(default=False)

    # Type checkers know the parameters from the fields.
    if not TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None:
            self._fill(settings)

    def _fill(self, given: Mapping[str, Any], base: Mapping[str, Any] | None = None, secret_env: bool = False) -> None:
        """Take the settings given, and those of a base in place of the defaults.

        Args:
            given: Settings by name. A limit among them lowers a request that is not.
            base: Settings that were there before.
            secret_env: Whether the contract allows values from Secrets.
        """
        fields = type(self).model_fields
        settings = dict(base or {name: fields[name].default for name in ("cpu_requested", "mem_requested")})
        for kind in ("cpu", "mem"):
            limit, request = f"{kind}_limit", f"{kind}_requested"
            if limit in given and quantity(settings[request], setting=request) > quantity(given[limit], setting=limit):
                settings[request] = given[limit]
        try:
            super().__init__(**{**settings, **given})
        except ValidationError as error:
            raise self._config_error(error) from None
        from_secrets = [name for name, value in self.env.items() if isinstance(value, SecretKey)]
        if from_secrets and not secret_env:
            raise ConfigError(
                f"env takes {', '.join(from_secrets)} from a Secret, which only a stack's contract can allow",
                "Have the platform team set secretEnv in the stack's settings, and use from_contract()",
            )
        self._secret_env = secret_env

    @classmethod
    def _config_error(cls, error: ValidationError) -> ConfigError:
        """Return what is wrong in this package's words; an unknown name first, it may be why something else is."""
        first, *_ = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"])
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            return cause
        if first["type"] == "extra_forbidden" and where == first["loc"][0]:
            close = difflib.get_close_matches(where, cls.model_fields, n=1)
            return ConfigError(
                f"{cls.__name__} has no parameter {where!r}",
                f"Did you mean {close[0]!r}?" if close else f"Parameters: {', '.join(sorted(cls.model_fields))}",
            )
        return ConfigError(f"{where}={first['input']!r}: {first['msg']}", "Correct the value")

    @field_validator("namespace", "service_account", "runtime_class", mode="plain")
    @classmethod
    def _check_kubernetes_name(cls, value: Any, info: ValidationInfo) -> Any:
        absent = value is None and info.field_name == "runtime_class"
        if not absent and not (isinstance(value, str) and _DNS_LABEL.fullmatch(value)):
            raise ConfigError(
                f"{info.field_name}={value!r} is not a Kubernetes name",
                "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
            )
        return value

    @field_validator("image", mode="plain")
    @classmethod
    def _check_image(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value or re.search(r"\s", value):
            raise ConfigError(f"image={value!r} is not an image reference", 'Write for example "python:3.11-slim"')
        return value

    @field_validator("timeout_seconds", "schedule_timeout_seconds", mode="plain")
    @classmethod
    def _check_seconds(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86400:
            raise ConfigError(f"{info.field_name}={value!r} is out of range", "Give seconds, above 0 and at most 86400")
        return value

    @field_validator("cpu_requested", "mem_requested", "cpu_limit", "mem_limit", "ephemeral_storage", mode="plain")
    @classmethod
    def _check_quantity(cls, value: Any, info: ValidationInfo) -> Any:
        quantity(value, setting=str(info.field_name))
        return value

    @field_validator("labels", "node_selector", mode="plain")
    @classmethod
    def _check_labels(cls, value: Any, info: ValidationInfo) -> Any:
        return check_labels(value, setting=str(info.field_name))

    @field_validator("env", mode="plain")
    @classmethod
    def _check_env(cls, value: Any) -> Any:
        return check_env(value)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for kind in ("cpu", "mem"):
            request, limit = f"{kind}_requested", f"{kind}_limit"
            asked, most = getattr(self, request), getattr(self, limit)
            if quantity(asked, setting=request) > quantity(most, setting=limit):
                raise ConfigError(
                    f"{request}={asked!r} is above {limit}={most!r}", "Lower the request or raise the limit"
                )
        if self.memory_bytes < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"mem_limit={self.mem_limit!r} is too small for Python under gVisor", "Give at least 128Mi"
            )
        if self.scratch_bytes > self.memory_bytes:
            raise ConfigError(
                f"scratch_limit={self.scratch_limit!r} is above mem_limit={self.mem_limit!r}",
                "These directories are in memory: lower scratch_limit or raise mem_limit",
            )
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise ConfigError(
                f"{type(self).__name__}.{name} cannot be assigned: settings are checked once and then fixed",
                f"Make a new one, for example by model_copy(update={{{name!r}: ...}})",
            )
        super().__setattr__(name, value)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Values of ``env`` may be secrets.
        for name, value in super().__repr_args__():
            yield name, list(value) if name == "env" else value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with other values if there are any; they are checked as at construction.

        Raises:
            ConfigError: an unknown setting, or a value that cannot work.
        """
        if not update:
            return super().model_copy(deep=deep)
        made = type(self).__new__(type(self))
        made._fill(update, {name: getattr(self, name) for name in type(self).model_fields}, self._secret_env)
        return made

    @property
    def memory_bytes(self) -> int:
        """The container's memory limit in bytes."""
        return int(quantity(self.mem_limit, setting="mem_limit"))

    @property
    def scratch_bytes(self) -> int:
        """Size of each of the working and the temporary directory, in bytes."""
        if self.scratch_limit is None:
            return self.memory_bytes // 4
        return int(quantity(self.scratch_limit, setting="scratch_limit"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What these settings give up, for every outcome to say."""
        if self.runtime_class is None:
            return ("runtime_class=None: the program shared the kernel of its node, gVisor did not isolate it",)
        return ()

    def labels_with(self, labels: Mapping[str, str] | None) -> dict[str, str]:
        """Return the labels of one execution: these and its own, which win.

        Raises:
            ConfigError: one of them is not a label, or this package's own.
        """
        return {**self.labels, **check_labels(labels or {})}

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
        the whole sandbox is killed. What comes from a Secret is not in the request: the container has it.

        Raises:
            ConfigError: ``env`` has what cannot be a variable, or a ``SecretKey``.
        """
        own = check_env(env or {})
        if from_secrets := [name for name, value in own.items() if isinstance(value, SecretKey)]:
            raise ConfigError(
                f"env takes {', '.join(from_secrets)} from a Secret for one execution alone",
                "Give it to the executor, whose env goes into the pod",
            )
        return Request(
            code=code,
            files=files,
            argv=argv,
            env={name: value for name, value in {**self.env, **own}.items() if isinstance(value, str)},
            limits=self.limits if limits is None else limits,
            timeout_seconds=self.timeout_seconds,
            memory_bytes=max(self.memory_bytes - _RESERVED_BYTES, self.memory_bytes // 2),
            cpu_count=max(1, int(quantity(self.cpu_limit, setting="cpu_limit"))),
            gvisor=self.runtime_class is not None,
        )

    @classmethod
    def from_contract(cls, contract: str | Path | Contract | Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """Return an executor, or its settings, for the stack that a contract describes.

        Args:
            contract: A path, a document or a contract; by default the file that ``ADK_GKE_SANDBOX_CONTRACT``
                names, then the agents' mount.
            **overrides: Parameters that differ; they must stay under the contract's ceilings. A limit below the
                contract's request lowers the request, too. Without ``kubeconfig_context``, the contract's context
                is used outside of pods.

        Raises:
            ContractError: the contract cannot be read.
            ConfigError: an unknown parameter, one above a ceiling, or a value that cannot work.
        """
        found = load(contract)
        path, context = connection(
            found, overrides.get("kubeconfig_path"), overrides.get("kubeconfig_context"), inside=in_pod()
        )
        shared = ("namespace", "image", "timeout_seconds", "schedule_timeout_seconds", "runtime_class", "node_selector")
        base = {name: getattr(found, name) for name in (*shared, "tolerations", "dns_policy")}
        base |= {"service_account": found.sandbox_service_account, **found.resources.model_dump()}
        made = cls.__new__(cls)
        made._fill({**overrides, "kubeconfig_path": path, "kubeconfig_context": context}, base, found.secret_env)
        for setting, ceiling in (("cpu_limit", found.ceilings.cpu), ("mem_limit", found.ceilings.memory)):
            if quantity(getattr(made, setting), setting=setting) > quantity(ceiling, setting="ceiling"):
                raise made._above(setting, ceiling)
        if made.timeout_seconds > found.ceilings.timeout_seconds:
            raise made._above("timeout_seconds", found.ceilings.timeout_seconds)
        return made

    def _above(self, setting: str, ceiling: str | int) -> ConfigError:
        return ConfigError(
            f"{setting}={getattr(self, setting)!r} is above the stack's ceiling {ceiling!r}",
            "Ask for less, or have the platform team raise the ceiling in the stack's settings",
        )
