"""Executions on the best path there is; the public interface under ``adk`` and ``cli``."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from adk_gke_sandbox import telemetry
from adk_gke_sandbox.cluster import api, diagnosis
from adk_gke_sandbox.cluster.manifests import Tags
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.execution import CODE_REASONS, File, Limits, Outcome, Reason, Request
from adk_gke_sandbox.paths import job
from adk_gke_sandbox.paths.attempt import Attempt, Clock, Interrupted
from adk_gke_sandbox.values import check_name

MARKERS: Final[Mapping[bool, str]] = {True: "your code failed", False: "the sandbox could not run your code"}
"""How a failure begins, by whether it tells something about the program."""


def new_name() -> str:
    """Return a name for an execution; it is the name of its Job and a label value."""
    return f"sandbox-{secrets.token_hex(6)}"


class Sandbox:
    """Runs programs under one configuration. Thread-safe; connects at the first execution.

    Copies and pickles carry the configuration and connect anew.
    """

    def __init__(self, config: ExecutorConfig, *, clock: Clock | None = None) -> None:
        """Make a sandbox.

        Args:
            config: How programs run.
            clock: Time; that of this machine when ``None``.
        """
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._cluster: api.Cluster | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]

    def run(
        self,
        code: str,
        *,
        files: tuple[File, ...] = (),
        argv: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        first_figure: int = 1,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        invocation_id: str = "",
        aborted: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Run a program and return what came of it; trouble with the cluster is an outcome, too.

        Args:
            code: The program, run as ``python main.py``.
            files: Written to the working directory first.
            argv: Arguments of the program.
            env: Environment variables of the program, beside those of the configuration.
            limits: Bounds inside the sandbox in place of the configuration's.
            first_figure: Number of the first figure that is saved because the program left it open.
            name: Name of the execution; made up when ``None``.
            labels: Labels of all objects, beside those of the configuration.
            invocation_id: ADK's invocation, for the annotations of Job and pod, the span and the log record.
            aborted: Asked every 0.2 s; true ends the execution.

        Raises:
            ConfigError: an argument that cannot work. Nothing has been run then.
        """
        request = self.config.request(
            code, files=files, argv=argv, env=env or {}, limits=limits, first_figure=first_figure
        )
        tags = Tags(labels=self.config.labels_with(labels), invocation_id=invocation_id)
        attempt = Attempt(
            schedule_seconds=self.config.schedule_timeout_seconds,
            program_seconds=self.config.timeout_seconds,
            aborted=aborted,
            clock=self._clock,
        )
        outcome = self._run(request, attempt, new_name() if name is None else check_name(name), tags)
        outcome = replace(outcome, warnings=self.config.warnings)
        telemetry.record(outcome, self.config, ended_ns=time.time_ns(), invocation_id=invocation_id)
        return outcome

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
        if (found := self._cluster) is None:
            with self._lock:
                found = self._cluster
                if found is None:
                    found = self._cluster = api.connect(self.config.kubeconfig_path, self.config.kubeconfig_context)
        return found

    def close(self) -> None:
        """Close idle connections. The next execution opens others, to the same server as the same user."""
        # Without the lock: whoever holds it may wait for a plugin.
        if (found := self._cluster) is not None:
            found.close()


def failure_line(outcome: Outcome) -> str:
    """Return the line that says why an execution did not complete, for a model or a person to act on."""
    marker = MARKERS[outcome.reason in CODE_REASONS]
    if outcome.reason is Reason.ERROR:
        cause = f"killed by {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"
        cause += f": {outcome.message}" if outcome.message else ""
    else:
        cause = outcome.message or "no detail"
    return f"{marker}: {outcome.reason.value}: {cause}"
