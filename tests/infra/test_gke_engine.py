"""The GKE stacks on the real Pulumi engine, from nothing to an execution and back to nothing.

Google Cloud is played by the stand-in in `standin`: what it cannot show is whether Google accepts a value. The
cluster that it "makes" is the local one, so the real Kubernetes provider applies every object to a real API
server, by the kubeconfig that the stack itself exports. Each trial has a stack, namespaces and a cloud of its own.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pickle
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
from standin import cloud, container, faults, local_cluster
from standin.cloud import Cloud
from standin.faults import Fault, Order

from adk_gke_sandbox.contract import CONTRACT_KEY, parse
from infra.local import engine, stack
from infra.local.layout import Layout
from tests.infra.conftest import committed, previewer
from tests.infra.gke_variants import IN_SHORT, VARIANTS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]
STANDIN = Path(cloud.__file__).parent
PROJECT = "a-project"
PASSPHRASE = "of a test"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A stack of a test, and the cloud that it believes in."""

    where: stack.Stack
    layout: Layout
    cloud: Cloud
    image: str

    @property
    def sandbox(self) -> str:
        return f"gke-{self.where.name}"

    @property
    def agents(self) -> str:
        return f"gke-{self.where.name}-agents"

    @property
    def settings(self) -> dict[str, stack.Setting]:
        return {
            "namespace": self.sandbox,
            "agentsNamespace": self.agents,
            "gcp:project": PROJECT,
            "deletionProtection": False,
        }

    def up(self, **settings: stack.Setting) -> str:
        lines: list[str] = []
        stack.up(self.where, image=self.image, settings={**self.settings, **settings}, report=lines.append)
        return "\n".join(lines)

    def unchanged(self, *options: str) -> None:
        """Fail if an update would change anything."""
        arguments = ["--diff", "--expect-no-changes", *options]
        engine.stream(self.where, "preview", arguments, lambda _: None)

    def destroy(self, *, preview_first: bool = False) -> None:
        stack.destroy(self.where, preview_first=preview_first, report=lambda _: None)

    def order(self, fault: Fault, verb: str, kind: str, name: str = "") -> None:
        faults.order(self.cloud, Order(fault=fault, verb=verb, type=kind, name=name))

    def made(self, kind: str) -> set[str]:
        """Return the ids of what is in the cloud of a type, such as ``NodePool``."""
        resources = self.cloud.read().resources.values()
        return {each["id"] for each in resources if each["type"].endswith(f":{kind}")}

    def left_on_the_cluster(self) -> list[str]:
        return local_cluster.left(self.layout.kubeconfig, self.where.name)

    def end(self) -> None:
        """Destroy whatever the test left, protected or not."""
        faults.order(self.cloud)
        if self.left_on_the_cluster():
            local_cluster.wipe(self.layout.kubeconfig, self.where.name)


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = Layout(name="local")
    if not found.kubeconfig.exists():
        pytest.fail("the local cluster is not up: run `make up`, or `make test` for everything")
    return found


@pytest.fixture(scope="module")
def admin(layout: Layout) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(layout.kubeconfig)) as api:
        yield api


@pytest.fixture(scope="module")
def core(admin: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(admin)


@pytest.fixture(scope="module")
def fqdn_policies(admin: client.ApiClient) -> Iterator[None]:
    """GKE's policies that name hosts, which the local cluster does not have; nobody enforces them here.

    https://cloud.google.com/kubernetes-engine/docs/how-to/fqdn-network-policies
    """
    kind, plural = "FQDNNetworkPolicy", "fqdnnetworkpolicies"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.networking.gke.io"},
        "spec": {"group": "networking.gke.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    definitions = client.ApiextensionsV1Api(admin)
    try:
        definitions.create_custom_resource_definition(definition)
    except client.ApiException as error:
        if error.status != 409:  # one that a killed run left
            raise
    yield
    definitions.delete_custom_resource_definition(definition["metadata"]["name"])


def authority(layout: Layout) -> bytes:
    """Return the certificate authority of the local cluster; a real GKE's DNS endpoint has a public one."""
    document = yaml.safe_load(layout.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    if inline := cluster.get("certificate-authority-data"):
        return base64.b64decode(inline)
    return (layout.kubeconfig.parent / cluster["certificate-authority"]).read_bytes()


def trial_of(layout: Layout, folder: Path, configuration: str) -> Trial:
    usual = stack.Stack.of(layout, lambda _: None)
    ca = folder / "authority.pem"
    ca.write_bytes(authority(layout))
    where = dataclasses.replace(
        usual,
        name=f"{configuration}-{secrets.token_hex(3)}",
        configuration=configuration,
        folder=folder,
        kubeconfig=None,
        providers={"gcp": STANDIN / "plugin"},
        path=[STANDIN / "bin"],
        environment={
            cloud.FOLDER: str(folder / "cloud"),
            cloud.KUBECONFIG: str(layout.kubeconfig),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "SSL_CERT_FILE": str(ca),
        },
    )
    images = json.loads(layout.images.read_text())["data"]["references"]
    image = next(reference for reference in images if "@sha256:" in reference)
    return Trial(where=where, layout=layout, cloud=Cloud(folder / "cloud"), image=image)


@pytest.fixture
def trial(layout: Layout, tmp_path: Path) -> Iterator[Trial]:
    made = trial_of(layout, tmp_path, "staging")
    yield made
    made.end()


@pytest.fixture(scope="module")
def staging(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The staging stack, for tests that look at it and do not change it."""
    made = trial_of(layout, tmp_path_factory.mktemp("staging"), "staging")
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def changed(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """A staging stack for tests that change it: each begins with an update to the settings that it wants."""
    made = trial_of(layout, tmp_path_factory.mktemp("changed"), "staging")
    try:
        yield made
    finally:
        made.end()


# -- from nothing to an execution


def test_up_makes_the_objects_on_a_real_api_server(staging: Trial, core: client.CoreV1Api) -> None:
    labels = core.read_namespace(staging.sandbox).metadata.labels
    assert labels["adk-gke-sandbox/stack"] == staging.where.name
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert core.read_namespaced_resource_quota("sandbox", staging.sandbox).spec.hard["count/secrets"] == "0"


def test_preview_of_staging_has_no_changes(staging: Trial) -> None:
    staging.unchanged()
    staging.unchanged("--refresh")


def test_previewer_can_preview_a_stack_that_is_up(staging: Trial) -> None:
    def preview_with(permissions: set[str]) -> None:
        with staging.cloud.change() as world:
            world.allowed = {PROJECT: sorted(permissions)}
        staging.unchanged()

    try:
        preview_with(set(previewer()))
        with pytest.raises(stack.StackError, match="Program failed"):
            preview_with(set(previewer()) - {"compute.forwardingRules.list"})
        told = (staging.where.folder / "preview.log").read_text()
        assert "Required 'compute.forwardingRules.list' permission for 'projects/" in told
    finally:
        with staging.cloud.change() as world:
            world.allowed = None


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.long) for name in VARIANTS]
)
@pytest.mark.usefixtures("fqdn_policies")
def test_preview_after_up_has_no_changes(layout: Layout, tmp_path: Path, variant: str) -> None:
    configuration, changed = VARIANTS[variant]
    made = trial_of(layout, tmp_path, configuration)
    # Settings that a variant takes back must not come from the committed file.
    made = dataclasses.replace(made, where=dataclasses.replace(made.where, configuration="none"))
    settings = {**committed(configuration), **made.settings, **changed}
    try:
        made.up(**{key: value for key, value in settings.items() if value is not None and key != "image"})
        made.unchanged()
        made.unchanged("--refresh")
        made.destroy()
        assert (made.left_on_the_cluster(), made.cloud.read().resources) == ([], {})
    finally:
        made.end()


def test_contract_names_the_cluster_that_was_made(staging: Trial, core: client.CoreV1Api) -> None:
    contract = parse(stack.output(staging.where))
    document = core.read_namespaced_config_map("adk-gke-sandbox", staging.agents).data[CONTRACT_KEY]
    assert parse(document) == contract
    (cluster,) = staging.cloud.read().outputs("gcp:container/cluster:Cluster")
    assert contract.cluster.project == PROJECT
    assert contract.cluster.name == cluster["name"]
    assert contract.cluster.location == cluster["location"]
    assert contract.stack == staging.where.name
    assert contract.namespace == staging.sandbox


@pytest.fixture(scope="module")
def user(staging: Trial, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who uses the stack: its exported kubeconfig, and Google's credential plugin."""
    kubeconfig = tmp_path_factory.mktemp("user") / "kubeconfig"
    kubeconfig.write_text(stack.outputs(staging.where)["kubeconfig"])
    return {**engine.variables(staging.where), "KUBECONFIG": str(kubeconfig)}


def command(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [str(Path(sys.executable).with_name("adk-gke-sandbox")), *map(str, arguments)]
    return subprocess.run(line, env=env, check=False, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pulled(staging: Trial, user: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("contract") / "contract.json"
    done = command(
        "contract", "pull", staging.where.name, "--project", staging.where.project, "--output", out, env=user
    )
    assert done.returncode == 0, done.stderr
    return out


def test_contract_pull_writes_what_the_stack_exports(staging: Trial, pulled: Path) -> None:
    assert parse(pulled.read_text()) == parse(stack.output(staging.where))


def test_pulled_contract_runs_a_program_in_gvisor(pulled: Path, user: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import numpy, subprocess; print(subprocess.run('dmesg', capture_output=True, text=True).stdout)")
    done = command("run", script, "--contract", pulled, env=user)
    assert done.returncode == 0, done.stderr
    assert "Starting gVisor" in done.stdout


def test_state_holds_no_secret_in_plain_text(staging: Trial) -> None:
    admin = yaml.safe_load(staging.layout.kubeconfig.read_text())["users"][0]["user"]
    secret = {
        "the key of the cluster's administrator": admin["client-key-data"],
        "the certificate of the cluster's administrator": admin["client-certificate-data"],
        "the exported kubeconfig": "gke-gcloud-auth-plugin",
        "what the provider says of the control plane": container.AUTHORITY,
    }
    exported = engine.run(staging.where, "export", ["stack", "export", "--stack", staging.where.name])
    files = [path.read_text() for path in staging.where.backend.rglob("*.json")]
    assert [what for what, text in secret.items() if any(text in each for each in (exported, *files))] == []
    assert "ciphertext" in exported


def test_kubeconfig_is_exported_as_a_secret(staging: Trial) -> None:
    shown = engine.run(staging.where, "output", ["stack", "output", "--json", "--stack", staging.where.name])
    assert json.loads(shown)["kubeconfig"] == "[secret]"


# -- and back to nothing


def test_protected_stack_is_torn_down_in_two_steps_and_leaves_nothing(trial: Trial) -> None:
    trial.up(deletionProtection=True)
    before = trial.cloud.read().resources
    with pytest.raises(stack.StackError, match="cannot be deleted"):
        trial.destroy(preview_first=True)
    assert trial.cloud.read().resources == before
    assert trial.left_on_the_cluster()
    trial.up(deletionProtection=False)
    trial.destroy(preview_first=True)
    assert trial.left_on_the_cluster() == []
    assert trial.cloud.read().resources == {}


def test_cluster_refuses_its_deletion(trial: Trial) -> None:
    """Without a preview Pulumi's own protection is looked at late, and GKE's provider has the last word."""
    trial.up(deletionProtection=True)
    engine.run(trial.where, "unprotect", ["state", "unprotect", "--all", "--yes", "--stack", trial.where.name])
    with pytest.raises(stack.StackError, match="Cannot destroy cluster because deletion_protection is set to true"):
        trial.destroy()
    assert trial.made("Cluster")


# -- a cluster that is there, by its name


@pytest.fixture
def guest(staging: Trial, tmp_path: Path) -> Iterator[Trial]:
    """A stack with the same cloud and no cluster of its own."""
    made = trial_of(staging.layout, tmp_path, "local")
    folders = {cloud.FOLDER: str(staging.cloud.folder)}
    where = dataclasses.replace(made.where, environment={**made.where.environment, **folders})
    made = dataclasses.replace(made, where=where, cloud=staging.cloud)
    yield made
    made.end()


def names_of(trial: Trial, cluster: str) -> dict[str, stack.Setting]:
    return {"namespace": trial.sandbox, "agentsNamespace": trial.agents, "gkeCluster": cluster}


def test_named_cluster_gets_namespaces_and_nothing_else(staging: Trial, guest: Trial, core: client.CoreV1Api) -> None:
    before = staging.cloud.read().resources
    (cluster,) = staging.made("Cluster")
    stack.up(guest.where, image=guest.image, settings=names_of(guest, cluster), report=lambda _: None)
    assert core.read_namespace(guest.sandbox).metadata.labels["adk-gke-sandbox/stack"] == guest.where.name
    outputs = stack.outputs(guest.where)
    assert yaml.safe_load(outputs["kubeconfig"])["current-context"] == outputs["sandbox"]["cluster"]["context"]
    assert parse(outputs["sandbox"]).cluster == parse(stack.output(staging.where)).cluster
    stack.preview(guest.where, expect_no_changes=True, report=lambda _: None)
    stack.destroy(guest.where, report=lambda _: None)
    assert guest.left_on_the_cluster() == []
    assert staging.left_on_the_cluster()
    assert staging.cloud.read().resources == before


def test_named_cluster_that_is_not_there(guest: Trial) -> None:
    absent = f"projects/{PROJECT}/locations/europe-west4/clusters/absent"
    with pytest.raises(stack.StackError, match=f"{absent} not found"):
        stack.up(guest.where, image=guest.image, settings=names_of(guest, absent), report=lambda _: None)


# -- changes


def test_spot_replaces_the_sandbox_pool_alone(changed: Trial) -> None:
    changed.up(sandboxSpot=False)
    cluster, pools = changed.made("Cluster"), changed.made("NodePool")
    changed.up(sandboxSpot=True)
    assert changed.made("Cluster") == cluster
    assert len(changed.made("NodePool") & pools) == len(pools) - 1
    # The new pool comes before the old one goes: executions have somewhere to run.
    changes = [(verb, kind) for verb, kind, _ in changed.cloud.calls() if kind == "NodePool"]
    assert changes[-2:] == [("create", "NodePool"), ("delete", "NodePool")]


def test_protected_stack_takes_settings_that_need_another_service(trial: Trial) -> None:
    trial.up(deletionProtection=True)
    grants = trial.made("CryptoKeyIAMMember")
    trial.up(deletionProtection=True, agentRoles=["roles/aiplatform.user"], binaryAuthorization="manage")
    assert trial.made("CryptoKeyIAMMember") == grants
    assert "a-project/aiplatform.googleapis.com" in trial.made("Service")


def test_switched_off_is_off_on_the_cluster(changed: Trial) -> None:
    group = {"rbacSecurityGroup": "gke-security-groups@example.com"}
    changed.up(**group, agentSandboxAddon=True, minVersion="1.36.3-gke.1767000")
    with pytest.raises(stack.StackError, match="has the group gke-security-groups@example"):
        changed.up(minVersion="1.36.3-gke.1767000")
    changed.up(rbacSecurityGroup="off", minVersion="1.36.3-gke.1767000")
    (made,) = changed.cloud.read().outputs("gcp:container/cluster:Cluster")
    assert made["addonsConfig"]["agentSandboxConfig"] == {"enabled": False}
    assert made["authenticatorGroupsConfig"] == {"securityGroup": ""}


@pytest.mark.usefixtures("fqdn_policies")
def test_cluster_is_not_replaced_in_one_step_and_nothing_is_lost(trial: Trial) -> None:
    trial.up(egress="fqdn", egressHosts=["pypi.org"])
    before = trial.made("Cluster"), trial.made("NodePool"), trial.left_on_the_cluster()
    with pytest.raises(stack.StackError, match=r'Services secondary range "services" is already used by cluster'):
        trial.up()
    assert (trial.made("Cluster"), trial.made("NodePool"), trial.left_on_the_cluster()) == before


def test_pool_that_somebody_deleted_comes_back(changed: Trial) -> None:
    changed.up()
    pools = changed.made("NodePool")
    with changed.cloud.change() as world:
        del world.resources[min(pools)]
    changed.up()
    assert len(changed.made("NodePool")) == len(pools)


# -- failures: what a user sees, and that the next `up` goes on from there


def test_quota_error_names_the_resource_and_the_page(trial: Trial) -> None:
    trial.order(Fault.QUOTA, "create", "Cluster")
    with pytest.raises(stack.StackError) as raised:
        trial.up()
    assert "(gcp:container:Cluster): googleapi: Error 403: Insufficient regional quota" in str(raised.value)
    assert f"https://console.cloud.google.com/iam-admin/quotas?usage=USED&project={PROJECT}" in str(raised.value)
    assert trial.made("Cluster") == set()
    trial.up()
    assert len(trial.made("Cluster")) == 1


def test_grant_that_does_not_act_yet_is_passed_by_the_next_up(trial: Trial) -> None:
    trial.order(Fault.GRANT_LATE, "create", "Cluster")
    with pytest.raises(stack.StackError, match=r"Cloud KMS key used for encryption is not usable"):
        trial.up()
    trial.up()


def test_cluster_whose_creation_ended_in_an_error_is_not_gone_on_with(trial: Trial) -> None:
    trial.order(Fault.ERROR, "create", "Cluster")
    with pytest.raises(stack.StackError, match="Error waiting for creating GKE cluster: All cluster resources"):
        trial.up()
    (lost,) = trial.made("Cluster")
    assert f"{lost}/nodePools/default-pool" in trial.made("NodePool")
    name = lost.rsplit("/", 1)[-1]
    with pytest.raises(stack.StackError) as raised:
        trial.up()
    assert f"cluster {name} has no DNS endpoint: its creation ended in an error" in str(raised.value)
    assert f"`gcloud container clusters delete {name} --location europe-west4`" in str(raised.value)
    with trial.cloud.change() as world:  # as that command does
        for each in [found for found in world.resources if found.startswith(lost)]:
            del world.resources[each]
    trial.up()
    trial.unchanged("--refresh")


def test_first_pool_that_was_never_removed_is_told(changed: Trial) -> None:
    changed.up()
    (made,) = changed.made("Cluster")
    with changed.cloud.change() as world:
        faults.first_pool(world, made)
    with pytest.raises(stack.StackError, match="node-pools delete default-pool --cluster"):
        changed.up()
    with changed.cloud.change() as world:  # as that command does
        del world.resources[f"{made}/nodePools/default-pool"]


def test_stock_out_names_the_pool_which_stays_known(trial: Trial) -> None:
    trial.order(Fault.STOCK_OUT, "create", "NodePool")
    with pytest.raises(
        stack.StackError, match=r"\(gcp:container:NodePool\): NodePool \S+ was created in the error state"
    ):
        trial.up()
    pools = trial.made("NodePool")
    trial.up()
    # GKE keeps such a pool and fills it when machines are there: a second one would be paid for, too.
    assert pools <= trial.made("NodePool")
    assert len(trial.made("NodePool")) == 2


def test_run_that_was_killed_while_the_cluster_was_made_goes_on_once_that_one_is_gone(trial: Trial) -> None:
    trial.order(Fault.HANG, "create", "Cluster")
    program = (
        "import pickle, sys; from infra.local import stack;"
        "where, image, settings = pickle.load(sys.stdin.buffer); stack.up(where, image=image, settings=settings)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as driver:
        assert driver.stdin is not None
        pickle.dump((trial.where, trial.image, trial.settings), driver.stdin)
        driver.stdin.close()
        while not trial.made("Cluster"):
            assert driver.poll() is None, "the run ended without a cluster"
            time.sleep(0.05)
        os.killpg(driver.pid, signal.SIGKILL)
    (lost,) = trial.made("Cluster")
    faults.order(trial.cloud)
    # A second cluster would have the same range for its services, which GKE refuses.
    name = lost.rsplit("/", 1)[-1]
    with pytest.raises(stack.StackError, match=f'is already used by cluster "{name}"'):
        trial.up()
    with trial.cloud.change() as world:
        for each in [found for found in world.resources if found.startswith(lost)]:
            del world.resources[each]
    trial.up()
