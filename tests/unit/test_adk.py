"""`GkeCodeExecutor` as ADK and agent authors meet it; no cluster."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from kubernetes import client

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.adk.results import STDOUT_TAIL, to_result
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import File, Outcome, Reason
from tests.unit.fake_api import OK, FakeApi

NO_CONTEXT: Any = None
CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)


def outcome(reason: Reason, **fields: Any) -> Outcome:
    return Outcome(name="sandbox-1", reason=reason, **fields)


def test_the_first_two_parameters_may_be_given_by_position() -> None:
    executor = GkeCodeExecutor("/kubeconfig", "context")
    assert (executor.kubeconfig_path, executor.kubeconfig_context) == ("/kubeconfig", "context")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_limits": "1"}, "GkeCodeExecutor has no parameter 'cpu_limits'. Did you mean 'cpu_limit'?"),
        ({"error_retry_attempts": "many"}, "error_retry_attempts='many': Input should be a valid integer"),
        ({"stateful": True}, "stateful=True is not supported"),
    ],
)
@pytest.mark.parametrize("make", [GkeCodeExecutor, partial(GkeCodeExecutor.from_contract, CONTRACT)])
def test_what_cannot_work_is_refused_at_construction(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(**settings)
    assert message in str(raised.value)


def test_adks_own_parameters_apply_and_seconds_may_be_fractions() -> None:
    executor = GkeCodeExecutor.from_contract(CONTRACT, optimize_data_file=True, timeout_seconds=0.5)
    assert (executor.optimize_data_file, executor.error_retry_attempts, executor.timeout_seconds) == (True, 2, 0.5)
    assert (
        executor._sandbox.config.model_dump()
        == ExecutorConfig.from_contract(CONTRACT, timeout_seconds=0.5).model_dump()
    )


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), partial(GkeCodeExecutor.model_copy, deep=True)],
)
def test_copies_carry_the_settings(duplicate: Any) -> None:
    executor = GkeCodeExecutor(namespace="agent-sandbox", timeout_seconds=5)
    executor._sandbox._cluster = object()  # type: ignore[assignment]
    copied = duplicate(executor)
    assert copied.model_dump() == executor.model_dump()
    assert copied._sandbox.config == executor._sandbox.config
    assert copied._sandbox._cluster is None


def test_a_copy_with_other_values_runs_by_them() -> None:
    executor = GkeCodeExecutor(error_retry_attempts=5).model_copy(update={"timeout_seconds": 5})
    assert (executor.error_retry_attempts, executor._sandbox.config.timeout_seconds) == (5, 5)


def test_a_success_has_no_stderr_and_keeps_the_programs_own_behind_stdout() -> None:
    result = to_result(outcome(Reason.COMPLETED, exit_code=0, stdout=b"answer", stderr=b"a warning\n"))
    assert (result.stdout, result.stderr, result.exit_code) == ("answer\n[stderr]\na warning\n", "", 0)


def test_a_failure_says_who_failed_and_repeats_the_end_of_stdout() -> None:
    result = to_result(outcome(Reason.ERROR, exit_code=3, stdout=b"x" * 9000, stderr=b"Traceback\n", started=True))
    first, *rest = result.stderr.splitlines()
    assert first == "your code failed: Error: exit code 3"
    assert rest == ["[stdout, last part]", "x" * STDOUT_TAIL, "[stderr]", "Traceback"]
    assert result.exit_code == 3


@pytest.mark.parametrize(
    ("given", "exit_code", "told"),
    [
        (outcome(Reason.DEADLINE_EXCEEDED, exit_code=137, started=True), 124, "your code failed: DeadlineExceeded"),
        (outcome(Reason.FORBIDDEN, message="ask"), None, "the sandbox could not run your code: Forbidden: ask\n"),
        (outcome(Reason.SANDBOX_LOST, started=True), 1, "the sandbox could not run your code: SandboxLost: no detail"),
    ],
)
def test_what_the_program_did_and_trouble_with_the_cluster_are_told_apart(
    given: Outcome, exit_code: int | None, told: str
) -> None:
    result = to_result(given)
    assert (result.exit_code, result.stderr[: len(told)]) == (exit_code, told)


def test_bytes_that_are_no_text_become_text_that_can_be_stored() -> None:
    assert to_result(outcome(Reason.COMPLETED, stdout=b"\xff\xed\xa0\x80")).stdout.encode()


@pytest.mark.parametrize("name", ["../x", "/x", "user:x", "a/../b", "a\\b", "a\nb", "x" * 201, "."])
def test_a_file_name_that_adk_would_misuse_is_left_out(name: str) -> None:
    assert to_result(outcome(Reason.COMPLETED, files=(File(name=name, content=b""),))).output_files == []


def test_a_missing_kubeconfig_is_a_result_that_names_it() -> None:
    result = GkeCodeExecutor("/nonexistent").execute_code(NO_CONTEXT, CodeExecutionInput(code="print(1)"))
    assert "the sandbox could not run your code: ApiUnavailable: cannot use kubeconfig /nonexistent" in result.stderr


def test_the_process_wide_client_configuration_is_not_touched(api: FakeApi) -> None:
    before, api.logs = client.Configuration.get_default_copy().host, [OK]
    executor = GkeCodeExecutor(api.kubeconfig, namespace="box")
    assert executor.execute_code(NO_CONTEXT, CodeExecutionInput(code="print('hello')")).stdout == "hello\n"
    assert client.Configuration.get_default_copy().host == before


def test_a_fault_of_ours_is_a_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = GkeCodeExecutor()
    monkeypatch.setattr(executor._sandbox, "run", lambda *_, **__: 1 / 0)
    result = executor.execute_code(NO_CONTEXT, CodeExecutionInput(code="print(1)"))
    assert "unexpected error: ZeroDivisionError('division by zero'). Please report it" in result.stderr
    assert result.exit_code is None
