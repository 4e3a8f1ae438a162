"""The cold path: one Job with its ConfigMaps, from the create calls to the accepted deletion.

The Job is created first and owns everything else, so that whatever happens to the client, one deletion,
the Job's own deadline or its TTL removes it all. What an answer means is decided in ``diagnosis``.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files as package_files
from itertools import count
from typing import Any, Final

from adk_gke_sandbox.cluster import diagnosis, manifests
from adk_gke_sandbox.cluster.api import Cluster, resource
from adk_gke_sandbox.cluster.diagnosis import Diagnosis
from adk_gke_sandbox.cluster.streams import Stream
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CREATOR_ANNOTATION
from adk_gke_sandbox.errors import AlreadyExists, ClusterError, Unreachable
from adk_gke_sandbox.execution import Outcome, Reason, Request
from adk_gke_sandbox.paths.attempt import Attempt, Interrupted, Stage, backoff, transient
from adk_gke_sandbox.paths.pod_watch import REOPEN_SECONDS, PodWatch
from adk_gke_sandbox.paths.reply import pump
from adk_gke_sandbox.protocol import Transcript, encode_request, new_nonce

log: Final = logging.getLogger("adk_gke_sandbox")

REREAD_SECONDS: Final = 3.0
"""How long after the program's timeout a silent log is opened again."""

LOG_SECONDS: Final = 2.0
"""How long the log of a pod that has ended may be silent before it counts as read."""

DELETE_SECONDS: Final = 4.0
"""How long the return waits for the deletion to be accepted; a thread goes on trying for longer."""

ABORTED_DELETE_SECONDS: Final = 1.5
"""The same after an abort: its caller wants to go on."""

DELETE_TRIES: Final = 8
SUSPENDED_SECONDS: Final = 2.0
"""How long the answer is awaited whether the Job is suspended, once the schedule deadline has passed."""

SANDBOXES_MAX: Final = 3
"""Sandboxes that one execution may use, where the cluster takes them away before their container has started."""


def run(
    cluster: Cluster, config: ExecutorConfig, request: Request, attempt: Attempt, *, name: str, tags: manifests.Tags
) -> Outcome:
    """Run a request in a Job of its own and leave nothing behind.

    A sandbox that the cluster takes away is replaced by another one on proof that its container has never started:
    ``pod_view.never_started``.

    Args:
        cluster: Connection to the API server.
        config: Settings of the executor.
        request: What to run.
        attempt: Its clock, its deadlines and its abort; connected.
        name: Name of the execution and of its Job.
        tags: Labels and annotations of its objects, beside the package's own.

    Returns:
        What came of it. Trouble with the cluster is an outcome too, never an exception.
    """
    for number in range(1, SANDBOXES_MAX + 1):
        sandbox = _Sandbox(cluster, config, request, attempt, name if number == 1 else f"{name}-{number}", tags)
        outcome = sandbox.run()
        if not sandbox.replaceable or attempt.clock.now() > attempt.schedule_deadline:
            break
        attempt = attempt.again()
    return outcome


@dataclass(eq=False)
class _Sandbox:
    """One Job and its pod, while they last."""

    _cluster: Cluster
    _config: ExecutorConfig
    _request: Request
    _attempt: Attempt
    _name: str
    _tags: manifests.Tags
    _nonce: str = field(default_factory=new_nonce)
    _creator: str = field(default_factory=new_nonce)
    _job_may_exist: bool = False
    _delete_seconds: float = DELETE_SECONDS
    _pod: PodWatch | None = None
    replaceable: bool = False

    def __post_init__(self) -> None:
        self._transcript = self._new_transcript()

    def run(self) -> Outcome:
        """Run the request; see the module's ``run``."""
        try:
            found = self._submit()
            if found is None:
                pod = self._pod = PodWatch(self._cluster, self._config, self._attempt, self._name)
                with closing(pod):
                    found = pod.wait_until_running() or self._collect(pod)
        except Interrupted as interruption:
            found = self._interrupted(aborted=interruption.aborted)
        except ClusterError as error:
            found = diagnosis.refused_call(error, namespace=self._config.namespace)
        finally:
            self._attempt.reach(Stage.COLLECTED)
            if self._job_may_exist:
                self._delete()
            self._attempt.reach(Stage.DELETED)
        self.replaceable = found is not None and found.again
        return self._outcome(found)

    def _outcome(self, found: Diagnosis | None) -> Outcome:
        """Return what came of it: what the reply says, or where it does not say all, what the cluster does."""
        outcome = self._transcript.outcome(self._name)
        if found is not None and not self._transcript.ended:
            if self._transcript.exited and found.reason is not Reason.ABORTED:
                outcome = replace(outcome, message=f"{outcome.message}. {found.message}")
            else:
                outcome = replace(outcome, reason=found.reason, message=found.message)
        ended = self._transcript.ended
        seen = None if ended or self._pod is None or self._pod.view is None else self._pod.view.exit_code
        # That the program has not begun is known from the ``end`` frame alone.
        may_have_begun = self._attempt.has(Stage.RUNNING) or (found is not None and found.may_have_begun)
        return replace(
            outcome,
            started=outcome.started or (may_have_begun and not ended),
            # The supervisor ends with the exit code of the program.
            exit_code=seen if outcome.exit_code is None else outcome.exit_code,
            timings=self._attempt.timings(outcome.wall_seconds if self._transcript.exited else None),
        )

    # Create and delete

    def _submit(self) -> Diagnosis | None:
        document = encode_request(self._request, self._nonce)
        parts = manifests.split_request(document, pod_files())
        if len(parts) > manifests.CONFIG_MAPS_MAX:
            return diagnosis.too_large(len(document), manifests.REQUEST_BYTES)
        uid = self._create_job(manifests.job(self._config, self._name, parts, self._tags))
        for index, data in enumerate(parts):
            self._create_config_map(manifests.config_map(self._config, self._name, index, data, uid, self._tags))
        self._attempt.reach(Stage.SUBMITTED)
        return None

    def _create_job(self, manifest: dict[str, Any]) -> str:
        tries = count(1)
        metadata = manifest["metadata"]
        # The pod's are the same object.
        metadata["annotations"] = {**metadata["annotations"], CREATOR_ANNOTATION: self._creator}

        def create() -> str:
            first = next(tries) == 1
            self._job_may_exist = True
            try:
                made = self._cluster.request("create", self._path("batch/v1", "jobs"), body=manifest)
            except AlreadyExists:
                # The answer to an earlier try may have been lost; or somebody has chosen the same name.
                made = {} if first else self._cluster.request("get", self._job_path)
                annotations = (made.get("metadata") or {}).get("annotations") or {}
                if annotations.get(CREATOR_ANNOTATION) != self._creator:
                    self._job_may_exist = False
                    raise
            except ClusterError as error:
                if first and error.status is not None and error.status < 500:
                    self._job_may_exist = False
                raise
            if not (uid := (made.get("metadata") or {}).get("uid")):
                message = f"the API server {self._cluster.host} has answered without a Job"
                remedy = "Check that the kubeconfig names a Kubernetes API server, and no proxy answers in its place"
                raise Unreachable(message, remedy, verb="create", target=self._job_path, status=None)
            return str(uid)

        # A Job that comes into being after the attempt was given up is deleted by the thread that made it.
        return self._attempt.call(create, lambda _: self._cluster.delete(self._job_path))

    def _create_config_map(self, manifest: dict[str, Any]) -> None:
        tries = count(1)

        def create() -> None:
            first = next(tries) == 1
            try:
                self._cluster.request("create", self._path("v1", "configmaps"), body=manifest)
            except AlreadyExists:
                if first:
                    raise

        self._attempt.call(create)

    def _delete(self) -> None:
        """Delete the Job. If the API server cannot be reached, the Job's own deadline and TTL remove it."""
        done = threading.Event()

        def delete() -> None:
            for attempt in range(DELETE_TRIES):
                try:
                    self._cluster.delete(self._job_path)
                    break
                except ClusterError as error:
                    if not transient(error) or attempt == DELETE_TRIES - 1:
                        told = {"execution": self._name, "invocation_id": self._tags.invocation_id}
                        log.warning("execution %s: %s. Its deadline and TTL remove it", self._name, error, extra=told)
                        break
                    self._attempt.clock.sleep(backoff(error, attempt))
            done.set()

        threading.Thread(target=delete, name="adk-gke-sandbox-delete", daemon=True).start()
        self._attempt.clock.wait(done, self._delete_seconds)

    # Collect

    def _collect(self, pod: PodWatch) -> Diagnosis | None:
        """Read the reply to its end; a log that was cut is read again from its beginning.

        Returns:
            Why the reply has no ``end`` frame; ``None`` if it has.
        """
        reads = 0
        while True:
            over = pod.over
            try:
                stream = self._attempt.call(lambda: self._open_log(pod), Stream.close)
            except ClusterError as error:
                # 400: the kubelet has no container of this pod, or has not told the API server of it yet.
                if error.status not in (400, 404):
                    raise
                if self._attempt.has(Stage.RUNNING):
                    if error.status == 404:
                        return diagnosis.after_start(pod.view, deleted=True)
                elif lost := pod.without_log():
                    return lost
            else:
                reads += 1
                # What has a log may have begun.
                self._attempt.reach(Stage.RUNNING)
                self._read_log(stream, pod)
                if self._transcript.ended and (reads > 1 or not self._transcript.gap):
                    return None
                # The log of a pod that was over before it was opened has told all it will ever tell, unless it was cut.
                if pod.deleted or (over and not stream.cut):
                    return None if self._transcript.ended else diagnosis.after_start(pod.view, deleted=pod.deleted)
                if reads > 1:
                    self._ask_for_news(pod)
            self._attempt.pause(REOPEN_SECONDS)

    def _open_log(self, pod: PodWatch) -> Stream:
        name = pod.view.name if pod.view is not None else self._name
        query = {"container": manifests.CONTAINER, "follow": "true"}
        return self._cluster.stream(
            "get", self._path("v1", "pods", name, "log"), query=query, wake=self._attempt.wake.set
        )

    def _read_log(self, stream: Stream, pod: PodWatch) -> None:
        """Read a log until its reply ends, or the log does, or nothing more can be expected of it."""
        seen = self._new_transcript()
        opened = heard = self._attempt.clock.now()

        def enough(arrived: bool) -> bool:
            nonlocal heard
            pod.look()
            now = self._attempt.clock.now()
            if arrived:
                heard = now
                if seen.kept_bytes > self._transcript.kept_bytes:
                    self._attempt.progress()
                return False
            # It is silence that ends it: a long reply may still be on its way.
            if pod.over and now > heard + LOG_SECONDS:
                return True
            over = self._attempt.program_deadline
            silent = now > max(over, heard) + REREAD_SECONDS
            return silent and opened < over + REREAD_SECONDS and self._attempt.has(Stage.STARTED)

        try:
            pump(stream, seen, self._attempt, enough)
        finally:
            # A log that is read anew may know less: the pod may be going, its beginning may be gone.
            self._transcript = max(seen, self._transcript, key=_knowledge)

    def _ask_for_news(self, pod: PodWatch) -> None:
        """Learn whether the pod whose log has ended still runs; a watch may have died in silence."""
        until = self._attempt.clock.now() + LOG_SECONDS
        while not pod.over:
            if self._attempt.clock.now() > until:
                return pod.list_again()
            self._attempt.wait()
            pod.look()
        return None

    # Give up

    def _interrupted(self, *, aborted: bool) -> Diagnosis:
        """Return what it means that the caller, or the clock, ended the attempt."""
        attempt = self._attempt
        if aborted:
            self._delete_seconds = ABORTED_DELETE_SECONDS
            return diagnosis.aborted()
        if attempt.has(Stage.STARTED):
            if attempt.has(Stage.EXITED) or attempt.arriving:
                return diagnosis.late_reply()
            return diagnosis.overran(self._config.timeout_seconds)
        if attempt.has(Stage.RUNNING):
            return diagnosis.never_began()
        if not attempt.has(Stage.SUBMITTED):
            if attempt.trouble is not None:
                return diagnosis.refused_call(attempt.trouble, namespace=self._config.namespace)
            return diagnosis.no_answer(self._cluster.host, self._config.schedule_timeout_seconds)
        view = self._pod.view if self._pod is not None else None
        if view is not None and view.going:
            return diagnosis.lost_early(view, last=False)
        if self._pod is not None and self._pod.waits_for is not None:
            return self._pod.waits_for
        job: dict[str, Any] = {}
        try:
            if view is None:
                job = attempt.question(SUSPENDED_SECONDS).interruptible(
                    lambda: self._cluster.request("get", self._job_path)
                )
        except (ClusterError, Interrupted) as error:
            if isinstance(error, Interrupted) and error.aborted:
                return self._interrupted(aborted=True)
        suspended = (job.get("spec") or {}).get("suspend") is True
        return diagnosis.never_scheduled(view, self._config.schedule_timeout_seconds, suspended=suspended)

    def _new_transcript(self) -> Transcript:
        request = self._request
        return Transcript(self._nonce, file_count=request.limits.file_count, reply_bytes=request.reply_bytes)

    def _path(self, group_version: str, plural: str, name: str = "", sub: str = "") -> str:
        return resource(group_version, plural, self._config.namespace, name, sub)

    @property
    def _job_path(self) -> str:
        return self._path("batch/v1", "jobs", self._name)


def _knowledge(transcript: Transcript) -> tuple[bool, bool, int]:
    """Return how much a transcript tells, to be compared."""
    return transcript.ended and not transcript.gap, transcript.exited, transcript.kept_bytes


@cache
def pod_files() -> dict[str, str]:
    """Return the programs that travel with the request, by the name that they have in the pod."""
    package = package_files("adk_gke_sandbox.pod")
    return {name: package.joinpath(name).read_text(encoding="utf-8") for name in manifests.POD_FILES}
