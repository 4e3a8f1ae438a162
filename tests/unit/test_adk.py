"""`GkeCodeExecutor` as ADK and agent authors meet it; no cluster."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from google.adk.code_executors.gke_code_executor import GkeCodeExecutor as AdksExecutor
from kubernetes import client

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.adk.results import NOTHING_PRINTED, to_result
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
        ({"executor_type": "sandbox"}, "executor_type='sandbox': GKE Agent Sandbox is not used here"),
        ({"sandbox_template": "python"}, "sandbox_template='python': GKE Agent Sandbox is not used here"),
        ({"sandbox_gateway_name": "gate"}, "sandbox_gateway_name='gate': GKE Agent Sandbox is not used here"),
        ({"result_characters": 0}, "result_characters=0: Input should be greater than or equal to 4000"),
    ],
)
@pytest.mark.parametrize("make", [GkeCodeExecutor, partial(GkeCodeExecutor.from_contract, CONTRACT)])
def test_what_cannot_work_is_refused_at_construction(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make(**settings)
    assert message in str(raised.value)


def test_every_setting_of_adks_class_can_be_read_and_given_as_it_is_there() -> None:
    adks = {name: field.default for name, field in AdksExecutor.model_fields.items() if name != "sandbox_template"}
    ours = GkeCodeExecutor(**adks)
    assert {name: getattr(ours, name) for name in adks} == adks
    assert ours.sandbox_template is None


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


def test_a_success_that_shows_nothing_says_so_unless_there_are_files() -> None:
    assert to_result(outcome(Reason.COMPLETED)).stdout == NOTHING_PRINTED
    assert to_result(outcome(Reason.COMPLETED, files=(File(name="a.csv", content=b"1"),))).stdout == ""


@pytest.mark.parametrize(
    ("last_line", "told"),
    [
        ("frame", True),
        ("frame.shape", True),
        ("totals['a'][0]", True),
        ("print(x)", False),
        ("x = 1", False),
        ("pass", False),
        ("    frame", False),
        ("frame.plot()", False),
    ],
)
def test_a_last_line_that_only_a_notebook_would_show_is_told_of(last_line: str, told: bool) -> None:
    result = to_result(outcome(Reason.COMPLETED, stdout=b"1\n"), code=f"print(1)\n{last_line}\n")
    assert ("the value of the last line is not shown" in result.stdout) == told


def test_a_failure_says_who_failed_and_repeats_both_streams() -> None:
    given = outcome(Reason.ERROR, exit_code=3, stdout=b"one\n", stderr=b"Traceback\nhint: so\n", started=True)
    result = to_result(given)
    assert result.stderr == ("your code failed: Error: exit code 3\n[stdout]\none\n[stderr]\nTraceback\nhint: so\n")
    assert (result.stdout, result.exit_code) == ("one\n", 3)


def test_a_failure_tells_which_files_were_saved_and_which_were_left_out() -> None:
    files = (File(name="good.csv", content=b"1"), File(name="figure_1.png", content=b"2"))
    result = to_result(outcome(Reason.ERROR, exit_code=1, files=files, files_left_out=("large.bin: too large",)))
    assert result.stderr.endswith("[files saved: good.csv; figure_1.png]\n[files left out: large.bin: too large]\n")
    assert [file.name for file in result.output_files] == ["good.csv", "figure_1.png"]


def test_a_program_that_waited_for_input_in_vain_is_told_that_there_is_none() -> None:
    result = to_result(outcome(Reason.DEADLINE_EXCEEDED, exit_code=137), code="while 1: input('?')")
    assert "standard input, which is empty: input() raises EOFError" in result.stderr


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.ERROR])
@pytest.mark.parametrize("characters", [4000, 30_000])
def test_all_that_the_model_is_shown_has_one_bound(reason: Reason, characters: int) -> None:
    given = outcome(
        reason,
        exit_code=1,
        stdout=b"begin" + b"x" * 1_000_000 + b"end",
        stderr=b"y" * 200_000 + b"ValueError: bad\nhint: do this\n",
        message="z" * 1000,
        files=tuple(File(name=f"{n}:{'n' * 90}.csv", content=b"") for n in range(50)),
        files_left_out=("w" * 400,) * 60,
    )
    result = to_result(given, characters=characters)
    shown = result.stderr or result.stdout
    assert characters * 0.9 < len(shown) <= characters
    assert "begin" in shown
    assert "xend\n" in shown
    assert "ValueError: bad\nhint: do this\n" in shown
    assert "more]" in shown


def test_what_is_left_out_in_the_middle_is_counted_with_advice() -> None:
    result = to_result(outcome(Reason.COMPLETED, stdout=b"x" * 10_000), characters=4000)
    told = "characters left out here: print less, or write it to a file ...]"
    left_out = int(result.stdout.partition("[... ")[2].split()[0])
    assert told in result.stdout
    assert result.stdout.count("x") + left_out == 10_000 + told.count("x")


def test_output_that_is_not_shown_in_full_is_kept_as_files_on_request() -> None:
    files = (File(name="stdout_3.txt", content=b"its own"),)
    given = outcome(Reason.COMPLETED, stdout=b"x" * 9000, stderr=b"y", files=files)
    result = to_result(given, characters=4000, keep_as=3)
    assert "all of it is in stdout_3_2.txt and stderr_3.txt ...]" in result.stdout
    kept = {file.name: file.content for file in result.output_files}
    assert kept == {"stdout_3.txt": b"its own", "stdout_3_2.txt": b"x" * 9000, "stderr_3.txt": b"y"}


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"\r 10%\r 20%\r100%\ndone\r\n", "100% [2 earlier states of this line left out]\ndone\n"),
        (b"bar 99%\r        \r\n", "bar 99%\n"),
        (b"\x1b[31mred\x1b[0m \x1b]8;;http://a\x1b\\link\x1b]8;;\x07\n", "red link\n"),
    ],
)
def test_output_is_shown_as_a_terminal_would_leave_it(printed: bytes, shown: str) -> None:
    assert to_result(outcome(Reason.COMPLETED, stdout=printed)).stdout == shown


def test_an_empty_file_is_not_what_adk_takes_for_a_deleted_one() -> None:
    result = to_result(outcome(Reason.COMPLETED, files=(File(name="empty", content=b""),)))
    assert [(file.content, file.mime_type) for file in result.output_files] == [(b"", "text/plain")]


def test_a_skills_result_is_whole_and_can_be_stored_once_it_is_read() -> None:
    line = json.dumps({"__shell_result__": True, "stdout": "\0\ud83c" + "x" * 50_000})
    result = to_result(outcome(Reason.COMPLETED, stdout=f"\r{line}\n".encode()), code="'__shell_result__'")
    assert json.loads(result.stdout)["stdout"] == "\ufffd\ufffd" + "x" * 50_000


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
