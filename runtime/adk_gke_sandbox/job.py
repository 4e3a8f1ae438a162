"""The cold path: one Job with its ConfigMaps, from the create calls to the accepted deletion.

The Job is created first and owns everything else, so that whatever happens to the client, one deletion,
the Job's own deadline or its TTL removes it all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files as package_files
from itertools import pairwise
from typing import Any, Final

from adk_gke_sandbox import diagnosis, manifests
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTION_LABEL
from adk_gke_sandbox.diagnosis import Diagnosis, PodView
from adk_gke_sandbox.errors import AlreadyExists, ClusterError, Conflict, NotFound, Unreachable
from adk_gke_sandbox.execution import Outcome, Reason, Request, Timings
from adk_gke_sandbox.kube import Cluster, Stream, Watch
from adk_gke_sandbox.protocol import Transcript, encode_request, new_nonce

TICK_SECONDS: Final = 0.2
"""How often a wait looks at the abort flag and the clock."""

EVENTS_AFTER_SECONDS: Final = 0.7
"""When to ask for events if no pod has appeared; it usually takes a tenth of that."""

REPLY_MARGIN_SECONDS: Final = 5.0
"""How long after the program's timeout the runner's own verdict may arrive."""

DELETE_WAIT_SECONDS: Final = 1.0
"""The longest wait between two tries of the deletion, whatever the server asks for."""

_TRIES: Final = 4
_BACKOFF_SECONDS: Final = 0.3


class _Ended(Exception):
    def __init__(self, found: Diagnosis) -> None:
        super().__init__(found.message)
        self.found = found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def run(
    cluster: Cluster,
    config: ExecutorConfig,
    request: Request,
    *,
    name: str,
    annotations: dict[str, str] | None = None,
    aborted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a request in a Job of its own and leave nothing behind.

    Args:
        cluster: Connection to the API server.
        config: Settings of the executor.
        request: What to run; its limits are the ones the runner enforces.
        name: Name of the execution and of its Job.
        annotations: Annotations of the Job and its pod.
        aborted: Asked every 0.2 s; true ends the execution and deletes its Job.

    Returns:
        What came of it. Trouble with the cluster is an outcome too, never an exception.
    """
    execution = _Execution(cluster, config, request, name, annotations or {}, aborted, _Clock())
    return execution.run()


class _Execution:
    """The state of one execution while it lasts."""

    def __init__(
        self,
        cluster: Cluster,
        config: ExecutorConfig,
        request: Request,
        name: str,
        annotations: dict[str, str],
        aborted: Callable[[], bool],
        clock: _Clock,
    ) -> None:
        self._cluster = cluster
        self._config = config
        self._request = request
        self._name = name
        self._annotations = annotations
        self._aborted = aborted
        self._clock = clock
        self._nonce = new_nonce()
        self._transcript = Transcript(self._nonce)
        self._marks: dict[str, float] = {}
        self._begin = clock.now()
        self._schedule_deadline = self._begin + config.schedule_timeout_seconds

    def run(self) -> Outcome:
        found: Diagnosis | None = None
        try:
            with self._submitted():
                pod = self._wait_until_running()
                self._collect(pod)
        except _Ended as end:
            found = end.found
        except ClusterError as error:
            found = diagnosis.refused_call(error, namespace=self._config.namespace)
        outcome = self._transcript.outcome(self._name)
        if found is not None and not self._transcript.ended:
            outcome = replace(outcome, reason=found.reason, message=found.message)
        # What has started once stays started, whatever a log that was read anew tells.
        started = outcome.started or "started" in self._marks
        return replace(outcome, started=started, timings=self._timings())

    @contextmanager
    def _submitted(self) -> Iterator[None]:
        parts = manifests.split_request(encode_request(self._request, self._nonce), runner_source())
        if len(parts) > manifests.CONFIG_MAPS_MAX:
            raise _Ended(
                Diagnosis(
                    reason=Reason.ADMISSION_DENIED,
                    message=f"the request needs {len(parts)} ConfigMaps and {manifests.CONFIG_MAPS_MAX} are the most. "
                    "Send smaller files",
                )
            )
        manifest = manifests.job(self._config, self._name, parts, self._annotations)
        try:
            uid = self._create_job(manifest)
            for index, data in enumerate(parts):
                owned = manifests.config_map(self._config, self._name, index, data, uid)
                self._create_config_map(owned)
            self._mark("submitted")
            yield
        finally:
            self._mark("collected")
            self._delete()
            self._mark("deleted")

    def _create_job(self, manifest: dict[str, Any]) -> str:
        for attempt in self._attempts():
            try:
                return str(self._cluster.create_job(manifest)["metadata"]["uid"])
            except AlreadyExists:
                if attempt == 0:
                    raise
                # The answer to an earlier try was lost; the name is random, so the Job is ours.
                return str(self._cluster.get_job(self._config.namespace, self._name)["metadata"]["uid"])
            except ClusterError as error:
                self._back_off(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def _create_config_map(self, manifest: dict[str, Any]) -> None:
        for attempt in self._attempts():
            try:
                return self._cluster.create_config_map(manifest)
            except AlreadyExists:
                if attempt == 0:
                    raise
                return None
            except ClusterError as error:
                self._back_off(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self) -> Iterator[int]:
        return iter(range(_TRIES))

    def _back_off(self, error: ClusterError, attempt: int) -> None:
        """Wait before another try, or raise an error that another try would not cure."""
        transient = isinstance(error, (Unreachable, Conflict)) or error.status == 429 or (error.status or 0) >= 500
        wait = error.retry_after_seconds or _BACKOFF_SECONDS * 2**attempt
        if not transient or attempt == _TRIES - 1 or self._clock.now() + wait > self._schedule_deadline:
            raise error
        until = self._clock.now() + wait
        while (left := until - self._clock.now()) > 0:
            self._check_abort()
            self._clock.sleep(min(left, TICK_SECONDS))

    def _delete(self) -> None:
        """Delete the Job; if the API server cannot be reached, its deadline and TTL do."""
        for attempt in range(_TRIES):
            try:
                return self._cluster.delete_job(self._config.namespace, self._name)
            except ClusterError as error:
                if error.status in (401, 403) or attempt == _TRIES - 1:
                    return None
                # The result is there already: it does not wait for long, the Job's deadline and TTL delete too.
                self._clock.sleep(min(error.retry_after_seconds or _BACKOFF_SECONDS * 2**attempt, DELETE_WAIT_SECONDS))
        return None

    def _wait_until_running(self) -> PodView:
        """Return the first view in which the container runs or has run."""
        selector = f"{EXECUTION_LABEL}={self._name}"
        pods = self._cluster.watch("pods", self._config.namespace, label_selector=selector)
        events: Watch | None = None
        last: Diagnosis | None = None
        pod: PodView | None = None
        try:
            while True:
                for change, seen in pods.read(TICK_SECONDS):
                    if change == "DELETED":
                        raise _Ended(diagnosis.after_start(None) if pod and pod.has_run else _deleted_early())
                    pod = diagnosis.view(seen)
                    if pod.has_run:
                        self._mark("running")
                        return pod
                    last = diagnosis.before_start(pod, image=self._config.image) or last
                    if last and last.final:
                        raise _Ended(last)
                self._check_abort()
                if pod is not None and events is not None:
                    events.close()
                    events = None
                if pod is None and events is None and self._clock.now() > self._begin + EVENTS_AFTER_SECONDS:
                    events = self._cluster.watch(
                        "events", self._config.namespace, field_selector=f"involvedObject.name={self._name}"
                    )
                if events is not None:
                    last = self._read_events(events) or last
                    if last and last.final:
                        raise _Ended(last)
                if self._clock.now() > self._schedule_deadline:
                    raise _Ended(last or self._never_started(pod))
        finally:
            pods.close()
            if events is not None:
                events.close()

    def _read_events(self, events: Watch) -> Diagnosis | None:
        found = None
        for change, event in events.read(0):
            if change != "DELETED" and event.get("reason") == "FailedCreate":
                found = diagnosis.refused_pod(event.get("message", ""))
        return found

    def _never_started(self, pod: PodView | None) -> Diagnosis:
        waited = f"within schedule_timeout_seconds={self._config.schedule_timeout_seconds:g}"
        if pod is None:
            text = f"no pod appeared {waited}. Check that the Job controller runs and that the Job is not suspended"
        else:
            text = f"the pod did not start {waited} ({pod.waiting_reason or pod.phase}). Check the node it is on"
        return Diagnosis(reason=Reason.UNSCHEDULABLE, message=text)

    def _collect(self, pod: PodView) -> None:
        """Read reply frames until ``end``; reopen a log that was cut while the pod lives."""
        while True:
            log = self._open_log(pod.name)
            # A log is read from its beginning each time; what is known is given up only once there is a new one.
            self._transcript = Transcript(self._nonce)
            try:
                self._follow(log)
            finally:
                log.close()
            if self._transcript.ended:
                return
            current = self._look(pod.name)
            if current is None or not current.running:
                # Frames may have been written between the cut and the end of the container.
                if current is not None and not current.deleting and self._reread(pod.name):
                    return
                raise _Ended(diagnosis.after_start(current))
            self._check_time()
            self._clock.sleep(TICK_SECONDS)

    def _reread(self, pod: str) -> bool:
        whole = Transcript(self._nonce)
        log = self._open_log(pod)
        try:
            while (chunk := log.read(TICK_SECONDS)) is not None:
                whole.feed(chunk)
                if whole.ended:
                    break
                self._check_time()
        finally:
            log.close()
        self._transcript = whole
        return whole.ended

    def _open_log(self, pod: str) -> Stream:
        while True:
            try:
                return self._cluster.follow_log(self._config.namespace, pod, manifests.CONTAINER)
            except NotFound as error:
                raise _Ended(diagnosis.after_start(None)) from error
            except ClusterError as error:
                # 400 while the kubelet has not told the API server of the container yet; the rest is transient.
                if error.status in (401, 403):
                    raise
                self._check_time()
                self._clock.sleep(TICK_SECONDS)

    def _follow(self, log: Stream) -> None:
        while (chunk := log.read(TICK_SECONDS)) is not None:
            self._transcript.feed(chunk)
            if self._transcript.started:
                self._mark("started")
            if self._transcript.ended:
                return
            self._check_abort()
            self._check_time()

    def _look(self, pod: str) -> PodView | None:
        found = self._cluster.list_objects(
            "pods", self._config.namespace, label_selector=f"{EXECUTION_LABEL}={self._name}"
        )
        views = [diagnosis.view(item) for item in found.get("items") or []]
        return next((seen for seen in views if seen.name == pod), None)

    def _check_abort(self) -> None:
        if self._aborted():
            raise _Ended(Diagnosis(reason=Reason.ABORTED, message="the caller aborted the execution"))

    def _check_time(self) -> None:
        """Back up the runner's own deadline."""
        begin = self._marks.get("started")
        limit = self._schedule_deadline if begin is None else begin + self._config.timeout_seconds
        if self._clock.now() > limit + REPLY_MARGIN_SECONDS:
            if begin is None:
                raise _Ended(
                    Diagnosis(
                        reason=Reason.SANDBOX_LOST,
                        message="the container runs but the program did not start in time",
                    )
                )
            raise _Ended(
                Diagnosis(
                    reason=Reason.DEADLINE_EXCEEDED,
                    message=f"the program was killed after {self._config.timeout_seconds:g} s",
                )
            )

    def _mark(self, phase: str) -> None:
        self._marks.setdefault(phase, self._clock.now())

    def _timings(self) -> Timings:
        at = [self._begin]
        for phase in ("submitted", "running", "started", "collected", "deleted"):
            at.append(self._marks.get(phase, at[-1]))
        # A phase that was never reached takes no time; what follows it counts from the last one that was.
        ordered = [max(at[: index + 1]) for index in range(len(at))]
        submit, schedule, start, run_, delete = (b - a for a, b in pairwise(ordered))
        return Timings(submit=submit, schedule=schedule, start=start, run=run_, delete=delete)


def _deleted_early() -> Diagnosis:
    return Diagnosis(reason=Reason.SANDBOX_LOST, message="the pod was deleted by someone else before it ran")


@cache
def runner_source() -> str:
    """Return the text of the runner, which travels with the request."""
    return package_files("adk_gke_sandbox").joinpath("runner.py").read_text(encoding="utf-8")
