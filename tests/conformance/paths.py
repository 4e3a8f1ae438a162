"""The execution paths that the suite runs on, each behind the same small interface.

The programs of the suite attack what they run in; one of them kills every process that it can see. A path runs them
in a sandbox of a cluster, never as a process of this machine.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from adk_gke_sandbox.execution import Event, File, Outcome

Fixture = Callable[[str], Any]
"""Returns the value of a pytest fixture."""

SETTINGS: Mapping[str, Any] = {"timeout_seconds": 60, "cpu_limit": "1"}
"""Settings of the executor that differ from the contract's, unless a test gives its own."""


class Execute(Protocol):
    """Runs one program in a sandbox of its own; safe to call from several threads."""

    def __call__(
        self,
        code: str,
        *,
        files: tuple[File, ...] = (),
        argv: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
        name: str | None = None,
        aborted: Callable[[], bool] = lambda: False,
        on_event: Callable[[Event], None] = lambda _: None,
        **settings: Any,
    ) -> Outcome:
        """Return what came of it.

        Args:
            code: The program.
            files: Input files.
            argv: Arguments of the program.
            env: Environment variables of the program.
            limits: Fields of ``Limits`` that differ from the default.
            name: Name of the execution.
            aborted: Asked every 0.2 s; true ends the execution.
            on_event: Told of what happens meanwhile.
            settings: Settings of ``ExecutorConfig`` that differ from the contract's.
        """


Path = Callable[[Fixture], AbstractContextManager[Execute]]
"""Opens an execution path; when it is closed, nothing of its executions is left."""


@contextmanager
def job(fixture: Fixture) -> Iterator[Execute]:
    """The cold path: a Job for each execution, as the agents' ServiceAccount."""
    from adk_gke_sandbox.config import ExecutorConfig
    from adk_gke_sandbox.execution import Limits
    from adk_gke_sandbox.sandbox import Sandbox

    contract, kubeconfig, leftovers = fixture("contract"), fixture("agent_kubeconfig"), fixture("leftovers")
    key, value = "conformance", secrets.token_hex(4)
    sandboxes: dict[str, Sandbox] = {}
    lock = threading.Lock()

    def execute(code: str, *, limits: Mapping[str, Any] | None = None, **given: Any) -> Outcome:
        call = {
            name: given.pop(name) for name in ("files", "argv", "env", "name", "aborted", "on_event") if name in given
        }
        settings = {**SETTINGS, **given, "limits": Limits(**(limits or {}))}
        with lock:
            sandbox = sandboxes.get(repr(settings))
            if sandbox is None:
                config = ExecutorConfig.from_contract(
                    contract, kubeconfig_path=str(kubeconfig), labels={key: value}, **settings
                )
                sandbox = sandboxes[repr(settings)] = Sandbox(config)
        return sandbox.run(code, **call)

    try:
        yield execute
    finally:
        for sandbox in sandboxes.values():
            sandbox.close()
    assert leftovers(f"{key}={value}") == []


PATHS: dict[str, Path] = {"job": job}
