"""Preflight on a cluster that a test makes; the live one is in tests/cluster."""

from __future__ import annotations

import inspect
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adk_gke_sandbox import preflight
from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_KEY, JOBS, PODS, Cluster, Contract, policy_name
from adk_gke_sandbox.errors import ClusterError, Forbidden, NotFound, Unauthorized, Unreachable
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.preflight import AGENTS_CHECKS, CLUSTER_CHECKS, SANDBOX_CHECKS, access, agents, dry_run
from adk_gke_sandbox.preflight.agents import AgentsCluster
from adk_gke_sandbox.preflight.checks import Problem, Report, Result, Status, make_checks
from adk_gke_sandbox.preflight.probe import Target
from infra.admission.rules import rules
from tests.unit.loopback import kubeconfig

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")
AGENT = "system:serviceaccount:agents:agent"
DEFAULT = "system:serviceaccount:agent-sandbox:default"
UP = "`pulumi up --refresh --stack test`"
ROLE = 'RBAC: allowed by RoleBinding "sandbox-executor/agent-sandbox" of Role "sandbox-executor" to ServiceAccount "x"'
CHECKS = (*CLUSTER_CHECKS, *SANDBOX_CHECKS, *AGENTS_CHECKS)
NAMES = [check.id for check in CHECKS]


@dataclass
class Live:
    """A cluster that is as the contract says, until a test changes it; its API and its sandbox are one."""

    contract: Contract = CONTRACT
    identity: str = "platform"
    objects: dict[str, Any] = field(default_factory=dict)
    allowed: dict[tuple[str, str], str] = field(default_factory=dict)
    """By user and call: the API server's reason to allow it."""
    answers: dict[str, str] = field(default_factory=dict)
    """By kind and broken rule: the API server's refusal."""
    errors: dict[str, ClusterError] = field(default_factory=dict)
    """By verb and resource."""
    seen: dict[str, Any] = field(default_factory=dict)
    """What the probe reports."""
    told: dict[str, Any] = field(default_factory=dict)
    """How the probe ends otherwise than well."""
    agents_see: dict[str, Any] = field(default_factory=dict)
    """What the program reports from the agents' namespace."""
    agents_pod: dict[str, Any] = field(default_factory=lambda: {"phase": "Succeeded"})
    """Status of its pod."""
    runs: int = 0
    host: str = "https://10.0.0.1:6443"

    def __post_init__(self) -> None:
        self.config = ExecutorConfig.from_contract(self.contract)
        self.objects = {
            "namespaces/agent-sandbox": {"metadata": {}},
            "namespaces/agents": {"metadata": {}},
            "configmaps/adk-gke-sandbox": {"data": {CONTRACT_KEY: self.contract.to_json()}},
            "services/kubernetes": {"spec": {"clusterIP": "10.96.0.1"}},
        }
        self.allowed = {(AGENT, f"{needed.verb} {needed.resource}"): ROLE for needed in access.NEEDED}
        self.offers = {JOBS: dry_run.wrong_jobs(self.config), PODS: dry_run.wrong_pods(self.config)}
        self.seen = {"uid": 1001, "credentials": [], "name_servers": [], "opened": []}
        self.agents_see = {**self.seen, "name_servers": ["169.254.20.10"], "opened": [0, 1, 2, 3]}

    def request(
        self, verb: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None, accept: str = ""
    ) -> Any:
        if path.endswith("/log"):
            return self.agents_see
        resource = path.split("/")[-1 if verb != "get" else -2]
        if error := self.errors.get(f"{verb} {resource}"):
            raise error
        if verb != "create":
            if (found := self.objects.get("/".join(path.split("/")[-2:]))) is None:
                raise NotFound("not found", verb="get", target=path, status=404)
            return found
        if resource == "selfsubjectreviews":
            return {"status": {"userInfo": {"username": self.identity}}}
        if resource.endswith("subjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            group, sub = asked["group"], asked["subresource"]
            call = f"{asked['verb']} {asked['resource']}{group and f'.{group}'}{sub and f'/{sub}'}"
            reason = self.allowed.get((body["spec"].get("user", self.identity), call))
            return {"status": {"allowed": reason is not None, "reason": reason}}
        if f"/namespaces/{self.contract.agents_namespace}/" in path:
            self.objects[f"pods/{body['metadata']['name']}"] = {**body, "status": self.agents_pod}
            return body
        assert query == {"dryRun": "All"}
        assert f"/namespaces/{self.contract.namespace}/" in path
        broken = next((rule for rule, offer in self.offers[resource].items() if offer == body), "none")
        if answer := self.answers.get(f"{resource} {broken}", "" if broken == "none" else f"denied: {broken}: x"):
            raise Forbidden(answer, verb="create", target=resource, status=403)
        return body

    def delete(self, path: str) -> None:
        del self.objects["/".join(path.split("/")[-2:])]

    def run(self, code: str, argv: tuple[str, ...]) -> Outcome:
        self.runs += 1
        told = {"name": "sandbox-1", "reason": Reason.COMPLETED, "kernel": "gVisor 4.19.0-gvisor"}
        return Outcome(**{**told, "stdout": json.dumps(self.seen).encode(), **self.told})


def checked(live: Any) -> dict[str, Result]:
    """Return what preflight says, by check."""
    cluster = AgentsCluster(contract=live.contract, config=live.config, api=live, sandbox=live)
    return {result.check: result for result in make_checks(CHECKS, cluster, lambda _: None)}


def of(status: Status, results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.status is status}


def error(kind: type[ClusterError], message: str, status: int | None = None) -> ClusterError:
    return kind(message, verb="x", target="x", status=status)


def test_good_cluster_passes_every_check_and_runs_one_program() -> None:
    live = Live()
    results = checked(live)
    assert {name: result.status.value for name, result in results.items()} == dict.fromkeys(NAMES, "pass"), results
    assert live.runs == 1


Change = Callable[[Live], Any]


def put(table: str, key: Any, value: Any) -> Change:
    """Return what changes an entry of one of the cluster's tables, or removes it where the value is ``None``."""

    def change(live: Live) -> None:
        entries = getattr(live, table)
        entries[key] = value
        if value is None:
            del entries[key]

    return change


def given_by(binding: str, role: str) -> str:
    return f'RBAC: allowed by {binding} of {role} to Group "system:authenticated"'


WHO = "create selfsubjectreviews"
SERVER = "API server https://10.0.0.1:6443: "
MOUNTED = "configmaps/adk-gke-sandbox"
SHORTER = {"data": {CONTRACT_KEY: CONTRACT.model_copy(update={"timeout_seconds": 60}).to_json()}}
GOING = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
EVERYBODYS = given_by('ClusterRoleBinding "all"', 'ClusterRole "admin"')
TAGGED = "denied: image-digest: not by digest. Write NAME@sha256:DIGEST"
DELETE = "`kubectl delete --ignore-not-found"
KUBE_DNS = {"services/kube-dns": {"spec": {"clusterIP": "10.96.0.10"}}}
EXECUTOR_ROLE = f"{DELETE} role sandbox-executor -n agent-sandbox`"
MADE_ANEW = f"{UP}, which makes the stack's own anew"
JOB_POLICY, POD_POLICY = policy_name(CONTRACT, JOBS), policy_name(CONTRACT, PODS)
RELEASE = "se the release of this package that made the stack"
BROKEN: list[tuple[str, Change, str, str]] = [
    (
        "api-server",
        put("errors", WHO, error(Unreachable, "does not answer")),
        f"{SERVER}does not answer",
        "Check that the cluster runs, and name its kubeconfig and context by --kubeconfig and --context",
    ),
    (
        "api-server",
        put("errors", WHO, error(Unauthorized, "expired", 401)),
        f"{SERVER}expired",
        "Log in again; for GKE",
    ),
    (
        "api-server",
        lambda live: setattr(live, "identity", "system:anonymous"),
        f"{SERVER}no credentials",
        "Log in again",
    ),
    (
        "namespaces",
        put("objects", "namespaces/agents", None),
        "Namespace agents: no such namespace",
        f"Run {UP}; if the contract is of another cluster, name that by --context",
    ),
    (
        "namespaces",
        put("objects", "namespaces/agent-sandbox", GOING),
        "Namespace agent-sandbox: being deleted",
        f"Wait until it is gone, then run {UP}",
    ),
    (
        "contract",
        put("objects", MOUNTED, None),
        "ConfigMap agents/adk-gke-sandbox: ConfigMap agents/adk-gke-sandbox is not JSON",
        f"{DELETE} configmap adk-gke-sandbox -n agents`, then {UP}",
    ),
    (
        "contract",
        put("objects", MOUNTED, SHORTER),
        "ConfigMap agents/adk-gke-sandbox: timeout_seconds is 60, checked is 300",
        "Pull the stack's contract with `adk-gke-sandbox contract pull test`",
    ),
    (
        "executor-allowed",
        put("allowed", (AGENT, "create jobs.batch"), None),
        "ServiceAccount agents/agent: may not create jobs.batch",
        f"Run {UP}; if the Role was changed by hand, {EXECUTOR_ROLE}, then {UP}",
    ),
    (
        "executor-refused",
        put("allowed", (AGENT, "get pods"), ROLE),
        f"ServiceAccount agents/agent: may get pods: {ROLE}",
        f"{EXECUTOR_ROLE} and {DELETE} rolebinding sandbox-executor -n agent-sandbox`, then {MADE_ANEW}",
    ),
    (
        "executor-refused",
        put("allowed", (AGENT, "get secrets"), "access granted by IAM permissions."),
        "ServiceAccount agents/agent: may get secrets: access granted by IAM permissions.",
        "Withdraw it where the API server says that it comes from; on GKE that may be Google Cloud's IAM",
    ),
    (
        # A ClusterRole may serve others, too, and is left alone.
        "executor-refused",
        put("allowed", (AGENT, "get secrets"), given_by('RoleBinding "mine/agent-sandbox"', 'ClusterRole "view"')),
        "ServiceAccount agents/agent: may get secrets: RBAC: allowed by RoleBinding",
        f"{DELETE} rolebinding mine -n agent-sandbox`, then {MADE_ANEW}",
    ),
    (
        "sandbox-refused",
        put("allowed", (DEFAULT, "list pods"), EVERYBODYS),
        'ServiceAccount agent-sandbox/default: may list pods: RBAC: allowed by ClusterRoleBinding "all"',
        f"{DELETE} clusterrolebinding all`",
    ),
    (
        "job-admitted",
        put("answers", "jobs none", TAGGED),
        f"Job of the executor in agent-sandbox: {TAGGED}",
        "contract and policies do not match: pull the contract with `adk-gke-sandbox contract pull test`",
    ),
    (
        "jobs-refused",
        lambda live: live.answers.update({"jobs token": "", "jobs volumes": ""}),
        f"ValidatingAdmissionPolicy {JOB_POLICY}: lets in what breaks token, volumes (dry run)",
        f"{DELETE} validatingadmissionpolicybinding {JOB_POLICY}`, then {UP}; if that does not help, u{RELEASE}",
    ),
    (
        "pods-refused",
        put("answers", "pods runtime-class", "exceeded quota"),
        f"ValidatingAdmissionPolicy {POD_POLICY}: refused, but with: exceeded quota",
        f"Do what that says, or u{RELEASE}",
    ),
    (
        "probe",
        lambda live: live.told.update(reason=Reason.UNSCHEDULABLE, message="no node took the pod"),
        f"execution sandbox-1 with {CONTRACT.image}: Unschedulable: no node took the pod",
        "Do what the message says, then run preflight again",
    ),
    (
        "probe",
        put("told", "stdout", b"garbage"),
        f"execution sandbox-1 with {CONTRACT.image}: no report but b'garbage'",
        "Use another image: this one's Python cannot run the probe",
    ),
    (
        "probe-gvisor",
        put("told", "kernel", "Linux 6.12"),
        "RuntimeClass gvisor: Linux 6.12",
        "Programs may run on the kernel of the node. Stop agents now",
    ),
    (
        "probe-network",
        put("seen", "opened", [0]),
        "API server (10.0.0.1:6443): answered",
        "Dataplane V2, datapath_provider ADVANCED_DATAPATH",
    ),
    (
        "probe-network",
        put("seen", "name_servers", ["10.0.0.10"]),
        "/etc/resolv.conf of a sandbox: 10.0.0.10",
        f"U{RELEASE}",
    ),
    (
        "probe-identity",
        put("seen", "credentials", ["KUBERNETES_SERVICE_HOST"]),
        "execution sandbox-1: KUBERNETES_SERVICE_HOST",
        "look at `kubectl get mutatingwebhookconfigurations`",
    ),
    ("probe-identity", put("seen", "uid", 0), "execution sandbox-1: uid 0", f"then run {UP}"),
    (
        "agents-probe",
        lambda live: live.agents_pod.update(phase="Failed", reason="DeadlineExceeded"),
        "pod of ServiceAccount agents/agent: Failed: DeadlineExceeded",
        "Do what `kubectl get events -n agents` says of it",
    ),
    (
        "agents-names",
        lambda live: (live.objects.update(KUBE_DNS), live.agents_see.update(opened=[1])),
        "kubernetes.default.svc: does not",
        "Let agents reach their name server (169.254.20.10) on port 53",
    ),
    (
        "agents-network",
        put("agents_see", "opened", []),
        "API server (10.0.0.1:6443): does not answer",
        "Look at `kubectl get networkpolicies -n agents`",
    ),
]


@pytest.mark.parametrize(("check", "broken", "found", "fix"), BROKEN, ids=[f"{each[0]}: {each[2]}" for each in BROKEN])
def test_what_is_broken_fails_one_check_that_names_object_cause_and_fix(
    check: str, broken: Change, found: str, fix: str
) -> None:
    live = Live()
    broken(live)
    results = checked(live)
    assert of(Status.FAIL, results) == {check}
    (problem,) = results[check].problems
    assert f"{problem.object}: {problem.found}".startswith(found)
    assert fix in problem.fix
    assert problem.expected


def test_a_check_that_builds_on_a_failed_one_is_skipped_and_no_program_runs() -> None:
    live = Live(answers={"jobs none": "denied"})
    results = checked(live)
    built_on_it = {check.id for check in (*SANDBOX_CHECKS, *AGENTS_CHECKS)}
    assert of(Status.SKIPPED, results) == {"jobs-refused", "pods-refused"} | built_on_it
    assert results["probe"].summary == "job-admitted comes first"
    assert live.runs == 0


def test_what_may_not_be_looked_at_is_unknown_names_the_permission_and_stops_nothing() -> None:
    live = Live(errors={"get namespaces": error(Forbidden, "namespaces is forbidden", 403)})
    results = checked(live)
    assert of(Status.UNKNOWN, results) == {"namespaces"}
    assert of(Status.PASS, results) == {*NAMES} - {"namespaces"}
    fix = "Run preflight as the platform team, or allow this identity to get namespaces"
    assert results["namespaces"] == Result(
        "namespaces",
        Status.UNKNOWN,
        "cannot get namespaces",
        (Problem("this check", "to get namespaces", "namespaces is forbidden", fix),),
    )


@pytest.mark.parametrize(
    "answer",
    [
        error(Forbidden, 'User "x" cannot create resource "jobs" in API group "batch"', 403),
        error(ClusterError, "internal error", 500),
        error(ClusterError, "too many requests", 429),
        error(Unreachable, "does not answer"),
    ],
)
def test_an_api_server_that_does_not_judge_a_job_has_not_refused_it(answer: ClusterError) -> None:
    results = checked(Live(errors={"create jobs": answer}))
    assert of(Status.UNKNOWN, results) == {"job-admitted", "jobs-refused"}
    allow = "Run preflight as the platform team, or allow this identity to create jobs.batch"
    fix = allow if isinstance(answer, Forbidden) else "Run preflight again"
    assert results["job-admitted"].problems[0].fix == fix


def test_the_agents_own_identity_asks_about_itself() -> None:
    live = Live(identity=AGENT, errors={"create subjectaccessreviews": error(Forbidden, "forbidden", 403)})
    results = checked(live)
    assert of(Status.UNKNOWN, results) == {"sandbox-refused"}
    assert of(Status.FAIL, results) == set()


def test_a_caller_that_may_not_ask_who_it_is_is_nobody_and_no_failure() -> None:
    live = Live(errors={"create selfsubjectreviews": error(Forbidden, "forbidden", 403)})
    assert checked(live)["api-server"].status is Status.PASS


def test_where_egress_is_allowed_a_name_server_is_no_opening() -> None:
    live = Live(contract=CONTRACT.model_copy(update={"egress": "fqdn"}))
    live.seen["name_servers"] = ["10.0.0.10"]
    assert of(Status.FAIL, checked(live)) == set()


def test_the_same_contract_by_another_way_to_the_cluster_is_the_same() -> None:
    live = Live()
    live.contract = CONTRACT.model_copy(update={"cluster": Cluster(context="mine")})
    assert of(Status.FAIL, checked(live)) == set()


def test_the_agents_pod_is_theirs_has_no_token_and_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    live, made = Live(), agents.probe_pod(CONTRACT, ())
    checked(live)
    assert [name for name in live.objects if name.startswith("pods/")] == []
    assert made["metadata"]["namespace"] == "agents"
    assert made["spec"]["serviceAccountName"] == "agent"
    assert made["spec"]["automountServiceAccountToken"] is False
    # One that never starts is not waited for without end.
    monkeypatch.setattr(agents, "ENDED_SECONDS", 0)
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    live = Live(agents_pod={"phase": "Pending", "containerStatuses": [waiting]})
    (problem,) = checked(live)["agents-probe"].problems
    assert problem.found == "Pending: ImagePullBackOff: no such image"
    assert [name for name in live.objects if name.startswith("pods/")] == []


@pytest.mark.parametrize(
    ("changed", "named", "tried"),
    [
        ({}, "", ["name kubernetes.default.svc", "name aiplatform.googleapis.com", "tcp aiplatform.googleapis.com"]),
        ({}, "models.internal:8443", ["name kubernetes.default.svc", "name models.internal", "tcp models.internal"]),
        ({"cluster": Cluster()}, "models.internal:8443", ["name models.internal", "tcp models.internal"]),
        ({"cluster": Cluster()}, "", []),
    ],
)
def test_agents_try_their_models_where_they_are(changed: dict[str, Any], named: str, tried: list[str]) -> None:
    live = Live(contract=CONTRACT.model_copy(update={"cluster": Cluster(project="p"), **changed}))
    live.objects["nodes"] = {"items": []}
    faked: dict[str, Any] = {"api": live, "sandbox": live}
    found = AgentsCluster(contract=live.contract, config=live.config, model_endpoint=named, **faked).agents_targets
    server = Target("Service default/kubernetes", "10.96.0.1", 443)
    if not live.contract.cluster.project:
        server = Target("API server", "10.0.0.1", 6443)
    assert server in found
    assert [f"{each.protocol} {each.address}" for each in found if each != server] == tried


# What is asked


def test_what_the_executor_needs_is_never_refused() -> None:
    assert not access.NEEDED & set(access.REFUSED)


def test_every_verb_on_what_the_executor_uses_is_asked_for() -> None:
    verbs = {item.verb for item in (*access.NEEDED, *access.REFUSED) if item.resource == "jobs.batch"}
    assert verbs == {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}


def test_review_asks_for_the_account_with_its_groups() -> None:
    asked = access.review(CONTRACT, "agents/agent", access.Access("pods/exec", "create"), caller="platform")
    what = {"namespace": "agent-sandbox", "verb": "create", "group": "", "resource": "pods", "subresource": "exec"}
    groups = ["system:serviceaccounts", "system:serviceaccounts:agents", "system:authenticated"]
    assert asked["kind"] == "SubjectAccessReview"
    assert asked["spec"] == {"user": AGENT, "groups": groups, "resourceAttributes": what}


def test_review_of_oneself_names_nobody_and_of_the_cluster_no_namespace() -> None:
    group = "rbac.authorization.k8s.io"
    (bind,) = (item for item in access.REFUSED if item[:2] == (f"clusterroles.{group}", "bind"))
    asked = access.review(CONTRACT, "agents/agent", bind, caller=AGENT)
    what = {"namespace": "", "verb": "bind", "group": group, "resource": "clusterroles", "subresource": ""}
    assert asked["kind"] == "SelfSubjectAccessReview"
    assert asked["spec"] == {"resourceAttributes": what}


# What is offered


@pytest.mark.parametrize("kind", [JOBS, PODS])
def test_each_offer_breaks_a_rule_of_the_stack_and_differs_from_the_others(kind: str) -> None:
    offers = Live().offers[kind]
    assert set(offers) <= {rule.id for rule in rules(CONTRACT) if kind in rule.on}
    texts = {json.dumps(offer, sort_keys=True) for offer in offers.values()}
    assert len(texts - {json.dumps(dry_run.own_job(Live().config), sort_keys=True)}) == len(offers)


def test_the_image_without_digest_is_the_contracts_own() -> None:
    pod = Live().offers[PODS]["image-digest"]
    assert pod["spec"]["containers"][0]["image"] == "registry/project/data:latest"


# The report


@pytest.fixture
def contract(tmp_path: Path) -> str:
    path = tmp_path / "contract.json"
    path.write_text(CONTRACT.to_json())
    return str(path)


def reported(*statuses: Status) -> Report:
    problem = Problem("Namespace x", "exists", "none\nat all", "Make it")
    checks = tuple(
        Result(f"check-{number}", status, "[bold]as it is[/bold]", () if status is Status.PASS else (problem,))
        for number, status in enumerate(statuses)
    )
    return Report(stack="test", server="https://10.0.0.1", identity="platform", checks=checks)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.PASS, Status.PASS], 0),
        ([Status.PASS, Status.FAIL, Status.UNKNOWN], 1),
        ([Status.FAIL, Status.SKIPPED], 1),
        ([Status.PASS, Status.UNKNOWN], 3),
    ],
)
def test_exit_code_is_good_only_where_everything_was_seen_to_be(statuses: list[Status], code: int) -> None:
    assert reported(*statuses).exit_code == code


def test_report_is_a_table_a_paragraph_for_each_problem_and_a_conclusion(
    contract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "run", lambda *_, **__: reported(Status.PASS, Status.PASS, Status.FAIL))
    result = CliRunner().invoke(app, ["preflight", "--contract", contract])
    table, *paragraphs = result.stdout.split("\n\n")
    assert table.count("[bold]as it is[/bold]") == 3
    assert paragraphs == [
        "check-2 fail: Namespace x\n  expected: exists\n  found:    none at all\n  fix:      Make it",
        "2 pass, 1 fail\n",
    ]


def test_json_has_all_that_the_table_has(contract: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "run", lambda *_, **__: reported(Status.FAIL))
    result = CliRunner().invoke(app, ["preflight", "--contract", contract, "--json"])
    problem = {"object": "Namespace x", "expected": "exists", "found": "none\nat all", "fix": "Make it"}
    check = {"check": "check-0", "status": "fail", "summary": "[bold]as it is[/bold]", "problems": [problem]}
    about = {"stack": "test", "server": "https://10.0.0.1", "identity": "platform"}
    assert json.loads(result.stdout) == {**about, "exit_code": 1, "checks": [check]}


def test_page_lists_every_check_with_what_it_shows_and_reads() -> None:
    page = (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8")
    rows = [
        (f"`{check.id}`", str(inspect.getdoc(check.look)).rstrip("."), check.permission, ", ".join(check.needs))
        for check in CHECKS
    ]
    assert [line for line in page.splitlines() if line.startswith("| `")] == [f"| {' | '.join(row)} |" for row in rows]


# The command


def test_cluster_that_does_not_answer_fails_one_check_and_skips_the_others(contract: str, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        path = kubeconfig(tmp_path / "kubeconfig", "a", a=f"http://127.0.0.1:{unused.getsockname()[1]}")
        result = CliRunner().invoke(app, ["preflight", "--json", "--contract", contract, "--kubeconfig", path])
    assert result.exit_code == 1
    checks = {item["check"]: item for item in json.loads(result.stdout)["checks"]}
    assert checks.pop("api-server")["problems"][0]["found"].startswith("the API server http://127.0.0.1:")
    assert {item["status"] for item in checks.values()} == {"skipped"}
    assert [*checks] == NAMES[1:]


def test_bad_usage_is_one_line_and_exit_code_2(contract: str) -> None:
    result = CliRunner().invoke(app, ["preflight", "--contract", contract, "--kubeconfig", "/nonexistent"])
    assert result.exit_code == 2
    assert "cannot use kubeconfig /nonexistent" in result.stderr
    assert len(result.stderr.splitlines()) == 1
