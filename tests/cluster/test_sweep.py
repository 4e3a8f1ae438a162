"""``adk-gke-sandbox sweep`` on what executions really leave behind, as an identity with exactly the sweeper's rules."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.cluster import manifests, sweep
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTOR_RULES, SWEEPER_RULES, Rule
from infra.local.layout import Layout
from tests.cluster.identities import kubeconfig, namespace, wait_for
from tests.cluster.test_calls import Call, call_of

pytestmark = pytest.mark.cluster

IMPATIENT = """
from adk_gke_sandbox.cli.main import main
from adk_gke_sandbox.cluster import sweep

sweep.ORPHAN_SECONDS = sweep.GRACE_SECONDS = 1.0
main()
"""
"""The command, without the minute that it leaves to Kubernetes' own controllers."""

ORPHAN, SUSPENDED, ALIVE = "sandbox-orphan", "sandbox-suspended", "sandbox-alive"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A namespace in which something was left behind beside things that are nobody's business here."""

    namespace: str
    layout: Layout
    admin: client.ApiClient
    folder: Path
    core: client.CoreV1Api
    batch: client.BatchV1Api
    identities: dict[str, str] = field(default_factory=dict)

    def identity(self, name: str, rules: tuple[Rule, ...]) -> str:
        if name not in self.identities:
            self.identities[name] = kubeconfig(self.layout, self.admin, self.namespace, name, rules, self.folder)
        return self.identities[name]

    def sweep(self, *arguments: str, identity: str = "sweeper", rules: tuple[Rule, ...] = SWEEPER_RULES) -> Any:
        given = ["--no-contract", "--namespace", self.namespace, "--kubeconfig", self.identity(identity, rules)]
        command = [sys.executable, "-c", IMPATIENT, "sweep", *given, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def found(self) -> list[dict[str, Any]]:
        return list(json.loads(self.sweep("--json").stdout))

    def objects(self) -> set[str]:
        listed = {
            "jobs": self.batch.list_namespaced_job(self.namespace).items,
            "pods": self.core.list_namespaced_pod(self.namespace).items,
            "configmaps": self.core.list_namespaced_config_map(self.namespace).items,
        }
        return {f"{kind} {item.metadata.name}" for kind, items in listed.items() for item in items}


def leave(place: Place, name: str, **spec: Any) -> None:
    """Make the objects of an execution as its client makes them, and do not come back."""
    config = ExecutorConfig(namespace=place.namespace, cpu_requested="10m", mem_requested="16Mi")
    parts = [{"note": "x"}]
    made = manifests.job(config, name, parts)
    created = place.batch.create_namespaced_job(place.namespace, {**made, "spec": {**made["spec"], **spec}})
    owned = manifests.config_map(config, name, 0, parts[0], created.metadata.uid)
    place.core.create_namespaced_config_map(place.namespace, owned)


def orphan(place: Place, name: str) -> None:
    """Delete a Job as it should not be deleted: what it owns stays."""
    wait_for(lambda: place.core.list_namespaced_pod(place.namespace, label_selector=f"job-name={name}").items)
    place.batch.delete_namespaced_job(name, place.namespace, propagation_policy="Orphan")
    wait_for(lambda: f"jobs {name}" not in place.objects())


def strangers(place: Place) -> None:
    """Make objects that look like ours, but for one label."""
    ours = manifests.labels("sandbox-stranger", manifests.NO_TAGS)
    for label in ours:
        for suffix, labels in (
            ("without", {key: value for key, value in ours.items() if key != label}),
            ("other", {**ours, label: "" if label == "adk-gke-sandbox/execution" else "other"}),
        ):
            name = f"{suffix}-{label.rpartition('/')[2]}"
            place.core.create_namespaced_config_map(place.namespace, {"metadata": {"name": name, "labels": labels}})
    container = {"name": "c", "image": "localhost:1/absent"}
    nowhere = {"restartPolicy": "Never", "nodeSelector": {"no-such": "label"}, "containers": [container]}
    place.core.create_namespaced_pod(place.namespace, {"metadata": {"name": "foreign"}, "spec": nowhere})
    template = {"spec": nowhere}
    foreign = {"suspend": True, "activeDeadlineSeconds": 1, "ttlSecondsAfterFinished": 1, "template": template}
    place.batch.create_namespaced_job(place.namespace, {"metadata": {"name": "foreign"}, "spec": foreign})


@pytest.fixture
def place(layout: Layout, admin: client.ApiClient, tmp_path: Path) -> Iterator[Place]:
    with namespace(admin, "sweep") as name:
        yield Place(
            namespace=name,
            layout=layout,
            admin=admin,
            folder=tmp_path,
            core=client.CoreV1Api(admin),
            batch=client.BatchV1Api(admin),
        )


@pytest.fixture
def littered(place: Place) -> Place:
    leave(place, ALIVE)
    leave(place, ORPHAN)
    leave(place, SUSPENDED, suspend=True, activeDeadlineSeconds=1, ttlSecondsAfterFinished=1)
    strangers(place)
    orphan(place, ORPHAN)
    wait_for(lambda: len(place.found()) == 3)
    return place


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_what_is_left_behind_is_shown_then_removed_and_nothing_else(littered: Place) -> None:
    place = littered
    before = place.objects()
    (pod,) = (name for name in before if name.startswith(f"pods {ORPHAN}"))

    shown = place.sweep()
    assert (shown.returncode, shown.stderr) == (0, "")
    job_line, pod_line, map_line, advice = lines(shown.stdout)
    assert job_line.startswith(f"jobs {SUSPENDED}: ")
    assert job_line.endswith(" s past its deadline and TTL, suspended")
    assert pod_line.startswith(f"{pod}: ")
    assert pod_line.endswith(" s old, its Job is gone")
    assert map_line.startswith(f"configmaps {ORPHAN}-0: ")
    assert advice == "delete them with --delete"
    assert place.objects() == before, "it was only shown"

    listed = json.loads(place.sweep("--json").stdout)
    assert [(item["kind"], item["execution"], item["namespace"], item["deleted"]) for item in listed] == [
        ("jobs", SUSPENDED, place.namespace, False),
        ("pods", ORPHAN, place.namespace, False),
        ("configmaps", ORPHAN, place.namespace, False),
    ]
    assert all(item["age_seconds"] > 1 and item["cause"] for item in listed)

    removed = place.sweep("--delete")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert [line.split(":")[0] for line in lines(removed.stdout)] == [
        f"deleted jobs {SUSPENDED}",
        f"deleted {pod}",
        f"deleted configmaps {ORPHAN}-0",
    ]
    gone = {f"jobs {SUSPENDED}", f"configmaps {SUSPENDED}-0", f"configmaps {ORPHAN}-0", pod}
    wait_for(lambda: not gone & place.objects())
    assert place.objects() == before - gone

    again = place.sweep("--delete")
    assert (again.returncode, again.stdout) == (0, f"nothing is left behind in {place.namespace}\n")
    assert json.loads(place.sweep("--json", "--delete").stdout) == []


def test_a_running_execution_is_removed_only_by_its_age(littered: Place) -> None:
    place = littered
    assert ALIVE not in place.sweep("--delete").stdout
    removed = place.sweep("--older-than", "1", "--delete")
    assert lines(removed.stdout)[0].startswith(f"deleted jobs {ALIVE}: ")
    assert lines(removed.stdout)[0].endswith(", older than 1 s")
    wait_for(lambda: not any(ALIVE in name for name in place.objects()))


def test_an_agents_identity_is_told_what_it_lacks(littered: Place) -> None:
    done = littered.sweep(identity="agent", rules=EXECUTOR_RULES)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = lines(done.stderr)
    assert 'cannot list resource "configmaps" in API group "" in the namespace' in line
    assert "A sweeper may list and delete jobs, pods and configmaps there; an agent's identity may not" in line


def test_a_deletion_that_is_refused_is_told_and_the_others_are_made(littered: Place) -> None:
    rules = tuple(
        rule.model_copy(update={"verbs": ("list",)}) if rule.resource == "pods" else rule for rule in SWEEPER_RULES
    )
    done = littered.sweep("--delete", identity="half", rules=rules)
    assert done.returncode == 2
    (line,) = lines(done.stderr)
    assert 'cannot delete resource "pods"' in line
    job_line, pod_line, map_line = lines(done.stdout)
    assert job_line.startswith(f"deleted jobs {SUSPENDED}")
    assert pod_line.startswith(f"pods {ORPHAN}")
    assert map_line.startswith(f"deleted configmaps {ORPHAN}-0")


def test_a_sweep_that_cannot_connect_says_so(place: Place, tmp_path: Path) -> None:
    given = ["--no-contract", "--namespace", place.namespace, "--kubeconfig", str(tmp_path / "absent")]
    command = [sys.executable, "-c", IMPATIENT, "sweep", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"adk-gke-sandbox: cannot use kubeconfig {tmp_path / 'absent'}: ")


def test_the_calls_of_a_sweep_are_exactly_the_sweepers_rules(littered: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "ORPHAN_SECONDS", 1.0)
    monkeypatch.setattr(sweep, "GRACE_SECONDS", 1.0)
    cluster = kube.connect(littered.identity("sweeper", SWEEPER_RULES))
    manager: Any = cluster._client.rest_client.pool_manager
    recorded: list[Call] = []
    send = manager.request

    def request(method: str, url: str, **arguments: Any) -> Any:
        # RBAC lets everybody read the version (https://kubernetes.io/docs/reference/access-authn-authz/rbac/).
        if not url.endswith("/version/"):
            recorded.append(call_of(method, url))
        return send(method, url, **arguments)

    manager.request = request
    for leftover in sweep.find(cluster, littered.namespace):
        sweep.remove(cluster, leftover)
    cluster.close()
    assert sorted(recorded) == sorted(
        (rule.api_group, rule.resource, verb) for rule in SWEEPER_RULES for verb in rule.verbs
    ), "each once"
