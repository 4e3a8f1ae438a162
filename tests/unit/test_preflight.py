"""The checks on documents as the API server sends them; the cluster itself is in tests/cluster."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adk_gke_sandbox.preflight.permissions import (
    NEEDED,
    REFUSED,
    Access,
    Grant,
)
from adk_gke_sandbox.preflight.readings import OTHER_PERMISSIONS, readings
from adk_gke_sandbox.preflight.verdicts import Check, Problem, Result, Status, Unreadable, Verdict, evaluate

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import (
    CONTRACT_KEY,
    JOBS,
    PODS,
    STACK_LABEL,
    Contract,
    policy_name,
)
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.preflight import probe, trials
from adk_gke_sandbox.preflight.checks import CHECKS, INSIDE

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")
ALL = (*CHECKS, *INSIDE)
UP = "`pulumi up --refresh --stack test`"

Seen = dict[str, Any]
DENY: Seen = {
    "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def namespace(name: str, level: str) -> Seen:
    prefix = "pod-security.kubernetes.io/enforce"
    labels = {
        "kubernetes.io/metadata.name": name,
        STACK_LABEL: "test",
        prefix: level,
        f"{prefix}-version": "v1.34",
    }
    return {"metadata": {"name": name, "labels": labels}}


def outcome(**changes: Any) -> Outcome:
    seen = {
        "gvisor": True,
        "kernel": "Starting gVisor...",
        "uid": 1001,
        "credentials": [],
        "name_servers": [],
        "opened": [],
        **changes,
    }
    return Outcome(name="sandbox-1", reason=Reason.COMPLETED, stdout=json.dumps(seen).encode())


def good() -> Seen:
    """Return what is read of a cluster that is as the contract says."""
    hard = {
        "pods": "60",
        "count/pods": "180",
        "count/jobs.batch": "120",
        "count/configmaps": "3841",
        "count/secrets": "0",
        "count/services": "0",
        "count/persistentvolumeclaims": "0",
        **{f"{kind}.cpu": "60" for kind in ("requests", "limits")},
        **{f"{kind}.memory": "60Gi" for kind in ("requests", "limits")},
        **{f"{kind}.ephemeral-storage": "61440Mi" for kind in ("requests", "limits")},
    }
    most = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "1Gi"}
    config = ExecutorConfig.from_contract(CONTRACT)
    seen: Seen = {
        "server": "https://10.0.0.1:6443",
        "version": {"gitVersion": "v1.34.2-gke.100"},
        "identity": "platform",
        "runtime_class": {"metadata": {"name": "gvisor"}, "handler": "gvisor"},
        "sandbox_namespace": namespace("agent-sandbox", "restricted"),
        "agents_namespace": namespace("agents", "baseline"),
        "mounted_contract": {"data": {CONTRACT_KEY: CONTRACT.to_json()}},
        "agent_account": {"metadata": {"name": "agent"}},
        "sandbox_account": {"metadata": {"name": "sandbox-runner"}, "automountServiceAccountToken": False},
        "default_account": {"metadata": {"name": "default"}, "automountServiceAccountToken": False},
        "reviews": {**dict.fromkeys(NEEDED, True), **dict.fromkeys(REFUSED, False)},
        "agent_grants": frozenset(Grant(access, "RoleBinding sandbox-executor") for access in NEEDED),
        "sandbox_grants": {"sandbox-runner": frozenset(), "default": frozenset()},
        "quotas": [{"metadata": {"name": "sandbox"}, "spec": {"hard": hard}}],
        "limit_ranges": [
            {
                "metadata": {"name": "sandbox"},
                "spec": {"limits": [{"type": "Container", "max": most}, {"type": "Pod", "max": most}]},
            }
        ],
        "network_policies": [copy.deepcopy(DENY)],
        "agents_network_policies": [copy.deepcopy(DENY)],
        "job_trials": {name: f"denied request: {name}: x" for name in trials.jobs(config)} | {trials.OWN: ""},
        "pod_trials": {name: f"denied request: {name}: x" for name in trials.pods(config)},
        "targets": (probe.Target(name="API server", address="10.0.0.1", port=6443),),
        "probe": outcome(),
    }
    for kind in (PODS, JOBS):
        name = policy_name(CONTRACT, kind)
        seen[f"{kind}_policy"] = {"spec": {"failurePolicy": "Fail", "validations": [{"expression": "true"}]}}
        seen[f"{kind}_binding"] = {
            "spec": {
                "policyName": name,
                "validationActions": ["Deny", "Audit"],
                "matchResources": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agent-sandbox"}}
                },
            }
        }
    return seen


def judged(seen: Seen, contract: Contract = CONTRACT) -> dict[str, Result]:
    return {result.check: result for result in evaluate(ALL, contract, seen)}


def failed(seen: Seen, contract: Contract = CONTRACT) -> set[str]:
    return {name for name, result in judged(seen, contract).items() if result.status is Status.FAIL}


def at(*path: Any, value: Any = None) -> Callable[[Seen], None]:
    """Return what sets an entry, or removes it where no value is given."""

    def change(seen: Seen) -> None:
        where: Any = seen
        for step in path[:-1]:
            where = where[step]
        if value is None:
            del where[path[-1]]
        else:
            where[path[-1]] = value

    return change


def test_good_cluster_passes_every_check() -> None:
    assert {result.status for result in judged(good()).values()} == {Status.PASS}


LABELS = ("metadata", "labels")
ENFORCE = "pod-security.kubernetes.io/enforce"
SANDBOX_POLICY = policy_name(CONTRACT, PODS)
HARD = ("quotas", 0, "spec", "hard")
BINDING = ("jobs_binding", "spec")
OPEN = {"metadata": {"name": "mine"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}}
SCOPED = {"metadata": {"name": "scoped"}, "spec": {"scopes": ["BestEffort"], "hard": {"pods": "0"}}}


@pytest.mark.parametrize(
    ("check", "broken", "subject", "found", "fix"),
    [
        pytest.param(
            "api-server",
            at("version", value={"gitVersion": "v1.29.9-gke.1"}),
            "API server https://10.0.0.1:6443",
            "v1.29.9-gke.1",
            "Upgrade the control plane to Kubernetes 1.30 or later",
            id="release-too-old",
        ),
        pytest.param(
            "api-server",
            at("version", value=Unreadable(permission="get version", message="does not answer", forbidden=False)),
            "API server https://10.0.0.1:6443",
            "does not answer",
            "Check that the cluster runs, and name its kubeconfig and context by --kubeconfig and --context",
            id="no-answer",
        ),
        pytest.param(
            "api-server",
            at("identity", value="system:anonymous"),
            "API server https://10.0.0.1:6443",
            "no credentials reached it",
            "Log in again; for GKE: `gcloud auth login`",
            id="no-credentials",
        ),
        pytest.param(
            "namespaces",
            at("sandbox_namespace", *LABELS, STACK_LABEL, value="other"),
            "Namespace agent-sandbox",
            "adk-gke-sandbox/stack=other",
            "Pull the contract of that stack",
            id="other-stack",
        ),
        pytest.param(
            "namespaces",
            at("agents_namespace", "metadata", "deletionTimestamp", value="2026-01-01T00:00:00Z"),
            "Namespace agents",
            "being deleted",
            "Wait until it is gone, then run",
            id="namespace-goes",
        ),
        pytest.param(
            "contract",
            at("mounted_contract", "data", value={}),
            "ConfigMap agents/adk-gke-sandbox",
            "is not JSON",
            "`kubectl delete configmap adk-gke-sandbox -n agents`, then",
            id="contract-not-mounted",
        ),
        pytest.param(
            "runtime-class",
            at("runtime_class", "handler", value="runc"),
            "RuntimeClass gvisor",
            "handler runc",
            "with this one a program shares the kernel of its node",
            id="handler-of-the-node",
        ),
        pytest.param(
            "pod-security",
            at("sandbox_namespace", *LABELS, ENFORCE, value="baseline"),
            "Namespace agent-sandbox",
            f"{ENFORCE}=baseline",
            f"`kubectl label --overwrite namespace agent-sandbox {ENFORCE}=restricted`",
            id="label-weaker",
        ),
        pytest.param(
            "pod-security",
            at("agents_namespace", *LABELS, f"{ENFORCE}-version", value="latest"),
            "Namespace agents",
            f"{ENFORCE}-version=latest",
            f"`kubectl label namespace agents {ENFORCE}-version-`, then {UP}",
            id="version-floats",
        ),
        pytest.param(
            "tokens",
            at("default_account", "automountServiceAccountToken"),
            "ServiceAccount agent-sandbox/default",
            "automountServiceAccountToken: not set",
            """`kubectl patch serviceaccount -n agent-sandbox default -p '{"automountServiceAccountToken": false}'`""",
            id="default-account-mounts",
        ),
        pytest.param(
            "executor-allowed",
            at("reviews", Access("batch", "jobs", "create"), value=False),
            "ServiceAccount agents/agent",
            "may not create jobs.batch",
            f"Run {UP}",
            id="call-forbidden",
        ),
        pytest.param(
            "executor-refused",
            at("reviews", Access("", "secrets", "get"), value=True),
            "ServiceAccount agents/agent",
            "may get secrets",
            "executor-exact names the bindings and how to remove them",
            id="secrets-readable",
        ),
        pytest.param(
            "executor-exact",
            at(
                "agent_grants",
                value=frozenset({Grant(Access("*", "*", "*"), "ClusterRoleBinding all (ClusterRole admin)")}),
            ),
            "ServiceAccount agents/agent",
            "ClusterRoleBinding all (ClusterRole admin) also grants * *.*",
            "`kubectl delete clusterrolebinding all`",
            id="granted-everything",
        ),
        pytest.param(
            "sandbox-bindings",
            at(
                "sandbox_grants",
                "default",
                value={Grant(Access("", "secrets", "get"), "RoleBinding mine (ClusterRole view)")},
            ),
            "ServiceAccount agent-sandbox/default",
            "RoleBinding mine (ClusterRole view) grants get secrets",
            "`kubectl delete rolebinding mine -n agent-sandbox`, then",
            id="sandbox-bound",
        ),
        pytest.param(
            "quota",
            at(*HARD, "pods"),
            "ResourceQuota of agent-sandbox",
            "none on pods",
            f"Run {UP}",
            id="quota-without-pods",
        ),
        pytest.param(
            "quota",
            at(*HARD, "count/secrets", value="3"),
            "ResourceQuota agent-sandbox/sandbox",
            "count/secrets 3",
            f"`kubectl delete resourcequota sandbox -n agent-sandbox`, then {UP}",
            id="quota-lets-secrets",
        ),
        pytest.param(
            "quota",
            at(*HARD, "limits.cpu", value="3500m"),
            "ResourceQuota agent-sandbox/sandbox",
            "limits.cpu 3500m",
            "raise it with `pulumi config set quotaCpu ... --stack test`",
            id="quota-below-the-ceiling",
        ),
        pytest.param(
            "quota",
            at(*HARD, "configmaps", value="10"),
            "ResourceQuota agent-sandbox/sandbox",
            "count/configmaps 10",
            "raise it with `pulumi config set quotaJobs ... --stack test`",
            id="quota-under-its-other-name",
        ),
        pytest.param(
            "limit-range",
            at("limit_ranges", 0, "spec", "limits", 0, "max", "memory", value="4Gi"),
            "LimitRange agent-sandbox/sandbox",
            "max memory 4Gi",
            f"`kubectl delete limitrange sandbox -n agent-sandbox`, then {UP}",
            id="limit-below-the-ceiling",
        ),
        pytest.param(
            "network-policies",
            at("agents_network_policies", value=[OPEN]),
            "NetworkPolicy of agents",
            "none of mine",
            f"Run {UP}",
            id="agents-open",
        ),
        pytest.param(
            "network-policies",
            at("agents_network_policies", 0, "spec", value={**DENY["spec"], "egress": [{}]}),
            "NetworkPolicy of agents",
            "none of deny-all",
            f"`kubectl delete networkpolicy deny-all -n agents`, then {UP}",
            id="deny-all-lets-out",
        ),
        pytest.param(
            "network-policies",
            at(
                "agents_network_policies", 0, "spec", value={**DENY["spec"], "podSelector": {"matchLabels": {"a": "b"}}}
            ),
            "NetworkPolicy of agents",
            "none of deny-all",
            f"`kubectl delete networkpolicy deny-all -n agents`, then {UP}",
            id="deny-all-for-some",
        ),
        pytest.param(
            "network-policies",
            lambda seen: seen["network_policies"].append(OPEN),
            "NetworkPolicy agent-sandbox/mine",
            "allows egress; policies add up",
            "`kubectl delete networkpolicy mine -n agent-sandbox`",
            id="sandboxes-opened",
        ),
        pytest.param(
            "admission-policies",
            at("pods_policy", "spec", "failurePolicy", value="Ignore"),
            f"ValidatingAdmissionPolicy {SANDBOX_POLICY}",
            "failurePolicy is Ignore: what cannot be judged is let in",
            f"`kubectl delete validatingadmissionpolicy {SANDBOX_POLICY}`, then {UP}",
            id="policy-fails-open",
        ),
        pytest.param(
            "admission-policies",
            at("pods_policy", "spec", "validations", value=[]),
            f"ValidatingAdmissionPolicy {SANDBOX_POLICY}",
            "has no rule",
            f"`kubectl delete validatingadmissionpolicy {SANDBOX_POLICY}`, then {UP}",
            id="policy-empty",
        ),
        pytest.param(
            "admission-policies",
            at("pods_policy", "spec", "matchConstraints", value={"excludeResourceRules": [{}]}),
            f"ValidatingAdmissionPolicy {SANDBOX_POLICY}",
            "matchConstraints leave objects out",
            f"`kubectl delete validatingadmissionpolicy {SANDBOX_POLICY}`, then {UP}",
            id="policy-excludes",
        ),
        pytest.param(
            "admission-policies",
            at(*BINDING, "matchResources", "namespaceSelector", "matchLabels", value={"team": "a"}),
            f"ValidatingAdmissionPolicyBinding {policy_name(CONTRACT, JOBS)}",
            "namespaceSelector does not select the namespace",
            f"`kubectl delete validatingadmissionpolicybinding {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="binding-elsewhere",
        ),
        pytest.param(
            "admission-policies",
            at(
                *BINDING,
                "matchResources",
                "namespaceSelector",
                "matchExpressions",
                value=[{"key": STACK_LABEL, "operator": "DoesNotExist"}],
            ),
            f"ValidatingAdmissionPolicyBinding {policy_name(CONTRACT, JOBS)}",
            "namespaceSelector does not select the namespace",
            f"`kubectl delete validatingadmissionpolicybinding {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="binding-by-expression",
        ),
        pytest.param(
            "admission-policies",
            at(*BINDING, "matchResources", "objectSelector", value={"matchLabels": {"checked": "yes"}}),
            f"ValidatingAdmissionPolicyBinding {policy_name(CONTRACT, JOBS)}",
            "matchResources leave objects out",
            f"`kubectl delete validatingadmissionpolicybinding {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="binding-for-some",
        ),
        pytest.param(
            "admission-policies",
            at(*BINDING, "policyName", value="another"),
            f"ValidatingAdmissionPolicyBinding {policy_name(CONTRACT, JOBS)}",
            "is for the policy another",
            f"`kubectl delete validatingadmissionpolicybinding {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="binding-of-another",
        ),
        pytest.param(
            "admission-policies",
            at(*BINDING, "validationActions", value=["Audit", "Warn"]),
            f"ValidatingAdmissionPolicyBinding {policy_name(CONTRACT, JOBS)}",
            "validationActions are Audit, Warn: nothing is refused",
            f"`kubectl delete validatingadmissionpolicybinding {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="binding-only-audits",
        ),
        pytest.param(
            "image",
            at("job_trials", trials.OWN, value="denied request: image-registry: the name does not begin with x"),
            f"image {CONTRACT.image}",
            "denied request: image-registry: the name does not begin with x",
            "contract and policies do not match: pull the contract with `adk-gke-sandbox contract pull test`",
            id="image-refused",
        ),
        pytest.param(
            "job-admitted",
            at("job_trials", trials.OWN, value="denied request: deadline: too long"),
            "Job of the executor in agent-sandbox",
            "denied request: deadline: too long",
            "contract and policies do not match",
            id="own-job-refused",
        ),
        pytest.param(
            "jobs-refused",
            at("job_trials", "token", value=""),
            f"ValidatingAdmissionPolicy {policy_name(CONTRACT, JOBS)}",
            "let in (dry run)",
            f"`kubectl delete validatingadmissionpolicy {policy_name(CONTRACT, JOBS)}`, then {UP}",
            id="rule-not-held",
        ),
        pytest.param(
            "pods-refused",
            at("pod_trials", "runtime-class", value="exceeded quota"),
            f"ValidatingAdmissionPolicy {SANDBOX_POLICY}",
            "refused, but with: exceeded quota",
            "Use the release of this package that made the stack",
            id="refused-by-another",
        ),
        pytest.param(
            "probe",
            at("probe", value=Outcome(name="x", reason=Reason.UNSCHEDULABLE, message="no node took the pod")),
            f"execution x with {CONTRACT.image}",
            "Unschedulable: no node took the pod",
            "Do what the message says, then run preflight again",
            id="no-node",
        ),
        pytest.param(
            "probe",
            at("probe", value=Outcome(name="x", reason=Reason.COMPLETED, stdout=b"garbage")),
            f"execution x with {CONTRACT.image}",
            "no report but b'garbage'",
            "this one's Python cannot run the probe",
            id="garbage",
        ),
        pytest.param(
            "probe-gvisor",
            at("probe", value=outcome(gvisor=False, kernel="Linux version 6.12")),
            "RuntimeClass gvisor",
            "Linux version 6.12",
            "Programs run on the kernel of the node. Stop agents now",
            id="not-gvisor",
        ),
        pytest.param(
            "probe-network",
            at("probe", value=outcome(opened=[0])),
            "API server (10.0.0.1:6443)",
            "answered",
            "Dataplane V2, datapath_provider ADVANCED_DATAPATH",
            id="api-server-open",
        ),
        pytest.param(
            "probe-network",
            at("probe", value=outcome(name_servers=["10.0.0.10"])),
            "/etc/resolv.conf of a sandbox",
            "10.0.0.10",
            "its pods have dnsPolicy None",
            id="name-server",
        ),
        pytest.param(
            "probe-network",
            at("targets", value=()),
            "addresses of the cluster",
            "none is known",
            "Run preflight as an identity that may get services in default",
            id="nothing-known",
        ),
        pytest.param(
            "probe-identity",
            at("probe", value=outcome(credentials=["KUBERNETES_SERVICE_HOST"])),
            "execution sandbox-1",
            "KUBERNETES_SERVICE_HOST",
            "`kubectl get mutatingwebhookconfigurations`",
            id="token-inside",
        ),
        pytest.param(
            "probe-identity",
            at("probe", value=outcome(uid=0)),
            "execution sandbox-1",
            "uid 0",
            "then run",
            id="root-inside",
        ),
    ],
)
def test_what_is_broken_fails_one_check_that_names_object_cause_and_fix(
    check: str, broken: Callable[[Seen], None], subject: str, found: str, fix: str
) -> None:
    seen = copy.deepcopy(good())
    broken(seen)
    assert failed(seen) == {check}
    (problem,) = judged(seen)[check].problems
    assert problem.object == subject
    assert found in problem.found
    assert fix in problem.fix
    assert problem.expected


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("namespaces", "sandbox_namespace"),
        ("contract", "mounted_contract"),
        ("runtime-class", "runtime_class"),
        ("service-accounts", "agent_account"),
        ("service-accounts", "sandbox_account"),
        ("admission-policies", "pods_policy"),
        ("admission-policies", "jobs_binding"),
    ],
)
def test_missing_object_fails_one_check_and_the_stack_makes_it(check: str, name: str) -> None:
    seen = {**good(), name: None}
    assert failed(seen) == {check}
    (problem,) = judged(seen)[check].problems
    assert problem.found in ("does not exist", "no such namespace") or problem.found.startswith("no such ")
    assert UP in problem.fix or "GKE makes `gvisor`" in problem.fix


def test_quota_with_a_scope_does_not_bound_sandboxes() -> None:
    seen = good()
    seen["quotas"].append(SCOPED)
    assert failed(seen) == set()


def test_of_two_quotas_the_tighter_one_counts() -> None:
    seen = good()
    seen["quotas"].append({"metadata": {"name": "tight"}, "spec": {"hard": {"limits.memory": "1Gi"}}})
    assert failed(seen) == {"quota"}


def test_egress_that_the_contract_asks_for_is_no_opening_but_ingress_always_is() -> None:
    contract = CONTRACT.model_copy(update={"egress": "internet"})
    seen = {**good(), "mounted_contract": {"data": {CONTRACT_KEY: contract.to_json()}}}
    seen["network_policies"] = [*seen["network_policies"], OPEN]
    assert failed(seen, contract) == set()
    opened = {"metadata": {"name": "in"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}
    seen["network_policies"] = [*seen["network_policies"], opened]
    assert failed(seen, contract) == {"network-policies"}


def test_role_that_grants_too_much_is_made_anew_with_its_binding_but_a_cluster_role_is_left_alone() -> None:
    more = Access("", "pods", "get")
    fixes = {}
    for role in ("Role sandbox-executor", "ClusterRole view"):
        grant = Grant(more, f"RoleBinding sandbox-executor ({role})")
        result = judged({**good(), "agent_grants": good()["agent_grants"] | {grant}})["executor-exact"]
        fixes[role] = result.problems[0].fix
    unbound = (
        f"`kubectl delete rolebinding sandbox-executor -n agent-sandbox`, then {UP}, which makes the stack's own anew"
    )
    assert fixes == {
        "Role sandbox-executor": f"`kubectl delete role sandbox-executor -n agent-sandbox` and {unbound}",
        "ClusterRole view": unbound,
    }


def test_agent_that_sees_a_grant_but_not_the_binding_is_told_who_sees_it() -> None:
    grant = Grant(Access("", "pods", "get"), "")
    result = judged({**good(), "agent_grants": good()["agent_grants"] | {grant}})["executor-exact"]
    assert result.problems[0].found == "is also granted get pods"
    assert result.problems[0].fix == "Run preflight as the platform team, which sees what grants it"


def test_where_egress_is_allowed_a_name_server_is_no_opening() -> None:
    contract = CONTRACT.model_copy(update={"egress": "fqdn"})
    seen = {**good(), "mounted_contract": {"data": {CONTRACT_KEY: contract.to_json()}}}
    assert failed({**seen, "probe": outcome(name_servers=["10.0.0.10"])}, contract) == set()


def test_contract_of_another_context_is_the_same_contract() -> None:
    cluster = CONTRACT.cluster.model_copy(update={"context": "mine"})
    assert failed(good(), CONTRACT.model_copy(update={"cluster": cluster})) == set()


def test_image_without_a_digest_fails_before_the_api_server_is_asked() -> None:
    contract = CONTRACT.model_copy(update={"image": "registry/project/data:1"})
    seen = {**good(), "mounted_contract": {"data": {CONTRACT_KEY: contract.to_json()}}}
    results = judged(seen, contract)
    assert failed(seen, contract) == {"image"}
    assert results["job-admitted"].status is Status.SKIPPED
    assert results["job-admitted"].summary == "image comes first"


def test_what_may_not_be_read_is_unknown_and_names_the_permission() -> None:
    seen = good()
    permission = readings(CONTRACT)["quotas"].permission
    seen["quotas"] = Unreadable(permission=permission, message="quotas is forbidden", forbidden=True)
    result = judged(seen)["quota"]
    assert result.status is Status.UNKNOWN
    assert result.summary == "cannot list resourcequotas in agent-sandbox"
    assert result.problems == (
        Problem(
            object="this check",
            expected="to list resourcequotas in agent-sandbox",
            found="quotas is forbidden",
            fix="Run preflight as the platform team, or allow this identity to list resourcequotas in agent-sandbox",
        ),
    )


def test_what_builds_on_an_unknown_check_is_made_all_the_same() -> None:
    seen = good()
    seen["quotas"] = Unreadable(permission="x", message="x", forbidden=True)
    assert judged(seen)["job-admitted"].status is Status.PASS


def test_value_of_the_cluster_that_is_no_quantity_is_a_problem_not_a_crash() -> None:
    seen = good()
    seen["quotas"][0]["spec"]["hard"]["limits.cpu"] = "many"
    result = judged(seen)["quota"]
    assert result.status is Status.FAIL
    assert result.problems[0].found == "the cluster's bound='many' is not a Kubernetes quantity"


def test_each_check_comes_after_those_it_needs_and_reads_what_is_read() -> None:
    names = [check.id for check in ALL]
    known = {*readings(CONTRACT), *OTHER_PERMISSIONS}
    for check in ALL:
        assert all(names.index(need) < names.index(check.id) for need in check.needs), check.id
        assert set(check.reads) <= known, check.id
    assert len(set(names)) == len(names)


def test_page_lists_every_check_with_what_it_shows_and_reads() -> None:
    page = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| `")]
    assert listed == [row(check) for check in ALL]


def row(check: Check) -> str:
    """Return the line of a check in the page's table."""
    known = {name: reading.permission for name, reading in readings(CONTRACT).items()} | OTHER_PERMISSIONS
    permissions = "; ".join(dict.fromkeys(known[name] for name in check.reads)) or "nothing"
    return f"| `{check.id}` | {check.shows} | {permissions} | {', '.join(check.needs)} |"


def test_verdict_without_problems_is_a_pass() -> None:
    check = Check(id="x", shows="x", judge=lambda contract, seen: Verdict(summary="fine"))
    assert evaluate([check], CONTRACT, {}) == (Result(check="x", status=Status.PASS, summary="fine"),)
