"""The little of a pod that decides something, and what it proves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adk_gke_sandbox.cluster.manifests import CONTAINER

_STATUS_UNKNOWN: Final = "ContainerStatusUnknown"
"""What the kubelet writes for a container that it does not find when it has ended a pod
(https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/kubelet/status/status_manager.go, ``TerminatePod``)."""

_PUSHED_OUT: Final = frozenset({"Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated", "NodeShutdown"})

_NO_KUBELET: Final = frozenset({"NodeLost", "Shutdown", "Terminated", "NodeShutdown"})
"""Reasons that prove nothing about the container: the control plane writes NodeLost, a node that goes down the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """The little of a pod that decides something. Absent fields are empty, not guessed."""

    name: str
    node: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    unscheduled: str = ""
    """The scheduler's message while no node took the pod."""
    waiting_reason: str = ""
    waiting_message: str = ""
    running: bool = False
    terminated_reason: str = ""
    terminated_message: str = ""
    exit_code: int | None = None
    """Exit code of the container; ``None`` while it has not ended, and where the kubelet never made the container."""
    reported: bool = False
    """Whether the kubelet has told of the container at all."""
    created: bool = False
    """Whether the kubelet has ever made the container."""
    deleting: bool = False
    disruption: str = ""
    """Why the cluster takes the pod away: preempted, drained, its node lost or under pressure."""

    @property
    def has_run(self) -> bool:
        """Whether the container runs or has run."""
        return self.running or self.exit_code is not None

    @property
    def over(self) -> bool:
        """Whether the container will not run any more; other containers of the pod may."""
        return self.exit_code is not None or self.phase in ("Failed", "Succeeded")

    @property
    def going(self) -> bool:
        """Whether the cluster is taking the pod away."""
        return self.deleting or self.pushed_out

    @property
    def pushed_out(self) -> bool:
        """Whether the node, or the cluster for the node's sake, takes the pod away."""
        return bool(self.disruption) or self.reason in _PUSHED_OUT


def view(pod: Mapping[str, Any]) -> PodView:
    """Return the view of a pod as the API server sends it."""
    status = pod.get("status") or {}
    # By its name: a service mesh adds containers of its own.
    statuses = status.get("containerStatuses") or []
    container: Mapping[str, Any] = next((found for found in statuses if found.get("name") == CONTAINER), {})
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    terminated = state.get("terminated") or {}
    conditions = {(found.get("type"), found.get("status")): found for found in status.get("conditions") or []}
    # https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
    disrupted = conditions.get(("DisruptionTarget", "True"), {})
    disruption = disrupted and (disrupted.get("message") or disrupted.get("reason") or "no detail")
    created = any(container.get(field) for field in ("containerID", "restartCount", "lastState"))
    return PodView(
        name=pod["metadata"]["name"],
        node=(pod.get("spec") or {}).get("nodeName", ""),
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        unscheduled=conditions.get(("PodScheduled", "False"), {}).get("message", ""),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running="running" in state,
        terminated_reason=terminated.get("reason", ""),
        terminated_message=terminated.get("message", ""),
        exit_code=terminated.get("exitCode") if created or terminated.get("reason") != _STATUS_UNKNOWN else None,
        reported=bool(container),
        created=created or bool(terminated.get("startedAt")),
        deleting=bool(pod["metadata"].get("deletionTimestamp")),
        disruption=disruption or "",
    )


def never_started(pod: PodView) -> bool:
    """Return whether it is proven that the container of a pod that is gone, or has failed, never started.

    A status that says ``waiting`` is no proof: it may be older than the start. These are:

    * The pod has no node, and no kubelet has told of it: nothing has ever been near it.
    * The kubelet has ended the pod, and did not find the container, of which it never had an id. The kubelet writes
      this once the runtime has told it that nothing of the pod runs
      (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination).
    * The kubelet has refused the pod: it has failed with a reason, and the kubelet has told of no container. NodeLost
      is no proof: the control plane writes it.
    """
    if pod.created or pod.has_run:
        return False
    if not pod.node and not pod.reported:
        return True
    if pod.phase != "Failed":
        return False
    return pod.terminated_reason == _STATUS_UNKNOWN or (
        not pod.reported and bool(pod.reason) and pod.reason not in _NO_KUBELET
    )
