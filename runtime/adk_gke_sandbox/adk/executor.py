"""``GkeCodeExecutor``: the executor that ADK calls."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from pydantic import PrivateAttr, ValidationInfo, field_validator

from adk_gke_sandbox.adk.plugin import cancellable
from adk_gke_sandbox.adk.results import ONE_LINE_RESULTS, file_in, to_result
from adk_gke_sandbox.adk.session import next_number, remember
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import ANNOTATION
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import OUTPUT_BYTES_MAX, Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox, new_name
from adk_gke_sandbox.telemetry import log

if TYPE_CHECKING:
    from google.adk.agents.invocation_context import InvocationContext


# ADK's own timeout is a whole number or None.
class GkeCodeExecutor(ExecutorConfig, BaseCodeExecutor):  # type: ignore[misc]
    """Runs model-written Python in gVisor sandboxes on GKE; a drop-in for ADK's class of this name.

    Parameters, their defaults and what they mean: ``adk_gke_sandbox.config.ExecutorConfig``. The first two may
    be given by position, as with ADK's class.

    Raises:
        ConfigError: an unknown parameter, or a value that cannot work.
    """

    executor_type: Literal["job"] = "job"
    """ADK's default, the only one there is here."""
    sandbox_gateway_name: None = None
    sandbox_template: None = None

    _sandbox: Sandbox = PrivateAttr()

    def __init__(
        self, kubeconfig_path: str | None = None, kubeconfig_context: str | None = None, **settings: Any
    ) -> None:
        super().__init__(kubeconfig_path=kubeconfig_path, kubeconfig_context=kubeconfig_context, **settings)

    @field_validator("stateful")
    @classmethod
    def _refuse_state(cls, stateful: bool) -> bool:
        if stateful:
            cause = "stateful=True is not supported: every execution has a sandbox of its own"
            raise ConfigError(cause, "Leave it out")
        return stateful

    @field_validator("executor_type", "sandbox_gateway_name", "sandbox_template", mode="before")
    @classmethod
    def _refuse_agent_sandbox(cls, value: Any, info: ValidationInfo) -> Any:
        if value not in ("job", None):
            raise ConfigError(
                f"{info.field_name}={value!r}: GKE Agent Sandbox is not used here; every execution is a Job of its "
                "own, which runtime_class isolates",
                "Leave it out. What a template would say comes from the stack's contract: from_contract()",
            )
        return value

    def model_post_init(self, context: Any, /) -> None:
        """Called by pydantic when the settings are checked; the cluster is first connected to by an execution."""
        super().model_post_init(context)
        settings = {name: getattr(self, name) for name in ExecutorConfig.model_fields}
        self._sandbox = Sandbox(ExecutorConfig.model_construct(**settings))

    def execute_code(
        self, invocation_context: InvocationContext, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        """Run the code in a sandbox of its own. Never raises; cluster trouble is a result, too."""
        name = new_name()
        code, limits = code_execution_input.code, self.limits
        if skill := any(mark in code for mark in ONE_LINE_RESULTS):
            # All of the reply is left to standard output.
            limits = replace(limits, stdout_bytes=OUTPUT_BYTES_MAX - limits.stderr_bytes, file_bytes=0)
        found = getattr(invocation_context, "invocation_id", None)
        invocation_id = found if isinstance(found, str) else ""
        try:
            with cancellable(invocation_context) as cancelled:
                outcome = self._sandbox.run(
                    code,
                    limits=limits,
                    files=tuple(file_in(file) for file in code_execution_input.input_files),
                    first_figure=next_number(invocation_context, "figure"),
                    name=name,
                    labels=_labels(invocation_context),
                    invocation_id=invocation_id,
                    aborted=lambda: cancelled.is_set() or getattr(invocation_context, "is_aborted", False) is True,
                )
            if skill and outcome.stdout_dropped and outcome.reason is Reason.COMPLETED:
                message = f"the script's result is {outcome.stdout_dropped} bytes too long. Return less"
                outcome = replace(outcome, reason=Reason.OUTPUT_LIMIT, message=message)
            keep_as = next_number(invocation_context, "stdout", "stderr") if self.keep_output else None
            result = to_result(outcome, code=code, characters=self.result_characters, keep_as=keep_as)
            remember(invocation_context, [file.name for file in result.output_files])
        except ConfigError as error:
            # A file or a setting of this call: its caller's mistake.
            result = to_result(self._sandbox.refused(error, name=name, invocation_id=invocation_id))
        except Exception as error:
            # ADK ends the whole agent run on an exception of an executor. This one is a fault of ours.
            told = {"execution": name, "invocation_id": invocation_id}
            log.exception("execution %s: unexpected error", name, extra=told)
            message = f"unexpected error: {error!r}. Please report it with the log of execution {name}"
            result = to_result(Outcome(name=name, reason=Reason.SANDBOX_LOST, message=message))
        return result


def _labels(context: Any) -> dict[str, str]:
    """Return what ties the objects to a session and a user, to account by: hashes, so that no name is in a cluster."""
    session = getattr(context, "session", None)
    found = {"session-hash": getattr(session, "id", None), "user-hash": getattr(session, "user_id", None)}
    return {
        ANNOTATION + key: hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        for key, value in found.items()
        if isinstance(value, str) and value
    }
