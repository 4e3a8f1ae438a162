"""What ADK's own executor gets wrong, in the cases that need no cluster; docs/defects.md is the table."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

from adk_gke_sandbox import ConfigError, GkeCodeExecutor
from adk_gke_sandbox.contract import EXECUTOR_RULES
from adk_gke_sandbox.execution import Reason
from tests.unit.fake_api import RUNNING, FakeApi, Fault, added, run


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_d12_a_timeout_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"timeout_seconds=.+: |timeout_seconds=.+ is out of range"):
        GkeCodeExecutor(timeout_seconds=seconds)


def test_d12_no_call_is_without_a_timeout(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[urllib3.Timeout] = []
    urlopen = urllib3.HTTPConnectionPool.urlopen

    def noting(pool: Any, *arguments: Any, **given: Any) -> Any:
        timeouts.append(given["timeout"])
        return urlopen(pool, *arguments, **given)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", noting)
    api.faults["create", "jobs", 1] = Fault(truncate=True, effect=True)  # get jobs
    api.watches["pods"] = [[], [added(RUNNING)]]  # list pods
    assert run(api).reason is Reason.COMPLETED
    api.watches = {"pods": [[]], "events": [[], []]}  # watch and list events
    api.count.clear()
    api.faults.clear()
    assert run(api, schedule_timeout_seconds=5).reason is Reason.UNSCHEDULABLE
    assert len(set(api.calls)) == sum(len(rule.verbs) for rule in EXECUTOR_RULES), "every kind of call was made"
    assert len(timeouts) == len(api.calls)
    assert all(0 < timeout.connect_timeout <= 5 and 0 < timeout._read <= 30 for timeout in timeouts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_limit": "banana"}, "cpu_limit='banana' is not a Kubernetes quantity"),
        ({"namespace": ""}, "namespace='' is not a Kubernetes name"),
        ({"no_such": 1}, "GkeCodeExecutor has no parameter 'no_such'"),
        ({"stateful": True}, "stateful=True is not supported"),
    ],
)
def test_d22_what_cannot_work_is_refused_at_construction(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        GkeCodeExecutor(**settings)
    assert message in str(raised.value)
