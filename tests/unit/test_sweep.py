"""What counts as left behind, and how the server is asked for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adk_gke_sandbox.cluster import manifests, sweep
from adk_gke_sandbox.cluster.api import connect
from adk_gke_sandbox.cluster.sweep import GRACE_SECONDS, ORPHAN_SECONDS, leftovers
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTION_LABEL
from adk_gke_sandbox.errors import Gone
from tests.unit.loopback import Asked, kubeconfig, serving, status

NOW = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = ExecutorConfig(namespace="box", schedule_timeout_seconds=100, timeout_seconds=200)
DUE = 100 + 200 + 30 + 60
"""Both timeouts, the Job's margin above them and its TTL."""


def aged(manifest: dict[str, Any], seconds: float) -> dict[str, Any]:
    created = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**manifest, "metadata": {**manifest["metadata"], "creationTimestamp": created}}


def job(name: str, seconds: float, **spec: Any) -> dict[str, Any]:
    """Return a Job as an execution makes it, of an age."""
    made = manifests.job(CONFIG, name, [{}])
    return aged({**made, "spec": {**made["spec"], **spec}}, seconds)


def config_map(name: str, seconds: float) -> dict[str, Any]:
    return aged(manifests.config_map(CONFIG, name, 0, {}, "uid"), seconds)


def pod(name: str, seconds: float) -> dict[str, Any]:
    metadata = {"name": f"{name}-x7z", "namespace": "box", "labels": manifests.labels(name, manifests.NO_TAGS)}
    return aged({"metadata": metadata}, seconds)


def test_an_execution_that_may_still_run_is_left_alone() -> None:
    objects = {"jobs": [job("a", DUE)], "pods": [pod("a", DUE)], "configmaps": [config_map("a", DUE)]}
    assert leftovers(objects, NOW) == []


def causes(objects: dict[str, Any], **given: Any) -> dict[str, str]:
    return {f"{found.kind} {found.name}": found.cause for found in leftovers(objects, NOW, **given)}


@pytest.mark.parametrize(
    ("late", "spec", "cause"),
    [
        (GRACE_SECONDS, {}, None),
        (GRACE_SECONDS + 1, {}, "31 s past its deadline and TTL"),
        (100, {"suspend": True}, "100 s past its deadline and TTL, suspended"),
        (10**6, {"activeDeadlineSeconds": None}, None),
    ],
)
def test_a_job_has_its_deadline_its_ttl_and_a_grace(late: float, spec: dict[str, Any], cause: str | None) -> None:
    found = causes({"jobs": [job("a", DUE + late, **spec)]})
    assert found == ({"jobs a": cause} if cause else {})


def test_a_job_goes_with_all_it_owns_in_one_deletion() -> None:
    old = DUE + GRACE_SECONDS + 1
    objects = {"jobs": [job("a", old)], "pods": [pod("a", old)], "configmaps": [config_map("a", old)]}
    (found,) = leftovers(objects, NOW)
    assert (found.kind, found.namespace, found.name, found.execution, found.age_seconds) == (
        "jobs",
        "box",
        "a",
        "a",
        old,
    )


@pytest.mark.parametrize(("kind", "make"), [("pods", pod), ("configmaps", config_map)])
def test_what_has_no_job_is_an_orphan_once_the_garbage_collector_had_its_time(kind: str, make: Any) -> None:
    assert leftovers({kind: [make("a", ORPHAN_SECONDS)]}, NOW) == []
    assert [*causes({kind: [make("a", ORPHAN_SECONDS + 1)]}).values()] == ["its Job is gone"]


def test_an_orphan_is_told_from_the_objects_of_other_executions() -> None:
    objects = {
        "jobs": [job("alive", 100)],
        "pods": [pod("alive", 100), pod("orphan", 100)],
        "configmaps": [config_map("orphan", 100), config_map("alive", 100)],
    }
    assert causes(objects) == dict.fromkeys(["pods orphan-x7z", "configmaps orphan-0"], "its Job is gone")


def test_a_given_age_counts_every_job_of_it_running_or_not() -> None:
    objects = {"jobs": [job("old", 61), job("new", 60)], "pods": [pod("new", 61)]}
    assert causes(objects, older_than_seconds=60) == {"jobs old": "older than 60 s"}


@pytest.mark.parametrize(("kind", "make"), [("jobs", job), ("pods", pod), ("configmaps", config_map)])
def test_what_is_being_deleted_already_is_not_left_behind(kind: str, make: Any) -> None:
    going = make("a", 10**6)
    going["metadata"]["deletionTimestamp"] = "2040-01-02T03:04:04Z"
    assert leftovers({kind: [going]}, NOW) == []
    assert leftovers({kind: [going]}, NOW, older_than_seconds=1) == []


def test_the_pods_of_a_job_that_is_being_deleted_are_no_orphans() -> None:
    going = job("a", 100)
    going["metadata"]["deletionTimestamp"] = "2040-01-02T03:04:04Z"
    assert leftovers({"jobs": [going], "pods": [pod("a", 100)]}, NOW) == []


SELECTOR = "app.kubernetes.io/name=adk-gke-sandbox,app.kubernetes.io/managed-by=adk-gke-sandbox"


class Namespace:
    """What an API server holds in one namespace; it lists pages of two, and what is in Jobs alone."""

    def __init__(self, **objects: list[dict[str, Any]]) -> None:
        self.objects = objects
        self.forgets: set[str] = set()
        """Continue tokens that are too old, once."""

    def answer(self, asked: Asked) -> Any:
        root, kind = asked.path.split("/namespaces/box/") if "box" in asked.path else (asked.path, "")
        if root == "/version/":
            return 200, {}, {"Date": f"{NOW:%a, %d %b %Y %H:%M:%S} GMT"}
        assert root == ("/apis/batch/v1" if kind == "jobs" else "/api/v1")
        if kind != "jobs" and asked.headers["Accept"] != sweep.METADATA:
            return status(406, "NotAcceptable", "there is code in it")
        if asked.query["labelSelector"] != SELECTOR or asked.query["limit"] != "500":
            return status(400, "BadRequest", "too much")
        token = asked.query.get("continue", "0")
        if token in self.forgets:
            self.forgets.remove(token)
            return status(410, "Expired", "the provided continue parameter is too old")
        items = self.objects.get(kind, [])
        after = int(token) + 2
        more = {"continue": str(after)} if after < len(items) else {}
        return 200, {"metadata": more, "items": items[after - 2 : after] or None}


def swept(tmp_path: Path, held: Namespace, **given: Any) -> tuple[list[str], list[str]]:
    """Return the names of what was found, and the kinds that were listed, in order."""
    with serving(held.answer) as server:
        cluster = connect(kubeconfig(tmp_path / "kubeconfig", "a", a=server.url))
        found = sweep.find(cluster, "box", **given)
        listed = [asked.path.rpartition("/")[2] for asked in server.asked if "labelSelector" in asked.query]
    return sorted(leftover.name for leftover in found), listed


def test_lists_come_without_content_in_pages_jobs_last(tmp_path: Path) -> None:
    five = [f"gone-{number}" for number in range(5)]
    held = Namespace(
        jobs=[job("old", DUE + 100)],
        pods=[pod(name, 100) for name in five[:2]],
        configmaps=[config_map(name, 100) for name in five],
    )
    expected = ["gone-0-x7z", "gone-1-x7z", "old", *(f"{name}-0" for name in five)]
    assert swept(tmp_path, held) == (sorted(expected), ["configmaps"] * 3 + ["pods", "jobs"])


def test_a_list_that_the_server_has_forgotten_is_begun_again_once(tmp_path: Path) -> None:
    held = Namespace(configmaps=[config_map(name, 100) for name in "abc"])
    held.forgets = {"2"}
    assert swept(tmp_path, held) == (["a-0", "b-0", "c-0"], ["configmaps"] * 4 + ["pods", "jobs"])
    held.forgets = {"0", "2"}
    with pytest.raises(Gone):
        swept(tmp_path, held)


def test_an_object_that_belongs_to_no_execution_is_not_looked_at(tmp_path: Path) -> None:
    stray = job("a", 10**6)
    del stray["metadata"]["labels"][EXECUTION_LABEL]
    assert swept(tmp_path, Namespace(jobs=[stray]), older_than_seconds=1)[0] == []
