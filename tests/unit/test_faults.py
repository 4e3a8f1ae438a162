"""The cold path while the API server fails: at every call, in every way that a real cluster knows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from adk_gke_sandbox.execution import Reason
from tests.unit.fake_api import (
    ENDED,
    GONE,
    NEVER_MADE,
    NO_CONTAINER,
    OK,
    RUNNING,
    STARTED,
    WAITING,
    FakeApi,
    Fault,
    added,
    eventually,
    frame,
    going,
    pod,
    run,
    serving,
)
from tests.unit.loopback import kubeconfig

CALLS = [
    ("create", "jobs"),
    ("create", "configmaps"),
    ("watch", "pods"),
    ("list", "pods"),
    ("get", "pods/log"),
    ("watch", "events"),
    ("list", "events"),
    ("delete", "jobs"),
]
FAULTS = {
    "reset": Fault(reset=True),
    "429": Fault(status=429, reason="TooManyRequests", headers={"Retry-After": "0.01"}),
    "500": Fault(status=500, reason="InternalError"),
    "503": Fault(status=503, reason="ServiceUnavailable"),
    "504": Fault(status=504, reason="Timeout"),
    "hang": Fault(hang_seconds=0.5),
}


def every_call(api: FakeApi) -> None:
    """Script a run that makes each of the calls and ends well."""
    api.watches = {"pods": [[], [GONE], [GONE], [added(RUNNING)]], "events": [[], []]}
    api.lists["pods"] = []


@pytest.mark.parametrize("verb_and_resource", CALLS, ids=" ".join)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_d17_a_call_that_fails_once_is_made_again_and_the_program_runs_once(
    api: FakeApi, verb_and_resource: tuple[str, str], fault: Fault
) -> None:
    every_call(api)
    if verb_and_resource[1] == "events":
        # No pod for a while: events are asked for, and their watch ends.
        api.watches["pods"] = [[]]
        threading.Timer(0.7, lambda: api.pushed["pods"].put(added(RUNNING))).start()
    api.faults[*verb_and_resource, 1] = fault
    outcome = run(api, schedule_timeout_seconds=300)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n"), outcome.message
    assert eventually(lambda: api.count[verb_and_resource] >= 2)
    assert len(api.config_maps) == 1
    assert eventually(lambda: api.jobs == {})


@pytest.mark.parametrize("verb_and_resource", [call for call in CALLS if call[0] == "create"], ids=" ".join)
@pytest.mark.parametrize(
    "lost", [Fault(reset=True, effect=True), Fault(truncate=True, effect=True)], ids=["reset", "cut"]
)
def test_d17_a_create_whose_answer_is_lost_or_cut_is_not_made_twice(
    api: FakeApi, verb_and_resource: tuple[str, str], lost: Fault
) -> None:
    api.faults[*verb_and_resource, 1] = lost
    outcome = run(api)
    assert outcome.reason is Reason.COMPLETED, outcome.message
    assert len(api.config_maps) == 1
    assert api.jobs == {}


@pytest.mark.parametrize("verb_and_resource", CALLS[:3] + CALLS[4:5], ids=" ".join)
def test_a_permission_that_is_missing_is_named_at_once_and_nothing_is_left(
    api: FakeApi, verb_and_resource: tuple[str, str]
) -> None:
    verb, resource = verb_and_resource
    message = f'User "agent" cannot {verb} resource "{resource}" in API group ""'
    api.faults[verb, resource, 0] = Fault(status=403, reason="Forbidden", message=message)
    outcome = run(api)
    assert api.count[verb_and_resource] == 1
    assert outcome.reason is Reason.FORBIDDEN
    assert f'cannot {verb} resource "{resource}"' in outcome.message
    assert "its Role is bound to this identity" in outcome.message
    assert outcome.started is (resource == "pods/log")
    assert api.jobs == {}


def test_a_deletion_that_is_refused_changes_no_result_and_is_logged(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.faults["delete", "jobs", 0] = Fault(status=403, reason="Forbidden", message="cannot delete")
    assert run(api).reason is Reason.COMPLETED
    assert "cannot delete. Its deadline and TTL remove it" in caplog.text


def test_what_is_too_large_for_the_storage_is_not_tried_again(api: FakeApi) -> None:
    api.faults["create", "configmaps", 0] = Fault(status=500, message="etcdserver: request is too large")
    assert run(api).reason is Reason.REQUEST_TOO_LARGE
    assert api.count["create", "configmaps"] == 1
    assert api.jobs == {}


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"metadata": null}', b'{"metadata": {}}'])
def test_an_answer_that_is_no_job_means_that_there_is_no_api_server(api: FakeApi, answer: bytes) -> None:
    api.faults["create", "jobs", 0] = Fault(status=200, body=answer)
    outcome = run(api)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert f"the API server {api.url} has answered without a Job. Check that the kubeconfig names" in outcome.message


def test_a_watch_of_what_is_no_object_is_opened_again(api: FakeApi) -> None:
    api.watches["pods"] = [[added({"status": {}})], [added(RUNNING)]]
    assert run(api).reason is Reason.COMPLETED


def test_a_job_that_was_refused_is_not_deleted(api: FakeApi) -> None:
    api.faults["create", "jobs", 0] = Fault(status=422, reason="Invalid", message="no")
    run(api)
    assert api.deletions == []


def test_a_foreign_job_of_the_same_name_is_left_alone(api: FakeApi) -> None:
    api.faults["create", "jobs", 0] = Fault(status=409, reason="AlreadyExists", message="jobs.batch already exists")
    outcome = run(api)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "already exists" in outcome.message
    assert api.deletions == []


def test_a_foreign_job_of_the_name_is_left_alone_when_an_answer_was_lost(api: FakeApi) -> None:
    foreign = {"metadata": {"name": "mine", "uid": "other"}}
    api.jobs["mine"] = foreign
    api.faults["create", "jobs", 1] = Fault(reset=True)
    outcome = run(api, name="mine")
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "already exists" in outcome.message
    assert api.jobs == {"mine": foreign}
    assert api.config_maps == []


def test_d17_retry_after_is_honoured(api: FakeApi) -> None:
    api.faults["create", "jobs", 1] = Fault(status=429, headers={"Retry-After": "17"})
    outcome = run(api)
    assert outcome.reason is Reason.COMPLETED
    assert outcome.timings.submit >= 17


def test_a_server_that_asks_for_more_patience_than_there_is_ends_the_wait_at_once(api: FakeApi) -> None:
    api.faults["create", "jobs", 0] = Fault(status=429, message="slow down", headers={"Retry-After": "100"})
    outcome = run(api)
    assert (outcome.reason, api.count["create", "jobs"]) == (Reason.API_UNAVAILABLE, 1)
    assert "slow down" in outcome.message


def test_d17_a_race_for_the_quota_is_tried_again(api: FakeApi) -> None:
    message = 'Operation cannot be fulfilled on resourcequotas "sandbox": the object has been modified'
    api.faults["create", "jobs", 1] = Fault(status=409, reason="Conflict", message=message)
    assert run(api).reason is Reason.COMPLETED


def test_d12_a_server_that_never_answers_ends_at_the_schedule_deadline(api: FakeApi) -> None:
    api.faults["create", "jobs", 0] = Fault(hang_seconds=15)
    outcome = run(api, schedule_timeout_seconds=5)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "did not answer within schedule_timeout_seconds=5" in outcome.message


def test_a_job_that_comes_into_being_after_it_was_given_up_is_deleted(api: FakeApi) -> None:
    late = threading.Event()
    store = api.jobs

    class Slow(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            late.wait(5)
            super().__setitem__(key, value)

    api.jobs = Slow(store)
    assert run(api, schedule_timeout_seconds=5).reason is Reason.API_UNAVAILABLE
    before = len(api.deletions)
    late.set()
    assert eventually(lambda: len(api.deletions) > before)
    assert api.jobs == {}


def test_an_address_where_nobody_listens_is_given_up_soon(api: FakeApi, tmp_path: Any) -> None:
    with serving() as gone:
        url = gone.url
    api.kubeconfig = kubeconfig(tmp_path / "gone", "fake", fake=url)
    outcome = run(api, schedule_timeout_seconds=300)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert outcome.timings.submit <= 10
    assert f"the API server {url} does not answer" in outcome.message
    assert "Check that the cluster runs and that the kubeconfig names it" in outcome.message


@pytest.mark.parametrize(
    "event",
    [
        {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "77"}}},
        {"type": "SOMETHING", "object": {}},
    ],
    ids=["bookmark", "unknown"],
)
def test_an_event_that_tells_nothing_is_passed_over(api: FakeApi, event: dict[str, Any]) -> None:
    api.watches["pods"] = [[event, added(RUNNING)]]
    assert run(api).reason is Reason.COMPLETED


@pytest.mark.parametrize("event", [{"type": "ADDED"}, {"type": "ADDED", "object": 7}, "text", None])
def test_an_event_that_makes_no_sense_opens_the_watch_again(api: FakeApi, event: Any) -> None:
    api.watches["pods"] = [[event], []]
    api.lists["pods"] = [RUNNING]
    assert run(api).reason is Reason.COMPLETED
    assert api.verbs("pods") == ["watch", "list", "watch"]


def test_d11_a_version_that_is_too_old_to_watch_from_is_listed_anew(api: FakeApi) -> None:
    api.watches["pods"] = [[], [], [added(RUNNING)]]
    api.faults["watch", "pods", 2] = Fault(status=410, reason="Expired", message="too old resource version")
    assert run(api).reason is Reason.COMPLETED
    assert api.verbs("pods") == ["watch", "list", "watch", "list", "watch"]


def test_a_watch_that_ends_again_and_again_is_not_opened_in_a_tight_loop(api: FakeApi) -> None:
    api.watches["pods"] = [[]] * 100
    outcome = run(api, schedule_timeout_seconds=6)
    assert outcome.reason is Reason.UNSCHEDULABLE
    assert api.count["watch", "pods"] <= 6 / 0.3 + 1


UNBOUND = {**pod({}, phase="Pending"), "spec": {}}
PREEMPTED = [{"type": "DisruptionTarget", "status": "True", "message": "preempted"}]
PROVEN = {
    "deleted before it had a node": [added(UNBOUND), added(going(UNBOUND), "DELETED")],
    "deleted, and the kubelet never had the container": [
        added(WAITING),
        added(going(WAITING)),
        added(going(NEVER_MADE), "DELETED"),
    ],
    "preempted, and the kubelet never had the container": [
        added({**NEVER_MADE, "status": {**NEVER_MADE["status"], "conditions": PREEMPTED}})
    ],
    "refused by the kubelet": [added(pod({}, phase="Failed", reason="Evicted", message="node drained"))],
}


@pytest.mark.parametrize("lost", PROVEN.values(), ids=PROVEN)
def test_d14_a_sandbox_that_is_lost_is_replaced_on_proof_that_its_container_never_started(
    api: FakeApi, lost: list[dict[str, Any]]
) -> None:
    api.watches["pods"] = [lost, [added(RUNNING)]]
    api.faults["get", "pods/log", 1] = NO_CONTAINER
    outcome = run(api)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")
    assert outcome.name.endswith("-2")
    assert api.count["create", "jobs"] == 2
    assert api.jobs == {}


UNPROVEN = {
    "deleted by force, its last status is old": [added(WAITING), added(going(WAITING), "DELETED")],
    "its node is lost": [added(pod({}, phase="Failed", reason="NodeLost", message="node lost"))],
    "gone from a fresh list": [added(WAITING), GONE],
    "gone from a fresh list, and it had no node before": [added(UNBOUND), GONE],
    "it stays for ever while it is deleted": [added(going(WAITING))],
}


@pytest.mark.parametrize("lost", UNPROVEN.values(), ids=UNPROVEN)
def test_a_sandbox_that_is_lost_without_proof_is_not_replaced_and_counts_as_started(
    api: FakeApi, lost: list[dict[str, Any]]
) -> None:
    api.watches["pods"] = [lost, [added(RUNNING)]] if lost[-1] is not GONE else [lost, []]
    api.faults["get", "pods/log", 0] = NO_CONTAINER
    outcome = run(api)
    assert outcome.reason in (Reason.SANDBOX_LOST, Reason.EVICTED)
    assert (outcome.started, outcome.exit_code) == (True, None)
    assert api.count["create", "jobs"] == 1
    assert outcome.timings.total < 20


def test_the_last_word_on_a_pod_is_awaited_when_its_log_is_gone_first(api: FakeApi) -> None:
    api.watches["pods"] = [[added(WAITING), added(going(WAITING))], [added(RUNNING)]]
    api.watches_stay = True
    api.faults["get", "pods/log", 0] = Fault(status=404, reason="NotFound")

    def tell_of_its_end() -> None:
        if api.count["get", "pods/log"] == 1:
            api.pushed["pods"].put(added(going(NEVER_MADE), "DELETED"))

    def let_the_next_one_run() -> None:
        if api.count["create", "jobs"] == 2:
            api.faults.clear()

    api.on_call["get", "pods/log"] = tell_of_its_end
    api.on_call["create", "jobs"] = let_the_next_one_run
    outcome = run(api)
    assert outcome.name.endswith("-2")
    assert api.count["create", "jobs"] == 2


def test_the_last_state_in_a_deletion_tells_that_the_program_has_run(api: FakeApi) -> None:
    api.watches["pods"] = [[added(WAITING), added(going(pod({"terminated": {"exitCode": 3}})), "DELETED")]]
    api.faults["get", "pods/log", 0] = Fault(status=404, reason="NotFound")
    outcome = run(api)
    assert (outcome.reason, outcome.started, outcome.exit_code) == (Reason.SANDBOX_LOST, True, 3)
    assert api.count["create", "jobs"] == 1


def test_a_pod_with_a_log_may_have_begun(api: FakeApi) -> None:
    api.watches["pods"] = [[added(WAITING), added(going(WAITING))]]
    api.logs = [b"no frame"]
    api.on_log = lambda: api.pushed["pods"].put(added(going(NEVER_MADE), "DELETED"))
    outcome = run(api)
    assert (outcome.reason, outcome.started) == (Reason.SANDBOX_LOST, True)
    assert api.count["create", "jobs"] == 1


def test_the_log_of_a_pod_that_is_deleted_with_an_old_status_is_read(api: FakeApi) -> None:
    api.watches["pods"] = [[added(WAITING), added(going(WAITING))]]
    outcome = run(api)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")
    assert api.count["create", "jobs"] == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(status=403, reason="Forbidden", message='User "x" cannot get resource "pods/log"'), Fault(status=404)],
    ids=["refused", "lost"],
)
def test_a_container_that_has_ended_has_started_though_its_log_cannot_be_read(api: FakeApi, fault: Fault) -> None:
    api.watches["pods"] = [[added(ENDED)]]
    api.faults["get", "pods/log", 0] = fault
    outcome = run(api)
    assert (outcome.started, outcome.exit_code) == (True, 0)
    assert outcome.reason is (Reason.FORBIDDEN if fault.status == 403 else Reason.SANDBOX_LOST)
    assert api.count["create", "jobs"] == 1


def test_the_log_of_a_pod_that_has_ended_is_read_again_when_it_was_cut(api: FakeApi) -> None:
    api.watches["pods"] = [[added(ENDED)]]
    api.logs, api.cut_logs = [OK[:-20], OK[:40], OK], 2
    outcome = run(api)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")


def test_the_log_of_a_pod_that_has_ended_is_read_once_when_it_ends_in_order(api: FakeApi) -> None:
    api.watches["pods"] = [[added(ENDED)]]
    api.logs = [OK[:-20], OK]
    assert run(api).reason is Reason.SANDBOX_LOST


def test_a_runner_that_refuses_to_start_the_program_is_believed(api: FakeApi) -> None:
    last = {"exitCode": 70, "startedAt": "2026-01-01T00:00:00Z"}
    api.watches["pods"] = [[added(pod({"terminated": last}, phase="Failed"))]]
    api.logs = [frame("ready", kernel="Linux 6.1.0") + frame("end", reason="IsolationMissing", message="no gVisor")]
    outcome = run(api)
    assert (outcome.reason, outcome.message, outcome.kernel) == (Reason.ISOLATION_MISSING, "no gVisor", "Linux 6.1.0")
    assert (outcome.started, outcome.exit_code) == (False, None)


def event(reason: str, message: str) -> dict[str, Any]:
    return added({"metadata": {"name": "e"}, "reason": reason, "message": message})


NO_HANDLER = 'rpc error: code = Unknown desc = no runtime for "runsc" is configured'


def test_a_handler_that_the_node_lacks_is_told_at_once_by_the_pods_events(api: FakeApi) -> None:
    api.watches = {"pods": [[added(WAITING)]], "events": [[event("FailedCreatePodSandBox", NO_HANDLER)]]}
    outcome = run(api, schedule_timeout_seconds=300)
    assert (outcome.reason, outcome.started) == (Reason.ISOLATION_MISSING, False)
    assert "RuntimeClass 'gvisor': rpc error: code = Unknown desc = no runtime for \"runsc\"" in outcome.message
    assert outcome.timings.total < 5


def test_what_keeps_a_pod_waiting_is_told_at_the_deadline(api: FakeApi) -> None:
    api.watches = {"pods": [[added(WAITING)]], "events": [[event("FailedMount", 'configmap "x" not found')]]}
    outcome = run(api, schedule_timeout_seconds=5)
    assert outcome.reason is Reason.UNSCHEDULABLE
    assert 'the node could not mount a volume of the pod: configmap "x" not found' in outcome.message


def test_the_events_of_a_pod_are_watched_once_however_often_its_status_changes(api: FakeApi) -> None:
    api.watches = {"pods": [[added(WAITING)]], "events": [[]]}
    states = [pod({"waiting": {"reason": f"Try{number}"}}, phase="Pending") for number in range(9)]

    def look() -> bool:
        if states and api.count["watch", "events"]:
            api.pushed["pods"].put(added(states.pop(), "MODIFIED"))
        return False

    assert run(api, aborted=look, schedule_timeout_seconds=9).reason is Reason.UNSCHEDULABLE
    assert states == []
    assert api.count["watch", "events"] == 1


def test_a_mount_that_is_tried_again_is_no_failure(api: FakeApi) -> None:
    api.watches = {"pods": [[added(WAITING)]], "events": [[event("FailedMount", 'configmap "x" not found')], []]}
    api.on_call["watch", "events"] = lambda: api.pushed["pods"].put(added(RUNNING))
    assert run(api).reason is Reason.COMPLETED


def test_a_side_car_is_not_taken_for_the_container(api: FakeApi) -> None:
    proxy = {"name": "istio-proxy", "state": {"running": {}}}
    mesh = {
        **WAITING,
        "status": {**WAITING["status"], "containerStatuses": [proxy, *WAITING["status"]["containerStatuses"]]},
    }
    api.watches["pods"] = [[added(mesh)]]
    outcome = run(api, schedule_timeout_seconds=5)
    assert (outcome.reason, outcome.started) == (Reason.UNSCHEDULABLE, False)


@pytest.mark.parametrize(
    ("event", "reason", "message"),
    [
        (added(going(RUNNING), "DELETED"), Reason.SANDBOX_LOST, "deleted by someone else while the program ran"),
        (added(pod({}, phase="Failed", reason="Evicted", message="disk")), Reason.EVICTED, "pushed the pod out: disk"),
        (
            added(pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            Reason.MEMORY_LIMIT,
            "Use less, or raise mem_limit",
        ),
        (
            added(pod({"terminated": {"exitCode": 137, "reason": "Error"}})),
            Reason.SANDBOX_LOST,
            "exit code 137",
        ),
    ],
    ids=["deleted", "evicted", "out of memory", "killed"],
)
def test_a_pod_that_is_lost_while_its_log_is_silent_ends_the_wait(
    api: FakeApi, event: dict[str, Any], reason: Reason, message: str
) -> None:
    api.logs, api.hold_log = [STARTED], True
    api.on_log = lambda: api.pushed["pods"].put(event)
    outcome = run(api)
    assert (outcome.reason, outcome.started, outcome.stdout) == (reason, True, b"hello\n")
    assert message in outcome.message
    assert api.count["create", "jobs"] == 1
    assert api.jobs == {}


def test_a_pod_that_takes_the_place_of_another_is_not_taken_for_it(api: FakeApi) -> None:
    other = {**RUNNING, "metadata": {"name": "pod-2"}}
    api.watches["pods"] = [[added(RUNNING), added(other, "DELETED")]]
    assert run(api).reason is Reason.COMPLETED


def test_a_silent_log_is_read_anew_before_the_program_is_said_to_have_overrun(api: FakeApi) -> None:
    api.logs = [STARTED, OK]
    api.lists["pods"] = [RUNNING]
    threads = iter((True, False))
    api.on_log = lambda: setattr(api, "hold_log", next(threads, False))
    outcome = run(api, timeout_seconds=3)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")


def test_d12_a_program_that_nobody_hears_of_is_given_up_after_its_time(api: FakeApi) -> None:
    api.logs, api.hold_log = [STARTED], True
    outcome = run(api, timeout_seconds=3)
    assert (outcome.reason, outcome.stdout) == (Reason.DEADLINE_EXCEEDED, b"hello\n")
    assert "killed after 3 s. Do less, or raise timeout_seconds" in outcome.message


def test_d14_a_program_that_may_have_run_is_never_run_again(api: FakeApi) -> None:
    api.logs = [frame("ready", pid=1)]
    api.lists["pods"] = []
    outcome = run(api)
    assert outcome.reason is Reason.SANDBOX_LOST
    assert api.count["create", "jobs"] == 1


def nothing(api: FakeApi) -> None:
    """Let all go well until the reply."""


def late(api: FakeApi) -> None:
    """Let the container be seen just before the schedule deadline."""
    api.watches["pods"] = [[]]
    api.on_call["list", "events"] = lambda: None
    begin = api.clock.now()

    def look() -> bool:
        if api.clock.now() > begin + 11.5 and not api.count["pushed", "pods"]:
            api.count["pushed", "pods"] += 1
            api.pushed["pods"].put(added(RUNNING))
        return False

    api.aborted = look


@pytest.mark.parametrize("start", [nothing, late], ids=["starts at once", "starts at the last moment"])
@pytest.mark.parametrize("deletion", [None, Fault(hang_seconds=15)], ids=["deletion well", "deletion hangs"])
@pytest.mark.parametrize("reply", ["silent", "flowing"])
def test_d12_a_call_returns_by_both_timeouts_and_ten_seconds(
    api: FakeApi, start: Callable[[FakeApi], None], deletion: Fault | None, reply: str
) -> None:
    start(api)
    if deletion:
        api.faults["delete", "jobs", 0] = deletion
    api.logs, api.hold_log, api.flow = [STARTED], True, reply == "flowing"
    begin = api.clock.now()
    outcome = run(api, timeout_seconds=5, schedule_timeout_seconds=12)
    assert outcome.reason is (Reason.REPLY_INCOMPLETE if reply == "flowing" else Reason.DEADLINE_EXCEEDED)
    assert outcome.stdout.startswith(b"hello")
    assert api.clock.now() - begin <= 5 + 12 + 10


def test_a_reply_that_arrives_late_is_read_to_its_end(api: FakeApi) -> None:
    """The program has ended in time; only its reply takes long."""
    api.logs, api.hold_log, api.flow = [STARTED], True, True
    begin = api.clock.now()
    api.flow_ends = lambda: api.clock.now() > begin + 3 + 8
    outcome = run(api, timeout_seconds=3)
    assert outcome.reason is Reason.COMPLETED
    assert outcome.timings.total > 3 + 8


@pytest.mark.parametrize("date", ["Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_server_whose_clock_is_wrong_changes_nothing(api: FakeApi, date: str) -> None:
    api.date = date
    stamped = {"name": "pod-1", "creationTimestamp": "2100-01-01T00:00:00Z"}
    api.watches["pods"] = [[added({**RUNNING, "metadata": stamped})]]
    outcome = run(api)
    assert outcome.reason is Reason.COMPLETED
    assert 0 <= outcome.timings.total < 60


@pytest.mark.parametrize("verb_and_resource", CALLS[:3] + CALLS[4:6], ids=" ".join)
def test_an_abort_during_a_call_that_hangs_ends_it_and_deletes_the_job(
    api: FakeApi, verb_and_resource: tuple[str, str]
) -> None:
    if verb_and_resource[1] == "events":
        api.watches["pods"] = [[]]
    api.faults[*verb_and_resource, 0] = Fault(hang_seconds=15)
    outcome = run(api, aborted=lambda: verb_and_resource in api.count, schedule_timeout_seconds=60)
    assert outcome.reason is Reason.ABORTED
    assert len(api.deletions) == 1
    assert api.hangs_over == 0
