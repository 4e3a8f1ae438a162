"""The cold path against a fake API server: its calls, and what each fault becomes."""

from __future__ import annotations

from typing import Any

import pytest

from adk_gke_sandbox.contract import EXECUTOR_RULES
from adk_gke_sandbox.execution import Reason
from tests.unit.fake_api import GONE, OK, RUNNING, STARTED, FakeApi, Fault, added, pod, run


def test_a_program_runs_with_few_calls_and_its_job_is_deleted_with_its_pod(api: FakeApi) -> None:
    outcome = run(api)
    assert (outcome.reason, outcome.stdout, outcome.exit_code) == (Reason.COMPLETED, b"hello\n", 0)
    assert len(api.calls) <= 7
    assert [found["propagationPolicy"] for found in api.deletions] == [["Background"]]
    assert api.jobs == {}
    assert api.config_maps[0]["metadata"]["ownerReferences"][0]["uid"] == "uid-1"


def test_all_calls_together_are_exactly_the_rules_of_the_executor(api: FakeApi) -> None:
    api.faults["create", "jobs", 1] = Fault(truncate=True, effect=True)  # get jobs
    api.watches["pods"] = [[], [added(RUNNING)]]  # list pods
    assert run(api).reason is Reason.COMPLETED
    api.watches = {"pods": [[]], "events": [[], []]}  # watch and list events
    api.count.clear()
    api.faults.clear()
    assert run(api, schedule_timeout_seconds=5).reason is Reason.UNSCHEDULABLE
    allowed = {(rule.api_group, rule.resource, verb) for rule in EXECUTOR_RULES for verb in rule.verbs}
    assert set(api.calls) == allowed


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        (
            Fault(status=401, reason="Unauthorized", message="Unauthorized"),
            Reason.API_UNAVAILABLE,
            "Mint a new kubecon",
        ),
        (
            Fault(status=403, reason="Forbidden", message='User "x" cannot create resource "jobs"'),
            Reason.FORBIDDEN,
            "its Role is bound to this identity",
        ),
        (
            Fault(status=403, reason="Forbidden", message="exceeded quota: box, requested: count/jobs.batch=1"),
            Reason.QUOTA_EXCEEDED,
            "have the platform team raise the quota",
        ),
        (
            Fault(status=404, reason="NotFound", message='namespaces "box" not found'),
            Reason.API_UNAVAILABLE,
            "Check that the namespace 'box' exists",
        ),
        (Fault(status=422, reason="Invalid", message="policy says no"), Reason.ADMISSION_DENIED, "policy says no"),
    ],
)
def test_a_refused_create_says_what_is_wrong_and_what_to_do(
    api: FakeApi, fault: Fault, reason: Reason, message: str
) -> None:
    api.faults["create", "jobs", 0] = fault
    outcome = run(api)
    assert outcome.reason is reason
    assert message in outcome.message
    assert "\n" not in outcome.message
    # An expired token is renewed and tried once more.
    assert api.verbs("jobs") == ["create"] * (2 if fault.status == 401 else 1)


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (
            pod({"waiting": {"reason": "ErrImagePull", "message": "dial tcp: connection refused"}}),
            Reason.IMAGE_UNAVAILABLE,
            "could not be pulled in time: dial tcp: connection refused. Check that the nodes reach its registry",
        ),
        (
            pod({}, conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]),
            Reason.UNSCHEDULABLE,
            "0/1 nodes are available",
        ),
    ],
)
def test_a_pod_that_cannot_start_says_why_and_is_deleted(
    api: FakeApi, found: dict[str, Any], reason: Reason, message: str
) -> None:
    api.watches["pods"] = [[added(found)]]
    outcome = run(api, schedule_timeout_seconds=5)
    assert outcome.reason is reason
    assert message in outcome.message
    assert not outcome.started
    assert api.jobs == {}


def test_d14_a_sandbox_is_replaced_twice_at_the_most(api: FakeApi) -> None:
    evicted = pod({}, phase="Failed", reason="Evicted", message="disk pressure")
    api.watches["pods"] = [[added(evicted)]] * 9
    outcome = run(api)
    assert (outcome.reason, outcome.started) == (Reason.EVICTED, False)
    assert "disk pressure" in outcome.message
    assert api.count["create", "jobs"] == 3
    assert api.jobs == {}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("pods is forbidden: policy says no", Reason.ADMISSION_DENIED),
        ("exceeded quota: box, requested: pods=1", Reason.QUOTA_EXCEEDED),
    ],
)
def test_a_pod_that_is_refused_is_found_in_the_events(api: FakeApi, message: str, reason: Reason) -> None:
    event = {"metadata": {"name": "e"}, "reason": "FailedCreate", "message": message}
    api.watches = {"pods": [[]], "events": [[added(event)]]}
    outcome = run(api, schedule_timeout_seconds=5)
    assert outcome.reason is reason
    assert message in outcome.message
    assert api.jobs == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"Retry-After": "0.01"}),
        Fault(status=503),
        Fault(reset=True),
        Fault(reset=True, effect=True),
    ],
    ids=["429", "503", "reset", "answer lost"],
)
def test_a_create_that_may_succeed_later_is_tried_again_and_runs_once(api: FakeApi, fault: Fault) -> None:
    api.faults["create", "jobs", 1] = fault
    assert run(api).reason is Reason.COMPLETED
    assert api.jobs == {}


@pytest.mark.parametrize("first", [[], [GONE]], ids=["closed", "410"])
def test_d10_a_watch_that_ends_is_opened_again_from_a_list(api: FakeApi, first: list[dict[str, Any]]) -> None:
    api.watches["pods"] = [first, []]
    api.lists["pods"] = [RUNNING]
    assert run(api).reason is Reason.COMPLETED
    assert api.verbs("pods") == ["watch", "list", "watch"]


def test_a_log_that_is_cut_inside_a_frame_is_read_again_while_the_pod_lives(api: FakeApi) -> None:
    api.lists["pods"] = [RUNNING]
    api.logs = [OK[:-20], OK[:-20], OK]
    outcome = run(api)
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"hello\n")


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        ([], Reason.SANDBOX_LOST),
        ([pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})], Reason.MEMORY_LIMIT),
        ([pod({}, phase="Failed", reason="Evicted", message="drained")], Reason.EVICTED),
    ],
    ids=["deleted", "out of memory", "evicted"],
)
def test_a_pod_that_is_lost_while_it_runs_is_no_success_and_keeps_its_output(
    api: FakeApi, left: list[dict[str, Any]], reason: Reason
) -> None:
    api.logs = [STARTED]
    api.lists["pods"] = left
    outcome = run(api)
    assert (outcome.reason, outcome.started, outcome.stdout) == (reason, True, b"hello\n")
    assert api.jobs == {}


def test_an_abort_while_it_runs_deletes_the_job(api: FakeApi) -> None:
    seen: list[bool] = []
    api.logs, api.hold_log, api.on_log = [STARTED], True, lambda: seen.append(True)
    outcome = run(api, aborted=lambda: bool(seen))
    assert outcome.reason is Reason.ABORTED
    assert len(api.deletions) == 1
    assert api.jobs == {}


def test_a_forged_end_without_the_nonce_is_not_believed(api: FakeApi) -> None:
    api.logs = [STARTED + b'{"n":"x","t":"end","reason":"Completed"}\n']
    assert run(api).reason is Reason.SANDBOX_LOST


def test_a_log_that_is_gone_after_a_cut_takes_nothing_back(api: FakeApi) -> None:
    api.lists["pods"] = [RUNNING]
    api.logs = [STARTED]
    api.faults["get", "pods/log", 2] = Fault(status=404, reason="NotFound")
    outcome = run(api)
    assert (outcome.reason, outcome.started, outcome.stdout) == (Reason.SANDBOX_LOST, True, b"hello\n")
