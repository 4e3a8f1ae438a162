"""The rules of the admission policies as data, as the program registers them, and as docs/admission.md tells them.

Whether they refuse and let pass what they should is for a real API server to say: tests/cluster/test_admission.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import JOBS, PODS, Ceilings, Contract, Toleration, policy_name
from infra.admission_cel import Rule
from infra.admission_rules import image_prefixes, rules
from tests.cluster.admission_cases import CASES
from tests.infra.conftest import Run

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "admission.md").read_text(encoding="utf-8")

CONTRACT = Contract(
    stack="staging", image=f"europe-docker.pkg.dev/my-project/sandbox/data@sha256:{'a' * 64}", node_selector={}
)
RULES = rules(CONTRACT)

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"


def rule(name: str, contract: Contract) -> Rule:
    (found,) = [rule for rule in rules(contract) if rule.id == name]
    return found


def test_every_rule_has_an_id_of_its_own() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in ids)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_message_names_the_rule_what_was_found_and_the_fix(rule: Rule) -> None:
    assert rule.message == f"{rule.id}: {rule.refuses}. {rule.fix}"
    before, found, after = re.fullmatch(
        r'("(?:[^"\\]|\\.)*") \+ \((.+)\) \+ ("(?:[^"\\]|\\.)*")', rule.message_expression
    ).groups()  # type: ignore[union-attr]
    assert json.loads(before) == f"{rule.id}: {rule.refuses}; found: "
    assert found == rule.found
    assert json.loads(after) == f". {rule.fix}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_message_is_sentences_on_one_line(rule: Rule) -> None:
    """The API server drops a message with a line break."""
    assert "\n" not in rule.message_expression
    assert not rule.refuses.endswith(".")
    assert re.match("[A-Z]", rule.fix)
    assert not rule.fix.endswith(".")


def test_every_rule_has_a_case_that_breaks_it_for_every_kind_that_is_held_to_it() -> None:
    held = {(rule.id, kind) for rule in RULES for kind in rule.on}
    # No new pod has ephemeral containers; the case is a running one.
    assert {(case.rule, case.kind) for case in CASES} == held - {("ephemeral-containers", PODS)}


# What the rules allow comes from the contract


@pytest.mark.parametrize(
    ("image", "prefixes"),
    [
        ("europe-docker.pkg.dev/project/sandbox/data@sha256:abc", ("europe-docker.pkg.dev/project/sandbox/",)),
        ("localhost:5000/team/data:1.2@sha256:abc", ("localhost:5000/team/",)),
        ("localhost:5000/data:1.2@sha256:abc", ("localhost:5000/data@", "localhost:5000/data:")),
        ("library/python@sha256:abc", ("library/python@", "library/python:")),
        ("python:3.11-slim", ("python@", "python:")),
    ],
)
def test_images_of_the_contracts_repository_are_allowed_but_never_a_whole_registry(
    image: str, prefixes: tuple[str, ...]
) -> None:
    assert image_prefixes(image) == prefixes


@pytest.mark.parametrize(
    ("changed", "name", "text"),
    [
        ({"runtime_class": "kata"}, "runtime-class", '== "kata"'),
        ({"sandbox_service_account": "other"}, "service-account", '== "other"'),
        ({"ceilings": Ceilings(cpu="2")}, "cpu-ceiling", 'quantity("2")'),
        ({"ceilings": Ceilings(memory="3Gi")}, "memory-ceiling", 'quantity("3Gi")'),
        ({"ceilings": Ceilings(timeout_seconds=100), "schedule_timeout_seconds": 20}, "deadline", "<= 150"),
        ({"node_selector": {"pool": "sandbox"}}, "node-selector", 'nodeSelector[?"pool"].orValue("") == "sandbox"'),
        ({"tolerations": (Toleration(key="dedicated"),)}, "tolerations", '"dedicated"'),
        ({"image": "a/b/c@sha256:0"}, "image-registry", '["a/b/"]'),
        ({"secret_env": True}, "env", "!e.?valueFrom.hasValue() || e.?valueFrom.?secretKeyRef.hasValue()"),
    ],
    ids=lambda value: value if isinstance(value, str) and re.fullmatch("[a-z-]+", value) else "",
)
def test_a_changed_contract_changes_its_rule_and_no_other(changed: dict[str, Any], name: str, text: str) -> None:
    contract = CONTRACT.model_copy(update=changed)
    assert text in rule(name, contract).holds
    before = {rule.id: rule for rule in RULES}
    assert [rule.id for rule in rules(contract) if rule != before[rule.id]] == [name]


def test_quotes_of_a_value_do_not_end_the_string() -> None:
    contract = CONTRACT.model_copy(update={"runtime_class": 'g" || true || "'})
    assert rule("runtime-class", contract).holds.endswith(r'== "g\" || true || \""')


# What the rules read


MODELS: dict[str, tuple[Any, str]] = {
    "PodSpec": (client.V1PodSpec, r"variables\.spec\.\??{}\b"),
    "Container": (client.V1Container, r"\bc\.\??{}\b"),
    "PodSecurityContext": (client.V1PodSecurityContext, r"variables\.spec\.\?securityContext\.\?{}\b"),
    "SecurityContext": (client.V1SecurityContext, r"\bc\.\?securityContext\.\?{}\b"),
    "ResourceRequirements": (client.V1ResourceRequirements, r"\bc\.\?resources\.\?{}\b"),
    "JobSpec": (client.V1JobSpec, r"object\.spec\.\??{}\b"),
}
READ = " ".join([*(rule.holds for rule in RULES), "object.spec.template.spec"])


def free_fields() -> dict[str, set[str]]:
    """Return the fields that the page says are not looked at, by the Kubernetes type that they are of."""
    rows = re.findall(r"^\| (\w+) \| (`.+`) \| .+ \|$", PAGE, re.MULTILINE)
    found: dict[str, set[str]] = {model: set() for model in MODELS}
    for model, fields in rows:
        found[model] |= set(re.findall(r"`(\w+)`", fields))
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_field_that_kubernetes_has_is_read_by_a_rule_or_left_free_on_the_page(model: str) -> None:
    known, pattern = MODELS[model]
    fields = set(known.attribute_map.values())
    read = {field for field in fields if re.search(pattern.format(field), READ)}
    assert free_fields()[model] == fields - read


def test_the_executors_own_job_is_described() -> None:
    job = manifests.job(ExecutorConfig.from_contract(CONTRACT), "sandbox-1", [{manifests.REQUEST_KEY: ""}])
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parts = {
        "PodSpec": pod,
        "Container": container,
        "PodSecurityContext": pod["securityContext"],
        "SecurityContext": container["securityContext"],
        "ResourceRequirements": container["resources"],
        "JobSpec": job["spec"],
    }
    for model, part in parts.items():
        unread = {field for field in part if not re.search(MODELS[model][1].format(field), READ)}
        assert unread <= free_fields()[model], model


# What the program registers


@pytest.mark.parametrize(
    ("kind", "group", "resources"),
    [(PODS, "", ["pods", "pods/ephemeralcontainers", "pods/resize"]), (JOBS, "batch", ["jobs"])],
)
def test_policy_holds_every_rule_of_its_kind_at_every_create_and_update(
    run: Run, kind: str, group: str, resources: list[str]
) -> None:
    spec = run(image=CONTRACT.image).one(POLICY, f"sandbox-{kind}").inputs["spec"]
    assert spec["failurePolicy"] == "Fail"
    assert spec["matchConstraints"] == {
        "resourceRules": [
            {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}
        ]
    }
    assert spec["validations"] == [
        {"expression": rule.holds, "message": rule.message, "messageExpression": rule.message_expression}
        for rule in RULES
        if kind in rule.on
    ]


@pytest.mark.parametrize("kind", [PODS, JOBS])
def test_binding_refuses_in_the_sandbox_namespace_alone(run: Run, kind: str) -> None:
    program = run(stack="My_Stack", namespace="runs")
    binding = program.one(BINDING, f"sandbox-{kind}").inputs
    assert binding["spec"] == {
        "policyName": f"adk-gke-sandbox-my-stack-runs-{kind}",
        "validationActions": ["Deny", "Audit"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "runs"}}},
    }
    assert program.one(POLICY, f"sandbox-{kind}").inputs["metadata"]["name"] == binding["spec"]["policyName"]


def test_policies_are_there_before_the_namespace_and_until_it_is_gone(run: Run) -> None:
    namespace = run().one("Namespace", "sandbox-namespace")
    awaited = {
        urn.split("::")[-2].rpartition(":")[2] + " " + urn.split("::")[-1] for urn in namespace.request.dependencies
    }
    assert awaited == {f"{kind} sandbox-{of}" for kind in (POLICY, BINDING) for of in (PODS, JOBS)}


def test_two_stacks_of_one_name_have_policies_of_their_own() -> None:
    other = CONTRACT.model_copy(update={"namespace": "other"})
    assert policy_name(CONTRACT, PODS) != policy_name(other, PODS)


# What the page says


def test_the_table_of_rules_is_the_rules() -> None:
    rows = ["| Rule | Of | Refused | What to do |", "|---|---|---|---|"]
    for rule in RULES:
        of = {(PODS, JOBS): "pod, Job", (PODS,): "pod", (JOBS,): "Job"}[rule.on]
        rows.append(f"| `{rule.id}` | {of} | {rule.refuses} | {rule.fix} |")
    table = "\n".join(rows)
    assert table in PAGE, f"docs/admission.md is behind the rules; its table should be:\n{table}"


def test_the_example_of_a_refusal_is_what_an_agent_gets() -> None:
    refused = rule("image-digest", CONTRACT)
    message = f"{refused.id}: {refused.refuses}; found: python:3.11-slim. {refused.fix}"
    assert f"denied request: {message}\n" in PAGE
