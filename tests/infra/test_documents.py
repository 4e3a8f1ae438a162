"""What the documents say is what the code says: settings, commands, messages, roles, and where links lead."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from standin.answers import settled
from standin.difference import difference
from standin.model import KINDS

from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.execution import CODE_REASONS, Reason
from infra import settings_reference
from infra.configuration import key, settings_of
from infra.cost import inputs as cost
from infra.gke import quotas
from infra.gke_settings import GkeSettings
from infra.node_identity import NODE_ROLE
from infra.project_services import wanted
from infra.settings import GROUPS
from tests.infra.conftest import GKE_STACKS, IMAGE, Program, committed, previewer, run_program
from tests.infra.gke_variants import ALL_OF_OTHERS, NETWORK_OF_OTHERS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OPERATIONS = ROOT / "docs" / "operations"
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(document: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a document that are in one of these languages."""
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", read(document), flags=re.MULTILINE | re.DOTALL):
        if language in languages:
            yield text


def anchors(document: Path) -> set[str]:
    """Return what a link to a heading of a document may end in, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", read(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


# -- links, blocks and commands


@each_document
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", read(document)):
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@each_document
def test_shell_blocks_are_shell(document: Path) -> None:
    for text in blocks(document, "bash"):
        done = subprocess.run(["bash", "-n"], input=text, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


@each_document
def test_python_and_yaml_blocks_can_be_read(document: Path) -> None:
    for text in blocks(document, "python"):
        ast.parse(text)
    for text in blocks(document, "yaml"):
        assert yaml.safe_load(text)


def commands(document: Path) -> str:
    """Return everything of a document that is set as code."""
    return "\n".join([*re.findall(r"`([^`\n]+)`", read(document)), *blocks(document, "bash", "yaml", "")])


@each_document
def test_commands_of_ours_exist(document: Path) -> None:
    text = commands(document)
    targets = set(re.findall(r"^([\w-]+):.*##|^(\.venv/ready):", read(ROOT / "Makefile"), flags=re.MULTILINE))
    known = {name for pair in targets for name in pair if name}
    assert set(re.findall(r"\bmake ([\w./-]+)", text)) <= known
    verbs = {found.name or getattr(found.callback, "__name__", "") for found in app.registered_commands}
    verbs |= {found.name for found in app.registered_groups}
    assert set(re.findall(r"\badk-gke-sandbox ([a-z]\w+)", text)) <= verbs
    for path in re.findall(r"\bpython ((?:infra|examples|tests)/[\w./]+)", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"\bpython -m (infra[\w.]*)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


# -- settings


def test_page_of_settings_is_made_from_the_code() -> None:
    assert read(settings_reference.PAGE) == settings_reference.page(), settings_reference.COMMAND


def test_every_setting_says_what_it_is_for() -> None:
    for group in GROUPS:
        texts = settings_reference.documentation(group)
        assert {entry.name for entry in settings_of(group)} <= texts.keys()


@each_document
def test_settings_in_a_document_exist(document: Path) -> None:
    known = {key(entry.name) for group in GROUPS for entry in settings_of(group)}
    # Up to the name: options may come before it, and a path begins with it.
    named = re.findall(r"pulumi config (?:set|rm|get)((?: --[\w-]+)*) '?([A-Za-z][\w:]*)", read(document))
    assert [name for _, name in named if name not in known | {"NAME"}] == []


IN_A_NETWORK = ("network", "subnetwork", "pods_range", "services_range", "network_project")
OTHERS: dict[str, Any] = {
    "project": "another-project",
    "region": "us-central1",
    "production": True,
    "deletion_protection": True,
    "subnet_cidr": "10.96.0.0/20",
    "pods_cidr": "10.100.0.0/16",
    "services_cidr": "10.104.0.0/20",
    **{name: ALL_OF_OTHERS[key(name)] for name in (*IN_A_NETWORK, "node_service_account", "kms_key", "repository")},
    "release_channel": "STABLE",
    "min_version": "1.37.0-gke.1000000",
    "maintenance_start": "2026-02-03T02:00:00Z",
    "maintenance_end": "2026-01-03T09:00:00Z",
    "maintenance_recurrence": "FREQ=DAILY",
    "maintenance_exclusions": {"year-end": "2026-12-18T00:00:00Z/2027-01-04T00:00:00Z"},
    "project_quotas": {"CPUS": "100"},
    "system_machine_type": "n2d-standard-4",
    "system_nodes_min": 2,
    "system_nodes_max": 5,
    "sandbox_machine_type": "n2d-standard-8",
    "sandbox_nodes_min": 2,
    "sandbox_nodes_max": 5,
    "sandbox_pods_per_node": 32,
    "sandbox_spot": True,
    "sandbox_upgrade": "BLUE_GREEN",
    "sandbox_disk_type": "pd-ssd",
    "sandbox_disk_gb": 200,
    "encrypt_boot_disks": False,
    "rbac_security_group": "gke-security-groups@example.com",
    "agent_roles": ["roles/aiplatform.user"],
    "binary_authorization": "enforce",
    "sandbox_logs": "keep",
    "sandbox_log_days": 90,
    "docker_hub_user": "a-user",
    "docker_hub_token": "projects/123456789012/secrets/docker-hub/versions/1",
    "agent_sandbox_addon": True,
    "pod_snapshots": True,
}
"""Another value for each setting of a cluster."""

USUAL = {"sandboxSpot": False, "minVersion": "1.36.3-gke.1767000", "quotaPods": 60}
ADDRESSES = {"subnet_cidr", "pods_cidr", "services_cidr"}
TOGETHER = {
    "maintenance_start": {"maintenanceEnd": "2026-02-03T08:00:00Z"},
    "docker_hub_user": {"dockerHubToken": OTHERS["docker_hub_token"]},
    "docker_hub_token": {"dockerHubUser": "a-user"},
    **dict.fromkeys(IN_A_NETWORK[1:], NETWORK_OF_OTHERS),
}


def program(**settings: Any) -> Program:
    return run_program({**committed("staging"), "image": IMAGE, **USUAL, **settings}, "staging")


def replaced(before: Program, after: Program) -> set[str]:
    """Return what Google can only make anew to get from one program to the other: ``cluster``, ``node pool``."""
    found = set()
    for old in before.resources:
        kind = {"Cluster": "cluster", "NodePool": "node pool"}.get(old.type.split(":")[-1])
        (new,) = [each for each in after.resources if (each.type, each.name) == (old.type, old.name)] if kind else [old]
        if not kind:
            continue
        model, ignored = KINDS[old.type], [*new.request.ignoreChanges, "cluster"]
        if difference(model, settled(model, old.inputs), old.inputs, new.inputs, ignored).replaces:
            found.add(kind)
    return found


@pytest.mark.timeout(300)  # the program, once for each setting
def test_settings_marked_day_0_are_those_that_replace_a_cluster_or_a_pool() -> None:
    """As far as the model of Google's provider goes: of address ranges, it is Google's API that refuses a change."""
    assert OTHERS.keys() == {entry.name for entry in settings_of(GkeSettings)}
    texts = settings_reference.documentation(GkeSettings)
    usual = program()
    for name, value in OTHERS.items():
        found = replaced(usual, program(**{key(name): value, **TOGETHER.get(name, {})}))
        marked = settings_reference.day_0(texts[name])
        if name in ADDRESSES:
            assert marked == "cluster", name
        else:
            assert (marked or None) == next(iter(sorted(found)), None), name


def test_leaving_fqdn_policies_replaces_the_cluster_and_nothing_else_of_egress_does() -> None:
    fqdn = {"egress": "fqdn", "egressHosts": ["pypi.org"]}
    assert replaced(program(**fqdn), program()) == {"cluster"}
    assert replaced(program(), program(**fqdn)) == set()
    assert replaced(program(), program(egress="internet")) == set()


def test_page_of_day_0_choices_has_every_such_setting() -> None:
    page = read(OPERATIONS / "day-0.md")
    texts = settings_reference.documentation(GkeSettings)
    for name, text in texts.items():
        if settings_reference.day_0(text):
            assert f"`{key(name)}`" in page, name


# -- bootstrap and CI

EVERYTHING = GkeSettings(
    project="a-project", region="europe-west4", binary_authorization="manage", agent_roles=("roles/aiplatform.user",)
)


def test_deployer_has_a_role_for_each_service_that_the_program_changes() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    made = program(egress="internet", binaryAuthorization="manage", agentRoles=["roles/aiplatform.user"])
    services = {KINDS[each.type].permission.split(".")[0] for each in made.resources if each.type in KINDS}
    assert "container" in services
    # Who may make accounts and use them is every account; those of the nodes are made by hand.
    services.discard("iam")
    assert [service for service in services if f"| `roles/{service}." not in page] == []


def test_roles_are_granted_as_they_are_listed() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    listed = set(re.findall(r"^\| `roles/([\w.]+)`", page, flags=re.MULTILINE))
    loop = re.search(r"for role in (.*?); do", page, flags=re.DOTALL)
    assert loop
    granted = set(loop[1].replace("\\", "").split())
    apart = {"resourcemanager.projectIamAdmin", "binaryauthorization.policyEditor"}
    assert listed == granted | apart
    assert not granted & apart


def test_deployer_may_grant_the_roles_that_the_program_grants_to_agents() -> None:
    condition = re.search(r"hasOnly\(\[(.*?)\]\)", read(OPERATIONS / "bootstrap.md"))
    assert condition
    grants = program(agentRoles=["roles/aiplatform.user"]).of("IAMMember")
    assert {*re.findall(r"'([^']+)'", condition[1]), NODE_ROLE} == {each.inputs["role"] for each in grants}


def test_deployer_may_use_the_account_of_the_nodes_alone() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    (used,) = re.findall(r"([^`]*?)--role=roles/iam\.serviceAccountUser", page)
    assert used.rpartition("add-iam-policy-binding ")[2].startswith("$NODES ")
    (granted,) = re.findall(r"for role in (.*?); do", page, flags=re.DOTALL)
    assert "iam." not in granted


def test_previewer_only_reads() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    permissions = ",".join(re.findall(r"--permissions=(\S+)", page)).split(",")
    assert {each.rpartition(".")[2] for each in permissions} <= {"get", "list", "connect"}
    assert set(re.findall(r"\$PREVIEWER\s.*?--role=(\S+)", page, flags=re.DOTALL)) == {
        "projects/$PROJECT/roles/previewer",
        "roles/storage.objectViewer",
        "roles/cloudkms.cryptoKeyDecrypter",
    }


def test_previewer_may_look_up_what_the_program_looks_up_and_no_more() -> None:
    own_subnet = {name: value for name, value in NETWORK_OF_OTHERS.items() if name != "networkProject"}
    settings: list[dict[str, Any]] = [{}, {"sandboxLogs": "keep"}, ALL_OF_OTHERS, own_subnet]
    asked = set().union(*(program(**each).lookups for each in settings))
    theirs = run_program({"image": IMAGE, "gkeCluster": "projects/a-project/locations/us-east1/clusters/theirs"})
    here = {permission for permission, project in asked if project != "host-project"}
    there = {permission for permission, project in asked if project == "host-project"}
    # Asked for by the provider itself, and by the Kubernetes provider at the DNS endpoint.
    here |= {permission for permission, _ in theirs.lookups} | {"compute.regions.list", "container.clusters.connect"}
    assert set(previewer()) == here
    (host,) = re.findall(r"--project=\$HOST .*?--permissions=(\S+)", read(OPERATIONS / "bootstrap.md"))
    assert set(host.split(",")) == there


def test_accounts_that_the_page_makes_can_be_made() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    (names,) = re.findall(r"for account in ([^$]+?); do gcloud iam service-accounts create", page)
    emails = dict(re.findall(r"^export (\w+)=([\w-]+@\$PROJECT\.iam\.gserviceaccount\.com)", page, flags=re.MULTILINE))
    assert {email.partition("@")[0] for email in emails.values()} == set(names.split())
    assert "pulumi config set nodeServiceAccount $NODES" in page
    for email in emails.values():
        # An id has 6 to 30 characters (https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/create).
        GkeSettings(
            project="a-project",
            region="europe-west4",
            node_service_account=email.replace("$PROJECT", "a-project"),
        )


SHARED_VPC = {
    "get-iam-policy host": ["roles/container.hostServiceAgentUser serviceAccount:gke"],
    "subnets get-iam-policy": [
        *(f"roles/compute.networkUser serviceAccount:{account}" for account in ("gke", "groups", "deployer")),
        "projects/host/roles/previewer serviceAccount:previewer",
    ],
    "list-usable": ["projects/host/regions/region/subnetworks/subnet"],
}
"""What `gcloud` prints where a Shared VPC is as it should be."""


@pytest.mark.parametrize("lacking", ["", *(line for lines in SHARED_VPC.values() for line in lines)])
def test_commands_that_look_at_a_shared_vpc_fail_where_something_is_lacking(lacking: str) -> None:
    (text,) = [block for block in blocks(OPERATIONS / "bootstrap.md", "bash") if "get-iam-policy" in block]
    printed = "\n".join(
        f"*'{call}'*) printf '%s\\n' {' '.join(repr(line) for line in lines if line != lacking)};;"
        for call, lines in SHARED_VPC.items()
    )
    variables = "PROJECT=project HOST=host REGION=region SUBNET=subnet GKE=gke GROUPS_OF_NODES=groups"
    script = f'{variables} DEPLOYER=deployer PREVIEWER=previewer\ngcloud() {{ case "$*" in\n{printed}\nesac; }}\n{text}'
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert (done.returncode == 0) is not bool(lacking), done
    role, _, account = lacking.partition(" serviceAccount:")
    assert not account or f"{account} lacks {role}\n" == done.stdout


def test_apis_that_the_program_cannot_enable_itself_come_first() -> None:
    page = read(OPERATIONS / "bootstrap.md")
    enabled = set(re.findall(r"(\w+)\.googleapis\.com", page))
    # What enables a service, and what says who may do what, is called before anything can be enabled.
    assert {"serviceusage", "cloudresourcemanager", "iam"} <= enabled
    services = {KINDS[each.type].service.partition(".")[0] for each in program().resources if each.type in KINDS}
    assert services <= enabled | set(wanted(EVERYTHING))


@pytest.mark.parametrize("stack", GKE_STACKS)
def test_quotas_that_the_committed_stacks_take_are_listed(stack: str) -> None:
    row = re.findall(
        rf"^\| `{stack}` \| at (?:the start|full size) \| (.+) \|$", read(OPERATIONS / "bootstrap.md"), re.M
    )
    listed = [dict(zip((quotas.DISKS, "CPUS", "N2D_CPUS"), map(int, each.split(" | ")), strict=True)) for each in row]
    settings = cost.settings(stack).gke
    assert settings
    pools = run_program({**committed(stack), "image": IMAGE}, stack).of("NodePool")
    disks = [3 * pool.inputs["initialNodeCount"] * pool.inputs["nodeConfig"]["bootDisk"]["sizeGb"] for pool in pools]
    assert (sum(disks), quotas.needed(settings)) == (listed[0][quotas.DISKS], listed[1])


def workflow() -> dict[str, Any]:
    (text,) = blocks(OPERATIONS / "ci.md", "yaml")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_workflow_may_read_the_code_and_ask_for_a_token_and_nothing_else() -> None:
    assert workflow()["permissions"] == {"contents": "read", "id-token": "write"}


def test_waiting_update_is_cancelled_by_a_later_one_alone() -> None:
    """Of a group GitHub keeps the last run that waits: events have groups of their own, and so have pull requests."""
    concurrency = workflow()["concurrency"]
    assert not concurrency["cancel-in-progress"]
    assert {"${{ github.event_name }}", "${{ github.ref }}"} <= set(re.findall(r"\$\{\{.*?\}\}", concurrency["group"]))


def test_workflow_installs_the_engine_that_the_lock_names() -> None:
    steps = workflow()["jobs"]["pulumi"]["steps"]
    (step,) = [each for each in steps if "pulumi/actions" in each.get("uses", "")]
    locked = re.search(r"^pulumi==(\S+)", read(ROOT / "requirements" / "infra.txt"), flags=re.MULTILINE)
    assert locked
    assert step["with"]["pulumi-version"] == locked[1]


def test_project_asks_for_the_cli_that_the_sdk_belongs_to() -> None:
    locked = re.search(r"^pulumi==(\S+)", read(ROOT / "requirements" / "infra.txt"), flags=re.MULTILINE)
    assert locked
    assert yaml.safe_load(read(ROOT / "Pulumi.yaml"))["requiredPulumiVersion"] == f">={locked[1]} <4.0.0"


def test_workflow_previews_requests_updates_main_and_looks_for_drift() -> None:
    steps = workflow()["jobs"]["pulumi"]["steps"]
    verbs = {step["if"].split("'")[1]: step["run"].split()[:2] for step in steps if "if" in step}
    preview, update = ["pulumi", "preview"], ["pulumi", "up"]
    assert verbs == {"pull_request": preview, "push": update, "schedule": preview}
    # A preview is where protection stops a replacement.
    assert not {"-f", "--skip-preview"} & {word for step in steps for word in step.get("run", "").split()}


def test_every_environment_of_the_workflow_is_trusted() -> None:
    page = read(OPERATIONS / "ci.md")
    trusted = {event: account for account, event in re.findall(r"^act_as \$(\w+) (\w+)$", page, flags=re.MULTILINE)}
    # YAML reads the bare word `on` as true.
    assert set(trusted) == set(workflow()[True])  # type: ignore[index]
    for event, account in trusted.items():
        assert account == ("PREVIEWER" if event == "pull_request" else "DEPLOYER")
        assert f"| `staging-{event}` | {account.lower()} |" in page


# -- refusals


def test_every_reason_that_is_not_the_programs_is_explained() -> None:
    page = read(OPERATIONS / "refusals.md").partition("## What the agent sees")[2]
    listed = set(re.findall(r"^\| `(\w+)`", page, flags=re.MULTILINE))
    assert listed == {reason.value for reason in Reason} - {reason.value for reason in CODE_REASONS | {Reason.ABORTED}}


FROM_OTHERS = {
    "Can not create new Nats since a Nat with option",
    "permission(s) for",
    "the stack is currently locked by",
    "no changes were expected but changes were proposed",
    "The resource already exists in the cluster",
}
"""What Google, the engine and the Kubernetes provider say, and no test here brings them to say."""


def test_refusals_are_quoted_as_they_are_said() -> None:
    """By our code, or in the tests: there by the real engine, the real API server, or Google's texts in the model."""
    sources = [path for folder in ("infra", "runtime", "tests") for path in (ROOT / folder).rglob("*.py")]
    # Without the quotes and escapes of Python, and where a text goes over two lines.
    said = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", read(path)).replace("\\", "") for path in sources if path != Path(__file__)
    )
    tables = read(OPERATIONS / "refusals.md").partition("## What the agent sees")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", tables, flags=re.MULTILINE)
    assert len(quoted) > 15
    unknown = [text for text in quoted if text.replace(" RULE:", "") not in said]
    assert set(unknown) == FROM_OTHERS


def test_names_in_the_cluster_are_those_of_the_program() -> None:
    text = read(OPERATIONS / "disaster-recovery.md")
    made = run_program({**committed("staging"), "image": IMAGE}, "staging")
    (binding,) = made.of("RoleBinding")
    metadata = binding.inputs["metadata"]
    assert f"kubectl delete rolebinding {metadata['name']} --namespace {metadata['namespace']}" in text


def test_outputs_in_the_documents_are_exported() -> None:
    exported = set(run_program({**committed("staging"), "image": IMAGE}, "staging").outputs)
    for document in DOCUMENTS:
        named = set(re.findall(r"pulumi stack output (?!--)(\w+)", read(document)))
        assert named <= exported, document
