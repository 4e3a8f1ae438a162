"""`preflight` on a stack of its own: all is well, then one thing at a time is broken by hand.

What is broken is put right by doing what the fix says; the next test needs a good cluster.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kubernetes import client

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, CONTRACT_KEY, JOBS, Contract, parse, policy_name
from adk_gke_sandbox.execution import Outcome
from adk_gke_sandbox.preflight import AGENTS_CHECKS, CLUSTER_CHECKS, SANDBOX_CHECKS, probe
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import credentials, network, stack
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ABSENT = f"localhost:1/absent@sha256:{'0' * 64}"
INSIDE = {check.id for check in SANDBOX_CHECKS}
AGENTS = {check.id for check in AGENTS_CHECKS}
ALL = {check.id for check in CLUSTER_CHECKS} | INSIDE | AGENTS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A stack of its own on the local cluster."""

    where: stack.Stack
    image: str
    namespace: str
    kubeconfig: Path

    def up(self, image: str = "", **settings: int) -> Contract:
        given: dict[str, str | int] = {
            "namespace": self.namespace,
            "agentsNamespace": f"{self.namespace}-agents",
            **settings,
        }
        return parse(stack.up(self.where, image=image or self.image, settings=given, report=lambda _: None))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the command said."""

    code: int
    status: dict[str, str]
    problems: dict[str, list[dict[str, str]]]
    text: str

    def of(self, status: str) -> set[str]:
        return {check for check, found in self.status.items() if found == status}

    def only(self, check: str) -> dict[str, str]:
        """Return the one problem that there is."""
        assert self.of("fail") == {check}, self.text
        assert self.code == 1
        (problem,) = self.problems[check]
        return problem


def preflight(contract: Contract, kubeconfig: Path, folder: Path) -> Answer:
    path = folder / "contract.json"
    path.write_text(contract.to_json())
    command = [
        *(str(Path(sys.executable).parent / "adk-gke-sandbox"), "preflight", "--json"),
        *("--contract", str(path), "--kubeconfig", str(kubeconfig)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return Answer(
        code=done.returncode,
        status={item["check"]: item["status"] for item in checks},
        problems={item["check"]: item["problems"] for item in checks},
        text=done.stdout,
    )


@pytest.fixture(scope="module")
def environment(layout: Layout, contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    made = Environment(
        where=dataclasses.replace(stack.Stack.of(layout, lambda _: None), folder=tmp_path_factory.mktemp("preflight")),
        image=contract.image,
        namespace=f"preflight-{secrets.token_hex(3)}",
        kubeconfig=layout.kubeconfig,
    )
    try:
        made.up()
        yield made
    finally:
        stack.destroy(made.where, report=lambda _: None)


@pytest.fixture(scope="module")
def provisioned(environment: Environment) -> Contract:
    return parse(stack.output(environment.where))


@pytest.fixture
def look(environment: Environment, provisioned: Contract, tmp_path: Path, fixes: list[str]) -> Callable[..., Answer]:
    """Run the command as the administrator."""

    def run(contract: Contract = provisioned) -> Answer:
        found = preflight(contract, environment.kubeconfig, tmp_path)
        fixes.extend(problem["fix"] for problems in found.problems.values() for problem in problems)
        return found

    return run


@pytest.fixture
def fixes() -> list[str]:
    """What the command has said is to be done."""
    return []


DELETE = re.compile(r"`kubectl delete --ignore-not-found (?P<kind>\w+) (?P<name>\S+)(?: -n (?P<namespace>\S+))?`")


@pytest.fixture
def repaired(environment: Environment, admin: client.ApiClient, fixes: list[str]) -> Iterator[None]:
    """What the test breaks is put right by what the command says, word for word, and by `pulumi up --refresh`."""
    yield
    rbac, admission = client.RbacAuthorizationV1Api(admin), client.AdmissionregistrationV1Api(admin)
    delete = {
        "role": rbac.delete_namespaced_role,
        "rolebinding": rbac.delete_namespaced_role_binding,
        "validatingadmissionpolicy": admission.delete_validating_admission_policy,
        "validatingadmissionpolicybinding": admission.delete_validating_admission_policy_binding,
        "configmap": client.CoreV1Api(admin).delete_namespaced_config_map,
    }
    commands = {found.groups() for fix in fixes for found in DELETE.finditer(fix)}
    for kind, *names in commands:
        try:
            delete[kind](*filter(None, names))
        except client.exceptions.ApiException as error:
            # The commands ignore what is gone already.
            if error.status != 404:
                raise
    environment.up()


@pytest.fixture
def core(admin: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(admin)


@pytest.fixture
def mounted(core: client.CoreV1Api, provisioned: Contract, repaired: None) -> Iterator[Callable[[Contract], Contract]]:
    """Let agents mount a changed contract, as if the stack had made it."""
    names = (CONTRACT_CONFIG_MAP, provisioned.agents_namespace)

    def change(changed: Contract) -> Contract:
        body = {"data": {CONTRACT_KEY: changed.to_json()}}
        core.patch_namespaced_config_map(*names, body)
        return changed

    yield change
    core.delete_namespaced_config_map(*names)


def test_good_cluster_passes_every_check(look: Callable[..., Answer]) -> None:
    found = look()
    assert found.status == dict.fromkeys(ALL, "pass"), found.text
    assert found.code == 0


def test_agents_own_identity_sees_what_concerns_it_and_says_what_it_cannot(
    environment: Environment, provisioned: Contract, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    credentials.service_account_kubeconfig(
        environment.kubeconfig, provisioned.agents_namespace, provisioned.agent_service_account, kubeconfig
    )
    found = preflight(provisioned, kubeconfig, tmp_path)
    assert found.code == 3
    assert found.of("pass") == {
        "api-server",
        "executor-allowed",
        "executor-refused",
        "job-admitted",
        "jobs-refused",
        *INSIDE,
    }, found.text
    assert found.of("unknown") == ALL - found.of("pass")
    (problem,) = found.problems["namespaces"]
    assert 'cannot get resource "namespaces"' in problem["found"]
    assert problem["fix"] == "Run preflight as the platform team, or allow this identity to get namespaces"


@pytest.mark.usefixtures("repaired")
class TestBroken:
    """Exactly the check fails whose ground is broken; what builds on it is skipped."""

    def test_role_has_a_verb_more(
        self, look: Callable[..., Answer], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        rule = {"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}}
        client.RbacAuthorizationV1Api(admin).patch_namespaced_role("sandbox-executor", provisioned.namespace, [rule])
        problem = look().only("executor-refused")
        assert problem["object"] == f"ServiceAccount {provisioned.agents_namespace}/agent"
        assert problem["found"].startswith("may get pods: RBAC: allowed by RoleBinding")
        assert f"role sandbox-executor -n {provisioned.namespace}`" in problem["fix"]

    def test_network_policy_is_gone(
        self, look: Callable[..., Answer], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        client.NetworkingV1Api(admin).delete_namespaced_network_policy("deny-all", provisioned.namespace)
        found = look()
        assert found.of("fail") == {"probe-network"}, found.text
        problems = {problem["object"]: problem for problem in found.problems["probe-network"]}
        assert any(name.startswith("API server (") for name in problems)
        assert "then run `pulumi up --refresh --stack local`" in next(iter(problems.values()))["fix"]

    def test_agents_are_locked_in(
        self, look: Callable[..., Answer], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        networking = client.NetworkingV1Api(admin)
        networking.delete_namespaced_network_policy("allow-dns-and-apis", provisioned.agents_namespace)
        problem = look().only("agents-network")
        assert problem["object"].startswith("API server (")
        assert "then run `pulumi up --refresh --stack local`" in problem["fix"]

    def test_binding_of_a_policy_only_audits(
        self, look: Callable[..., Answer], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        name = policy_name(provisioned, JOBS)
        body = {"spec": {"validationActions": ["Audit"]}}
        client.AdmissionregistrationV1Api(admin).patch_validating_admission_policy_binding(name, body)
        problem = look().only("jobs-refused")
        assert problem["object"] == f"ValidatingAdmissionPolicy {name}"
        assert problem["found"].startswith("lets in what breaks ")

    def test_contract_names_an_image_by_tag(
        self, look: Callable[..., Answer], provisioned: Contract, mounted: Callable[[Contract], Contract]
    ) -> None:
        tagged = provisioned.image.partition("@")[0] + ":latest"
        found = look(mounted(provisioned.model_copy(update={"image": tagged})))
        assert "image-digest: " in found.only("job-admitted")["found"]
        assert found.of("skipped") == {"jobs-refused", "pods-refused"} | INSIDE | AGENTS

    def test_image_was_never_pushed(self, look: Callable[..., Answer], environment: Environment) -> None:
        # Nobody listens there, which may pass: it is waited for.
        found = look(environment.up(ABSENT, scheduleTimeoutSeconds=15))
        said = f"ImageUnavailable: the image {ABSENT} could not be pulled in time"
        assert found.problems["probe"][0]["found"].startswith(said)
        assert found.problems["agents-probe"][0]["found"].startswith("Pending: ")
        assert found.of("fail") == {"probe", "agents-probe"}
        assert found.of("skipped") == (INSIDE | AGENTS) - {"probe", "agents-probe"}


@pytest.fixture
def own_namespace(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace without any wall."""
    name = f"preflight-{secrets.token_hex(3)}-open"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def look_inside(config: ExecutorConfig, targets: tuple[probe.Target, ...] = ()) -> Outcome:
    with closing(Sandbox(config)) as sandbox:
        return sandbox.run(probe.program(), argv=probe.arguments(targets))


def test_kernel_of_the_node_is_not_taken_for_gvisors(layout: Layout, contract: Contract, own_namespace: str) -> None:
    settings = {"namespace": own_namespace, "image": contract.image, "kubeconfig_path": str(layout.kubeconfig)}
    found = look_inside(ExecutorConfig(**settings, runtime_class=None))
    assert found.kernel.startswith("Linux ")


ANSWERER = """
import socket, sys, threading
tcp = socket.create_server((sys.argv[1], 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(tcp.getsockname())
print(tcp.getsockname()[1], flush=True)
def accept():
    while True:
        tcp.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
while True:
    data, sender = udp.recvfrom(512)
    udp.sendto(data, sender)
"""


@pytest.fixture
def answerer(layout: Layout) -> Iterator[int]:
    """A server of ours at the node's address that answers by TCP and UDP."""
    command = [*network.enter(layout), sys.executable, "-c", ANSWERER, layout.node_address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_what_a_policy_opens_is_seen_from_inside(
    admin: client.ApiClient, layout: Layout, contract: Contract, own_namespace: str, answerer: int
) -> None:
    policy = {
        "metadata": {"name": "open"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": f"{layout.node_address}/32"}}]}],
        },
    }
    client.NetworkingV1Api(admin).create_namespaced_network_policy(own_namespace, policy)
    config = ExecutorConfig(namespace=own_namespace, image=contract.image, kubeconfig_path=str(layout.kubeconfig))
    targets = (
        probe.Target("open", layout.node_address, answerer),
        probe.Target("open", layout.node_address, answerer, "dns"),
    )
    assert probe.parse_report(look_inside(config, targets).stdout)["opened"] == [0, 1]
