"""``GkeCodeExecutor``: the executor that ADK calls."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from pydantic import ConfigDict, PrivateAttr, ValidationError

from adk_gke_sandbox.adk.plugin import running
from adk_gke_sandbox.adk.results import file_in, to_result
from adk_gke_sandbox.config import EPHEMERAL_STORAGE, OUTPUT_BYTES_MAX, ExecutorConfig
from adk_gke_sandbox.contract import (
    ANNOTATION,
    GVISOR_TOLERATION,
    Contract,
    Toleration,
    load,
)
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import Limits, Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox, new_name
from adk_gke_sandbox.telemetry import log

if TYPE_CHECKING:
    from google.adk.agents.invocation_context import InvocationContext

_ONE_LINE_RESULTS: Final = ("__shell_result__", "__ADK_SKILL_GENERATED_FILES__")
"""What programs of ADK's ``SkillToolset`` contain. They print their result as one long line: cut, it would be lost
(https://github.com/google/adk-python/blob/main/src/google/adk/tools/skill_toolset.py)."""


class GkeCodeExecutor(BaseCodeExecutor):
    """Runs model-written Python in gVisor sandboxes on GKE; a drop-in for ADK's class of this name.

    Parameters, their defaults and what they mean: ``adk_gke_sandbox.config.ExecutorConfig``. The first two may
    be given by position, as with ADK's class.

    Raises:
        ConfigError: an unknown parameter, or a value that cannot work.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    namespace: str = "default"
    image: str = "python:3.11-slim"
    timeout_seconds: int | None = 300
    cpu_requested: str = "200m"
    mem_requested: str = "256Mi"
    cpu_limit: str = "500m"
    mem_limit: str = "512Mi"
    kubeconfig_path: str | None = None
    kubeconfig_context: str | None = None
    schedule_timeout_seconds: int = 300
    service_account: str = "default"
    runtime_class: str = "gvisor"
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Toleration, ...] = (GVISOR_TOLERATION,)
    dns_policy: str = "None"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    scratch_limit: str | None = None
    ephemeral_storage: str = EPHEMERAL_STORAGE
    limits: Limits = Limits()

    _sandbox: Sandbox = PrivateAttr()

    def __init__(
        self, kubeconfig_path: str | None = None, kubeconfig_context: str | None = None, **settings: Any
    ) -> None:
        known = type(self).model_fields
        for name in settings:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"GkeCodeExecutor has no parameter {name!r}",
                    f"Did you mean {close[0]!r}?" if close else f"Parameters: {', '.join(sorted(known))}",
                )
        if settings.get("stateful"):
            raise ConfigError(
                "stateful=True is not supported: every execution has a sandbox of its own", "Leave it out"
            )
        given: dict[str, Any] = {
            "kubeconfig_path": kubeconfig_path,
            "kubeconfig_context": kubeconfig_context,
            **settings,
        }
        try:
            super().__init__(**given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{where}={first['input']!r}: {first['msg']}", "Correct the value") from error
        self._sandbox = Sandbox(ExecutorConfig(**self._config_settings()))

    def _config_settings(self) -> dict[str, Any]:
        names = ExecutorConfig.__dataclass_fields__
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_contract(cls, contract: str | Path | Contract | Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """Return an executor for the stack that a contract describes.

        Args:
            contract: A path, a document or a contract; by default the file that ``ADK_GKE_SANDBOX_CONTRACT``
                names, then the agents' mount.
            **overrides: Parameters that differ; they must stay under the contract's ceilings.

        Raises:
            ContractError: the contract cannot be read.
            ConfigError: an unknown parameter, or one above a ceiling.
        """
        found = load(contract)
        if "KUBERNETES_SERVICE_HOST" not in os.environ and found.cluster.context:
            overrides.setdefault("kubeconfig_context", found.cluster.context)
        cls(**overrides)  # unknown names and wrong types first: they have the clearer message
        known = ExecutorConfig.__dataclass_fields__
        own = {name: value for name, value in overrides.items() if name in known}
        config = ExecutorConfig.from_contract(found, **own)
        rest = {name: value for name, value in overrides.items() if name not in known}
        return cls(**{name: getattr(config, name) for name in known}, **rest)

    def execute_code(
        self, invocation_context: InvocationContext, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        """Run the code in a sandbox of its own. Never raises; cluster trouble is a result, too."""
        name = new_name()
        code = code_execution_input.code
        skill = any(mark in code for mark in _ONE_LINE_RESULTS)
        cancelled = running.enter(invocation_context)
        try:
            outcome = self._sandbox.run(
                code,
                limits=_skill_limits(self._sandbox.config) if skill else None,
                files=tuple(file_in(file) for file in code_execution_input.input_files),
                name=name,
                labels=_labels(invocation_context),
                invocation_id=_invocation_id(invocation_context),
                aborted=lambda: cancelled.is_set() or getattr(invocation_context, "is_aborted", False) is True,
            )
            if skill and outcome.stdout_dropped and outcome.reason is Reason.COMPLETED:
                message = f"the script's result is {outcome.stdout_dropped} bytes too long. Return less"
                outcome = replace(outcome, reason=Reason.OUTPUT_LIMIT, message=message)
        except Exception as error:
            # ADK ends the whole agent run on an exception of an executor. This one is a fault of ours.
            told = {"execution": name, "invocation_id": _invocation_id(invocation_context)}
            log.exception("execution %s: unexpected error", name, extra=told)
            message = f"unexpected error: {error!r}. Please report it with the log of execution {name}"
            outcome = Outcome(name=name, reason=Reason.SANDBOX_LOST, message=message)
        finally:
            running.leave(invocation_context, cancelled)
        return to_result(outcome)


def _skill_limits(config: ExecutorConfig) -> Limits:
    """Return limits that leave the reply to standard output."""
    limits = config.limits
    return replace(limits, stdout_bytes=OUTPUT_BYTES_MAX - limits.stderr_bytes, file_bytes=0)


def _labels(context: Any) -> dict[str, str]:
    """Return what ties the objects to a session and a user, to account by: hashes, so that no name is in a cluster."""
    session = getattr(context, "session", None)
    found = {
        "session-hash": _hash(getattr(session, "id", None)),
        "user-hash": _hash(getattr(session, "user_id", None)),
    }
    return {ANNOTATION + key: value for key, value in found.items() if value}


def _invocation_id(context: Any) -> str:
    found = getattr(context, "invocation_id", None)
    return found if isinstance(found, str) else ""


def _hash(value: Any) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16] if isinstance(value, str) and value else ""
