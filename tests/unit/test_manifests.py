"""The objects of an execution, compared as a whole: whatever is added or lost shows here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.cluster.manifests import CONFIG_MAP_BYTES, Tags
from adk_gke_sandbox.config import ExecutorConfig, SecretKey
from adk_gke_sandbox.contract import Contract, Toleration

CONFIG = ExecutorConfig(timeout_seconds=60, schedule_timeout_seconds=40)
RUNNER = {"supervisor.py": "r", "frames.py": "p", "worker.py": "w"}
OURS = {
    "app.kubernetes.io/name": "adk-gke-sandbox",
    "app.kubernetes.io/managed-by": "adk-gke-sandbox",
    "adk-gke-sandbox/execution": "sandbox-1",
}


def job(config: ExecutorConfig = CONFIG, tags: Tags = manifests.NO_TAGS, parts: Any = None) -> dict[str, Any]:
    return manifests.job(config, "sandbox-1", parts or manifests.split_request(b"{}", RUNNER), tags)


def pod_spec(config: ExecutorConfig = CONFIG) -> dict[str, Any]:
    spec: dict[str, Any] = job(config)["spec"]["template"]["spec"]
    return spec


def test_the_job_of_the_plain_defaults() -> None:
    scratch = {"medium": "Memory", "sizeLimit": str(128 * 2**20)}
    paths = {name: name for name in RUNNER} | {"request.json": "request/request.json"}
    container = {
        "name": "code-runner",
        "image": "python:3.11-slim",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-I", "-S", "-B", "/etc/sandbox/supervisor.py"],
        "workingDir": "/workspace",
        "env": [],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "resources": {
            "limits": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
            "requests": {"cpu": "200m", "memory": "256Mi", "ephemeral-storage": "256Mi"},
        },
        "volumeMounts": [
            {"name": "sandbox", "mountPath": "/etc/sandbox", "readOnly": True},
            {"name": "workspace", "mountPath": "/workspace"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    source = {"name": "sandbox-1-0", "items": [{"key": key, "path": path} for key, path in paths.items()]}
    pod = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 115,
        "terminationGracePeriodSeconds": 1,
        "runtimeClassName": "gvisor",
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "nodeSelector": {},
        "tolerations": [
            {"key": "sandbox.gke.io/runtime", "operator": "Equal", "value": "gvisor", "effect": "NoSchedule"}
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1001,
            "runAsGroup": 1001,
            "fsGroup": 1001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "sandbox", "projected": {"sources": [{"configMap": source}], "defaultMode": 0o444}},
            {"name": "workspace", "emptyDir": scratch},
            {"name": "tmp", "emptyDir": scratch},
        ],
    }
    assert job() == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sandbox-1", "namespace": "default", "labels": OURS, "annotations": {}},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": 130,
            "ttlSecondsAfterFinished": 60,
            "template": {"metadata": {"labels": OURS, "annotations": {}}, "spec": pod},
        },
    }


def test_a_config_map_is_immutable_and_owned_from_the_first_moment() -> None:
    tags = Tags(labels={"team": "search"}, invocation_id="e-1")
    assert manifests.config_map(CONFIG, "sandbox-1", 2, {"k": "v"}, "uid-1", tags) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "sandbox-1-2",
            "namespace": "default",
            "labels": {"team": "search", **OURS},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "sandbox-1", "uid": "uid-1"}],
        },
        "immutable": True,
        "data": {"k": "v"},
    }


def test_every_setting_of_the_pod_is_in_its_place() -> None:
    config = ExecutorConfig(
        namespace="box",
        image="registry/python@sha256:0",
        image_pull_policy="Never",
        image_pull_secrets=("one", "two"),
        cpu_requested="1",
        cpu_limit="2",
        mem_requested="1Gi",
        mem_limit="2Gi",
        ephemeral_storage="1Gi",
        scratch_limit="64Mi",
        service_account="runner",
        runtime_class="kata",
        node_selector={"pool": "sandboxes"},
        tolerations=(Toleration(key="only", operator="Exists", effect=""),),
        env={"A": "the program's environment travels in the request"},
    )
    assert job(config)["metadata"]["namespace"] == "box"
    plain, changed = pod_spec(ExecutorConfig()), pod_spec(config)
    assert {name: value for name, value in changed.items() if value != plain[name]} == {
        "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
        "serviceAccountName": "runner",
        "runtimeClassName": "kata",
        "nodeSelector": {"pool": "sandboxes"},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "containers": changed["containers"],
        "volumes": changed["volumes"],
    }
    before, (container,) = plain["containers"][0], changed["containers"]
    assert {name: value for name, value in container.items() if value != before[name]} == {
        "image": "registry/python@sha256:0",
        "imagePullPolicy": "Never",
        "resources": {
            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "1Gi"},
            "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"},
        },
    }
    assert [volume["emptyDir"]["sizeLimit"] for volume in changed["volumes"][1:]] == [str(64 * 2**20)] * 2


def test_a_pod_without_a_runtime_class_names_none() -> None:
    assert "runtimeClassName" not in pod_spec(ExecutorConfig(runtime_class=None))


def test_what_comes_from_secrets_is_in_the_containers_environment_and_nothing_else_is() -> None:
    contract = Contract(stack="test", image="x", secret_env=True)
    config = ExecutorConfig.from_contract(contract, env={"A": "plain", "B": SecretKey(secret="api", key="token")})
    assert pod_spec(config)["containers"][0]["env"] == [
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}}
    ]


def test_tags_are_on_job_and_pod_and_cannot_replace_the_packages_own_labels() -> None:
    tags = Tags(
        labels={"team": "search", "app.kubernetes.io/name": "other", "adk-gke-sandbox/execution": "other"},
        invocation_id="e-1",
    )
    found = job(tags=tags)
    for metadata in (found["metadata"], found["spec"]["template"]["metadata"]):
        assert metadata["labels"] == {"team": "search", **OURS}
        assert metadata["annotations"] == {"adk-gke-sandbox/invocation-id": "e-1"}


@pytest.mark.parametrize(
    ("timeout", "schedule", "deadlines"),
    [(0.2, 0.2, (16, 31)), (3600, 300, (3915, 3930)), (59.5, 40, (115, 130)), (60.5, 40, (116, 131))],
)
def test_the_servers_deadlines_come_after_all_that_the_client_does_itself(
    timeout: float, schedule: float, deadlines: tuple[int, int]
) -> None:
    spec = job(ExecutorConfig(timeout_seconds=timeout, schedule_timeout_seconds=schedule))["spec"]
    pod, whole = spec["template"]["spec"]["activeDeadlineSeconds"], spec["activeDeadlineSeconds"]
    assert (pod, whole) == deadlines
    # A call returns by the sum of both timeouts + 10 s.
    assert timeout + schedule + 10 < pod < whole


# The request document in its ConfigMaps


def test_a_request_that_fits_into_a_config_map_with_the_runner_travels_with_it() -> None:
    assert manifests.split_request(b"{}", RUNNER) == [{**RUNNER, "request.json": "{}"}]
    room = CONFIG_MAP_BYTES - sum(map(len, RUNNER.values()))
    assert len(manifests.split_request(b"x" * room, RUNNER)) == 1
    assert len(manifests.split_request(b"x" * (room + 1), RUNNER)) == 2


@given(st.integers(min_value=1, max_value=4 * CONFIG_MAP_BYTES), st.integers(min_value=0, max_value=9))
def test_a_large_request_is_whole_again_when_its_parts_are_put_together_by_name(size: int, seed: int) -> None:
    document = (bytes(range(48 + seed, 122)) * (size // 64 + 1))[:size]
    parts = manifests.split_request(document, RUNNER)
    data = {key: text for part in parts for key, text in part.items()}
    assert len(data) == sum(map(len, parts)), "no name twice"
    assert all(sum(map(len, part.values())) <= CONFIG_MAP_BYTES for part in parts)
    assert "".join(data[name] for name in sorted(data) if name.startswith("request.json")).encode() == document


def test_the_parts_of_a_large_request_are_mounted_as_one_folder() -> None:
    parts = manifests.split_request(b"x" * (2 * CONFIG_MAP_BYTES), RUNNER)
    volume = job(parts=parts)["spec"]["template"]["spec"]["volumes"][0]
    sources = [source["configMap"] for source in volume["projected"]["sources"]]
    assert [source["name"] for source in sources] == ["sandbox-1-0", "sandbox-1-1", "sandbox-1-2"]
    paths = [item["path"] for source in sources[1:] for item in source["items"]]
    assert paths == ["request/request.json.000", "request/request.json.001"]


def test_the_largest_request_fits_into_the_most_config_maps() -> None:
    parts = manifests.split_request(b"x" * manifests.REQUEST_BYTES, RUNNER)
    assert len(parts) == manifests.CONFIG_MAPS_MAX
    assert len(manifests.split_request(b"x" * (manifests.REQUEST_BYTES + 1), RUNNER)) == manifests.CONFIG_MAPS_MAX + 1
