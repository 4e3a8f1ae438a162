"""The admission policies on a real API server: what breaks one rule is refused by it, what the executor writes passes.

In a namespace of their own, without Pod Security, quota and LimitRange: nothing else may refuse or repair. Objects
are created as a dry run, which passes through all of admission.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from pulumi import _types

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.cluster.manifests import Manifest, Tags
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import (
    APP_LABEL,
    CONFIG_MAPS,
    EXECUTION_LABEL,
    EXECUTOR_RULES,
    JOBS,
    PODS,
    STACK_LABEL,
    Ceilings,
    Contract,
    policy_name,
)
from adk_gke_sandbox.execution import File, Outcome, Reason
from adk_gke_sandbox.preflight import dry_run
from adk_gke_sandbox.sandbox import Sandbox, new_name
from infra import access
from infra.admission import policies as admission
from infra.admission.cel import VARIABLES
from infra.admission.config_maps import PUBLISHED
from infra.admission.fields import rows
from infra.admission.rules import rules
from infra.local.layout import Layout
from tests.cluster.admission_cases import CASES, LEFT_TO_THE_API_SERVER, NEWER, NODE_LABEL, Case, change
from tests.cluster.identities import service_account, wait_for

pytestmark = pytest.mark.cluster

GROUP = ("admissionregistration.k8s.io", "v1")
POLICIES, BINDINGS = "validatingadmissionpolicies", "validatingadmissionpolicybindings"


@dataclass(frozen=True, kw_only=True)
class Room:
    """A namespace with the policies of a contract in force."""

    contract: Contract
    kubeconfig: str
    core: client.CoreV1Api
    batch: client.BatchV1Api
    custom: client.CustomObjectsApi
    agent: client.ApiClient
    """With the executor's Role."""

    def config(self, **settings: Any) -> ExecutorConfig:
        return ExecutorConfig.from_contract(self.contract, kubeconfig_path=self.kubeconfig, **settings)

    def job(self, config: ExecutorConfig | None = None, parts: int = 1, tags: Tags = manifests.NO_TAGS) -> Manifest:
        """Return the Job that the executor would create."""
        data = [{f"{manifests.REQUEST_KEY}.{index:03d}": ""} for index in range(parts)]
        made = manifests.job(config or self.config(), new_name(), data, tags)
        return json.loads(json.dumps(made))  # nothing shared between its parts

    def config_map(self, index: int = 0, **data: str) -> Manifest:
        """Return the ConfigMap that the executor would create."""
        made = manifests.config_map(self.config(), new_name(), index, data or {manifests.REQUEST_KEY: ""}, "1")
        return json.loads(json.dumps(made))

    def made(self, kind: str) -> Manifest:
        """Return what the executor would create, or the Job controller."""
        return {JOBS: self.job, PODS: lambda: pod_of(self.job()), CONFIG_MAPS: self.config_map}[kind]()

    def create(self, kind: str, document: Manifest) -> tuple[str, list[str]]:
        """Create an object as a dry run; return why it is refused, and the rules that it breaks."""
        return refusal(lambda: self.send(kind, document))

    def send(self, kind: str, document: Manifest) -> Any:
        """Create an object as a dry run, with the executor's identity where it may create some."""
        namespaced = {
            PODS: self.core.create_namespaced_pod_with_http_info,
            JOBS: client.BatchV1Api(self.agent).create_namespaced_job_with_http_info,
            CONFIG_MAPS: client.CoreV1Api(self.agent).create_namespaced_config_map_with_http_info,
        }
        return namespaced[kind](self.contract.namespace, document, dry_run="All", field_validation="Strict")


def pod_of(job: Manifest) -> Manifest:
    """Return the pod that the Job controller would create."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": job["metadata"]["name"], **job["spec"]["template"]["metadata"]},
        "spec": job["spec"]["template"]["spec"],
    }


OLD_POD: Manifest = {
    "metadata": {"name": "old", "finalizers": ["example.com/held"]},
    "spec": {
        "containers": [{"name": "old", "image": "any"}],
        "schedulingGates": [{"name": "example.com/never"}],
        "automountServiceAccountToken": False,
    },
}
"""It breaks many rules, but was there before them; it never runs."""


def refusal(send: Callable[[], Any]) -> tuple[str, list[str]]:
    """Return why a call is refused, if it is, and all rules that a warning names."""
    message = ""
    try:
        _, _, headers = send()
    except ApiException as error:
        if error.status != 422:
            raise
        message, headers = json.loads(error.body)["message"], error.headers
    named = r"Validation failed for ValidatingAdmissionPolicy '[^']+' with binding '[^']+': ([\w-]+):"
    return message, re.findall(named, headers.get("Warning", ""))


def document(value: Any) -> Any:
    """Return arguments of a Pulumi resource as the document that the API server gets."""
    if _types.is_input_type(type(value)):
        fields = _types.input_type_to_dict(value).items()
        return {name: document(field) for name, field in fields if field is not None}
    return [document(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def room(layout: Layout, admin: client.ApiClient, contract: Contract) -> Iterator[Room]:
    namespace = f"admission-{secrets.token_hex(3)}"
    own = {"stack": namespace, "namespace": namespace, "node_selector": {NODE_LABEL: "linux"}, "ceilings": Ceilings()}
    made = Room(
        contract=contract.model_copy(update={**own, "schedule_timeout_seconds": 300}),
        kubeconfig=str(layout.kubeconfig),
        core=client.CoreV1Api(admin),
        batch=client.BatchV1Api(admin),
        custom=client.CustomObjectsApi(admin),
        agent=copy.copy(admin),
    )
    made.agent.default_headers = {
        **admin.default_headers,
        "Impersonate-User": f"system:serviceaccount:{namespace}:executor",
    }
    account = {"metadata": {"name": made.contract.sandbox_service_account}, "automountServiceAccountToken": False}
    made.core.create_namespace({"metadata": {"name": namespace}})
    try:
        made.core.create_namespaced_service_account(namespace, account)
        service_account(admin, namespace, "executor", EXECUTOR_RULES)
        wait_for(lambda: len(made.core.list_namespaced_service_account(namespace).items) == 3)
        made.core.create_namespaced_pod(namespace, OLD_POD)
        policies(made)
        yield made
    finally:
        for plural in (BINDINGS, POLICIES):
            for found in ours(made, plural):
                made.custom.delete_cluster_custom_object(*GROUP, plural, found["metadata"]["name"])
        assert [ours(made, plural) for plural in (BINDINGS, POLICIES)] == [[], []]
        made.core.delete_namespace(namespace)
        wait_for(lambda: let_go(made))


def let_go(room: Room) -> bool:
    """Take the old pod's finalizer away; return whether the namespace is gone."""
    namespace = room.contract.namespace
    # Policies hold on for a moment after they are deleted.
    with contextlib.suppress(ApiException):
        room.core.patch_namespaced_pod("old", namespace, {"metadata": {"finalizers": None}})
    return namespace not in [found.metadata.name for found in room.core.list_namespace().items]


def ours(room: Room, plural: str) -> list[Manifest]:
    selector = f"{STACK_LABEL}={room.contract.stack}"
    return list(room.custom.list_cluster_custom_object(*GROUP, plural, label_selector=selector)["items"])


def policies(room: Room) -> None:
    """Create the policies and bindings of the Pulumi program, and wait until they are in force.

    A second binding of each policy warns: a refusal names the first rule alone, warnings come from all.
    """
    api = {"apiVersion": "/".join(GROUP)}
    for kind in admission.KINDS:
        name = policy_name(room.contract, kind)
        metadata = document(access.metadata(room.contract, name))
        policy = document(admission.policy_spec(room.contract, kind))
        binding = document(admission.binding_spec(room.contract, kind))
        warns = {**binding, "validationActions": ["Warn"]}
        made = {**api, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": policy}
        room.custom.create_cluster_custom_object(*GROUP, POLICIES, made)
        for suffix, spec in (("", binding), ("-warns", warns)):
            named = {**metadata, "name": f"{name}{suffix}"}
            made = {**api, "kind": "ValidatingAdmissionPolicyBinding", "metadata": named, "spec": spec}
            room.custom.create_cluster_custom_object(*GROUP, BINDINGS, made)
    for kind in admission.KINDS:
        broken = room.made(kind)
        broken["metadata"]["labels"] |= {APP_LABEL: "any"}
        wait_for(lambda kind=kind, broken=broken: all(room.create(kind, broken)))


@pytest.fixture(scope="module")
def served(room: Room) -> dict[str, dict[str, Any]]:
    """The properties of every type of the API server's OpenAPI documents, by the type's name."""
    found: dict[str, dict[str, Any]] = {}
    api = room.core.api_client
    for group in ("api/v1", "apis/batch/v1"):
        answer = api.call_api("GET", f"{api.configuration.host}/openapi/v3/{group}")
        answer.read()
        for name, schema in json.loads(answer.data)["components"]["schemas"].items():
            if "properties" in schema:
                found[name.rpartition(".")[2]] = schema["properties"]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_breaks_one_rule_is_refused_by_it_alone_and_told_what_was_found(room: Room, case: Case) -> None:
    made = room.made(case.kind)
    change(made, case.kind, case.type, case.fields)
    if set(case.fields) & set(NEWER):
        return taken_by_nobody(room, case.kind, made)
    message, named = room.create(case.kind, made)
    (rule,) = [rule for rule in rules(room.contract) if rule.id == case.rule]
    said = f"'{policy_name(room.contract, case.kind)}' denied request: {rule.id}: {rule.refuses}; found: "
    assert re.search(f"{re.escape(said)}.+{re.escape(f'. {rule.fix}')}$", message), message
    assert case.rule in named
    assert set(named) <= case.may_break


def taken_by_nobody(room: Room, kind: str, made: Manifest) -> None:
    """The API server does not know the field, or its feature is off and it drops it."""
    with contextlib.suppress(ApiException):
        taken = json.dumps(room.core.api_client.sanitize_for_serialization(room.send(kind, made)[0]))
        assert not [field for field in NEWER if f'"{field}"' in taken], "the field is served: it needs no exception"


@pytest.mark.parametrize("words", LEFT_TO_THE_API_SERVER)
def test_what_no_rule_looks_at_is_refused_by_the_api_server(room: Room, words: str) -> None:
    kind, where, fields = LEFT_TO_THE_API_SERVER[words]
    made = room.made(kind)
    change(made, kind, where, fields)
    with pytest.raises(ApiException, match=words) as refused:
        room.send(kind, made)
    assert "ValidatingAdmissionPolicy" not in refused.value.body


@pytest.mark.parametrize("kind", admission.KINDS)
def test_cel_knows_every_field_that_a_rule_reads(room: Room, served: dict[str, dict[str, Any]], kind: str) -> None:
    """A misspelt field would always be absent.

    The API server types what it reads of ``object`` by its own schema, but not what comes from a variable, so the
    variables are written out; the two metadata of a Job, which have no type in common there, as one of them.
    """
    spec = document(admission.policy_spec(room.contract, kind))
    for validation in spec["validations"]:
        for part in ("expression", "messageExpression"):
            for name, written in {**VARIABLES[kind], "metadata": "[object.metadata]"}.items():
                validation[part] = validation[part].replace(f"variables.{name}", written)
    metadata = document(access.metadata(room.contract, f"{policy_name(room.contract, kind)}-typed"))
    typed = {"apiVersion": "/".join(GROUP), "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec}
    room.custom.create_cluster_custom_object(*GROUP, POLICIES, typed)

    def checked() -> Any:
        found = room.custom.get_cluster_custom_object(*GROUP, POLICIES, metadata["name"])
        return "typeChecking" in found.get("status", {}) and found

    warnings = [found["warning"] for found in wait_for(checked)["status"]["typeChecking"].get("expressionWarnings", [])]
    unknown = {re.sub(r"(?s).*undefined field '(\w+)'.*", r"\1", warning) for warning in warnings}
    newer = {name for found, decision in rows(room.contract) for name in decision.fields} - {
        name for properties in served.values() for name in properties
    }
    # Its schema leaves out what is a quantity, or a map of quantities.
    assert unknown - newer <= {"sizeLimit", "limits", "overhead"}


@pytest.mark.parametrize(("kind", "offers"), [(JOBS, dry_run.wrong_jobs), (PODS, dry_run.wrong_pods)])
def test_what_preflight_offers_breaks_the_rule_that_it_names(room: Room, kind: str, offers: Any) -> None:
    said = {rule: room.create(kind, made)[1] for rule, made in offers(room.config()).items()}
    assert said == {rule: [rule] for rule in said}


# What is decided


def test_every_field_that_the_api_server_knows_is_decided(room: Room, served: dict[str, dict[str, Any]]) -> None:
    """Of every type that can be reached through a field that is not refused."""
    decided: dict[str, set[str]] = {}
    followed: dict[str, set[str]] = {}
    for found, decision in rows(room.contract):
        decided.setdefault(found.name, set()).update(decision.fields)
        if decision.mark != "refused":
            followed.setdefault(found.name, set()).update(decision.fields)
    assert {name: set(served[name]) - fields for name, fields in decided.items() if set(served[name]) - fields} == {}
    reached = {
        reference.rpartition(".")[2]
        for name, fields in followed.items()
        for field in fields & set(served[name])
        for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(served[name][field]))
    }
    assert reached & set(served) - set(decided) == set()


# What passes


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "pull secrets": {"image_pull_secrets": ("registry", "mirror")},
    "environment": {"env": {"A": "1"}},
    "labels": {"labels": {"team": "ai"}},
    "scratch": {"scratch_limit": "300Mi"},
    "always pulled": {"image_pull_policy": "Always"},
    "another version of the image": {"image": f"IMAGE:1.2@sha256:{'b' * 64}"},
    "at the ceilings": {
        "cpu_limit": "4",
        "mem_limit": "8Gi",
        "ephemeral_storage": "1Gi",
        "timeout_seconds": 3600,
        "schedule_timeout_seconds": 300,
    },
    "fractions": {"cpu_limit": "0.3", "mem_limit": "300M", "timeout_seconds": 0.5, "schedule_timeout_seconds": 0.5},
}


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("parts", [1, manifests.CONFIG_MAPS_MAX])
def test_what_the_executor_writes_passes(room: Room, settings: dict[str, Any], parts: int) -> None:
    name = room.contract.image.partition("@")[0]
    config = room.config(
        **{key: value.replace("IMAGE", name) if key == "image" else value for key, value in settings.items()}
    )
    job = room.job(config, parts, Tags(labels=config.labels, invocation_id="e-1"))
    for kind, made in ((JOBS, job), (PODS, pod_of(job))):
        assert room.create(kind, made) == ("", [])


def test_the_largest_request_passes(room: Room) -> None:
    runner = dict.fromkeys(manifests.POD_FILES, "x" * 1024)
    parts = manifests.split_request(b"x" * manifests.REQUEST_BYTES, runner)
    assert len(parts) == manifests.CONFIG_MAPS_MAX
    for index in (0, 1, len(parts) - 1):
        assert room.create(CONFIG_MAPS, room.config_map(index, **parts[index])) == ("", [])


@pytest.mark.parametrize("prefix", ["adk-gke-sandbox", "kubectl.kubernetes.io", "autopilot.gke.io", "cloud.google.com"])
def test_annotations_that_kubernetes_and_gke_set_pass(room: Room, prefix: str) -> None:
    for kind in (PODS, JOBS):
        made = room.made(kind)
        made["metadata"]["annotations"] = {f"{prefix}/any": "any"}
        assert room.create(kind, made) == ("", [])


def test_the_clusters_certificates_are_published_by_their_controller_alone(room: Room) -> None:
    ((name, _),) = PUBLISHED
    namespace = room.contract.namespace
    before = room.core.read_namespaced_config_map(name, namespace).metadata.uid
    room.core.delete_namespaced_config_map(name, namespace)
    wait_for(
        lambda: [
            found
            for found in room.core.list_namespaced_config_map(namespace).items
            if found.metadata.name == name and found.metadata.uid != before
        ]
    )
    _, named = room.create(CONFIG_MAPS, room.config_map() | {"metadata": {"name": name}})
    assert {"config-map-owner", "config-map-name"} <= set(named)
    patch = room.core.patch_namespaced_config_map_with_http_info
    assert "immutable" in patched(patch, name, room, {"data": {"ca.crt": "any"}})[1]
    assert patched(patch, name, room, {"metadata": {"labels": {"any": "any"}}}) == ("", [])


@pytest.mark.parametrize(
    "key",
    ["sandbox.gke.io/runtime", "kubernetes.io/arch"]
    + [f"node.kubernetes.io/{condition}" for condition in ("not-ready", "unreachable", "memory-pressure")],
)
def test_tolerations_that_clusters_add_pass(room: Room, key: str) -> None:
    pod = pod_of(room.job())
    pod["spec"]["tolerations"].append({"key": key, "operator": "Exists", "effect": "NoSchedule"})
    assert room.create(PODS, pod) == ("", [])


def test_an_execution_runs_under_the_policies_and_leaves_nothing(room: Room) -> None:
    sandbox = Sandbox(room.config())
    data = File(name="data.bin", content=bytes(3 * 2**20))
    try:
        outcome = sandbox.run("print(len(open('data.bin', 'rb').read()))", files=(data,))
    finally:
        sandbox.close()
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, f"{3 * 2**20}\n".encode()), outcome
    wait_for(lambda: not room.batch.list_namespaced_job(room.contract.namespace).items)
    wait_for(
        lambda: [pod.metadata.name for pod in room.core.list_namespaced_pod(room.contract.namespace).items] == ["old"]
    )


def test_other_namespaces_are_left_alone(room: Room) -> None:
    job = room.job()
    job["spec"]["template"]["spec"] = OLD_POD["spec"] | {"restartPolicy": "Never"}
    elsewhere = replace(
        room, contract=room.contract.model_copy(update={"namespace": "default"}), agent=room.core.api_client
    )
    job["metadata"]["namespace"] = "default"
    assert elsewhere.create(JOBS, job) == ("", [])
    assert elsewhere.create(PODS, {**pod_of(job), "metadata": {"name": "any"}}) == ("", [])


# What an agent sees


def test_an_agent_is_told_the_rule_and_the_fix(room: Room) -> None:
    executor = GkeCodeExecutor.from_contract(room.contract, kubeconfig_path=room.kubeconfig, image="python:3.11-slim")
    context: Any = SimpleNamespace(
        invocation_id="e-1", session=SimpleNamespace(id="s-1", user_id="lovelace"), is_aborted=False
    )
    result = executor.execute_code(context, CodeExecutionInput(code="print(1)"))
    assert re.fullmatch(
        "the sandbox could not run your code: AdmissionDenied: .*denied request: image-digest: an image is not named "
        "by digest, so what runs could change by itself; found: python:3.11-slim. Write NAME@sha256:DIGEST; "
        r"GkeCodeExecutor.from_contract\(\) has the stack's image",
        result.stderr.strip(),
    ), result.stderr


# What changes later


@pytest.fixture
def running(room: Room) -> Iterator[str]:
    """The name of a Job whose program runs; its pod's is the same and a suffix."""
    name, stop = new_name(), threading.Event()
    outcomes: list[Outcome] = []
    sandbox = Sandbox(room.config())
    thread = threading.Thread(
        target=lambda: outcomes.append(sandbox.run("import time; time.sleep(600)", name=name, aborted=stop.is_set))
    )
    thread.start()
    try:
        wait_for(lambda: pod_name(room, name))
        yield name
    finally:
        stop.set()
        thread.join()
        sandbox.close()


def pod_name(room: Room, job: str) -> str:
    found = room.core.list_namespaced_pod(room.contract.namespace, label_selector=f"{EXECUTION_LABEL}={job}")
    return next((pod.metadata.name for pod in found.items if pod.status.phase == "Running"), "")


def patched(send: Callable[..., Any], name: str, room: Room, body: Any) -> tuple[str, list[str]]:
    return refusal(lambda: send(name, room.contract.namespace, body, dry_run="All"))


def test_no_container_is_added_to_a_running_sandbox(room: Room, running: str) -> None:
    container = {"name": "debug", "image": room.contract.image}
    message, named = patched(
        room.core.patch_namespaced_pod_ephemeralcontainers_with_http_info,
        pod_name(room, running),
        room,
        {"spec": {"ephemeralContainers": [container]}},
    )
    assert "denied request: ephemeral-containers: a container would be added to a sandbox" in message
    assert named == ["ephemeral-containers"]


@pytest.mark.parametrize(
    ("limits", "rule"),
    [({"memory": "8193Mi"}, "memory-ceiling"), ({"cpu": "4001m"}, "cpu-ceiling"), ({"memory": "600Mi"}, None)],
)
def test_a_running_sandbox_is_resized_up_to_the_ceilings(
    room: Room, running: str, limits: dict[str, str], rule: str | None
) -> None:
    _, named = patched(
        room.core.patch_namespaced_pod_resize_with_http_info,
        pod_name(room, running),
        room,
        {"spec": {"containers": [{"name": manifests.CONTAINER, "resources": {"limits": limits}}]}},
    )
    assert named == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"activeDeadlineSeconds": 100_000}, "deadline"),
        ({"ttlSecondsAfterFinished": 100_000}, "ttl"),
        ({"backoffLimit": 6}, "backoff-limit"),
        ({"suspend": True}, "suspend"),
        ({"activeDeadlineSeconds": 10}, None),
    ],
)
def test_a_running_job_stays_within_the_rules(
    room: Room, running: str, changes: dict[str, Any], rule: str | None
) -> None:
    _, named = patched(room.batch.patch_namespaced_job_with_http_info, running, room, {"spec": changes})
    assert named == ([rule] if rule else [])


def test_a_running_pod_can_get_a_shorter_deadline_and_other_labels(room: Room, running: str) -> None:
    change = {"metadata": {"labels": {"pool": "claimed"}}, "spec": {"activeDeadlineSeconds": 30}}
    assert patched(room.core.patch_namespaced_pod_with_http_info, pod_name(room, running), room, change) == ("", [])


def test_what_is_older_than_the_rules_can_go_but_not_change(room: Room) -> None:
    patch = room.core.patch_namespaced_pod_with_http_info
    message, named = patched(patch, "old", room, {"spec": {"activeDeadlineSeconds": 30}})
    assert "denied request: runtime-class: " in message
    assert "runtime-class" in named
    assert patched(patch, "old", room, {"metadata": {"labels": {"a": "b"}}}) == ("", [])
    assert patched(patch, "old", room, {"metadata": {"finalizers": None}}) == ("", [])
