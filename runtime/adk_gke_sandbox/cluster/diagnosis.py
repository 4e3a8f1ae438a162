"""What the cluster says of a pod or a refused call becomes a ``Reason`` and a sentence to act on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from adk_gke_sandbox.cluster.pod_view import PodView, never_started
from adk_gke_sandbox.decoder import visible
from adk_gke_sandbox.errors import ClusterError, Forbidden, NotFound, Unauthorized
from adk_gke_sandbox.execution import Reason

_IMAGE_WAITS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_IMAGE_FATAL: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_CONTAINER_FATAL: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_PULL_REFUSED: Final = re.compile(
    r"(?<!host )not found|denied|(?<!connection )refused|unauthorized|forbidden|manifest unknown", re.IGNORECASE
)
"""A registry's answer that will not change by asking again. A registry that does not answer may do so later."""

_NO_HANDLER: Final = re.compile(
    r"no runtime for .+ is configured|runtime handler .+ not|RuntimeClass .*not found", re.I
)
"""What containerd, CRI-O, the kubelet and the API server say of a RuntimeClass, or its handler, that is not there."""

_LIVE_QUOTA: Final = re.compile(r"exceeded quota: ([^,]+),")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an execution cannot go on.

    Attributes:
        reason: The reason of the outcome.
        message: Cause and cure in one sentence or two.
        final: Whether waiting is useless; otherwise it is what to say at the schedule deadline.
        again: Whether another sandbox may fare better, and it is proven that the container never started in this one.
        may_have_begun: Whether the program may have begun although the container was never seen running.
    """

    reason: Reason
    message: str
    final: bool = True
    again: bool = False
    may_have_begun: bool = False


def lost_early(pod: PodView | None, *, last: bool = True) -> Diagnosis:
    """Return what it means that a pod is gone, or has failed, and its container was never seen running.

    Args:
        pod: The pod as it was seen last.
        last: Whether that is its last state. It is not for a pod that vanished while nobody watched.
    """
    proven = last and pod is not None and never_started(pod)
    if pod is not None and pod.pushed_out:
        return replace(_pushed_out(pod), again=proven, may_have_begun=not proven)
    if pod is not None and pod.phase == "Failed" and not pod.deleting:
        text = f"the pod failed before its container was seen running: {_line(pod.message) or pod.reason}"
        return Diagnosis(Reason.SANDBOX_LOST, text, may_have_begun=not proven)
    cause = "the pod was deleted by someone else before it was seen running"
    text = f"{cause}. Look for what drains nodes or deletes pods there"
    return Diagnosis(Reason.SANDBOX_LOST, text, again=proven, may_have_begun=not proven)


def before_start(pod: PodView, *, image: str) -> Diagnosis | None:
    """Return what keeps a pod's container from starting."""
    why, said = pod.waiting_reason, _line(pod.waiting_message) or pod.waiting_reason
    if why in _IMAGE_FATAL or (why in _IMAGE_WAITS and _PULL_REFUSED.search(pod.waiting_message)):
        remedy = "Check the name, that it was pushed, and that the nodes may read its registry"
        return Diagnosis(Reason.IMAGE_UNAVAILABLE, f"the node cannot get the image {image}: {said}. {remedy}")
    if why in _IMAGE_WAITS:
        text = f"the image {image} could not be pulled in time: {said}. Check that the nodes reach its registry"
        return Diagnosis(Reason.IMAGE_UNAVAILABLE, text, final=False)
    if why in _CONTAINER_FATAL:
        text = f"the container could not be created: {said}. Check the image and the namespace's configuration"
        # A start that timed out may have taken effect.
        return Diagnosis(Reason.SANDBOX_LOST, text, may_have_begun=pod.created)
    if pod.unscheduled:
        remedy = "Check the size and taints of the gVisor node pool against the executor's requests"
        return Diagnosis(Reason.UNSCHEDULABLE, f"no node took the pod: {_line(pod.unscheduled)}. {remedy}", final=False)
    return None


def never_scheduled(pod: PodView | None, waited_seconds: float, *, suspended: bool) -> Diagnosis:
    """Return what to say at the schedule deadline when nothing has told a cause."""
    waited = f"within schedule_timeout_seconds={waited_seconds:g}"
    if suspended:
        text = f"no pod appeared {waited}: the Job is suspended. Look for what suspends Jobs there, such as Kueue"
    elif pod is None:
        text = f"no pod appeared {waited}. Check that the Job controller runs"
    else:
        text = f"the pod did not start {waited} ({pod.waiting_reason or pod.phase}). Check the node it is on"
    return Diagnosis(Reason.UNSCHEDULABLE, text)


def never_began() -> Diagnosis:
    """Return what to say when the container runs and the program in it does not start in time."""
    text = "the container runs but the program did not start in time. Check the load of its node"
    return Diagnosis(Reason.SANDBOX_LOST, text)


def aborted() -> Diagnosis:
    """Return what it means that the caller gave up."""
    return Diagnosis(Reason.ABORTED, "the caller aborted the execution")


def overran(timeout_seconds: float) -> Diagnosis:
    """Return what to say when the program's time is over and the runner has not said so itself."""
    text = f"the program was killed after {timeout_seconds:g} s. Do less, or raise timeout_seconds"
    return Diagnosis(Reason.DEADLINE_EXCEEDED, text)


def late_reply() -> Diagnosis:
    """Return what to say when a reply is still on its way after all the time that a call may take."""
    text = "the rest of the reply did not arrive in time. Check the network to the API server, or return less"
    return Diagnosis(Reason.REPLY_INCOMPLETE, text)


def no_answer(host: str, waited_seconds: float) -> Diagnosis:
    """Return what it means that the API server keeps a create call waiting until the schedule deadline."""
    cause = f"the API server {host} did not answer within schedule_timeout_seconds={waited_seconds:g}"
    return Diagnosis(Reason.API_UNAVAILABLE, f"{cause}. Check its load and the network to it")


def no_credentials(waited_seconds: float) -> Diagnosis:
    """Return what it means that the kubeconfig's plugin keeps the connection waiting until the schedule deadline."""
    waited = f"longer than schedule_timeout_seconds={waited_seconds:g}"
    cause = f"reading the kubeconfig, or the plugin that it names, took {waited}"
    return Diagnosis(Reason.API_UNAVAILABLE, f"{cause}. Run its command in a shell to see what it waits for")


def too_large(size_bytes: int, most_bytes: int) -> Diagnosis:
    """Return what it means that a request document does not fit."""
    cause = f"code and input files make a request of {size_bytes / 2**20:.1f} MiB (files count 4/3 of their size)"
    text = f"{cause} and {most_bytes / 2**20:.1f} MiB is the most. Send smaller files"
    return Diagnosis(Reason.REQUEST_TOO_LARGE, text)


def _pushed_out(pod: PodView) -> Diagnosis:
    cause = f"the node pushed the pod out: {_line(pod.disruption or pod.message) or pod.reason}"
    return Diagnosis(Reason.EVICTED, f"{cause}. Run it again; check the node's memory and disk if it happens often")


def from_event(event: Mapping[str, Any], *, runtime_class: str | None) -> Diagnosis | None:
    """Return what an event of a Job, or of its pod, tells about why the container does not run.

    Args:
        event: The event as the API server sends it.
        runtime_class: RuntimeClass of the settings, to be named.
    """
    reason, message = event.get("reason"), _line(str(event.get("message", "")))
    if reason in ("FailedCreate", "FailedCreatePodSandBox") and _NO_HANDLER.search(message):
        return Diagnosis(
            Reason.ISOLATION_MISSING,
            f"the sandbox cannot have the RuntimeClass {runtime_class!r}: {message}. Check that it exists "
            "and that its handler (runsc, on GKE gvisor) is set up on the node; on GKE both come with a node pool that "
            "has GKE Sandbox",
        )
    if reason == "FailedCreate":
        return refused_pod(message)
    if reason not in _EVENTS:
        return None
    cause, remedy = _EVENTS[reason]
    return Diagnosis(Reason.UNSCHEDULABLE, f"{cause}: {message}. {remedy}", final=False)


_SANDBOX_REMEDY: Final = "Check the container runtime and the network plugin of the node"
_MOUNT_REMEDY: Final = "Check that nobody deletes ConfigMaps in the namespace"
_EVENTS: Final = {
    "FailedCreatePodSandBox": ("the node could not make the pod's sandbox", _SANDBOX_REMEDY),
    "FailedMount": ("the node could not mount a volume of the pod", _MOUNT_REMEDY),
}
"""Events of a pod that often pass, by reason: what to say of them at the schedule deadline."""


def refused_pod(event_message: str) -> Diagnosis:
    """Return why the Job controller could not create the pod, from its ``FailedCreate`` event."""
    message = _line(event_message)
    if quota := _LIVE_QUOTA.search(message):
        remedy = "Wait for other executions to end, or have the platform team raise it"
        text = f"the quota {quota[1]!r} has no room for the pod: {message}. {remedy}"
        return Diagnosis(Reason.QUOTA_EXCEEDED, text, final=False)
    remedy = "Compare the executor's settings with the stack's: `adk-gke-sandbox contract show`"
    # Pods that are created at the same moment race for the quota's record; the Job controller tries again.
    final = "the object has been modified" not in message
    return Diagnosis(Reason.ADMISSION_DENIED, f"the cluster refused the pod: {message}. {remedy}", final=final)


def refused_call(error: ClusterError, *, namespace: str) -> Diagnosis:
    """Return what a refused or unanswered API call means for the execution."""
    reason, remedy = Reason.API_UNAVAILABLE, ""
    if isinstance(error, Unauthorized):
        cause = "the API server does not accept the credentials (401)"
        remedy = "Mint a new kubeconfig, or run `pulumi up` again"
        return Diagnosis(reason, f"{cause}: the token has expired or its ServiceAccount is gone. {remedy}")
    if isinstance(error, NotFound):
        remedy = f"Check that the namespace {namespace!r} exists: `pulumi up` makes it"
    elif isinstance(error, Forbidden) and "exceeded quota" in error.message:
        reason = Reason.QUOTA_EXCEEDED
        remedy = "Wait for other executions to end, or have the platform team raise the quota"
    elif isinstance(error, Forbidden) and "system:anonymous" in error.message:
        remedy = (
            "No credentials reached the API server: check that the plugin that the kubeconfig names is installed and "
            "logged in (for GKE gke-gcloud-auth-plugin and gcloud auth login)"
        )
    elif isinstance(error, Forbidden) and "cannot " in error.message:
        reason = Reason.FORBIDDEN
        remedy = (
            f"Check that the namespace {namespace!r} is the stack's own and that its Role is bound to this identity: "
            "`pulumi up` does both"
        )
    elif error.too_large:
        reason = Reason.REQUEST_TOO_LARGE
        remedy = (
            "Send less code and smaller input files; if they are small, look for a proxy in front of the API server"
        )
    elif isinstance(error, Forbidden) or error.status in (400, 422):
        reason = Reason.ADMISSION_DENIED
    else:
        remedy = error.remedy
    return Diagnosis(reason, f"{error.message}. {remedy}" if remedy else error.message)


def after_start(pod: PodView | None, *, deleted: bool = False) -> Diagnosis:
    """Return what became of a sandbox whose reply stream ended without an ``end`` frame.

    Args:
        pod: The pod as it was seen last.
        deleted: Whether it is gone since.
    """
    if pod is not None and pod.pushed_out:
        return _pushed_out(pod)
    if pod is None or deleted or pod.deleting:
        return Diagnosis(Reason.SANDBOX_LOST, "the pod was deleted by someone else while the program ran")
    if pod.terminated_reason == "OOMKilled":
        text = "the sandbox was killed at its memory limit. Use less, or raise mem_limit"
        return Diagnosis(Reason.MEMORY_LIMIT, text)
    if pod.exit_code == 137:
        cause = "the program, or all of the sandbox, was killed (exit code 137), often for memory"
        return Diagnosis(Reason.SANDBOX_LOST, f"{cause}. Use less memory, or raise mem_limit")
    detail = pod.terminated_message or pod.terminated_reason or pod.message or pod.phase
    code = "" if pod.exit_code is None else f" with exit code {pod.exit_code}"
    return Diagnosis(Reason.SANDBOX_LOST, f"the sandbox ended{code} without a result: {_line(detail) or 'no detail'}")


def _line(text: str, most: int = 600) -> str:
    """Return a message of the cluster as one line without its final stop; a program may have written it."""
    flat = visible(" ".join(text.split())).rstrip(".")
    return flat if len(flat) <= most else flat[: most - 1] + "…"
