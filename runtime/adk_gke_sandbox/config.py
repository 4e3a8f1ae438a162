"""Settings of one executor: checked when built, frozen afterwards. No I/O, no Kubernetes client, no ADK.

Whatever a user gives is checked here or in ``values``, once, be it for an executor or for one execution. The
environment is read here only: where a contract's cluster is reached from depends on it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PrivateAttr, ValidationError, model_validator

from adk_gke_sandbox.contract import GVISOR_TOLERATION, Contract, Toleration, load, local_kubeconfig
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import File, Files, Limits, Request
from adk_gke_sandbox.protocol import name_fault
from adk_gke_sandbox.values import ReadOnly, SecretKey, check_env, check_image, check_labels, check_name, quantity

MIN_MEMORY_BYTES: Final = 128 * 1024 * 1024
"""Below this a Python interpreter under gVisor has no room for a program."""

_RESERVED_BYTES: Final = 150 * 1024 * 1024
"""Memory of gVisor's kernel and the supervisor, which the program's address space must leave free."""

EPHEMERAL_STORAGE: Final = "256Mi"
"""Disk of a sandbox unless it is told otherwise; only the container's log and the mounted request use any."""

RESULT_CHARACTERS: Final = 30_000
"""What a model is shown of one execution unless it is told otherwise: some 10,000 tokens."""

_CEILINGS: Final = {"cpu_limit": "cpu", "mem_limit": "memory", "timeout_seconds": "timeout_seconds"}
"""Which of a contract's ceilings bounds which setting."""

_PROGRAM: Final = "main.py"
"""The program's own file in the working directory."""

_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api."""


def _checked(check: Callable[..., Any]) -> PlainValidator:
    """Return a validator that tells a check the name of its setting."""
    return PlainValidator(lambda value, info: check(value, setting=info.field_name))


_Name = Annotated[str, _checked(partial(check_name, characters_max=63))]
_Subdomain = Annotated[str, _checked(partial(check_name, characters_max=253, dots=True))]
_Quantity = Annotated[str, _checked(lambda text, setting: quantity(text, setting=setting) and text)]
_Labels = Annotated[Mapping[str, str], _checked(check_labels)]
_Seconds = Annotated[float, Field(strict=True, gt=0, le=86400, allow_inf_nan=False)]


def in_pod(token: Path = _SERVICE_ACCOUNT_TOKEN) -> bool:
    """Return whether this process runs in a pod that has a ServiceAccount's token."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and token.exists()


def context_of(contract: Contract, kubeconfig: str | None = None, token: Path = _SERVICE_ACCOUNT_TOKEN) -> str | None:
    """Return the kubeconfig context of a contract's cluster; ``None`` in a pod without a kubeconfig.

    A pod that has a ServiceAccount's token reaches its own cluster. Any kubeconfig is used with the contract's context,
    so that no other cluster is taken for it.
    """
    return None if kubeconfig is None and in_pod(token) else contract.cluster.context or None


class ExecutorConfig(BaseModel):
    """How an executor runs programs. The first nine settings have ADK's names and defaults.

    A setting cannot be assigned; ``model_copy(update={...})`` returns settings with other values, which are checked.

    Raises:
        ConfigError: an unknown setting, or a value that cannot work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    namespace: _Name = "default"
    """Namespace of the sandboxes."""
    image: Annotated[str, _checked(check_image)] = "python:3.11-slim"
    """Image with a ``python3`` of version 3.8 or later."""
    timeout_seconds: _Seconds = 300
    """Wall-clock time of a program, from its start."""
    cpu_requested: _Quantity = "200m"
    """CPU request, a Kubernetes quantity; at most ``cpu_limit``, to which it is lowered unless it is given."""
    mem_requested: _Quantity = "256Mi"
    """Memory request, a Kubernetes quantity; at most ``mem_limit``, to which it is lowered unless it is given."""
    cpu_limit: _Quantity = "500m"
    """CPU limit, a Kubernetes quantity."""
    mem_limit: _Quantity = "512Mi"
    """Memory limit, a Kubernetes quantity of at least 128Mi."""
    kubeconfig_path: str | None = None
    """Kubeconfig file; ``None`` means in-cluster, then the default kubeconfig."""
    kubeconfig_context: str | None = None
    """Context in it; alone it selects a context of the default kubeconfig."""
    schedule_timeout_seconds: _Seconds = 300
    """Time for everything before the program starts."""
    service_account: _Subdomain = "default"
    """ServiceAccount of the sandbox pods; its token is never mounted."""
    runtime_class: _Subdomain | None = "gvisor"
    """RuntimeClass of the sandbox pods, which must lead to gVisor: otherwise no program is started. ``None`` says that
    the cluster has no gVisor; programs then share the kernel of their node, and every outcome warns of it."""
    node_selector: _Labels = ReadOnly()
    """Node labels that the sandbox pods ask for."""
    tolerations: tuple[Toleration, ...] = (GVISOR_TOLERATION,)
    """Taints that the sandbox pods tolerate."""
    dns_policy: Literal["None", "ClusterFirst"] = "None"
    """``None``: a sandbox resolves no names; ``ClusterFirst`` where it may connect to hosts."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """``IfNotPresent``, ``Always`` or ``Never``."""
    image_pull_secrets: tuple[_Subdomain, ...] = ()
    """Names of Secrets in the namespace with credentials of a registry."""
    env: Annotated[Mapping[str, str | SecretKey], _checked(check_env)] = ReadOnly()
    """Environment variables of every program. They travel in a ConfigMap; a value that is a
    ``SecretKey(secret=..., key=...)`` comes from a Secret in the namespace, where the stack's contract allows it."""
    labels: _Labels = ReadOnly()
    """Labels of Job, pod and ConfigMaps, to select and to account by."""
    scratch_limit: _Quantity | None = None
    """Size of each of the working and the temporary directory, a Kubernetes quantity; a quarter of ``mem_limit`` when
    ``None``. They are in memory, and count against it."""
    ephemeral_storage: _Quantity = EPHEMERAL_STORAGE
    """Disk of a sandbox, a Kubernetes quantity; its log and the mounted request use it."""
    limits: Limits = Limits()
    """Bounds inside the sandbox."""
    result_characters: Annotated[int, Field(strict=True, ge=4000, le=10_000_000)] = RESULT_CHARACTERS
    """What the model is shown of one execution at the most, in characters: both streams, their beginning and end, and
    what became of files. All that ``limits`` keeps is in the outcome."""
    keep_output: Annotated[bool, Field(strict=True)] = False
    """Whether output that the model is not shown in full becomes artifacts, ``stdout_1.txt`` and ``stderr_1.txt``."""

    _contract: Contract | None = PrivateAttr(default=None)

    # Type checkers know the parameters from the fields.
    if not TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None:
            self._fill(settings, {}, None)

    def _fill(self, given: Mapping[str, Any], base: Mapping[str, Any], contract: Contract | None) -> None:
        """Take the settings given, and those of a base in place of the defaults.

        Args:
            given: Settings by name. A limit among them lowers a request that is not.
            base: Settings that were there before.
            contract: What bounds the settings, if anything does.
        """
        settings = {**base, **given}
        for kind in ("cpu", "mem"):
            limit, request = f"{kind}_limit", f"{kind}_requested"
            if limit in given and request not in given:
                asked = base.get(request, type(self).model_fields[request].default)
                settings[request] = min(asked, given[limit], key=lambda text: quantity(text, setting=limit))
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise self._config_error(error) from None
        if contract is None or not contract.secret_env:
            remedy = "Have the platform team set secretEnv in the stack's settings, and use from_contract()"
            _refuse_secrets(self.env, ", which only a stack's contract can allow", remedy)
        remedy = "Ask for less, or have the platform team raise the ceiling in the stack's settings"
        for setting, ceiling in _CEILINGS.items():
            if contract is not None:
                self._check_most(setting, getattr(contract.ceilings, ceiling), "the stack's ceiling ", remedy)
        self._contract = contract

    @classmethod
    def _config_error(cls, error: ValidationError) -> ConfigError:
        """Return what is wrong in this package's words; an unknown name first, it may be why something else is."""
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"])
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            return cause
        if first["type"] == "extra_forbidden" and where == first["loc"][0]:
            close = difflib.get_close_matches(where, cls.model_fields, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"Parameters: {', '.join(sorted(cls.model_fields))}"
            return ConfigError(f"{cls.__name__} has no parameter {where!r}", remedy)
        return ConfigError(f"{where}={first['input']!r}: {first['msg']}", "Correct the value")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for kind in ("cpu", "mem"):
            request, limit = f"{kind}_requested", f"{kind}_limit"
            self._check_most(request, getattr(self, limit), f"{limit}=", "Lower the request or raise the limit")
        if self.memory_bytes < MIN_MEMORY_BYTES:
            cause = f"mem_limit={self.mem_limit!r} is too small for Python under gVisor"
            raise ConfigError(cause, "Give at least 128Mi")
        if self.scratch_limit is not None:
            remedy = "These directories are in memory: lower scratch_limit or raise mem_limit"
            self._check_most("scratch_limit", self.mem_limit, "mem_limit=", remedy)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            cause = f"{type(self).__name__}.{name} cannot be assigned: settings are checked once and then fixed"
            raise ConfigError(cause, f"Make a new one, for example by model_copy(update={{{name!r}: ...}})")
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
        made._fill(update, {name: getattr(self, name) for name in type(self).model_fields}, self._contract)
        return made

    @property
    def memory_bytes(self) -> int:
        """The container's memory limit in bytes."""
        return int(quantity(self.mem_limit, setting="mem_limit"))

    @property
    def scratch_bytes(self) -> int:
        """Size of each of the working and the temporary directory, in bytes."""
        given = self.scratch_limit
        return self.memory_bytes // 4 if given is None else int(quantity(given, setting="scratch_limit"))

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
        files: Files = (),
        argv: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        first_figure: int = 1,
    ) -> Request:
        """Return what the runner is asked for: a program under these settings, its own ones in place of them.

        The address space stays below the memory limit, so that a program gets a ``MemoryError`` before
        the whole sandbox is killed. What comes from a Secret is not in the request: the container has it.

        Raises:
            ConfigError: a program or an argument that is no text, files that cannot lie in the working directory
                together, or an ``env`` with what cannot be a variable or with a ``SecretKey``.
        """
        if not isinstance(code, str) or isinstance(argv, str) or not all(isinstance(text, str) for text in argv):
            raise ConfigError("the program or an argument of it is no text", 'Give strings: argv=("--fast", "3")')
        inputs = _check_files(files)
        size = sum(len(file.content) for file in inputs)
        if size > self.scratch_bytes:
            cause = f"the input files are {size} bytes, and the working directory has room for {self.scratch_bytes}"
            raise ConfigError(cause, "Send less, or raise scratch_limit or mem_limit")
        own = check_env(env or {})
        _refuse_secrets(own, " for one execution alone", "Give it to the executor, whose env goes into the pod")
        return Request(
            code=code,
            files=inputs,
            argv=tuple(argv),
            env={name: value for name, value in {**self.env, **own}.items() if isinstance(value, str)},
            limits=self.limits if limits is None else limits,
            timeout_seconds=self.timeout_seconds,
            memory_bytes=max(self.memory_bytes - _RESERVED_BYTES, self.memory_bytes // 2),
            cpu_count=max(1, int(quantity(self.cpu_limit, setting="cpu_limit"))),
            first_figure=first_figure,
            gvisor=self.runtime_class is not None,
        )

    @classmethod
    def from_contract(cls, contract: str | Path | Contract | Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """Return an executor, or its settings, for the stack that a contract describes.

        Args:
            contract: A path, a document or a contract; by default what ``contract.find`` finds: the file that
                ``ADK_GKE_SANDBOX_CONTRACT`` names, the agents' mount, or the local stack's of this machine.
            **overrides: Parameters that differ; they must stay under the contract's ceilings. A limit below the
                contract's request lowers the request, too. Without ``kubeconfig_context``, the contract's context
                is used; in a pod without ``kubeconfig_path``, its own ServiceAccount. With neither of them, the local
                stack's contract comes with the credentials of its agents.

        Raises:
            ContractError: the contract cannot be read.
            ConfigError: an unknown parameter, one above a ceiling, or a value that cannot work.
        """
        found = load(contract)
        if not (overrides.get("kubeconfig_path") or overrides.get("kubeconfig_context") or in_pod()):
            overrides["kubeconfig_path"] = local_kubeconfig(found)
        context = overrides.get("kubeconfig_context") or context_of(found, overrides.get("kubeconfig_path"))
        shared = ("namespace", "image", "timeout_seconds", "schedule_timeout_seconds", "runtime_class", "node_selector")
        base = {name: getattr(found, name) for name in (*shared, "tolerations", "dns_policy")}
        base |= {"service_account": found.sandbox_service_account, **found.resources.model_dump()}
        made = cls.__new__(cls)
        made._fill({**overrides, "kubeconfig_context": context}, base, found)
        return made

    def _check_most(self, setting: str, most: Any, named: str, remedy: str) -> None:
        """Refuse a setting above ``most``, which the message calls ``named``."""
        value = getattr(self, setting)
        if _number(value, setting) > _number(most, setting):
            raise ConfigError(f"{setting}={value!r} is above {named}{most!r}", remedy)


def _number(value: str | float, setting: str) -> Decimal:
    return quantity(value, setting=setting) if isinstance(value, str) else Decimal(value)


def _refuse_secrets(env: Mapping[str, str | SecretKey], where: str, remedy: str) -> None:
    """Take an environment without values from Secrets.

    Raises:
        ConfigError: there are some.
    """
    if names := [name for name, value in env.items() if isinstance(value, SecretKey)]:
        raise ConfigError(f"env takes {', '.join(names)} from a Secret{where}", remedy)


def _check_files(files: Files) -> tuple[File, ...]:
    """Return input files that can lie in the working directory together, beside the program.

    Raises:
        ConfigError: a name that is no path below it, or names that exclude each other.
    """
    if isinstance(files, Mapping):
        files = [
            File(name=name, content=given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given)
            for name, given in files.items()
        ]
    found = tuple(files)
    taken = {_PROGRAM: "the program has this name"}
    for file in found:
        if not (isinstance(file, File) and isinstance(file.name, str) and isinstance(file.content, bytes)):
            raise ConfigError("files has an entry that is not a name with bytes", 'Write files={"data.csv": b"..."}')
        if fault := name_fault(file.name) or taken.get(file.name):
            cause = f"the input file {file.name[:300]!r} cannot be written: {fault}"
            raise ConfigError(cause, "Give it another name: a relative path, with '/' between folders")
        taken[file.name] = "another input file has this name"
    for name in taken:
        if clash := taken.keys() & set(map(str, PurePosixPath(name).parents)):
            cause = f"{clash.pop()!r} is a file, and the folder of the input file {name!r}"
            raise ConfigError(cause, "Rename one of them")
    return found
