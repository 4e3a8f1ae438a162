"""The rules of the admission policies as data, as the program registers them, and as docs/admission.md tells them.

Whether they refuse and let pass what they should is for a real API server to say: tests/cluster/test_admission.py.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.contract import CONFIG_MAPS, JOBS, PODS, Ceilings, Contract, Toleration, policy_name
from infra.admission.cel import VARIABLES, Rule
from infra.admission.fields import REFUSALS, Type, types
from infra.admission.rules import image_prefixes, rules
from infra.isolation import quota_hard, stored_mib
from infra.settings import Quota
from tests.cluster.admission_cases import CASES, LEFT_TO_THE_API_SERVER
from tests.infra.conftest import Run, committed

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "admission.md").read_text(encoding="utf-8")

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
    """In sentences on one line: the API server drops a message with a line break."""
    assert rule.message == f"{rule.id}: {rule.refuses}. {rule.fix}"
    assert "\n" not in rule.message_expression
    assert re.fullmatch(r"[A-Z].*[^.]", rule.fix)
    assert not rule.refuses.endswith(".")
    before, found, after = re.fullmatch(
        r'("(?:[^"\\]|\\.)*") \+ \((.+)\) \+ ("(?:[^"\\]|\\.)*")', rule.message_expression
    ).groups()  # type: ignore[union-attr]
    assert json.loads(before) == f"{rule.id}: {rule.refuses}; found: "
    assert found == rule.found
    assert json.loads(after) == f". {rule.fix}"


def test_every_rule_has_a_case_that_breaks_it_for_every_kind_that_is_held_to_it() -> None:
    held = {(rule.id, kind) for rule in RULES for kind in rule.on}
    # The API server itself refuses these at creation; a running pod can get ephemeral containers.
    at_creation = {(rule, kind) for rule, kind in held if rule not in ("ephemeral-containers", "privileged")}
    assert {(case.rule, case.kind) for case in CASES} == at_creation


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
        ({"secret_env": True}, "env", "!i.?valueFrom.hasValue() || i.?valueFrom.?secretKeyRef.hasValue()"),
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


# What is decided of fields


@pytest.mark.parametrize("found", types(CONTRACT), ids=lambda found: found.name)
def test_every_field_of_the_client_library_is_decided_once_for_each_kind(found: Type) -> None:
    """The library knows the fields of the version of Kubernetes after the one that the local cluster has."""
    known = getattr(client, f"V1{found.name}", None) or getattr(client, found.name)
    for kind in found.on:
        decided = [field for each in found.decisions if kind in (each.on or found.on) for field in each.fields]
        assert sorted(decided) == sorted(set(known.attribute_map.values())), kind


@pytest.mark.parametrize("found", types(CONTRACT), ids=lambda found: found.name)
def test_a_rule_holds_what_is_not_allowed_and_a_case_breaks_it(found: Type) -> None:
    left = {name for _, where, fields in LEFT_TO_THE_API_SERVER.values() if where == found.name for name in fields}
    cases = [case for case in CASES if case.type.split()[0] == found.name]
    for decision in found.decisions:
        if decision.mark == "allowed":
            assert decision.why
            continue
        read = rule(decision.rule, CONTRACT).holds
        for kind in decision.on or found.on:
            assert kind in rule(decision.rule, CONTRACT).on
            for name, written in VARIABLES[kind].items():
                read = read.replace(f"variables.{name}", written)
        for field in decision.fields:
            # A rule of a union names the members that it allows.
            union = decision.mark == "refused" and decision.rule not in REFUSALS
            assert union or re.search(rf"\b{field}\b", read), field
            breaking = [{*case.fields, case.type.split()[-1]} for case in cases if decision.rule in case.may_break]
            assert field in left.union(*breaking)


# What the program registers


@pytest.mark.parametrize(
    ("kind", "group", "resources"),
    [
        (PODS, "", ["pods", "pods/ephemeralcontainers", "pods/resize"]),
        (JOBS, "batch", ["jobs"]),
        (CONFIG_MAPS, "", ["configmaps"]),
    ],
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


@pytest.mark.parametrize("kind", [PODS, JOBS, CONFIG_MAPS])
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
    assert awaited == {f"{kind} sandbox-{of}" for kind in (POLICY, BINDING) for of in (PODS, JOBS, CONFIG_MAPS)}


def test_two_stacks_of_one_name_have_policies_of_their_own() -> None:
    other = CONTRACT.model_copy(update={"namespace": "other"})
    assert policy_name(CONTRACT, PODS) != policy_name(other, PODS)


# What the page says


def test_the_tables_are_the_rules_and_what_is_decided_of_fields() -> None:
    space = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert space["admission"]() == PAGE, "run `make docs`"


@pytest.mark.parametrize(("stack", "row"), [("local", "default quota"), ("prod", "prod")])
def test_the_page_tells_how_much_the_namespace_can_hold(stack: str, row: str) -> None:
    given = committed(stack) if stack == "prod" else {}
    quota = Quota(
        **{name: int(given[key]) for name, key in (("pods", "quotaPods"), ("jobs", "quotaJobs")) if key in given}
    )
    hard = quota_hard(CONTRACT, quota)
    assert int(hard["count/configmaps"]) == 2 * quota.jobs + 64
    mib = [int(hard[f"count/{kind}"]) * 1.5 for kind in ("configmaps", "jobs.batch", "pods")]
    assert list(stored_mib(quota).values()) == mib
    assert sum(mib) < 8 * 1024
    assert f"| {row} | {' | '.join(f'{each:.0f}' for each in (*mib, sum(mib)))} |" in PAGE


def test_the_example_of_a_refusal_is_what_an_agent_gets() -> None:
    refused = rule("image-digest", CONTRACT)
    message = f"{refused.id}: {refused.refuses}; found: python:3.11-slim. {refused.fix}"
    assert f"denied request: {message}\n" in PAGE
