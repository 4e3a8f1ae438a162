"""The real Pulumi engine with the real Kubernetes provider on the local cluster.

In namespaces and a backend of its own: the stack in use is not touched.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_KEY, EXECUTOR_RULES, parse
from infra.local import credentials, engine, stack
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost:1/absent@sha256:{'0' * 64}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A stack of a test."""

    where: stack.Stack
    sandbox: str
    agents: str

    def up(self, **settings: stack.Setting) -> str:
        names: dict[str, stack.Setting] = {"namespace": self.sandbox, "agentsNamespace": self.agents}
        lines: list[str] = []
        stack.up(self.where, image=IMAGE, settings={**names, **settings}, report=lines.append)
        return "\n".join(lines)

    def preview(self) -> None:
        stack.preview(self.where, expect_no_changes=True, report=lambda _: None)

    def destroy(self) -> None:
        stack.destroy(self.where, report=lambda _: None)


@pytest.fixture(scope="session")
def layout() -> Layout:
    found = Layout(name="local")
    if not found.kubeconfig.exists():
        pytest.fail("the local cluster is not up: run `make up`, or `make test` for everything")
    return found


@pytest.fixture(scope="session")
def admin(layout: Layout) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(layout.kubeconfig)) as api:
        yield api


@pytest.fixture(scope="session")
def core(admin: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(admin)


def _trial(layout: Layout, folder: Path) -> Trial:
    suffix = secrets.token_hex(3)
    return Trial(
        where=dataclasses.replace(stack.Stack.of(layout, lambda _: None), folder=folder),
        sandbox=f"engine-{suffix}",
        agents=f"engine-{suffix}-agents",
    )


@pytest.fixture
def trial(layout: Layout, tmp_path: Path) -> Iterator[Trial]:
    made = _trial(layout, tmp_path / "a folder %41")
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def provisioned(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A stack that tests look at and do not change."""
    made = _trial(layout, tmp_path_factory.mktemp("pulumi"))
    try:
        made.up()
        yield made
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def agent(layout: Layout, provisioned: Trial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.ApiClient]:
    """A client that is the agents' ServiceAccount of the provisioned stack."""
    out = tmp_path_factory.mktemp("agent") / "kubeconfig"
    credentials.service_account_kubeconfig(layout.kubeconfig, provisioned.agents, "agent", out, seconds=600)
    with config.new_client_from_config(str(out)) as api:
        yield api


def test_preview_after_up_has_no_changes(provisioned: Trial) -> None:
    provisioned.preview()


def test_no_service_account_but_the_agents_mounts_a_token(provisioned: Trial, core: client.CoreV1Api) -> None:
    mounts = {
        (namespace, account.metadata.name): account.automount_service_account_token
        for namespace in (provisioned.sandbox, provisioned.agents)
        for account in core.list_namespaced_service_account(namespace).items
    }
    assert mounts == {
        (provisioned.sandbox, "default"): False,
        (provisioned.sandbox, "sandbox-runner"): False,
        (provisioned.agents, "default"): False,
        (provisioned.agents, "agent"): None,
    }


def test_agent_may_do_exactly_the_executor_rules(provisioned: Trial, agent: client.ApiClient) -> None:
    review = client.AuthorizationV1Api(agent).create_self_subject_rules_review(
        client.V1SelfSubjectRulesReview(spec=client.V1SelfSubjectRulesReviewSpec(namespace=provisioned.sandbox))
    )
    granted = {
        (group, resource, verb)
        for rule in review.status.resource_rules
        for group in rule.api_groups
        for resource in rule.resources
        for verb in rule.verbs
        # Every identity may ask what it may do.
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }
    assert granted == {(rule.api_group, rule.resource, verb) for rule in EXECUTOR_RULES for verb in rule.verbs}


def test_agent_may_do_nothing_in_its_own_namespace(provisioned: Trial, agent: client.ApiClient) -> None:
    with pytest.raises(client.ApiException) as raised:
        client.CoreV1Api(agent).list_namespaced_secret(provisioned.agents)
    assert raised.value.status == 403


def _pod(**spec: object) -> dict[str, object]:
    hardened = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "c", "image": IMAGE, "securityContext": hardened}
    return {"metadata": {"generateName": "x-"}, "spec": {"containers": [{**container, **spec}]}}


def test_pod_that_is_not_restricted_is_refused(provisioned: Trial, core: client.CoreV1Api) -> None:
    with pytest.raises(client.ApiException, match=r"violates PodSecurity .*restricted:v1"):
        core.create_namespaced_pod(provisioned.sandbox, _pod(securityContext={}), dry_run="All")


def test_pod_above_the_ceiling_is_refused(provisioned: Trial, core: client.CoreV1Api) -> None:
    greedy = {"limits": {"memory": "9Gi"}}
    with pytest.raises(client.ApiException, match="maximum memory usage per Pod is 8Gi"):
        core.create_namespaced_pod(provisioned.sandbox, _pod(resources=greedy), dry_run="All")


def test_pod_that_says_nothing_of_resources_gets_the_contracts(provisioned: Trial, core: client.CoreV1Api) -> None:
    document = core.read_namespaced_config_map("adk-gke-sandbox", provisioned.agents).data[CONTRACT_KEY]
    template = manifests.job(ExecutorConfig.from_contract(parse(document)), "x", [{}])["spec"]["template"]
    (container,) = template["spec"]["containers"]
    given = {
        "metadata": {**template["metadata"], "name": "x"},
        "spec": {
            **template["spec"],
            "containers": [{key: value for key, value in container.items() if key != "resources"}],
        },
    }
    pod = core.create_namespaced_pod(provisioned.sandbox, given, dry_run="All")
    resources = pod.spec.containers[0].resources
    assert resources.limits == {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"}
    assert resources.requests == {"cpu": "200m", "memory": "256Mi", "ephemeral-storage": "256Mi"}


def test_secret_and_service_are_refused_by_quota(provisioned: Trial, core: client.CoreV1Api) -> None:
    with pytest.raises(client.ApiException, match="exceeded quota: sandbox, requested: count/secrets=1"):
        core.create_namespaced_secret(provisioned.sandbox, {"metadata": {"name": "x"}}, dry_run="All")
    service = {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}
    with pytest.raises(client.ApiException, match="exceeded quota: sandbox, requested: count/services=1"):
        core.create_namespaced_service(provisioned.sandbox, service, dry_run="All")


def test_state_holds_no_credential_of_the_cluster(provisioned: Trial, layout: Layout) -> None:
    user = yaml.safe_load(layout.kubeconfig.read_text())["users"][0]["user"]
    for path in provisioned.where.backend.rglob("*.json"):
        text = path.read_text()
        assert user["client-key-data"] not in text
        assert user["client-certificate-data"] not in text


def test_committed_files_are_not_written(provisioned: Trial) -> None:
    assert "encryptionsalt" not in (REPOSITORY / "infra" / "stacks" / "Pulumi.local.yaml").read_text()
    assert "encryptionsalt" in (provisioned.where.project / "stacks" / "Pulumi.local.yaml").read_text()


def test_changed_setting_updates_the_contract_in_place(trial: Trial, core: client.CoreV1Api) -> None:
    trial.up()
    before = core.read_namespaced_config_map("adk-gke-sandbox", trial.agents)
    trial.up(timeoutSeconds=60)
    after = core.read_namespaced_config_map("adk-gke-sandbox", trial.agents)
    assert parse(after.data[CONTRACT_KEY]).timeout_seconds == 60
    assert after.metadata.uid == before.metadata.uid


def test_what_was_deleted_by_hand_comes_back(trial: Trial, admin: client.ApiClient) -> None:
    trial.up()
    networking = client.NetworkingV1Api(admin)
    networking.delete_namespaced_network_policy("deny-all", trial.sandbox)
    trial.up()
    assert networking.read_namespaced_network_policy("deny-all", trial.sandbox)


def test_destroy_leaves_neither_namespace_nor_stack(trial: Trial, core: client.CoreV1Api) -> None:
    trial.up()
    trial.destroy()
    names = {namespace.metadata.name for namespace in core.list_namespace().items}
    assert names.isdisjoint({trial.sandbox, trial.agents})
    with pytest.raises(stack.StackError, match=r"^there is no stack local yet\. Create it with"):
        stack.output(trial.where)


def test_stack_without_an_image_is_refused(trial: Trial) -> None:
    with pytest.raises(stack.StackError, match=r"^no sandbox image is known\. Import one with `python infra/local up`"):
        stack.up(trial.where, report=lambda _: None)


def test_bad_setting_fails_with_one_line_and_a_log(trial: Trial) -> None:
    with pytest.raises(stack.StackError) as raised:
        trial.up(memCeiling="256Mi")
    assert str(raised.value) == (
        "pulumi up of stack local failed: adk-gke-sandbox:memLimit=512Mi is above adk-gke-sandbox:memCeiling=256Mi. "
        f"Lower memLimit or raise memCeiling (log: {trial.where.log('up')})"
    )
    assert "memCeiling=256Mi" in trial.where.log("up").read_text()


def test_run_that_was_killed_while_it_created_the_stack_is_taken_over(trial: Trial) -> None:
    lock = trial.where.backend / ".pulumi" / "locks" / "organization" / stack.PROJECT / "local" / "x.json"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(["true"]) as ended:
        pass
    lock.write_text(
        json.dumps({"pid": ended.pid, "username": "x", "hostname": "x", "timestamp": "2026-01-01T00:00:00Z"})
    )
    assert "an earlier run on stack local was killed: taking its lock over" in trial.up()


def test_run_that_was_killed_is_taken_over(trial: Trial, core: client.CoreV1Api) -> None:
    """Between two creates: the engine's lock stays behind, half a file, and objects that its state may not know."""
    program = (
        "import sys; from pathlib import Path; from infra.local import stack;"
        "from infra.local.layout import Layout; import dataclasses;"
        "where = dataclasses.replace(stack.Stack.of(Layout(name='local')), folder=Path(sys.argv[1]));"
        f"stack.up(where, image={IMAGE!r}, settings=dict(namespace=sys.argv[2], agentsNamespace=sys.argv[3]))"
    )
    locks = trial.where.backend / ".pulumi" / "locks"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(trial.where.folder), trial.sandbox, trial.agents],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as driver:
        while trial.sandbox not in {each.metadata.name for each in core.list_namespace().items}:
            assert driver.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(driver.pid, signal.SIGKILL)
    assert list(locks.rglob("*.json"))
    # As they are if the kill comes while the engine writes them.
    for path in trial.where.backend.rglob("*.attrs"):
        path.write_bytes(b"")
    assert "an earlier run on stack local was killed: taking its lock over" in trial.up()
    trial.preview()


def test_object_that_the_state_does_not_know_is_taken_over(trial: Trial, core: client.CoreV1Api) -> None:
    """As a run leaves it that is killed before it has saved what it made."""
    trial.up()
    stack_of = ["--stack", trial.where.name]
    state = json.loads(engine.run(trial.where, "export", ["stack", "export", *stack_of]))
    (urn,) = [each["urn"] for each in state["deployment"]["resources"] if each["urn"].endswith("::sandbox-contract")]
    before = core.read_namespaced_config_map("adk-gke-sandbox", trial.agents).metadata.uid
    engine.run(trial.where, "delete", ["state", "delete", urn, "--yes", *stack_of])
    trial.up()
    assert core.read_namespaced_config_map("adk-gke-sandbox", trial.agents).metadata.uid == before
    trial.preview()
