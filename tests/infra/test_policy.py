"""The policy pack on the recorded resources of the whole program: none breaks a rule, and each rule can be broken."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pulumi_policy
import pytest
import yaml
from gke_variants import AUTOPILOT, VARIANTS
from policy_cases import CASES, GONE, GUESTS, NODES, Case, Change, token
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, UnknownValueError, unknown_checking_proxy

from adk_gke_sandbox.contract import Cluster, Contract
from infra.admission import rules as admission_rules
from infra.local import engine
from infra.policy import coverage, exceptions, pack
from infra.policy.exceptions import Exemptions
from infra.policy.rule import Resource, ResourceRule, at, violations
from infra.policy.rules import RULES
from tests.infra.conftest import Run

TODAY = date(2026, 11, 1)
CLUSTER, POOL, PROJECT_MEMBER, QUOTA = map(token, ("CLUSTER", "POOL", "PROJECT_MEMBER", "QUOTA"))
UNSHIELDED = Change(type=CLUSTER, inputs={"enableShieldedNodes": False})
NOTHING_EXEMPT = Exemptions()

STANDARD = ("staging", "prod")

Violations = dict[str, list[str]]
"""Rule -> what it says, as the engine prints it under the rule's description."""


def resource(kind: str, name: str, inputs: Mapping[str, Any], stack: str = "staging") -> Resource:
    urn = f"urn:pulumi:{stack}::adk-gke-sandbox::{kind}::{name}"
    return Resource(type=kind, name=name, urn=urn, inputs=copy.deepcopy(dict(inputs)))


_RECORDED: dict[str, list[Resource]] = {}


def recorded(run: Run, stack: str, **changed: Any) -> list[Resource]:
    """Return the resources of the whole program; each program runs once."""
    key = f"{stack} {changed}"
    if key not in _RECORDED:
        program = run(stack=stack, **changed)
        _RECORDED[key] = [resource(each.type, each.name, each.inputs, stack) for each in program.resources]
    return copy.deepcopy(_RECORDED[key])


@pytest.fixture
def program(run: Run) -> list[Resource]:
    """The staging program with everything that is advised, and with resources that somebody may add."""
    ours = recorded(run, "staging", rbacSecurityGroup="gke-security-groups@example.com", binaryAuthorization="enforce")
    return broken(ours, *GUESTS)


def judged(
    resources: Sequence[Resource],
    exempt: Exemptions = NOTHING_EXEMPT,
    uses: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Violations:
    """Return what the pack says of a program, as the engine asks: of each resource, then of all of them.

    By then it knows nothing of what has become of them, as in the preview of a cluster that is not there yet. Inputs,
    by name of their resource, may come from another resource.
    """
    found: Violations = {}
    policies = pack.policies(exempt)

    def report_for(name: str) -> pulumi_policy.ReportViolation:
        return lambda message, urn=None: found.setdefault(name, []).append(message)

    for each in resources:
        props = unknown_checking_proxy(dict(each.inputs))
        args = pulumi_policy.ResourceValidationArgs(each.type, props, each.urn, each.name, None, None)
        for policy in policies:
            if isinstance(policy, pulumi_policy.ResourceValidationPolicy):
                policy.validate(args, report_for(policy.name))
    became = [
        pulumi_policy.PolicyResource(each.type, {}, each.urn, each.name, None, None, None, [], {}) for each in resources
    ]
    named = {each.name: each for each in became}
    for (name, path), source in uses.items():
        named[name].property_dependencies[path] = [named[source]]
    for policy in policies:
        if isinstance(policy, pulumi_policy.StackValidationPolicy):
            policy.validate(pulumi_policy.StackValidationArgs(became), report_for(policy.name))
    return found


def broken(program: Iterable[Resource], *changes: Change) -> list[Resource]:
    """Return a program with some changes."""
    resources = list(program)
    nodes = {at(each.inputs, "nodeConfig.serviceAccount") for each in resources if each.type == POOL}
    for each in changes:
        inputs = json.loads(json.dumps(each.inputs).replace(NODES, f"serviceAccount:{min(nodes, default='')}"))
        index = next(
            (number for number, one in enumerate(resources) if one.type == each.type and each.name in ("", one.name)),
            None,
        )
        if inputs == GONE:
            assert index is not None
            del resources[index]
        elif index is None:
            assert not any("." in path for path in inputs), f"no {each.type} {each.name} to change"
            resources.append(resource(each.type, each.name, inputs))
        else:
            for path, value in inputs.items():
                change(resources[index].inputs, path, value)
    return resources


def change(inputs: Any, path: str, value: Any) -> None:
    """Set or remove one input in place."""
    key, _, rest = path.partition(".")
    place = int(key) if isinstance(inputs, list) else key
    if rest:
        if isinstance(inputs, dict):
            inputs.setdefault(place, {})
        change(inputs[place], rest, value)
    elif value == GONE:
        del inputs[place]
    else:
        inputs[place] = value


# -- our own programs


@pytest.mark.parametrize("stack", STANDARD)
def test_committed_stack_breaks_no_rule(run: Run, stack: str) -> None:
    found = judged(recorded(run, stack))
    assert {rule: texts for rule, texts in found.items() if not RULES[rule].advisory} == {}
    # What a team decides for itself is only advised.
    assert set(found) == {"google-groups", "binary-authorization"}


def test_local_stack_breaks_no_rule(run: Run) -> None:
    assert judged(recorded(run, "local")) == {}


@pytest.mark.parametrize(
    "name", ["hosts", "agents' way out", "existing network", "autopilot", "everything", "roles and a group"]
)
def test_stack_with_other_settings_breaks_no_rule(run: Run, name: str) -> None:
    stack, changed = VARIANTS[name]
    assert set(judged(recorded(run, stack, **changed))) <= {"google-groups", "binary-authorization"}


def test_program_with_everything_advised_breaks_no_rule(program: list[Resource]) -> None:
    assert judged(program) == {}


# -- broken programs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_broken_program_is_refused(program: list[Resource], case: Case) -> None:
    found = judged(broken(program, *case.changes))
    assert set(found) == set(case.refused)
    for rule, says in case.refused.items():
        assert any(says in text for text in found[rule]), found[rule]
        assert all(text.endswith(f". {RULES[rule].remedy}.") for text in found[rule])


def test_every_rule_is_broken_by_some_case() -> None:
    assert {rule for case in CASES for rule in case.refused} == set(RULES)


def test_violation_reads_as_three_sentences(program: list[Resource]) -> None:
    (text,) = judged(broken(program, UNSHIELDED))["shielded-nodes"]
    assert RULES["shielded-nodes"].description == (
        "The control plane takes only nodes that prove who they are (CIS GKE 1.9.0: 5.5.5)"
    )
    assert text == "enableShieldedNodes is false, not true. Set enable_shielded_nodes=True."


def test_autopilot_nodes_have_an_account_of_their_own(run: Run) -> None:
    resources = recorded(run, "staging", **AUTOPILOT)
    path = "clusterAutoscaling.autoProvisioningDefaults"
    without = Change(type=CLUSTER, inputs={f"{path}.serviceAccount": GONE})
    (text,) = judged(broken(resources, without))["node-identity"]
    assert text.startswith(f"{path}.serviceAccount is not set, so nodes run as the project's default account")


def test_standard_cluster_without_any_pool_is_refused(program: list[Resource]) -> None:
    found = judged([each for each in program if each.type != POOL])
    assert set(found) == {"gvisor-pool"}


def test_rights_of_the_contract_are_all_that_the_stack_grants(program: list[Resource]) -> None:
    """What the executor needs breaks no rule, so a rule that forbids too much would show here."""
    roles = [each for each in program if each.kind == "Role"]
    assert roles
    assert all(
        list(violations(rule, role)) == []
        for role in roles
        for rule in RULES.values()
        if isinstance(rule, ResourceRule)
    )


# -- what a preview cannot know


def unknown(kind: str, path: str, name: str = "") -> Change:
    return Change(type=kind, name=name, inputs={path: UNKNOWN_STRING_VALUE})


def test_input_that_must_only_be_set_may_be_unknown(program: list[Resource]) -> None:
    for kind, path in ((POOL, "nodeConfig.serviceAccount"), (CLUSTER, "databaseEncryption.keyName")):
        assert judged(broken(program, unknown(kind, path))) == {}


def test_account_that_is_not_there_yet_is_nobody_in_particular(program: list[Resource]) -> None:
    assert judged(broken(program, unknown(PROJECT_MEMBER, "member"))) == {}


def test_nodes_account_that_is_not_there_yet_is_told_by_where_its_name_comes_from(program: list[Resource]) -> None:
    more = resource(PROJECT_MEMBER, "more", {"role": "roles/compute.admin", "member": UNKNOWN_STRING_VALUE})
    made = resource("gcp:serviceaccount/account:Account", "made", {})
    hidden = broken(program, unknown(POOL, "nodeConfig.serviceAccount", "sandbox-gvisor-pool"))
    uses = {("sandbox-gvisor-pool", "nodeConfig"): "made", ("more", "member"): "made"}
    assert set(judged([*hidden, made, more])) == set()
    assert set(judged([*hidden, made, more], uses=uses)) == {"node-roles"}


def test_unknown_value_is_never_taken_for_good(program: list[Resource]) -> None:
    with pytest.raises(UnknownValueError):
        judged(broken(program, unknown(CLUSTER, "releaseChannel.channel")))


def test_unknown_value_hides_no_violation_beside_it() -> None:
    rule = RULES["logging"]
    assert isinstance(rule, ResourceRule)
    inputs = {"loggingConfig": UNKNOWN_STRING_VALUE, "monitoringConfig": {"enableComponents": []}}
    cluster = Resource(type=CLUSTER, name="c", urn="", inputs=unknown_checking_proxy(inputs))
    texts = violations(rule, cluster)
    assert next(texts).startswith("monitoringConfig.enableComponents is without SYSTEM_COMPONENTS")
    with pytest.raises(UnknownValueError):
        next(texts)


# -- the rules as data


def test_rules_name_recommendations_that_there_are() -> None:
    assert {identity for rule in RULES.values() for identity in rule.cis} <= set(coverage.RECOMMENDATIONS)


def test_no_two_rules_share_a_name() -> None:
    assert [rule.name for rule in RULES.values()] == list(RULES)
    assert len(pack.policies(NOTHING_EXEMPT)) == len(RULES) + 1


def test_texts_of_rules_are_sentences_without_their_full_stops() -> None:
    for rule in RULES.values():
        assert rule.title[0].isupper()
        assert not rule.title.endswith(".")
        assert not rule.remedy.endswith(".")
        assert rule.url.startswith("https://")


def test_policies_carry_ids_severity_remedy_and_page() -> None:
    policies = {policy.name: policy for policy in pack.policies(NOTHING_EXEMPT)}
    policy = policies["gvisor-pool"]
    assert policy.framework is not None
    assert (policy.framework.version, policy.framework.specification) == ("1.9.0", "5.10.3")
    assert policy.severity is pulumi_policy.Severity.CRITICAL
    assert policy.enforcement_level is pulumi_policy.EnforcementLevel.MANDATORY
    assert policy.remediation_steps == f"{RULES['gvisor-pool'].remedy}."
    assert policy.url == RULES["gvisor-pool"].url


# -- the table


BENCHMARK_IDS = [
    *(f"4.1.{number}" for number in range(1, 11)),
    *("4.2.1", "4.3.1", "4.3.2", "4.4.1", "4.4.2", "4.5.1", "4.6.1", "4.6.2", "4.6.3", "4.6.4"),
    *(f"5.1.{number}" for number in range(1, 5)),
    *("5.2.1", "5.2.2", "5.3.1", "5.4.1"),
    *(f"5.5.{number}" for number in range(1, 8)),
    *(f"5.6.{number}" for number in range(1, 8)),
    *("5.7.1", "5.7.2", "5.8.1", "5.8.2", "5.8.3", "5.9.1", "5.9.2"),
    *(f"5.10.{number}" for number in range(1, 5)),
]


def test_table_has_every_recommendation_of_the_benchmark() -> None:
    assert list(coverage.RECOMMENDATIONS) == BENCHMARK_IDS


@pytest.mark.parametrize("identity", BENCHMARK_IDS)
def test_recommendation_is_held_or_does_not_apply_and_says_why(identity: str) -> None:
    recommendation = coverage.RECOMMENDATIONS[identity]
    rules = [rule for rule in RULES.values() if identity in rule.cis]
    held = bool(rules or recommendation.admission or recommendation.objects)
    assert held != bool(recommendation.not_applicable)


def test_table_names_admission_rules_that_there_are() -> None:
    image = f"europe-docker.pkg.dev/p/r/data@sha256:{'a' * 64}"
    contract = Contract(stack="staging", cluster=Cluster(context="c", endpoint="https://c"), image=image)
    known = {rule.id for rule in admission_rules.rules(contract)}
    named = {name for each in coverage.RECOMMENDATIONS.values() for name in each.admission}
    assert named <= known


def test_page_is_what_the_data_makes() -> None:
    assert coverage.PAGE.read_text(encoding="utf-8") == coverage.page(), "run `python -m infra.policy.coverage`"


# -- exceptions


def entry(**changed: Any) -> dict[str, Any]:
    given = {
        "rule": "shielded-nodes",
        "stack": "staging",
        "resource": "sandbox-cluster",
        "reason": "The image of the vendor is not signed; ticket 7",
        "expires": date(2026, 12, 31),
        **changed,
    }
    return {key: value for key, value in given.items() if value is not GONE}


def exempt(tmp_path: Path, *entries: Any, today: date = TODAY) -> Exemptions:
    path = tmp_path / "exceptions.yaml"
    path.write_text(yaml.safe_dump({"exceptions": list(entries)}))
    return exceptions.load(path, today=today, rules=RULES)


@pytest.fixture
def unshielded(program: list[Resource]) -> list[Resource]:
    return broken(program, UNSHIELDED)


def test_there_are_no_exceptions() -> None:
    assert exceptions.load(exceptions.FILE, today=TODAY, rules=RULES) == NOTHING_EXEMPT


def test_exception_exempts_a_resource_from_a_rule(tmp_path: Path, unshielded: list[Resource]) -> None:
    assert judged(unshielded, exempt(tmp_path, entry())) == {}


def test_exception_holds_on_its_last_day_and_not_after(tmp_path: Path, unshielded: list[Resource]) -> None:
    last = date(2026, 12, 31)
    assert judged(unshielded, exempt(tmp_path, entry(), today=last)) == {}
    assert set(judged(unshielded, exempt(tmp_path, entry(), today=date(2027, 1, 1)))) == {
        "shielded-nodes",
        "exceptions",
    }


def test_expired_exception_is_a_violation_and_told_beside_the_other(tmp_path: Path, unshielded: list[Resource]) -> None:
    found = judged(unshielded, exempt(tmp_path, entry(expires="2026-10-31")))
    assert found == {
        "shielded-nodes": [
            "enableShieldedNodes is false, not true. Set enable_shielded_nodes=True. The exception from shielded-nodes "
            "for sandbox-cluster of stack staging ended on 2026-10-31."
        ],
        "exceptions": [
            "The exception from shielded-nodes for sandbox-cluster of stack staging ended on 2026-10-31. Repair the "
            "resource and remove the exception, or give a new date and say why it still holds."
        ],
    }


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rule": "gvisor-pool"}, "gvisor-pool"),
        ({"stack": "prod"}, "prod"),
        ({"resource": "sandbox-gvisor-pool"}, "sandbox-gvisor-pool"),
    ],
)
def test_exception_is_for_one_rule_one_stack_and_one_resource(
    tmp_path: Path, unshielded: list[Resource], changed: dict[str, str], says: str
) -> None:
    assert "shielded-nodes" in judged(unshielded, exempt(tmp_path, entry(**changed)))


def test_exception_for_the_stack_itself(tmp_path: Path, program: list[Resource]) -> None:
    resources = [each for each in program if each.type != QUOTA]
    assert set(judged(resources)) == {"sandbox-quota"}
    whole = entry(rule="sandbox-quota", resource="(stack)")
    assert judged(resources, exempt(tmp_path, whole)) == {}


NUMBERED = "Exception 1 of exceptions.yaml"
ABOUT = f"{NUMBERED} (from shielded-nodes for sandbox-cluster)"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (entry(reason=GONE), f"{ABOUT} has no reason. Say why the resource need not hold to the rule."),
        (entry(reason="  "), f"{ABOUT} has no reason. Say why the resource need not hold to the rule."),
        (entry(expires=GONE), f"{ABOUT} has no expires. Give the last day as YYYY-MM-DD."),
        (
            entry(expires="next year"),
            f"{ABOUT} has expires='next year', which is no day. Give the last day as YYYY-MM-DD.",
        ),
        (
            entry(expires="2028-01-01"),
            "The exception from shielded-nodes for sandbox-cluster of stack staging would hold until 2028-01-01. Give "
            "a date within 366 days: what holds for longer is a change of the rule.",
        ),
        (entry(stack=GONE), f"{ABOUT} has no stack. Name the stack."),
        (
            entry(resource=GONE),
            f"{NUMBERED} (from shielded-nodes for ?) has no resource. Give the logical name of the resource, or "
            "(stack).",
        ),
        (entry(rule=GONE), f"{NUMBERED} has no rule. Name the rule."),
        (
            entry(rule="shielded-node"),
            f"{NUMBERED} (from shielded-node for sandbox-cluster) names no rule. Use shielded-nodes, or a name of "
            "docs/cis.md.",
        ),
        (entry(rule="zzz"), f"{NUMBERED} (from zzz for sandbox-cluster) names no rule. Use a name of docs/cis.md."),
        (
            entry(until="2026-12-31"),
            f"{ABOUT} has the unknown key until. There are rule, stack, resource, reason, expires.",
        ),
        ("shielded-nodes", f"{NUMBERED} is not a mapping. Give it the keys rule, stack, resource, reason, expires."),
    ],
)
def test_unusable_exception_is_a_violation_and_exempts_nothing(
    tmp_path: Path, unshielded: list[Resource], wrong: Any, says: str
) -> None:
    found = judged(unshielded, exempt(tmp_path, wrong))
    assert found["exceptions"] == [says]
    assert "shielded-nodes" in found


def test_exception_for_a_resource_that_is_not_there_is_a_violation(tmp_path: Path, program: list[Resource]) -> None:
    assert judged(program, exempt(tmp_path, entry(resource="old-pool"))) == {
        "exceptions": [
            "The exception from shielded-nodes for old-pool of stack staging is for nothing: the stack has no resource "
            "of this name. Remove it."
        ]
    }


def test_exception_of_another_stack_is_not_looked_for(tmp_path: Path, program: list[Resource]) -> None:
    assert judged(program, exempt(tmp_path, entry(stack="prod", resource="old-pool"))) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exceptions: {}", "is not a list under the key exceptions alone. Write it so"),
        ("exemptions: []", "is not a list under the key exceptions alone. Write it so"),
        ("- one", "is not a list under the key exceptions alone. Write it so"),
        ("exceptions: [", "cannot be read (ParserError). Repair it"),
    ],
)
def test_unreadable_file_is_a_violation(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert exceptions.load(path, today=TODAY, rules=RULES).problems == (f"{path} {says}",)


def test_missing_file_is_a_violation(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert exceptions.load(path, today=TODAY, rules=RULES).problems == (
        f"{path}: no such file. Name one in ADK_GKE_SANDBOX_POLICY_EXCEPTIONS, or unset it",
    )


# -- what the driver of the engine makes of it

VERDICT = """\
 +  pulumi:pulumi:Stack adk-gke-sandbox-staging create error: preview failed
 +  pulumi:pulumi:Stack adk-gke-sandbox-staging create error: Detected that the provider exited prematurely.
Policies:
    ❌ adk-gke-sandbox@v0.0.1 (local: infra/policy/pack.py)
        - [mandatory] [severity: critical]  gvisor-pool  (gcp:container:Cluster: sandbox-cluster)
          What models write runs on nodes with gVisor, and nothing else does (CIS GKE 1.9.0: 5.10.3)
          no node pool has gVisor. Give one pool gVisor.
        - [advisory] [severity: low]  google-groups  (gcp:container:Cluster: sandbox-cluster)
          People get their rights in the cluster by Google Groups
          authenticatorGroupsConfig.securityGroup is not set.

Diagnostics:
  pulumi:pulumi:Stack (adk-gke-sandbox-staging):
    error: preview failed
"""


def test_violation_is_the_cause_of_a_failed_preview_whatever_else_ends_with_it() -> None:
    assert engine.causes(VERDICT)[0] == (
        "gvisor-pool (gcp:container:Cluster: sandbox-cluster): no node pool has gVisor. Give one pool gVisor."
    )


# -- the executable


def test_port_is_told_at_once() -> None:
    """The engine waits for it, and a pipe keeps what is not flushed."""
    unbuffered = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(
        [sys.executable, pack.__file__], env=unbuffered, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip().isdigit()
        finally:
            process.kill()


def test_folder_that_is_published_has_all_that_the_pack_imports(tmp_path: Path) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)cd build/policy\n", coverage.page(), flags=re.DOTALL)
    folder = tmp_path / "policy"
    script = commands.replace("build/policy", str(folder))
    subprocess.run(["bash", "-ec", script], check=True, cwd=coverage.PAGE.parents[1])
    project = yaml.safe_load((folder / "PulumiPolicy.yaml").read_text())
    assert project["runtime"]["name"] == "python"
    # As the language host runs it, and without this repository in sight.
    line = [sys.executable, "-P", "-c", f"import runpy; runpy.run_path({str(folder)!r}, run_name='__main__')"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        process.kill()


def test_example_of_an_exception_is_for_a_resource_and_a_rule_that_there_are(
    tmp_path: Path, program: list[Resource]
) -> None:
    example = re.sub(
        r"^# ?", "", exceptions.FILE.read_text().partition("#\n")[2].partition("exceptions: []")[0], flags=re.M
    )
    path = tmp_path / "exceptions.yaml"
    path.write_text(example)
    found = exceptions.load(path, today=TODAY, rules=RULES)
    assert (found.problems, len(found.valid)) == ((), 1)
    assert list(found.unused("staging", program)) == []
    resources = broken(program, Change.of(f"POOL {found.valid[0].resource}", {"nodeConfig.bootDiskKmsKey": GONE}))
    assert set(judged(resources)) == {found.valid[0].rule}
    assert judged(resources, found) == {}


def test_pack_is_an_executable_file() -> None:
    assert os.access(pack.__file__, os.X_OK)


def test_pack_ends_with_the_engine_that_was_killed() -> None:
    engine_program = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
    line = [sys.executable, "-c", engine_program, sys.executable, pack.__file__]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().strip().isdigit()
        killed.kill()
        # Its end of the pipe is closed when it is gone.
        assert killed.stdout.read() == ""


def test_interpreter_without_the_sdk_says_what_to_do(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.symlink_to(shutil.which("python3", path=os.defpath) or sys.executable)
    done = subprocess.run([bare, "-S", pack.__file__], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"{bare} has no pulumi_policy. Put the virtual environment of the program first on PATH "
        "(`source .venv/bin/activate`), or install requirements/infra.txt\n"
    )
