"""`Sandbox` as a program uses it: outcomes, events, tasks. The API server is a fake, the clock this machine's."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from adk_gke_sandbox import ConfigError, Ended, Event, ExecutorConfig, File, Outcome, Output, Reason, Sandbox, Started
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.sandbox import RunOptions
from tests.unit.fake_api import OK, RUNNING, STARTED, FakeApi, added, eventually, frame, pod

HELLO = Output(stream="stdout", data=b"hello\n")


@pytest.fixture
def sandbox(api: FakeApi) -> Sandbox:
    return Sandbox(ExecutorConfig(namespace="box", kubeconfig_path=api.kubeconfig, schedule_timeout_seconds=10))


def goes_on(api: FakeApi) -> None:
    """Script a program that has written something and does not end."""
    api.logs, api.hold_log = [STARTED], True


async def collected(sandbox: Sandbox, code: str) -> list[Event]:
    return [event async for event in sandbox.astream(code)]


STREAMS: dict[str, Callable[[Sandbox, str], list[Event]]] = {
    "sync": lambda sandbox, code: list(sandbox.stream(code)),
    "async": lambda sandbox, code: asyncio.run(collected(sandbox, code)),
}
each_way = pytest.mark.parametrize("events_of", STREAMS.values(), ids=STREAMS)

# Events


@each_way
def test_a_stream_is_the_start_the_output_and_last_the_outcome(
    api: FakeApi, sandbox: Sandbox, events_of: Callable[[Sandbox, str], list[Event]]
) -> None:
    api.logs = [STARTED + frame("err", d="warned", skipped=7) + frame("end", reason="Completed", exit_code=0, err=6)]
    *events, last = events_of(sandbox, "print('hello')")
    assert events == [Started(), HELLO, Output(stream="stderr", data=b"warned", skipped=7)]
    assert isinstance(last, Ended)
    assert (last.outcome.reason, last.outcome.stdout) == (Reason.COMPLETED, b"hello\n")
    assert api.jobs == {}


@each_way
def test_an_argument_that_cannot_work_is_raised_by_the_loop_before_any_call(
    api: FakeApi, events_of: Callable[[Sandbox, str], list[Event]], sandbox: Sandbox
) -> None:
    with pytest.raises(ConfigError, match="no text"):
        events_of(sandbox, b"print('hello')")  # type: ignore[arg-type]
    assert api.calls == []


def events_of_run(api: FakeApi, sandbox: Sandbox) -> list[Event]:
    """Return what a run tells, by the fake's clock, which keeps nobody waiting."""
    events: list[Event] = []
    Sandbox(sandbox.config, clock=api.clock).run("print('hello')", on_event=events.append)
    return events


def test_a_log_that_is_read_again_repeats_no_event(api: FakeApi, sandbox: Sandbox) -> None:
    api.lists["pods"] = [RUNNING]
    more = STARTED + frame("out", d="more")
    api.logs = [more, more, more + frame("out", d=" and more") + frame("end", reason="Completed", exit_code=0)]
    added_later = [Output(stream="stdout", data=data) for data in (b"more", b" and more")]
    assert events_of_run(api, sandbox) == [Started(), HELLO, *added_later]
    assert api.count["get", "pods/log"] == 3


def test_a_part_that_only_a_second_reading_brings_is_told_in_its_place(api: FakeApi, sandbox: Sandbox) -> None:
    api.lists["pods"] = [RUNNING]
    two, rest = frame("out", d=" two"), frame("out", d=" three") + frame("end", reason="Completed", exit_code=0)
    api.logs = [STARTED + two.replace(b"NONCE", b"other") + rest, STARTED + two + rest]
    told = [event.data for event in events_of_run(api, sandbox) if isinstance(event, Output)]
    assert told == [HELLO.data, b" two", b" three"]


def test_a_sandbox_that_was_replaced_has_told_of_nothing(api: FakeApi, sandbox: Sandbox) -> None:
    evicted = pod({}, phase="Failed", reason="Evicted", message="disk pressure")
    api.watches["pods"] = [[added(evicted)], [added(RUNNING)]]
    api.logs = [OK]
    assert events_of_run(api, sandbox) == [Started(), HELLO]
    assert api.count["create", "jobs"] == 2


def test_output_is_told_while_the_program_runs_and_who_leaves_the_loop_aborts_it(
    api: FakeApi, sandbox: Sandbox
) -> None:
    goes_on(api)
    for event in sandbox.stream("print('hello')"):
        if event == HELLO:
            assert len(api.jobs) == 1
            break
    assert api.jobs == {}
    assert len(api.deletions) == 1


def test_an_asynchronous_stream_that_is_closed_aborts_and_waits_for_the_cleanup(api: FakeApi, sandbox: Sandbox) -> None:
    async def first_two() -> None:
        async with aclosing(sandbox.astream("print('hello')")) as events:
            assert [await anext(events), await anext(events)] == [Started(), HELLO]

    goes_on(api)
    asyncio.run(first_two())
    assert api.jobs == {}
    assert len(api.deletions) == 1


# Tasks


def test_an_awaited_run_returns_the_outcome(api: FakeApi, sandbox: Sandbox) -> None:
    async def main() -> Outcome:
        async with sandbox:
            return await sandbox.arun("print('hello')", name="one")

    api.logs = [OK]
    outcome = asyncio.run(main())
    assert (outcome.name, outcome.reason) == ("one", Reason.COMPLETED)


def test_a_task_that_is_cancelled_aborts_its_execution_and_waits_for_the_cleanup(
    api: FakeApi, sandbox: Sandbox
) -> None:
    async def main() -> None:
        task = asyncio.create_task(sandbox.arun("print('hello')"))
        assert await asyncio.to_thread(eventually, lambda: api.count["get", "pods/log"] > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert api.jobs == {}

    goes_on(api)
    asyncio.run(main())
    assert len(api.deletions) == 1


def test_what_runs_in_a_thread_has_the_context_of_its_caller(api: FakeApi, sandbox: Sandbox) -> None:
    span: ContextVar[str] = ContextVar("span", default="none")
    seen: set[str] = set()
    api.logs = [OK]
    span.set("the caller's")
    assert list(sandbox.stream("print('hello')", aborted=lambda: seen.add(span.get()) or False))
    assert seen == {"the caller's"}


# Arguments


def test_what_a_stream_takes_is_what_run_takes() -> None:
    own = set(inspect.signature(Sandbox.run).parameters) - {"self", "code", "on_event"}
    assert set(RunOptions.__annotations__) == own


@pytest.mark.parametrize(
    "files",
    [{"a.csv": "1\n", "b": b"\xff"}, (File(name="a.csv", content=b"1\n"), File(name="b", content=b"\xff"))],
    ids=["mapping", "values"],
)
def test_input_files_are_values_or_names_with_bytes_or_text(api: FakeApi, sandbox: Sandbox, files: Any) -> None:
    api.logs = [OK]
    sandbox.run("print('hello')", files=files)
    document = json.loads(api.config_maps[0]["data"]["request.json"])
    assert document["files"] == [{"name": "a.csv", "content": "MQo="}, {"name": "b", "content": "/w=="}]


def test_a_request_that_is_too_large_has_a_reason_of_its_own_and_makes_no_call(api: FakeApi, sandbox: Sandbox) -> None:
    outcome = sandbox.run("pass", files={"big": bytes(24 * 1024**2)})
    assert (outcome.reason, outcome.started) == (Reason.REQUEST_TOO_LARGE, False)
    assert api.calls == []


# Ends


def test_a_sandbox_of_a_contract_has_its_settings_and_those_that_differ() -> None:
    contract = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)
    config = Sandbox.from_contract(contract, timeout_seconds=5).config
    assert (config.namespace, config.timeout_seconds) == (contract.namespace, 5)


def test_the_end_of_a_with_block_closes_the_connections(api: FakeApi, sandbox: Sandbox) -> None:
    api.logs = [OK]
    with sandbox as entered:
        assert entered.run("print('hello')").ok
    assert sandbox._cluster is not None
    assert len(sandbox._cluster._client.rest_client.pool_manager.pools) == 0
