"""Watches the pod of one sandbox: until there may be a log to read, and while it is read.

What the states of a pod mean is decided in ``diagnosis``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adk_gke_sandbox.cluster import diagnosis
from adk_gke_sandbox.cluster.api import Cluster, resource
from adk_gke_sandbox.cluster.diagnosis import Diagnosis
from adk_gke_sandbox.cluster.pod_view import PodView, view
from adk_gke_sandbox.cluster.streams import Change, Watch
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTION_LABEL
from adk_gke_sandbox.paths.attempt import Attempt, Stage

JOB_EVENTS_SECONDS: Final = 0.7
"""When to ask for the Job's events if no pod has appeared; it usually takes a tenth of that."""

POD_EVENTS_SECONDS: Final = 2.0
"""How long nothing must have happened to a pod before its events are asked for."""

REOPEN_SECONDS: Final = 0.3
"""The shortest time between two openings of a watch or a log."""

LAST_WORD_SECONDS: Final = 10.0
"""How long the last state of a pod that is being deleted is awaited."""


class PodWatch:
    """The pod of a Job, as the API server tells of it.

    Attributes:
        view: Its state as it was seen last; ``None`` before there is one.
        deleted: Whether it is gone.
        waits_for: Why its container does not run yet, as far as anything has told.
    """

    def __init__(self, cluster: Cluster, config: ExecutorConfig, attempt: Attempt, job: str) -> None:
        """Open the watch.

        Raises:
            ClusterError: the cluster refuses.
            Interrupted: the caller gave up, or the deadline has passed.
        """
        self.view: PodView | None = None
        self.deleted = False
        self.waits_for: Diagnosis | None = None
        self._last_seen = True
        self._cluster = cluster
        self._config = config
        self._attempt = attempt
        self._job = job
        self._changed = self._going_since = attempt.clock.now()
        self._pods = self._open("pods", {"labelSelector": f"{EXECUTION_LABEL}={job}"})

    def close(self) -> None:
        """End the watch."""
        self._pods.close()

    @property
    def over(self) -> bool:
        """Whether the container will not run any more: it has ended, or its pod is gone."""
        return self.deleted or (self.view is not None and self.view.over)

    def look(self) -> None:
        """Take in what has happened to the pod."""
        self._take(self._changes(self._pods))

    def list_again(self) -> None:
        """Look at a fresh list: a watch may have died in silence."""
        self._take(self._attempt.call(self._pods.reopen))

    def wait_until_running(self) -> Diagnosis | None:
        """Wait until there may be a log to read.

        Returns:
            Why there will be no log; ``None`` if there may be one, which is to be read now.

        Raises:
            ClusterError: the cluster refuses.
            Interrupted: the caller gave up, or the deadline has passed.
        """
        events: Watch | None = None
        source = ""
        try:
            while True:
                self.look()
                if self._attempt.has(Stage.RUNNING):
                    return None
                if self.over:
                    return diagnosis.lost_early(self.view, last=self._last_seen)
                if self.view is not None and self.view.going:
                    # Its container may have started unseen: the log tells.
                    self._going_since = self._attempt.clock.now()
                    return None
                if (wanted := self._events_of(source)) != source:
                    if events is not None:
                        events.close()
                    source = wanted
                    events = self._open("events", {"fieldSelector": f"involvedObject.name={wanted}"})
                if found := self._cause(events):
                    self.waits_for = found
                    if found.final:
                        return found
                self._attempt.wait()
        finally:
            if events is not None:
                events.close()

    def without_log(self) -> Diagnosis | None:
        """Return what it means that a pod which is being taken away has no log; ``None`` to try the log again."""
        self.look()
        waited = self._attempt.clock.now() > self._going_since + LAST_WORD_SECONDS
        if not self._attempt.has(Stage.RUNNING) and (self.over or waited):
            return diagnosis.lost_early(self.view, last=self._last_seen)
        return None

    def _events_of(self, source: str) -> str:
        """Return whose events to read; nobody's while all goes well, so that a good run needs no extra call.

        Args:
            source: Whose events are read now.
        """
        if self.view is None:
            return self._job if self._attempt.seconds_since(Stage.SUBMITTED) > JOB_EVENTS_SECONDS else ""
        waits = self._attempt.clock.now() > self._changed + POD_EVENTS_SECONDS
        return self.view.name if waits or source == self.view.name else ""

    def _cause(self, events: Watch | None) -> Diagnosis | None:
        """Return why the container does not run, if there is news of it: by the pod's status, or by events."""
        told = None
        for change, event in self._changes(events) if events is not None else ():
            if change != "DELETED":
                told = diagnosis.from_event(event, runtime_class=self._config.runtime_class) or told
        status = diagnosis.before_start(self.view, image=self._config.image) if self.view is not None else None
        return status or told

    def _open(self, plural: str, selector: Mapping[str, str]) -> Watch:
        path = resource("v1", plural, self._config.namespace)
        return self._attempt.call(
            lambda: self._cluster.watch(path, query=selector, wake=self._attempt.wake.set), Watch.close
        )

    def _changes(self, watch: Watch) -> list[Change]:
        found = watch.read()
        if found is None:
            self._attempt.pause(REOPEN_SECONDS)
            found = self._attempt.call(watch.reopen)
        return found

    def _take(self, changes: list[Change]) -> None:
        for change, pod in changes:
            if self.view is not None and pod["metadata"]["name"] != self.view.name:
                continue
            # A deletion has the pod's last state, except where a fresh list lacked the pod: then there is no status.
            self._last_seen = "status" in pod
            if self._last_seen or self.view is None:
                if (seen := view(pod)) != self.view:
                    self._changed = self._attempt.clock.now()
                    # What kept it waiting before may be over.
                    self.waits_for = None
                self.view = seen
            if self.view.has_run:
                self._attempt.reach(Stage.RUNNING)
            self.deleted = self.deleted or change == "DELETED"
