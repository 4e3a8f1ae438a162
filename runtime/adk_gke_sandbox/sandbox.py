"""Executions on the best path there is; the public interface under ``adk`` and ``cli``, and for programs.

    with Sandbox.from_contract() as sandbox:
        print(sandbox.run("print(1 + 1)").check().text)
        for event in sandbox.stream("print('soon')"):
            ...

``run`` is the one way to run a program. ``stream``, ``astream`` and ``arun`` call it in a thread, and pass its events
on.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self, TypedDict, Unpack

from adk_gke_sandbox import telemetry
from adk_gke_sandbox.cluster import api, diagnosis
from adk_gke_sandbox.cluster.manifests import Tags
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import Ended, Event, Files, Limits, Outcome, Reason, Request
from adk_gke_sandbox.paths import job
from adk_gke_sandbox.paths.attempt import TICK_SECONDS, Attempt, Clock, Interrupted
from adk_gke_sandbox.values import check_name


class RunOptions(TypedDict, total=False):
    """The keyword arguments that ``Sandbox.run`` has in common with ``arun``, ``stream`` and ``astream``."""

    files: Files
    argv: Sequence[str]
    env: Mapping[str, str] | None
    limits: Limits | None
    first_figure: int
    name: str | None
    labels: Mapping[str, str] | None
    invocation_id: str
    aborted: Callable[[], bool]


def new_name() -> str:
    """Return a name for an execution; it is the name of its Job and a label value."""
    return f"sandbox-{secrets.token_hex(6)}"


class Sandbox:
    """Runs programs under one configuration. Thread-safe; connects at the first execution.

    Copies and pickles carry the configuration and connect anew. As a context manager, also an asynchronous one, it
    closes its idle connections in the end.
    """

    def __init__(self, config: ExecutorConfig, *, clock: Clock | None = None) -> None:
        """Make a sandbox.

        Args:
            config: How programs run.
            clock: Time; that of this machine when ``None``.
        """
        self.config = config
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._cluster: api.Cluster | None = None

    @classmethod
    def from_contract(cls, contract: str | Path | Contract | Mapping[str, Any] | None = None, **settings: Any) -> Self:
        """Return a sandbox for the stack that a contract describes; see ``ExecutorConfig.from_contract``.

        Args:
            contract: A path, a document or a contract; found by itself when ``None``.
            **settings: Settings that differ.

        Raises:
            ContractError: the contract cannot be read.
            ConfigError: an unknown setting, one above a ceiling, or a value that cannot work.
        """
        return cls(ExecutorConfig.from_contract(contract, **settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    def run(
        self,
        code: str,
        *,
        files: Files = (),
        argv: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        first_figure: int = 1,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        invocation_id: str = "",
        aborted: Callable[[], bool] = lambda: False,
        on_event: Callable[[Event], object] = lambda _: None,
    ) -> Outcome:
        """Run a program and return what came of it; trouble with the cluster is an outcome, too.

        Args:
            code: The program, run as ``python main.py``.
            files: Written to the working directory first, for example ``{"data.csv": "a,b"}``.
            argv: Arguments of the program.
            env: Environment variables of the program, beside those of the configuration.
            limits: Bounds inside the sandbox in place of the configuration's.
            first_figure: Number of the first figure that is saved because the program left it open.
            name: Name of the execution; made up when ``None``.
            labels: Labels of all objects, beside those of the configuration.
            invocation_id: ADK's invocation, for the annotations of Job and pod, the span and the log record.
            aborted: Asked every 0.2 s; true ends the execution.
            on_event: Told of ``Started`` and of each ``Output`` as it arrives; the outcome is what is returned. Must
                not block. ``stream`` is the same as a loop.

        Raises:
            ConfigError: an argument that cannot work. Nothing has been run then.
        """
        request = self.config.request(code, files=files, argv=argv, env=env, limits=limits, first_figure=first_figure)
        tags = Tags(labels=self.config.labels_with(labels), invocation_id=invocation_id)
        attempt = Attempt(
            schedule_seconds=self.config.schedule_timeout_seconds,
            program_seconds=self.config.timeout_seconds,
            aborted=aborted,
            on_event=on_event,
            clock=self._clock,
        )
        outcome = self._run(request, attempt, new_name() if name is None else check_name(name), tags)
        outcome = replace(outcome, warnings=self.config.warnings)
        telemetry.record(outcome, self.config, ended_ns=time.time_ns(), invocation_id=invocation_id)
        return outcome

    def stream(self, code: str, **options: Unpack[RunOptions]) -> Generator[Event, None, None]:
        """Run a program and yield what happens: ``Started``, each ``Output`` as it arrives, and last ``Ended``.

        No event is told twice, whatever had to be read again. Events wait for a slow loop; the program does not. To
        leave the loop, or to close the generator, aborts the execution and waits for its cleanup.

        Args:
            code: The program, run as ``python main.py``.
            **options: As for ``run``.

        Raises:
            ConfigError: an argument that cannot work; by the first step of the loop.
        """
        events: Queue[Event | None] = Queue()
        ended, given_up = self._begin(code, options, events.put)
        try:
            while event := _next(events):
                yield event
            yield Ended(outcome=ended.result())
        finally:
            given_up.set()
            ended.exception()

    async def astream(self, code: str, **options: Unpack[RunOptions]) -> AsyncGenerator[Event, None]:
        """Do what ``stream`` does in an event loop of asyncio; ``contextlib.aclosing`` waits for the cleanup.

        Args:
            code: The program, run as ``python main.py``.
            **options: As for ``run``.

        Raises:
            ConfigError: an argument that cannot work; by the first step of the loop.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        ended, given_up = self._begin(code, options, lambda event: loop.call_soon_threadsafe(events.put_nowait, event))
        try:
            while event := await events.get():
                yield event
            yield Ended(outcome=ended.result())
        finally:
            given_up.set()
            if not ended.done():
                await asyncio.wait([asyncio.wrap_future(ended)])

    async def arun(self, code: str, **options: Unpack[RunOptions]) -> Outcome:
        """Do what ``run`` does in an event loop of asyncio.

        A task that is cancelled here aborts the execution, and waits for its cleanup before it ends.

        Args:
            code: The program, run as ``python main.py``.
            **options: As for ``run``.

        Raises:
            ConfigError: an argument that cannot work. Nothing has been run then.
        """
        outcomes = [event.outcome async for event in self.astream(code, **options) if isinstance(event, Ended)]
        return outcomes[0]

    def refused(self, error: ConfigError, *, name: str, invocation_id: str = "") -> Outcome:
        """Return as an outcome what ``run`` has raised, and count it: for callers that show all failures alike.

        Args:
            error: What was raised.
            name: Name of the execution that has not begun.
            invocation_id: As for ``run``.
        """
        outcome = Outcome(name=name, reason=Reason.INVALID_REQUEST, message=str(error))
        telemetry.record(outcome, self.config, ended_ns=time.time_ns(), invocation_id=invocation_id)
        return outcome

    def _begin(
        self, code: str, options: RunOptions, put: Callable[[Event | None], object]
    ) -> tuple[Future[Outcome], threading.Event]:
        """Begin to run a program in a thread of its own; return what will come of it, and the flag that aborts it.

        Args:
            code: The program.
            options: As for ``run``.
            put: Gets each event; ``None`` when all is over.
        """
        given_up, aborted = threading.Event(), options.get("aborted", lambda: False)
        own: RunOptions = {**options, "aborted": lambda: given_up.is_set() or aborted()}
        # Not one of the event loop's threads, which are few. In the caller's context, which has its span.
        pool = ThreadPoolExecutor(1, "adk-gke-sandbox-run")
        ended = pool.submit(copy_context().run, partial(self.run, code, **own, on_event=put))
        ended.add_done_callback(lambda _: put(None))
        pool.shutdown(wait=False)
        return ended, given_up

    def _run(self, request: Request, attempt: Attempt, name: str, tags: Tags) -> Outcome:
        try:
            # The first connection may run the plugin that the kubeconfig names.
            cluster = attempt.interruptible(self._connected)
        except ConfigError as error:
            return Outcome(name=name, reason=Reason.API_UNAVAILABLE, message=str(error))
        except Interrupted as interruption:
            waited = self.config.schedule_timeout_seconds
            found = diagnosis.aborted() if interruption.aborted else diagnosis.no_credentials(waited)
            return Outcome(name=name, reason=found.reason, message=found.message)
        return job.run(cluster, self.config, request, attempt, name=name, tags=tags)

    def _connected(self) -> api.Cluster:
        if self._cluster is None:
            with self._lock:
                if self._cluster is None:
                    self._cluster = api.connect(self.config.kubeconfig_path, self.config.kubeconfig_context)
        return self._cluster

    def close(self) -> None:
        """Close idle connections. The next execution opens others, to the same server as the same user."""
        # Without the lock: whoever holds it may wait for a plugin.
        if (found := self._cluster) is not None:
            found.close()


def _next(events: Queue[Event | None]) -> Event | None:
    """Return the next event. A wait without an end would keep a signal that another thread got from its handler."""
    while True:
        with suppress(Empty):
            return events.get(timeout=TICK_SECONDS)
