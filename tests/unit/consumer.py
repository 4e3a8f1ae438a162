"""Somebody else's program, written by the package's hints: `test_hints` has mypy check it. Never run."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import assert_never, assert_type

from adk_gke_sandbox import (
    Ended,
    ExecutionFailed,
    ExecutorConfig,
    File,
    Limits,
    Outcome,
    Output,
    Reason,
    Sandbox,
    Started,
)


def once() -> str:
    with Sandbox.from_contract("contract.json", timeout_seconds=5) as sandbox:
        assert_type(sandbox, Sandbox)
        outcome = sandbox.run("print(1)", files={"a.csv": "1"}, argv=["--fast"], limits=Limits(processes=8))
    try:
        return assert_type(outcome.check(), Outcome).text
    except ExecutionFailed as error:
        assert_type(error.outcome.reason, Reason)
        return str(error)


def watched(sandbox: Sandbox) -> Outcome | None:
    for event in sandbox.stream("print(1)", files=[File(name="a", content=b"")], aborted=lambda: False):
        match event:
            case Started():
                print("started")
            case Output():
                print(assert_type(event.text, str))
            case Ended():
                return event.outcome
            case _:
                assert_never(event)
    return None


async def at_once(sandbox: Sandbox) -> list[Outcome]:
    async with sandbox, aclosing(sandbox.astream("1", env={"A": "b"})) as events:
        async for event in events:
            if isinstance(event, Ended):
                assert_type(event.outcome.files, tuple[File, ...])
    return [await sandbox.arun("1"), *await asyncio.gather(sandbox.arun("2", name="two"), sandbox.arun("3"))]


def mistakes(sandbox: Sandbox) -> None:
    sandbox.run(b"print(1)")  # type: ignore[arg-type]
    sandbox.run("1", file={})  # type: ignore[call-arg]
    sandbox.stream("1", file={})  # type: ignore[call-arg]
    sandbox.stream("1", files={"a": 1})  # type: ignore[arg-type]
    ExecutorConfig(timeout=5)  # type: ignore[call-arg]
    sandbox.run("1").stdout = b""  # type: ignore[misc]
