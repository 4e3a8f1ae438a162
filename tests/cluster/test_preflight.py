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
from pathlib import Path

import pytest
from kubernetes import client

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, CONTRACT_KEY, JOBS, Contract, parse, policy_name
from adk_gke_sandbox.preflight import probe, program
from adk_gke_sandbox.preflight.checks import CHECKS, INSIDE
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import credentials, network, stack
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ABSENT = f"localhost:1/absent@sha256:{'0' * 64}"
ALL = {check.id for check in (*CHECKS, *INSIDE)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A stack of its own on the local cluster."""

    where: stack.Stack
    image: str
    namespace: str
    kubeconfig: Path

    def up(self, image: str = "") -> Contract:
        names = {"namespace": self.namespace, "agentsNamespace": f"{self.namespace}-agents"}
        return parse(stack.up(self.where, image=image or self.image, settings=names, report=lambda _: None))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
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


def preflight(contract: Contract, kubeconfig: Path, folder: Path) -> Seen:
    path = folder / "contract.json"
    path.write_text(contract.to_json())
    command = [
        *(str(Path(sys.executable).parent / "adk-gke-sandbox"), "preflight", "--json"),
        *("--contract", str(path), "--kubeconfig", str(kubeconfig)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return Seen(
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
def look(environment: Environment, provisioned: Contract, tmp_path: Path, fixes: list[str]) -> Callable[..., Seen]:
    """Run the command as the administrator."""

    def run(contract: Contract = provisioned) -> Seen:
        found = preflight(contract, environment.kubeconfig, tmp_path)
        fixes.extend(problem["fix"] for problems in found.problems.values() for problem in problems)
        return found

    return run


@pytest.fixture
def fixes() -> list[str]:
    """What the command has said is to be done."""
    return []


DELETE = re.compile(r"`kubectl delete (?P<kind>\w+) (?P<name>\S+)(?: -n (?P<namespace>\S+))?`")
PATCH = re.compile(r"`kubectl patch serviceaccount -n (?P<namespace>\S+) (?P<name>\S+) -p '(?P<patch>.+)'`")
LABEL = re.compile(r"`kubectl label --overwrite namespace (?P<name>\S+) (?P<label>\S+)=(?P<value>\S+)`")


@pytest.fixture
def repaired(environment: Environment, admin: client.ApiClient, fixes: list[str]) -> Iterator[None]:
    """What the test breaks is put right by what the command says, word for word, and by `pulumi up --refresh`."""
    yield
    core, rbac, network = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin), client.NetworkingV1Api(admin)
    admission = client.AdmissionregistrationV1Api(admin)
    delete = {
        "resourcequota": core.delete_namespaced_resource_quota,
        "role": rbac.delete_namespaced_role,
        "rolebinding": rbac.delete_namespaced_role_binding,
        "networkpolicy": network.delete_namespaced_network_policy,
        "validatingadmissionpolicybinding": admission.delete_validating_admission_policy_binding,
        "configmap": core.delete_namespaced_config_map,
    }
    for fix in dict.fromkeys(fixes):
        for found in DELETE.finditer(fix):
            delete[found["kind"]](*filter(None, (found["name"], found["namespace"])))
        for found in PATCH.finditer(fix):
            core.patch_namespaced_service_account(found["name"], found["namespace"], json.loads(found["patch"]))
        for found in LABEL.finditer(fix):
            core.patch_namespace(found["name"], {"metadata": {"labels": {found["label"]: found["value"]}}})
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


def test_good_cluster_passes_every_check(look: Callable[..., Seen]) -> None:
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
        "executor-exact",
        "image",
        "job-admitted",
        "jobs-refused",
        "probe",
        "probe-gvisor",
        "probe-network",
        "probe-identity",
    }, found.text
    assert found.of("unknown") == ALL - found.of("pass")
    (problem,) = found.problems["quota"]
    assert "cannot list resource" in problem["found"]
    assert problem["fix"] == (
        f"Run preflight as the platform team, or allow this identity to list resourcequotas in {provisioned.namespace}"
    )


@pytest.mark.usefixtures("repaired")
class TestBroken:
    """Exactly the check fails whose ground is broken; what builds on it is skipped."""

    def test_pod_security_label_is_gone(
        self, look: Callable[..., Seen], core: client.CoreV1Api, provisioned: Contract
    ) -> None:
        label = "pod-security.kubernetes.io/enforce"
        core.patch_namespace(provisioned.namespace, {"metadata": {"labels": {label: None}}})
        problem = look().only("pod-security")
        assert problem["object"] == f"Namespace {provisioned.namespace}"
        assert problem["expected"] == f"label {label}=restricted"
        assert problem["found"] == "no such label"
        assert f"`kubectl label --overwrite namespace {provisioned.namespace} {label}=restricted`" in problem["fix"]

    def test_role_has_a_verb_more(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        rule = {"op": "add", "path": "/rules/-", "value": {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}}
        client.RbacAuthorizationV1Api(admin).patch_namespaced_role("sandbox-executor", provisioned.namespace, [rule])
        problem = look().only("executor-exact")
        assert problem["object"] == f"ServiceAccount {provisioned.agents_namespace}/agent"
        assert problem["found"] == "RoleBinding sandbox-executor (Role sandbox-executor) also grants get pods"
        assert f"`kubectl delete role sandbox-executor -n {provisioned.namespace}`" in problem["fix"]

    def test_another_binding_opens_secrets(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        rbac = client.RbacAuthorizationV1Api(admin)
        subject = {
            "kind": "ServiceAccount",
            "name": provisioned.agent_service_account,
            "namespace": provisioned.agents_namespace,
        }
        binding = {
            "metadata": {"name": "careless"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [subject],
        }
        rbac.create_namespaced_role_binding(provisioned.namespace, binding)
        found = look()
        assert found.of("fail") == {"executor-refused", "executor-exact"}, found.text
        assert "create/get/list secrets" in found.problems["executor-refused"][0]["found"]
        assert "RoleBinding careless (ClusterRole admin) also grants" in found.problems["executor-exact"][0]["found"]

    def test_network_policy_is_gone(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        client.NetworkingV1Api(admin).delete_namespaced_network_policy("deny-all", provisioned.namespace)
        found = look()
        problem = found.only("network-policies")
        assert problem["object"] == f"NetworkPolicy of {provisioned.namespace}"
        assert problem["found"] == "no NetworkPolicy"
        assert problem["fix"] == "Run `pulumi up --refresh --stack local`"
        assert found.of("skipped") == {"probe-network"}

    def test_network_policy_lets_everything_out(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        body = {"spec": {"egress": [{}]}}
        client.NetworkingV1Api(admin).patch_namespaced_network_policy("deny-all", provisioned.namespace, body)
        found = look()
        assert found.of("fail") == {"network-policies"}, found.text
        assert {problem["found"] for problem in found.problems["network-policies"]} == {
            "none of deny-all",
            "allows egress; policies add up",
        }
        assert found.of("skipped") == {"probe-network"}

    def test_binding_of_a_policy_is_gone(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        name = policy_name(provisioned, JOBS)
        client.AdmissionregistrationV1Api(admin).delete_validating_admission_policy_binding(name)
        found = look()
        problem = found.only("admission-policies")
        assert problem["object"] == f"ValidatingAdmissionPolicyBinding {name}"
        assert problem["found"] == "does not exist"
        assert found.of("skipped") == {"jobs-refused", "pods-refused"}

    def test_binding_of_a_policy_only_audits(
        self, look: Callable[..., Seen], admin: client.ApiClient, provisioned: Contract
    ) -> None:
        name = policy_name(provisioned, JOBS)
        body = {"spec": {"validationActions": ["Audit"]}}
        client.AdmissionregistrationV1Api(admin).patch_validating_admission_policy_binding(name, body)
        assert look().only("admission-policies")["found"] == "validationActions are Audit: nothing is refused"

    def test_service_account_mounts_tokens(
        self, look: Callable[..., Seen], core: client.CoreV1Api, provisioned: Contract
    ) -> None:
        body = {"automountServiceAccountToken": True}
        core.patch_namespaced_service_account("sandbox-runner", provisioned.namespace, body)
        problem = look().only("tokens")
        assert problem["object"] == f"ServiceAccount {provisioned.namespace}/sandbox-runner"
        assert problem["found"] == "automountServiceAccountToken: true"

    def test_quota_is_too_small_for_one_execution(
        self, look: Callable[..., Seen], core: client.CoreV1Api, provisioned: Contract
    ) -> None:
        body = {"spec": {"hard": {"limits.memory": "4Gi"}}}
        core.patch_namespaced_resource_quota("sandbox", provisioned.namespace, body)
        found = look()
        problem = found.only("quota")
        assert problem["object"] == f"ResourceQuota {provisioned.namespace}/sandbox"
        assert problem["expected"] == "limits.memory of 8Gi or more, for one execution at its ceilings"
        assert problem["found"] == "limits.memory 4Gi"
        assert "`pulumi config set quotaMemory ... --stack local`" in problem["fix"]
        builds_on_it = {"job-admitted", "jobs-refused", "pods-refused", *(check.id for check in INSIDE)}
        assert found.of("skipped") == builds_on_it

    def test_contract_names_a_runtime_class_that_is_not_there(
        self, look: Callable[..., Seen], provisioned: Contract, mounted: Callable[[Contract], Contract]
    ) -> None:
        problem = look(mounted(provisioned.model_copy(update={"runtime_class": "kata"}))).only("runtime-class")
        assert problem["object"] == "RuntimeClass kata"
        assert problem["found"] == "no such RuntimeClass"
        assert "GKE makes `gvisor` with the first node pool that has GKE Sandbox" in problem["fix"]

    def test_contract_names_an_image_by_tag(
        self, look: Callable[..., Seen], provisioned: Contract, mounted: Callable[[Contract], Contract]
    ) -> None:
        tagged = provisioned.image.partition("@")[0] + ":latest"
        problem = look(mounted(provisioned.model_copy(update={"image": tagged}))).only("image")
        assert problem["object"] == f"image {tagged}"
        assert problem["found"] == "a tag"
        assert "pulumi config set image NAME@sha256:DIGEST --stack local" in problem["fix"]

    def test_image_was_never_pushed(self, look: Callable[..., Seen], environment: Environment) -> None:
        found = look(environment.up(ABSENT))
        assert found.only("probe")["found"].startswith(f"ImageUnavailable: the node cannot get the image {ABSENT}")
        assert found.of("skipped") == {"probe-gvisor", "probe-network", "probe-identity"}


def test_agents_mount_another_contract(look: Callable[..., Seen], provisioned: Contract) -> None:
    problem = look(provisioned.model_copy(update={"timeout_seconds": 60})).only("contract")
    assert problem["found"] == "timeout_seconds is 300, checked is 60"
    assert "Pull the stack's contract with `adk-gke-sandbox contract pull local`" in problem["fix"]


def test_namespace_is_missing(look: Callable[..., Seen], provisioned: Contract) -> None:
    problem = look(provisioned.model_copy(update={"namespace": "absent"})).only("namespaces")
    assert problem["object"] == "Namespace absent"
    assert problem["found"] == "no such namespace"


@pytest.fixture
def own_namespace(core: client.CoreV1Api) -> Iterator[str]:
    """A namespace without any wall."""
    name = f"preflight-{secrets.token_hex(3)}-open"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def look_inside(config: ExecutorConfig, targets: tuple[probe.Target, ...] = ()) -> probe.Insight:
    sandbox = Sandbox(config)
    try:
        outcome = sandbox.run(Path(program.__file__).read_text(), argv=probe.arguments(targets))
    finally:
        sandbox.close()
    found = probe.insight(outcome)
    assert found is not None, outcome
    return found


def test_kernel_of_the_node_is_not_taken_for_gvisors(
    admin: client.ApiClient, layout: Layout, contract: Contract, own_namespace: str
) -> None:
    nodes = client.NodeV1Api(admin)
    nodes.create_runtime_class({"metadata": {"name": own_namespace}, "handler": "runc"})
    try:
        found = look_inside(
            ExecutorConfig(
                namespace=own_namespace,
                image=contract.image,
                runtime_class=own_namespace,
                kubeconfig_path=str(layout.kubeconfig),
            )
        )
    finally:
        nodes.delete_runtime_class(own_namespace)
    assert not found.gvisor
    assert "gVisor" not in found.kernel


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
        probe.Target(name="open", address=layout.node_address, port=answerer),
        probe.Target(name="open", address=layout.node_address, port=answerer, protocol="dns"),
    )
    assert look_inside(config, targets).opened == (0, 1)
