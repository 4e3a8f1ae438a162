"""Executions whose agent run was cancelled; ADK's own part is in tests/cluster/test_agents.py."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult

from adk_gke_sandbox import CancelPlugin, GkeCodeExecutor
from adk_gke_sandbox.adk.plugin import Running, running
from tests.unit.fake_api import STARTED, FakeApi


def in_executor(invocation_id: str = "e-1", agent: str = "coder") -> Any:
    """What an executor is given: ADK's invocation context."""
    return SimpleNamespace(invocation_id=invocation_id, agent=SimpleNamespace(name=agent), is_aborted=False)


def in_callback(invocation_id: str = "e-1", agent: str = "coder") -> Any:
    """What a plugin is given: ADK's callback context."""
    return SimpleNamespace(invocation_id=invocation_id, agent_name=agent)


def test_all_executions_of_an_agent_in_an_invocation_are_ended_together() -> None:
    found = Running()
    flags = [found.enter(in_executor()) for _ in range(2)]
    assert found.cancel(in_callback()) == 2
    assert [flag.is_set() for flag in flags] == [True, True]


@pytest.mark.parametrize("other", [in_callback(invocation_id="e-2"), in_callback(agent="writer")])
def test_executions_of_another_agent_or_invocation_go_on(other: Any) -> None:
    found = Running()
    flag = found.enter(in_executor())
    assert found.cancel(other) == 0
    assert not flag.is_set()


def test_an_execution_that_has_ended_is_forgotten() -> None:
    found = Running()
    first, second = found.enter(in_executor()), found.enter(in_executor())
    found.leave(in_executor(), first)
    assert found.cancel(in_callback()) == 1
    assert (first.is_set(), second.is_set()) == (False, True)
    found.leave(in_executor(), second)
    found.leave(in_executor(), second)
    assert found._flags == {}


@pytest.mark.parametrize("context", [None, SimpleNamespace(), SimpleNamespace(invocation_id="e-1", agent=None)])
def test_a_context_that_says_little_is_none_to_stumble_over(context: Any) -> None:
    found = Running()
    flag = found.enter(context)
    assert found.cancel(context) == 1
    assert flag.is_set()
    found.leave(context, flag)


def test_many_threads_may_enter_and_leave_at_once() -> None:
    found = Running()
    together = threading.Barrier(8)

    def work(name: str) -> None:
        together.wait(10)
        for _ in range(500):
            found.leave(in_executor(name), found.enter(in_executor(name)))

    threads = [threading.Thread(target=work, args=(f"e-{number % 2}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found._flags == {}


def test_the_plugin_ends_the_execution_of_an_agent_that_is_no_more(api: FakeApi) -> None:
    runs = threading.Event()
    api.logs, api.hold_log, api.on_log = [STARTED], True, runs.set
    executor = GkeCodeExecutor(kubeconfig_path=api.kubeconfig, namespace="box")
    results: list[CodeExecutionResult] = []
    thread = threading.Thread(
        target=lambda: results.append(
            executor.execute_code(in_executor("e-7"), CodeExecutionInput(code="print('hello')"))
        )
    )
    thread.start()
    assert runs.wait(10)
    answer: object = asyncio.run(
        CancelPlugin().after_agent_callback(agent=None, callback_context=in_callback("e-7"))  # type: ignore[func-returns-value]
    )
    thread.join(10)
    assert answer is None, "anything else would replace the agent's answer"
    assert "Aborted: the caller aborted the execution" in results[0].stderr
    assert api.jobs == {}
    assert running.cancel(in_callback("e-7")) == 0


def test_an_execution_that_fails_is_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = GkeCodeExecutor()
    monkeypatch.setattr(executor._sandbox, "run", lambda *_, **__: 1 / 0)
    executor.execute_code(in_executor("e-8"), CodeExecutionInput(code="print(1)"))
    assert running.cancel(in_callback("e-8")) == 0


def test_the_plugin_has_a_name_of_its_own_and_takes_another() -> None:
    assert CancelPlugin().name == "adk_gke_sandbox_cancel"
    assert CancelPlugin(name="mine").name == "mine"
