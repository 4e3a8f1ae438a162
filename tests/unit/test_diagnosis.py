"""What each state of a pod, event or answer of the API becomes: a reason, one sentence, and whether waiting helps."""

from __future__ import annotations

from typing import Any

import pytest

from adk_gke_sandbox.cluster import diagnosis
from adk_gke_sandbox.cluster.diagnosis import Diagnosis
from adk_gke_sandbox.cluster.manifests import CONTAINER
from adk_gke_sandbox.cluster.pod_view import PodView, never_started, view
from adk_gke_sandbox.errors import (
    AlreadyExists,
    ClusterError,
    Forbidden,
    NotFound,
    Unauthorized,
    Unreachable,
)
from adk_gke_sandbox.execution import Reason

IMAGE = "registry/python"


def pod(
    state: dict[str, Any] | None = None, *, container: Any = None, node: str = "n", **status: Any
) -> dict[str, Any]:
    containers = [] if state is None else [{"name": CONTAINER, "state": state, **(container or {})}]
    spec = {"nodeName": node} if node else {}
    return {"metadata": {"name": "pod-1"}, "spec": spec, "status": {"containerStatuses": containers, **status}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return pod({"waiting": {"reason": reason, "message": message}}, phase="Pending")


def condition(kind: str, status: str, **fields: str) -> dict[str, Any]:
    return pod(conditions=[{"type": "Ready", "status": "False"}, {"type": kind, "status": status, **fields}])


PREEMPTED = condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="preempted by a better one.")

PULL = "the node cannot get the image registry/python: "
PULL_CURE = ". Check the name, that it was pushed, and that the nodes may read its registry"
PUSHED_CURE = ". Run it again; check the node's memory and disk if it happens often"
CONTAINER_CURE = ". Check the image and the namespace's configuration"
DELETED = (
    "the pod was deleted by someone else before it was seen running. Look for what drains nodes or deletes pods there"
)

BEFORE_START = {
    "image has no valid name": (
        waiting("InvalidImageName", "couldn't parse image name"),
        (Reason.IMAGE_UNAVAILABLE, f"{PULL}couldn't parse image name{PULL_CURE}", True),
    ),
    "image is not on the node and must not be pulled": (
        waiting("ErrImageNeverPull"),
        (Reason.IMAGE_UNAVAILABLE, f"{PULL}ErrImageNeverPull{PULL_CURE}", True),
    ),
    "registry does not have the image": (
        waiting("ErrImagePull", "registry/python: not found."),
        (Reason.IMAGE_UNAVAILABLE, f"{PULL}registry/python: not found{PULL_CURE}", True),
    ),
    "registry denies the image": (
        waiting("ImagePullBackOff", "pull access Denied"),
        (Reason.IMAGE_UNAVAILABLE, f"{PULL}pull access Denied{PULL_CURE}", True),
    ),
    "registry is slow": (
        waiting("ImagePullBackOff", "Back-off pulling image\n  i/o timeout"),
        (
            Reason.IMAGE_UNAVAILABLE,
            "the image registry/python could not be pulled in time: Back-off pulling image i/o timeout. "
            "Check that the nodes reach its registry",
            False,
        ),
    ),
    "registry does not answer": (
        waiting("ErrImagePull", "dial tcp: connection refused"),
        (
            Reason.IMAGE_UNAVAILABLE,
            "the image registry/python could not be pulled in time: dial tcp: connection refused. "
            "Check that the nodes reach its registry",
            False,
        ),
    ),
    "pull fails without a word": (
        waiting("RegistryUnavailable"),
        (
            Reason.IMAGE_UNAVAILABLE,
            "the image registry/python could not be pulled in time: RegistryUnavailable. "
            "Check that the nodes reach its registry",
            False,
        ),
    ),
    "container's configuration is wrong": (
        waiting("CreateContainerConfigError", 'configmap "x" not found'),
        (
            Reason.SANDBOX_LOST,
            f'the container could not be created: configmap "x" not found{CONTAINER_CURE}',
            True,
        ),
    ),
    "container cannot be run": (
        waiting("RunContainerError"),
        (Reason.SANDBOX_LOST, f"the container could not be created: RunContainerError{CONTAINER_CURE}", True),
    ),
    "no node fits": (
        condition("PodScheduled", "False", message="0/3 nodes are available: 3 Insufficient cpu."),
        (
            Reason.UNSCHEDULABLE,
            "no node took the pod: 0/3 nodes are available: 3 Insufficient cpu. "
            "Check the size and taints of the gVisor node pool against the executor's requests",
            False,
        ),
    ),
}


@pytest.mark.parametrize(("found", "expected"), BEFORE_START.values(), ids=BEFORE_START)
def test_a_pod_that_does_not_start_is_explained(found: dict[str, Any], expected: tuple[Reason, str, bool]) -> None:
    reason, message, final = expected
    assert diagnosis.before_start(view(found), image=IMAGE) == Diagnosis(reason=reason, message=message, final=final)


@pytest.mark.parametrize(
    "found",
    [
        {"metadata": {"name": "pod-1"}},
        pod(phase="Pending"),
        waiting("ContainerCreating"),
        waiting("PodInitializing"),
        condition("PodScheduled", "True"),
        condition("DisruptionTarget", "False"),
        pod({"running": {}}, phase="Running"),
    ],
    ids=["new", "pending", "being created", "initialising", "scheduled", "not disrupted", "running"],
)
def test_a_pod_on_its_way_needs_no_explanation(found: dict[str, Any]) -> None:
    assert diagnosis.before_start(view(found), image=IMAGE) is None


UNKNOWN = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}
KNOWN = {"exitCode": 137, "reason": "ContainerStatusUnknown"}
PROOFS = {
    "it never had a node": (pod(node="", phase="Pending"), True),
    "the kubelet ended the pod and never had the container": (pod(UNKNOWN, phase="Failed"), True),
    "the kubelet refused the pod": (pod(phase="Failed", reason="OutOfcpu"), True),
    "its status says waiting": (pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending"), False),
    "its status says waiting, without a node": (pod({"waiting": {}}, node="", phase="Pending"), False),
    "nothing is known": (pod(phase="Pending"), False),
    "the kubelet had the container and lost it": (
        pod(UNKNOWN, phase="Failed", container={"containerID": "containerd://1"}),
        False,
    ),
    "the container was replaced": (pod(UNKNOWN, phase="Failed", container={"restartCount": 1}), False),
    "the container was there before": (
        pod(UNKNOWN, phase="Failed", container={"lastState": {"terminated": KNOWN}}),
        False,
    ),
    "the node is lost": (pod(phase="Failed", reason="NodeLost"), False),
    "the control plane says that it failed": (pod(phase="Failed"), False),
    "it ran": (pod({"terminated": {"exitCode": 0}}, phase="Succeeded"), False),
    "it runs": (pod({"running": {}}, node="", phase="Running"), False),
}


@pytest.mark.parametrize(("found", "proven"), PROOFS.values(), ids=PROOFS)
def test_that_a_container_never_started_is_believed_on_proof_alone(found: dict[str, Any], proven: bool) -> None:
    assert never_started(view(found)) is proven
    lost = diagnosis.lost_early(view(found))
    assert lost.may_have_begun is not proven


LOST_EARLY = {
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
        (Reason.EVICTED, f"the node pushed the pod out: The node was low on resource: memory{PUSHED_CURE}", True),
    ),
    "node lost": (
        pod(phase="Failed", reason="NodeLost"),
        (Reason.EVICTED, f"the node pushed the pod out: NodeLost{PUSHED_CURE}", False),
    ),
    "preempted": (
        PREEMPTED,
        (Reason.EVICTED, f"the node pushed the pod out: preempted by a better one{PUSHED_CURE}", False),
    ),
    "refused by the kubelet": (
        pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed"),
        (Reason.SANDBOX_LOST, "the pod failed before its container was seen running: Allocate failed", False),
    ),
    "failed without a word": (
        pod(phase="Failed", reason="OutOfcpu"),
        (Reason.SANDBOX_LOST, "the pod failed before its container was seen running: OutOfcpu", False),
    ),
    "deleted before it had a node": (pod(node=""), (Reason.SANDBOX_LOST, DELETED, True)),
    "deleted": (pod({"waiting": {}}), (Reason.SANDBOX_LOST, DELETED, False)),
}


@pytest.mark.parametrize(("found", "expected"), LOST_EARLY.values(), ids=LOST_EARLY)
def test_a_pod_that_is_lost_early_is_explained_and_replaced_on_proof(
    found: dict[str, Any], expected: tuple[Reason, str, bool]
) -> None:
    lost = diagnosis.lost_early(view(found))
    assert (lost.reason, lost.message, lost.again) == expected


def test_a_service_meshs_container_is_not_taken_for_ours() -> None:
    found = pod({"waiting": {"reason": "ContainerCreating"}})
    found["status"]["containerStatuses"].insert(0, {"name": "istio-proxy", "state": {"running": {}}})
    assert not view(found).has_run
    assert view(found).waiting_reason == "ContainerCreating"


NO_HANDLER = (
    "the sandbox cannot have the RuntimeClass 'gvisor': {}. Check that it exists and that its handler (runsc, on "
    "GKE gvisor) is set up on the node; on GKE both come with a node pool that has GKE Sandbox"
)
EVENTS = {
    "handler of containerd": (
        ("FailedCreatePodSandBox", 'rpc error: no runtime for "runsc" is configured'),
        (Reason.ISOLATION_MISSING, NO_HANDLER.format('rpc error: no runtime for "runsc" is configured'), True),
    ),
    "RuntimeClass": (
        ("FailedCreate", 'pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found'),
        (
            Reason.ISOLATION_MISSING,
            NO_HANDLER.format('pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found'),
            True,
        ),
    ),
    "network plugin": (
        ("FailedCreatePodSandBox", "plugin type=bridge failed"),
        (
            Reason.UNSCHEDULABLE,
            "the node could not make the pod's sandbox: plugin type=bridge failed. "
            "Check the container runtime and the network plugin of the node",
            False,
        ),
    ),
    "mount": (
        ("FailedMount", 'configmap "x" not found'),
        (
            Reason.UNSCHEDULABLE,
            'the node could not mount a volume of the pod: configmap "x" not found. '
            "Check that nobody deletes ConfigMaps in the namespace",
            False,
        ),
    ),
}


@pytest.mark.parametrize(("event", "expected"), EVENTS.values(), ids=EVENTS)
def test_an_event_of_the_pod_or_its_job_is_explained(
    event: tuple[str, str], expected: tuple[Reason, str, bool]
) -> None:
    found = diagnosis.from_event({"reason": event[0], "message": event[1]}, runtime_class="gvisor")
    assert found is not None
    assert (found.reason, found.message, found.final) == expected


@pytest.mark.parametrize("reason", ["Scheduled", "Pulling", "Pulled", "Created", "Started", "SuccessfulCreate"])
def test_an_event_of_a_pod_on_its_way_tells_nothing(reason: str) -> None:
    assert diagnosis.from_event({"reason": reason, "message": "x"}, runtime_class=None) is None


AFTER_START = {
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="disk pressure"),
        (Reason.EVICTED, f"the node pushed the pod out: disk pressure{PUSHED_CURE}"),
    ),
    "preempted, and killed for it": (
        pod({"terminated": {"exitCode": 137}}, conditions=PREEMPTED["status"]["conditions"]),
        (Reason.EVICTED, f"the node pushed the pod out: preempted by a better one{PUSHED_CURE}"),
    ),
    "out of memory": (
        pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
        (Reason.MEMORY_LIMIT, "the sandbox was killed at its memory limit. Use less, or raise mem_limit"),
    ),
    "killed": (
        pod({"terminated": {"exitCode": 137, "reason": "Error"}}),
        (
            Reason.SANDBOX_LOST,
            "the program, or all of the sandbox, was killed (exit code 137), often for memory. "
            "Use less memory, or raise mem_limit",
        ),
    ),
    "ended": (
        pod({"terminated": {"exitCode": 2, "reason": "Error"}}),
        (Reason.SANDBOX_LOST, "the sandbox ended with exit code 2 without a result: Error"),
    ),
    "could not be started": (
        pod({"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: no\n such file."}}),
        (Reason.SANDBOX_LOST, "the sandbox ended with exit code 128 without a result: exec: no such file"),
    ),
    "ended without a code": (
        pod(phase="Failed"),
        (Reason.SANDBOX_LOST, "the sandbox ended without a result: Failed"),
    ),
    "unknown": (pod(), (Reason.SANDBOX_LOST, "the sandbox ended without a result: no detail")),
    "being deleted": (
        {"metadata": {"name": "pod-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        (Reason.SANDBOX_LOST, "the pod was deleted by someone else while the program ran"),
    ),
}


@pytest.mark.parametrize(("found", "expected"), AFTER_START.values(), ids=AFTER_START)
def test_a_sandbox_that_ends_without_a_result_is_explained_and_its_program_not_run_again(
    found: dict[str, Any], expected: tuple[Reason, str]
) -> None:
    assert diagnosis.after_start(view(found)) == Diagnosis(reason=expected[0], message=expected[1])


@pytest.mark.parametrize(("seen", "deleted"), [(None, False), (PodView(name="pod-1", running=True), True)])
def test_a_pod_that_is_gone_was_deleted_by_someone_else(seen: PodView | None, deleted: bool) -> None:
    found = diagnosis.after_start(seen, deleted=deleted)
    assert found.message == "the pod was deleted by someone else while the program ran"


@pytest.mark.parametrize(
    ("state", "has_run"),
    [
        ({"running": {}}, True),
        ({"terminated": {"exitCode": 0}}, True),
        ({"waiting": {"reason": "ContainerCreating"}}, False),
        ({}, False),
    ],
)
def test_a_container_has_run_if_it_runs_or_has_an_exit_code(state: dict[str, Any], has_run: bool) -> None:
    assert view(pod(state)).has_run is has_run


QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9'


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            f"Error creating: {QUOTA}",
            Diagnosis(
                reason=Reason.QUOTA_EXCEEDED,
                message=f"the quota 'team' has no room for the pod: Error creating: {QUOTA}. "
                "Wait for other executions to end, or have the platform team raise it",
                final=False,
            ),
        ),
        (
            'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged.\n',
            Diagnosis(
                reason=Reason.ADMISSION_DENIED,
                message='the cluster refused the pod: Error creating: pods "x" is forbidden: violates PodSecurity '
                "\"restricted:latest\": privileged. Compare the executor's settings with the stack's: "
                "`adk-gke-sandbox contract show`",
            ),
        ),
    ],
    ids=["no room in a quota", "a policy"],
)
def test_a_pod_that_is_refused_is_explained_by_its_event(event: str, expected: Diagnosis) -> None:
    assert diagnosis.refused_pod(event) == expected


def error(kind: type[ClusterError], status: int | None, message: str, remedy: str = "") -> ClusterError:
    return kind(message, remedy, verb="create", target="jobs.batch box/x", status=status)


ROLE = 'User "a" cannot create resource "jobs"'
ANONYMOUS = 'User "system:anonymous" cannot create resource "jobs"'
COUNT = "exceeded quota: team, requested: count/jobs.batch=1"

TOO_LARGE = (
    ("a proxy", 413, "HTTP 413 Payload Too Large"),
    ("etcd", 500, "etcdserver: request is too large"),
    ("the client of etcd", 500, "rpc error: trying to send message larger than max (2134 vs. 2097)"),
    ("a ConfigMap", 422, 'ConfigMap "x" is invalid: []: Too long: must have at most 1048576 bytes'),
    ("a ConfigMap from 1.32 on", 422, 'ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes'),
)

CALLS = {
    "credentials": (
        error(Unauthorized, 401, "Unauthorized"),
        Reason.API_UNAVAILABLE,
        "the API server does not accept the credentials (401): the token has expired or its ServiceAccount is gone. "
        "Mint a new kubeconfig, or run `pulumi up` again",
    ),
    "namespace": (
        error(NotFound, 404, 'namespaces "box" not found'),
        Reason.API_UNAVAILABLE,
        "namespaces \"box\" not found. Check that the namespace 'box' exists: `pulumi up` makes it",
    ),
    "permission": (
        error(Forbidden, 403, ROLE),
        Reason.FORBIDDEN,
        f"{ROLE}. Check that the namespace 'box' is the stack's own and that its Role is bound to this identity: "
        "`pulumi up` does both",
    ),
    "no credentials at all": (
        error(Forbidden, 403, ANONYMOUS),
        Reason.API_UNAVAILABLE,
        f"{ANONYMOUS}. No credentials reached the API server: check that the plugin that the kubeconfig names is "
        "installed and logged in (for GKE gke-gcloud-auth-plugin and gcloud auth login)",
    ),
    "quota on Jobs": (
        error(Forbidden, 403, COUNT),
        Reason.QUOTA_EXCEEDED,
        f"{COUNT}. Wait for other executions to end, or have the platform team raise the quota",
    ),
    "admission webhook": (
        error(Forbidden, 403, "admission webhook denied the request: no"),
        Reason.ADMISSION_DENIED,
        "admission webhook denied the request: no",
    ),
    "admission policy": (
        error(ClusterError, 422, "ValidatingAdmissionPolicy denied request: image by digest"),
        Reason.ADMISSION_DENIED,
        "ValidatingAdmissionPolicy denied request: image by digest",
    ),
    "bad quantity": (
        error(ClusterError, 400, "quantities must match"),
        Reason.ADMISSION_DENIED,
        "quantities must match",
    ),
    **{
        f"too large for {what}": (
            error(ClusterError, status, said),
            Reason.REQUEST_TOO_LARGE,
            f"{said}. Send less code and smaller input files; if they are small, look for a proxy in front of the API "
            "server",
        )
        for what, status, said in TOO_LARGE
    },
    "server error": (error(ClusterError, 500, "etcd is gone"), Reason.API_UNAVAILABLE, "etcd is gone"),
    "name taken": (error(AlreadyExists, 409, "exists already"), Reason.API_UNAVAILABLE, "exists already"),
    "no answer": (
        error(Unreachable, None, "the API server does not answer", "Check that the cluster runs"),
        Reason.API_UNAVAILABLE,
        "the API server does not answer. Check that the cluster runs",
    ),
}


@pytest.mark.parametrize(("failure", "reason", "message"), CALLS.values(), ids=CALLS)
def test_a_call_that_is_refused_or_not_answered_is_explained(
    failure: ClusterError, reason: Reason, message: str
) -> None:
    assert diagnosis.refused_call(failure, namespace="box") == Diagnosis(reason=reason, message=message)


SENTENCES = {
    "no pod": (
        diagnosis.never_scheduled(None, 300, suspended=False),
        Reason.UNSCHEDULABLE,
        "no pod appeared within schedule_timeout_seconds=300. Check that the Job controller runs",
    ),
    "suspended": (
        diagnosis.never_scheduled(None, 2.5, suspended=True),
        Reason.UNSCHEDULABLE,
        "no pod appeared within schedule_timeout_seconds=2.5: the Job is suspended. "
        "Look for what suspends Jobs there, such as Kueue",
    ),
    "container not created in time": (
        diagnosis.never_scheduled(view(waiting("ContainerCreating")), 300, suspended=False),
        Reason.UNSCHEDULABLE,
        "the pod did not start within schedule_timeout_seconds=300 (ContainerCreating). Check the node it is on",
    ),
    "pod not taken up in time": (
        diagnosis.never_scheduled(view(pod(phase="Pending")), 300, suspended=False),
        Reason.UNSCHEDULABLE,
        "the pod did not start within schedule_timeout_seconds=300 (Pending). Check the node it is on",
    ),
    "program not started": (
        diagnosis.never_began(),
        Reason.SANDBOX_LOST,
        "the container runs but the program did not start in time. Check the load of its node",
    ),
    "reply too late": (
        diagnosis.late_reply(),
        Reason.REPLY_INCOMPLETE,
        "the rest of the reply did not arrive in time. Check the network to the API server, or return less",
    ),
    "aborted": (diagnosis.aborted(), Reason.ABORTED, "the caller aborted the execution"),
    "overran": (
        diagnosis.overran(300.0),
        Reason.DEADLINE_EXCEEDED,
        "the program was killed after 300 s. Do less, or raise timeout_seconds",
    ),
    "no answer": (
        diagnosis.no_answer("https://host", 300),
        Reason.API_UNAVAILABLE,
        "the API server https://host did not answer within schedule_timeout_seconds=300. "
        "Check its load and the network to it",
    ),
    "no credentials": (
        diagnosis.no_credentials(300),
        Reason.API_UNAVAILABLE,
        "reading the kubeconfig, or the plugin that it names, took longer than schedule_timeout_seconds=300. "
        "Run its command in a shell to see what it waits for",
    ),
    "too large": (
        diagnosis.too_large(32 * 2**20, 27 * 2**20),
        Reason.REQUEST_TOO_LARGE,
        "code and input files make a request of 32.0 MiB (files count 4/3 of their size) and 27.0 MiB is the most. "
        "Send smaller files",
    ),
}


@pytest.mark.parametrize(("found", "reason", "message"), SENTENCES.values(), ids=SENTENCES)
def test_every_other_end_has_its_sentence(found: Diagnosis, reason: Reason, message: str) -> None:
    assert (found.reason, found.message) == (reason, message)
    assert found.final


def test_a_pod_that_lost_a_race_for_its_quota_is_waited_for() -> None:
    race = 'Operation cannot be fulfilled on resourcequotas "sandbox": the object has been modified'
    assert not diagnosis.refused_pod(f"Error creating: {race}; please apply your changes to the latest version").final


def test_what_a_program_has_written_cannot_steer_a_terminal() -> None:
    said = view(pod({"terminated": {"exitCode": 1, "message": "a\x1b[2Jb\x07"}}))
    assert diagnosis.after_start(said).message == "the sandbox ended with exit code 1 without a result: a\\x1b[2Jb\\x07"


def test_a_message_of_the_cluster_is_one_line_of_bounded_length() -> None:
    found = diagnosis.refused_pod("no\n\n\tpods " + "x" * 5000)
    assert found.message.startswith("the cluster refused the pod: no pods xxx")
    assert "x…. Compare" in found.message
    assert len(found.message) < 800
