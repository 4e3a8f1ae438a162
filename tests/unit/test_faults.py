"""The cold path while the API server fails: at every call, in every way that a real cluster knows."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.execution import Reason
from adk_gke_sandbox.paths import job
from tests.unit.fake_api import (
    GONE,
    OK,
    RUNNING,
    STARTED,
    FakeApi,
    Fault,
    added,
    frame,
    kubeconfig,
    pod,
    run,
    serving,
)

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
    "hang": Fault(hang=True),
}
REFUSED = {"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}}
WAITING = {"metadata": {"name": "pod-1"}, **REFUSED}


def every_call(api: FakeApi) -> None:
    """Script a run that makes each of the calls and ends well."""
    api.watches = {"pods": [[], [GONE], [GONE], [added(RUNNING)]], "events": [[], []]}
    api.lists["pods"] = []


@pytest.mark.parametrize("verb_and_resource", CALLS, ids=" ".join)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_d17_a_call_that_fails_once_is_made_again_and_the_program_runs_once(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, verb_and_resource: tuple[str, str], fault: Fault
) -> None:
    if fault.hang:
        monkeypatch.setitem(kube._BOUNDED, "_request_timeout", (1.0, 0.2))  # type: ignore[index]
    every_call(api)
    if verb_and_resource[1] == "events":
        # No pod for a while: events are asked for, and their watch ends.
        api.watches["pods"] = [[]]
        threading.Timer(0.7, lambda: api.pushed.put(added(RUNNING))).start()
    api.faults[*verb_and_resource, 1] = fault
    outcome = run(api, schedule_timeout_seconds=8)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n"), outcome.message
    assert api.count[verb_and_resource] >= 2
    assert len(api.config_maps) == 1
    assert api.jobs == {}


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
    outcome = run(api, schedule_timeout_seconds=60)
    assert api.count[verb_and_resource] == 1
    assert outcome.reason is Reason.FORBIDDEN
    assert f'cannot {verb} resource "{resource}"' in outcome.message
    assert "its Role is bound to this identity" in outcome.message
    assert not outcome.started
    assert api.jobs == {}


def test_a_deletion_that_is_refused_changes_no_result_and_is_logged(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.faults["delete", "jobs", 0] = Fault(status=403, reason="Forbidden", message="cannot delete")
    assert run(api).reason is Reason.COMPLETED
    assert "cannot delete. Its deadline and TTL remove it" in caplog.text


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


def test_d17_retry_after_is_honoured(api: FakeApi) -> None:
    api.faults["create", "jobs", 1] = Fault(status=429, headers={"Retry-After": "0.7"})
    assert run(api, schedule_timeout_seconds=5).reason is Reason.COMPLETED
    assert api.times[1] - api.times[0] >= 0.7


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
    api.faults["create", "jobs", 0] = Fault(hang=True)
    outcome = run(api, schedule_timeout_seconds=0.5)
    assert outcome.reason is Reason.API_UNAVAILABLE
    assert "did not answer within schedule_timeout_seconds=0.5" in outcome.message


def test_a_job_that_comes_into_being_after_it_was_given_up_is_deleted(api: FakeApi) -> None:
    late = threading.Event()
    store = api.jobs

    class Slow(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            late.wait(5)
            super().__setitem__(key, value)

    api.jobs = Slow(store)
    assert run(api, schedule_timeout_seconds=0.3).reason is Reason.API_UNAVAILABLE
    before = len(api.deletions)
    late.set()
    until = time.monotonic() + 10
    while len(api.deletions) <= before and time.monotonic() < until:
        time.sleep(0.02)
    assert len(api.deletions) > before
    assert api.jobs == {}


def test_an_address_where_nobody_listens_is_given_up_soon(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(job, "UNREACHABLE_SECONDS", 0.3)
    with serving() as gone:
        url = gone.url
    api.kubeconfig = kubeconfig(tmp_path / "gone", url)
    outcome = run(api, schedule_timeout_seconds=300)
    assert outcome.reason is Reason.API_UNAVAILABLE
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


def test_a_watch_that_ends_again_and_again_is_not_opened_in_a_tight_loop(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "REOPEN_SECONDS", 0.2)
    api.watches["pods"] = [[]] * 100
    outcome = run(api, schedule_timeout_seconds=1)
    assert outcome.reason is Reason.UNSCHEDULABLE
    assert api.count["watch", "pods"] <= 7


def test_a_pod_that_disappears_between_two_watches_is_noticed(api: FakeApi) -> None:
    api.watches["pods"] = [[added(WAITING)], []]
    outcome = run(api)
    assert outcome.reason in (Reason.SANDBOX_LOST, Reason.UNSCHEDULABLE)
    assert api.count["create", "jobs"] >= 2


@pytest.mark.parametrize(
    "lost",
    [
        [added(WAITING), added(WAITING, "DELETED")],
        [added(pod({}, phase="Failed", reason="Evicted", message="node drained"))],
        [added(pod({}, phase="Failed", reason="NodeLost", message="node lost"))],
        [added(pod({}, phase="Failed", reason="Preempting", message="preempted"))],
    ],
    ids=["deleted", "evicted", "node lost", "preempted"],
)
def test_d14_a_sandbox_that_is_lost_before_it_ran_is_replaced(api: FakeApi, lost: list[dict[str, Any]]) -> None:
    api.watches["pods"] = [lost, [added(RUNNING)]]
    outcome = run(api)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")
    assert outcome.name.endswith("-2")
    assert api.count["create", "jobs"] == 2
    assert api.jobs == {}


@pytest.mark.parametrize(
    ("event", "reason", "message"),
    [
        (added(RUNNING, "DELETED"), Reason.SANDBOX_LOST, "deleted by someone else while the program ran"),
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
    api.on_log = lambda: api.pushed.put(event)
    outcome = run(api)
    assert (outcome.reason, outcome.started, outcome.stdout) == (reason, True, b"hello\n")
    assert message in outcome.message
    assert api.count["create", "jobs"] == 1
    assert api.jobs == {}


def test_a_pod_that_takes_the_place_of_another_is_not_taken_for_it(api: FakeApi) -> None:
    other = {**RUNNING, "metadata": {"name": "pod-2"}}
    api.watches["pods"] = [[added(RUNNING), added(other, "DELETED")]]
    assert run(api).reason is Reason.COMPLETED


def test_a_silent_log_is_read_anew_before_the_program_is_said_to_have_overrun(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "REPLY_MARGIN_SECONDS", 1.0)
    monkeypatch.setattr(job, "REREAD_SECONDS", 0.2)
    api.logs = [STARTED, OK]
    api.lists["pods"] = [RUNNING]
    threads = iter((True, False))
    api.on_log = lambda: setattr(api, "hold_log", next(threads, False))
    outcome = run(api, timeout_seconds=0.3)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")


def test_d12_a_program_that_nobody_hears_of_is_given_up_after_its_time(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "REPLY_MARGIN_SECONDS", 0.4)
    api.logs, api.hold_log = [STARTED], True
    outcome = run(api, timeout_seconds=0.3)
    assert (outcome.reason, outcome.stdout) == (Reason.DEADLINE_EXCEEDED, b"hello\n")
    assert "killed after 0.3 s. Do less, or raise timeout_seconds" in outcome.message


def test_d14_a_program_that_may_have_run_is_never_run_again(api: FakeApi) -> None:
    api.logs = [frame("ready", pid=1)]
    api.lists["pods"] = []
    outcome = run(api)
    assert outcome.reason is Reason.SANDBOX_LOST
    assert api.count["create", "jobs"] == 1


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
    api.faults[*verb_and_resource, 0] = Fault(hang=True)
    outcome = run(api, aborted=lambda: verb_and_resource in api.count, schedule_timeout_seconds=60)
    assert outcome.reason is Reason.ABORTED
    assert len(api.deletions) == 1
    assert api.hangs_over == 0
