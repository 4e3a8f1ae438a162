"""`GkeCodeExecutor` as ADK and agent authors meet it; no cluster."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from kubernetes import client

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.adk.results import STDOUT_TAIL, to_result
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import File, Outcome, Reason

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
        ({"executor_type": "sandbox"}, "GkeCodeExecutor has no parameter 'executor_type'."),
        ({"cpu_limit": "banana"}, "cpu_limit='banana' is not a Kubernetes quantity"),
        ({"timeout_seconds": 0}, "timeout_seconds=0 is out of range"),
        ({"timeout_seconds": "soon"}, "timeout_seconds='soon'"),
        ({"stateful": True}, "stateful=True is not supported"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        GkeCodeExecutor(**settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), lambda it: it.model_copy(deep=True)],
    ids=["deepcopy", "pickle", "model_copy"],
)
def test_copies_carry_the_settings(duplicate: Any) -> None:
    executor = GkeCodeExecutor(namespace="agent-sandbox", timeout_seconds=5)
    copied = duplicate(executor)
    assert copied.model_dump() == executor.model_dump()
    assert copied._sandbox.config == executor._sandbox.config


def test_a_contract_gives_the_settings_and_overrides_stay_under_its_ceilings() -> None:
    assert GkeCodeExecutor.from_contract(CONTRACT, mem_limit="1Gi").namespace == "agent-sandbox"
    with pytest.raises(ConfigError, match="above the stack's ceiling"):
        GkeCodeExecutor.from_contract(CONTRACT, mem_limit="64Gi")


def test_a_success_has_no_stderr_and_keeps_the_programs_own_behind_stdout() -> None:
    result = to_result(outcome(Reason.COMPLETED, exit_code=0, stdout=b"answer", stderr=b"a warning\n"))
    assert (result.stdout, result.stderr, result.exit_code) == ("answer\n[stderr]\na warning\n", "", 0)


def test_a_failure_says_who_failed_and_repeats_the_end_of_stdout() -> None:
    result = to_result(outcome(Reason.ERROR, exit_code=3, stdout=b"x" * 9000, stderr=b"Traceback\n", started=True))
    first, *rest = result.stderr.splitlines()
    assert first == "your code failed: Error: exit code 3"
    assert rest == ["[stdout, last part]", "x" * STDOUT_TAIL, "[stderr]", "Traceback"]
    assert result.exit_code == 3


def test_a_timeout_has_exit_code_124_and_keeps_what_was_printed() -> None:
    result = to_result(
        outcome(Reason.DEADLINE_EXCEEDED, exit_code=137, stdout=b"half", message="killed after 5 s", started=True)
    )
    assert (result.stdout, result.exit_code) == ("half", 124)
    assert "your code failed: DeadlineExceeded: killed after 5 s" in result.stderr


def test_trouble_with_the_cluster_is_told_apart_and_has_no_exit_code() -> None:
    result = to_result(outcome(Reason.FORBIDDEN, message="ask the platform team"))
    assert result.stderr == "the sandbox could not run your code: Forbidden: ask the platform team\n"
    assert (result.stdout, result.exit_code) == ("", None)


def test_a_lost_sandbox_is_never_a_success() -> None:
    result = to_result(outcome(Reason.SANDBOX_LOST, started=True, message="gone"))
    assert result.exit_code == 1
    assert result.stderr


def test_bytes_that_are_no_text_become_text_that_can_be_stored() -> None:
    assert to_result(outcome(Reason.COMPLETED, stdout=b"\xff\xed\xa0\x80")).stdout.encode()


@pytest.mark.parametrize("name", ["../x", "/x", "user:x", "a/../b", "a\\b", "a\nb", "x" * 201, "."])
def test_a_file_name_that_adk_would_misuse_is_left_out(name: str) -> None:
    assert to_result(outcome(Reason.COMPLETED, files=(File(name=name, content=b""),))).output_files == []


def test_an_unreachable_cluster_is_a_result_and_nothing_raises(tmp_path: Any) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "users: [{name: c, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: c}}]\n"
    )
    executor = GkeCodeExecutor(str(kubeconfig), schedule_timeout_seconds=5)
    context: Any = None
    result = executor.execute_code(context, CodeExecutionInput(code="print(1)"))
    assert "the API server http://127.0.0.1:1 does not answer" in result.stderr
    assert "Check that the cluster runs" in result.stderr
    assert result.exit_code is None


def test_a_missing_kubeconfig_is_a_result_that_names_it() -> None:
    context: Any = None
    result = GkeCodeExecutor("/nonexistent").execute_code(context, CodeExecutionInput(code="print(1)"))
    assert "cannot use kubeconfig /nonexistent" in result.stderr
    assert "Give kubeconfig_path and kubeconfig_context of a cluster you can reach" in result.stderr


def test_the_process_wide_client_configuration_is_not_touched(tmp_path: Any) -> None:
    before = client.Configuration.get_default_copy().host
    test_an_unreachable_cluster_is_a_result_and_nothing_raises(tmp_path)
    assert client.Configuration.get_default_copy().host == before


def test_a_fault_of_ours_is_a_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = GkeCodeExecutor()
    monkeypatch.setattr(executor._sandbox, "run", lambda *_, **__: 1 / 0)
    context: Any = None
    result = executor.execute_code(context, CodeExecutionInput(code="print(1)"))
    assert "unexpected error: ZeroDivisionError('division by zero'). Please report it" in result.stderr
    assert result.exit_code is None
