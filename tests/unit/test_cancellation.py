"""Executions whose agent run was cancelled; ADK's own part is in tests/cluster/test_agents.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput

from adk_gke_sandbox import CancelPlugin, GkeCodeExecutor
from adk_gke_sandbox.adk.plugin import cancel, cancellable
from adk_gke_sandbox.execution import Outcome, Reason


def in_executor(invocation_id: str = "e-1", agent: str = "coder") -> Any:
    """What an executor is given: ADK's invocation context."""
    return SimpleNamespace(invocation_id=invocation_id, agent=SimpleNamespace(name=agent), is_aborted=False)


def in_callback(invocation_id: str = "e-1", agent: str = "coder") -> Any:
    """What a plugin is given: ADK's callback context."""
    return SimpleNamespace(invocation_id=invocation_id, agent_name=agent)


def test_all_executions_of_an_agent_in_an_invocation_are_ended_together() -> None:
    with cancellable(in_executor()) as first, cancellable(in_executor()) as second:
        assert cancel(in_callback()) == 2
        assert (first.is_set(), second.is_set()) == (True, True)


@pytest.mark.parametrize("other", [in_callback(invocation_id="e-2"), in_callback(agent="writer")])
def test_executions_of_another_agent_or_invocation_go_on(other: Any) -> None:
    with cancellable(in_executor()) as flag:
        assert cancel(other) == 0
        assert not flag.is_set()


def test_an_execution_that_has_ended_is_forgotten_even_if_it_failed() -> None:
    with cancellable(in_executor()) as other:
        with suppress(ZeroDivisionError), cancellable(in_executor()) as flag:
            raise ZeroDivisionError
        assert cancel(in_callback()) == 1
        assert (flag.is_set(), other.is_set()) == (False, True)


@pytest.mark.parametrize("context", [None, SimpleNamespace(), SimpleNamespace(invocation_id="e-1", agent=None)])
def test_a_context_that_says_little_is_none_to_stumble_over(context: Any) -> None:
    with cancellable(context) as flag:
        assert cancel(context) == 1
        assert flag.is_set()


def test_the_plugin_ends_the_execution_of_an_agent_that_is_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []

    def run(code: str, *, aborted: Callable[[], bool], **_: Any) -> Outcome:
        found.append(aborted())
        found.append(asyncio.run(CancelPlugin().after_agent_callback(agent=None, callback_context=in_callback())))
        found.append(aborted())
        return Outcome(name="x", reason=Reason.ABORTED)

    executor = GkeCodeExecutor()
    monkeypatch.setattr(executor._sandbox, "run", run)
    executor.execute_code(in_executor(), CodeExecutionInput(code="print(1)"))
    assert found == [False, None, True], "any answer of the plugin would replace the agent's"
    assert cancel(in_callback()) == 0


def test_the_plugin_has_a_name_of_its_own_and_takes_another() -> None:
    assert CancelPlugin().name == "adk_gke_sandbox_cancel"
    assert CancelPlugin(name="mine").name == "mine"
