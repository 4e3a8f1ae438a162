"""The cold path: one Job with its ConfigMaps, from the create calls to the accepted deletion.

The Job is created first and owns everything else, so that whatever happens to the client, one deletion,
the Job's own deadline or its TTL removes it all. What an answer means is decided in ``diagnosis``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files as package_files
from itertools import count, pairwise
from typing import Any, Final, TypeVar

from adk_gke_sandbox.cluster import diagnosis, manifests
from adk_gke_sandbox.cluster.api import Cluster
from adk_gke_sandbox.cluster.diagnosis import Diagnosis, PodView
from adk_gke_sandbox.cluster.streams import Change, Stream, Watch
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTION_LABEL
from adk_gke_sandbox.errors import AlreadyExists, ClusterError, NotFound, Unreachable
from adk_gke_sandbox.execution import Outcome, Request, Timings
from adk_gke_sandbox.paths import patience
from adk_gke_sandbox.protocol import Transcript, encode_request, new_nonce

log: Final = logging.getLogger("adk_gke_sandbox")

T = TypeVar("T")

EVENTS_AFTER_SECONDS: Final = 0.7
"""When to ask for events if no pod has appeared; it usually takes a tenth of that."""

UNREACHABLE_SECONDS: Final = 10.0
"""How long an API server that has never answered is tried: it is a wrong address more often than a restart."""

REOPEN_SECONDS: Final = 0.3
"""The shortest time between two openings of a watch or a log."""

REREAD_SECONDS: Final = 3.0
"""How long after the program's timeout a silent log is opened again."""

REPLY_MARGIN_SECONDS: Final = 5.0
"""How long after the program's timeout the runner's own verdict may arrive."""

LOG_GRACE_SECONDS: Final = 2.0
"""How long the log of a pod that has ended may take to deliver its rest."""

DELETE_SECONDS: Final = 4.0
"""How long the return waits for the deletion to be accepted; a thread goes on trying for longer."""

ABORTED_DELETE_SECONDS: Final = 1.5
"""The same after an abort: its caller wants to go on."""

DELETE_TRIES: Final = 8
SUSPENDED_SECONDS: Final = 2.0
"""How long the schedule deadline waits for the answer whether the Job is suspended."""

SANDBOXES_MAX: Final = 3
"""Sandboxes that one execution may use, if the cluster takes them away before the program can have started."""


class _Ended(Exception):
    def __init__(self, found: Diagnosis) -> None:
        super().__init__(found.message)
        self.found = found


def run(
    cluster: Cluster,
    config: ExecutorConfig,
    request: Request,
    *,
    name: str,
    tags: manifests.Tags = manifests.NO_TAGS,
    aborted: Callable[[], bool] = lambda: False,
    begin: float | None = None,
) -> Outcome:
    """Run a request in a Job of its own and leave nothing behind.

    A sandbox that the cluster takes away before the program can have started is replaced by another one.

    Args:
        cluster: Connection to the API server.
        config: Settings of the executor.
        request: What to run; its limits are the ones the runner enforces.
        name: Name of the execution and of its Job.
        tags: Labels and annotations of its objects, beside the package's own.
        aborted: Asked every 0.2 s; true ends the execution and deletes its Job.
        begin: When the schedule timeout began, by ``time.monotonic``; ``None`` means now.

    Returns:
        What came of it. Trouble with the cluster is an outcome too, never an exception.
    """
    begin = time.monotonic() if begin is None else begin
    for attempt in count(1):
        job_name = name if attempt == 1 else f"{name}-{attempt}"
        execution = _Execution(cluster, config, request, job_name, tags, aborted, begin)
        outcome = execution.run()
        late = time.monotonic() > begin + config.schedule_timeout_seconds
        if not execution.may_run_again or attempt == SANDBOXES_MAX or late:
            return outcome
    raise AssertionError("the last sandbox returns")


class _Execution:
    """The state of one sandbox while it lasts."""

    def __init__(
        self,
        cluster: Cluster,
        config: ExecutorConfig,
        request: Request,
        name: str,
        tags: manifests.Tags,
        aborted: Callable[[], bool],
        begin: float,
    ) -> None:
        self._cluster = cluster
        self._config = config
        self._request = request
        self._name = name
        self._tags = tags
        self._aborted = aborted
        self._nonce = new_nonce()
        self._transcript = Transcript(self._nonce)
        self._marks: dict[str, float] = {}
        self._begin = begin
        self._schedule_deadline = begin + config.schedule_timeout_seconds
        self._answered = False
        self._trouble: ClusterError | None = None
        self._job_may_exist = False
        self._delete_seconds = DELETE_SECONDS
        self._pod: PodView | None = None
        self._pod_deleted = False
        self._waits_for: Diagnosis | None = None
        self.may_run_again = False

    def run(self) -> Outcome:
        found: Diagnosis | None = None
        try:
            with self._submitted():
                pods = self._call(self._watch_pods, Watch.close)
                with closing(pods):
                    self._wait_until_running(pods)
                    self._collect(pods)
        except _Ended as end:
            found = end.found
        except ClusterError as error:
            found = diagnosis.refused_call(error, namespace=self._config.namespace)
        outcome = self._transcript.outcome(self._name)
        if found is not None and not self._transcript.ended:
            outcome = replace(outcome, reason=found.reason, message=found.message)
            self.may_run_again = found.again
        # What has started once stays started, whatever a log that was read anew tells.
        started = outcome.started or "started" in self._marks
        return replace(outcome, started=started, timings=self._timings(outcome.wall_seconds))

    @contextmanager
    def _submitted(self) -> Iterator[None]:
        try:
            self._submit()
            yield
        finally:
            self._mark("collected")
            if self._job_may_exist:
                self._delete()
            self._mark("deleted")

    def _submit(self) -> None:
        document = encode_request(self._request, self._nonce)
        parts = manifests.split_request(document, pod_files())
        if len(parts) > manifests.CONFIG_MAPS_MAX:
            raise _Ended(diagnosis.too_large(len(document), manifests.REQUEST_BYTES))
        uid = self._create_job(manifests.job(self._config, self._name, parts, self._tags))
        for index, data in enumerate(parts):
            self._create_config_map(manifests.config_map(self._config, self._name, index, data, uid, self._tags))
        self._mark("submitted")

    def _create_job(self, manifest: dict[str, Any]) -> str:
        tries = count(1)

        def create() -> str:
            first = next(tries) == 1
            self._job_may_exist = True
            try:
                return str(self._cluster.create_job(manifest)["metadata"]["uid"])
            except AlreadyExists:
                if not first:
                    # The answer to an earlier try was lost; the name is random, so the Job is ours.
                    return str(self._cluster.get_job(self._config.namespace, self._name)["metadata"]["uid"])
                self._job_may_exist = False
                raise
            except ClusterError as error:
                if first and error.status is not None and error.status < 500:
                    self._job_may_exist = False
                raise

        # A Job that comes into being after the execution was given up is deleted by the thread that made it.
        return self._call(create, lambda _: self._cluster.delete_object("jobs", self._config.namespace, self._name))

    def _create_config_map(self, manifest: dict[str, Any]) -> None:
        tries = count(1)

        def create() -> None:
            first = next(tries) == 1
            try:
                self._cluster.create_config_map(manifest)
            except AlreadyExists:
                if first:
                    raise

        self._call(create)

    def _delete(self) -> None:
        """Delete the Job; if the API server cannot be reached, its deadline and TTL do."""
        done = threading.Event()

        def delete() -> None:
            for attempt in range(DELETE_TRIES):
                try:
                    self._cluster.delete_object("jobs", self._config.namespace, self._name)
                    break
                except ClusterError as error:
                    if not patience.transient(error) or attempt == DELETE_TRIES - 1:
                        log.warning(
                            "execution %s: %s. Its deadline and TTL remove it",
                            self._name,
                            error,
                            extra={
                                "execution": self._name,
                                "invocation_id": self._tags.invocation_id,
                            },
                        )
                        break
                    time.sleep(patience.backoff(error, attempt))
            done.set()

        threading.Thread(target=delete, name="adk-gke-sandbox-delete", daemon=True).start()
        done.wait(self._delete_seconds)

    def _watch_pods(self) -> Watch:
        return self._cluster.watch("pods", self._config.namespace, label_selector=f"{EXECUTION_LABEL}={self._name}")

    def _wait_until_running(self, pods: Watch) -> None:
        """Return once the container runs or has run."""
        events: Watch | None = None
        try:
            while True:
                self._see(pods, patience.TICK_SECONDS)
                if self._pod is not None and self._pod.has_run:
                    return self._mark("running")
                if self._pod_deleted:
                    raise _Ended(diagnosis.deleted_early())
                if self._pod is not None:
                    self._waits_for = diagnosis.before_start(self._pod, image=self._config.image) or self._waits_for
                elif events is not None:
                    self._read_events(events)
                elif time.monotonic() > self._begin + EVENTS_AFTER_SECONDS:
                    events = self._call(self._watch_events, Watch.close)
                if self._waits_for is not None and self._waits_for.final:
                    raise _Ended(self._waits_for)
                self._check()
        finally:
            if events is not None:
                events.close()

    def _watch_events(self) -> Watch:
        """Watch what is told of the Job; only events say why its pod is refused."""
        return self._cluster.watch("events", self._config.namespace, field_selector=f"involvedObject.name={self._name}")

    def _read_events(self, events: Watch) -> None:
        for change, event in self._changes(events, 0):
            if change != "DELETED" and event.get("reason") == "FailedCreate":
                self._waits_for = diagnosis.refused_pod(event.get("message", ""))

    def _see(self, pods: Watch, timeout_seconds: float) -> None:
        """Take in what has happened to the pod."""
        self._take(self._changes(pods, timeout_seconds))

    def _take(self, changes: list[Change]) -> None:
        for change, seen in changes:
            name = seen["metadata"]["name"]
            if self._pod is not None and name != self._pod.name:
                continue
            if change == "DELETED":
                self._pod_deleted = True
            else:
                self._pod = diagnosis.view(seen)

    def _changes(self, watch: Watch, timeout_seconds: float) -> list[Change]:
        found = watch.read(timeout_seconds)
        if found is None:
            patience.pause(REOPEN_SECONDS, self._check)
            found = self._call(watch.reopen)
        return found

    def _collect(self, pods: Watch) -> None:
        """Read reply frames until ``end``; a log that was cut is read again from its beginning."""
        for attempt in count(1):
            over = self._pod_over()
            stream = self._call(self._open_log, Stream.close)
            seen = Transcript(self._nonce)
            try:
                self._follow(stream, seen, pods)
            finally:
                stream.close()
                # A log that is read anew may know less: the pod may be going, its beginning may be gone.
                if seen.ended or seen.kept_bytes >= self._transcript.kept_bytes:
                    self._transcript = seen
            if seen.ended:
                return
            # The log of a pod that was over before it was opened has told all it will ever tell.
            if over or self._pod_deleted:
                raise _Ended(diagnosis.after_start(self._pod, deleted=self._pod_deleted))
            if attempt > 1:
                self._ask_for_news(pods)
            patience.pause(REOPEN_SECONDS, self._check)

    def _ask_for_news(self, pods: Watch) -> None:
        """Learn whether the pod whose log has ended still runs; a watch may have died in silence."""
        until = time.monotonic() + LOG_GRACE_SECONDS
        while not self._pod_over():
            self._see(pods, patience.TICK_SECONDS)
            self._check()
            if time.monotonic() > until:
                return self._take(self._call(pods.reopen))
        return None

    def _pod_over(self) -> bool:
        return self._pod_deleted or (self._pod is not None and not self._pod.running)

    def _open_log(self) -> Stream:
        pod = self._pod.name if self._pod is not None else self._name
        try:
            return self._cluster.follow_log(self._config.namespace, pod, manifests.CONTAINER)
        except NotFound as error:
            raise _Ended(diagnosis.after_start(self._pod, deleted=True)) from error

    def _follow(self, stream: Stream, seen: Transcript, pods: Watch) -> None:
        """Read a log until its reply ends, or the log does, or nothing more can be expected of it."""
        over_since: float | None = None
        begin = time.monotonic()
        while (chunk := stream.read(patience.TICK_SECONDS)) is not None:
            seen.feed(chunk)
            if seen.started:
                self._mark("started")
            if seen.ended:
                return
            self._check()
            self._see(pods, 0)
            now = time.monotonic()
            if self._pod_over():
                # It is silence that ends it: a long reply may still be on its way.
                over_since = now if chunk or over_since is None else over_since
                if now > over_since + LOG_GRACE_SECONDS:
                    return
            overdue = self._limit() - REPLY_MARGIN_SECONDS + REREAD_SECONDS
            if "started" in self._marks and begin < overdue < now:
                return

    def _call(self, call: Callable[[], T], abandoned: Callable[[T], Any] = lambda _: None) -> T:
        """Make a call of the API; again and again while it fails for reasons that pass."""
        for attempt in count():
            try:
                answer = patience.interruptible(call, self._check, abandoned)
            except ClusterError as error:
                self._answered = self._answered or error.status is not None
                self._trouble = error
                # 400 is a log whose container the kubelet has not told the API server of yet.
                passes = patience.transient(error) or (error.status == 400 and error.target.startswith("pods/log"))
                wait = patience.backoff(error, attempt)
                if not passes or time.monotonic() + wait > self._patience(error):
                    raise
                patience.pause(wait, self._check)
            else:
                self._answered = True
                self._trouble = None
                return answer
        raise AssertionError("the loop has no end")

    def _patience(self, error: ClusterError) -> float:
        if isinstance(error, Unreachable) and not self._answered:
            return min(self._begin + UNREACHABLE_SECONDS, self._limit())
        return self._limit()

    def _limit(self) -> float:
        """Return when this execution is given up; the last stages only back up the runner's own deadline."""
        if "started" in self._marks:
            return self._marks["started"] + self._config.timeout_seconds + REPLY_MARGIN_SECONDS
        return self._schedule_deadline + (REPLY_MARGIN_SECONDS if "running" in self._marks else 0)

    def _check(self) -> None:
        """End the execution if its caller or the clock says so."""
        self._check_caller()
        if time.monotonic() <= self._limit():
            return
        if "started" in self._marks:
            raise _Ended(diagnosis.overran(self._config.timeout_seconds))
        if "running" in self._marks:
            raise _Ended(diagnosis.never_began())
        if "submitted" not in self._marks:
            if self._trouble is not None:
                raise self._trouble
            raise _Ended(diagnosis.no_answer(self._cluster.host, self._config.schedule_timeout_seconds))
        if self._waits_for is None:
            suspended = self._pod is None and self._is_suspended()
            self._waits_for = diagnosis.never_started(
                self._pod, self._config.schedule_timeout_seconds, suspended=suspended
            )
        raise _Ended(self._waits_for)

    def _check_caller(self) -> None:
        if self._aborted():
            self._delete_seconds = ABORTED_DELETE_SECONDS
            raise _Ended(diagnosis.aborted())

    def _is_suspended(self) -> bool:
        until = time.monotonic() + SUSPENDED_SECONDS

        def check() -> None:
            self._check_caller()
            if time.monotonic() > until:
                raise TimeoutError

        try:
            job = patience.interruptible(lambda: self._cluster.get_job(self._config.namespace, self._name), check)
        except (ClusterError, TimeoutError):
            return False
        return (job.get("spec") or {}).get("suspend") is True

    def _mark(self, phase: str) -> None:
        self._marks.setdefault(phase, time.monotonic())

    def _timings(self, wall_seconds: float) -> Timings:
        # A phase in which the execution ended lasted until the next mark that there is; those after it take no time.
        at = [self._marks["deleted"]]
        for phase in ("collected", "started", "running", "submitted"):
            at.insert(0, self._marks.get(phase, at[0]))
        submit, schedule, start, ran, delete = (b - a for a, b in pairwise([self._begin, *at]))
        run_ = min(ran, wall_seconds) if self._transcript.ended else ran
        return Timings(submit=submit, schedule=schedule, start=start, run=run_, collect=ran - run_, delete=delete)


@cache
def pod_files() -> dict[str, str]:
    """Return the programs that travel with the request, by the name that they have in the pod."""
    package = package_files("adk_gke_sandbox.pod")
    return {name: package.joinpath(name).read_text(encoding="utf-8") for name in manifests.POD_FILES}
