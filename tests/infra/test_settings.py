"""Settings of a stack file: what is refused and warned of, with which words, and what they become."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from adk_gke_sandbox.errors import ConfigError
from infra import gke_checks
from infra.configuration import key, settings_of
from infra.environment_settings import EXAMPLE_IMAGE
from infra.gke_settings import STANDARD_ONLY, GkeSettings
from infra.settings import GROUPS, Settings
from infra.settings_reference import documentation
from tests.infra.conftest import GKE_STACKS, committed
from tests.infra.gke_variants import ALL_OF_OTHERS

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/adk-gke-sandbox/data@sha256:{'a' * 64}"

Given = dict[str, Any]


@pytest.fixture
def least(kubeconfig: Path) -> Given:
    """The least for a cluster that is there."""
    return {"kubeconfig": str(kubeconfig), "context": "one", "image": IMAGE}


@pytest.fixture
def gke() -> Given:
    """The least for a cluster that the stack makes, with an image that it can pull and quotas that are enough."""
    return {
        "clusterMode": "standard",
        "image": f"python@sha256:{'b' * 64}",
        "gcp:project": "a-project",
        "gcp:region": "europe-west4",
        "projectQuotas": dict.fromkeys(
            ("SSD_TOTAL_GB", "CPUS", "N2D_CPUS", "CPUS_PER_VM_FAMILY", "CPUS_ALL_REGIONS"), "100000"
        ),
    }


@pytest.fixture
def theirs(gke: Given) -> Given:
    """The same in a network, with a key, an account and a repository that are there."""
    return {**gke, **ALL_OF_OTHERS}


def configured(given: Given, stack: str = "local", **changed: Any) -> Settings:
    """Return the settings of a stack file; ``gcp__region`` is the key ``gcp:region``, and ``None`` leaves one out."""
    config = {**given, **{name.replace("__", ":"): value for name, value in changed.items()}}
    pulumi.runtime.set_all_config(
        {
            name if ":" in name else f"adk-gke-sandbox:{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in config.items()
            if value is not None
        }
    )
    try:
        return Settings.from_config(stack)
    finally:
        pulumi.runtime.set_all_config({})


def refusal(given: Given, **changed: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        configured(given, **changed)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# -- what is refused and warned of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case of `settings_cases.yaml`, which says what its fields are."""

    base: str
    given: Given
    setting: str
    says: str

    def sentence(self, base: Given) -> str:
        """Return what is said."""
        value = self.given[self.setting]
        entry = repr(value[-1:] if isinstance(value, list) else value)[1:-1]
        return self.says.format(**{**base, **self.given}, setting=self.setting, value=value, entry=entry)


CASES = yaml.safe_load(
    re.sub(
        r"\((\d+) (\w)\)",
        lambda times: times[2] * int(times[1]),
        (REPOSITORY / "tests" / "infra" / "settings_cases.yaml").read_text(encoding="utf-8"),
    )
)


def cases(outcome: str, side: str = "each") -> Iterator[Any]:
    """Return the cases of an outcome on one side of the rules' borders: ``each`` or ``fine``."""
    for rule, groups in CASES[outcome].items():
        for group in groups:
            given = group.get("given", {})
            changes = group.get(side, [{}] if side == "each" else [])
            if isinstance(changes, dict):
                changes = [{setting: value} for setting, values in changes.items() for value in values]
            for change in changes:
                told = change or given
                case = Case(base=group["base"], given={**given, **change}, setting=next(iter(told)), says=group["says"])
                yield pytest.param(case, id=f"{rule}: {told}")


@pytest.mark.parametrize("case", [*cases("refused")])
def test_stack_file_is_refused(request: pytest.FixtureRequest, case: Case) -> None:
    base = request.getfixturevalue(case.base)
    assert refusal({**base, **case.given}) == case.sentence(base)


@pytest.mark.parametrize("case", [*cases("warned")])
def test_stack_file_draws_a_warning(request: pytest.FixtureRequest, case: Case) -> None:
    base = request.getfixturevalue(case.base)
    assert configured({**base, **case.given}).warnings() == [case.sentence(base)]


@pytest.mark.parametrize("case", [*cases("refused", "fine"), *cases("warned", "fine")])
def test_stack_file_is_fine(request: pytest.FixtureRequest, case: Case) -> None:
    assert configured({**request.getfixturevalue(case.base), **case.given}).warnings() == []


# -- the configuration as such


def test_least_configuration_is_enough(least: Given) -> None:
    settings = configured(least)
    assert settings.contract().namespace == "agent-sandbox"
    assert settings.gke is None
    assert not settings.protect


def test_configuration_text_becomes_what_the_fields_are(gke: Given) -> None:
    settings = configured(
        gke,
        quotaPods=7,
        nodeSelector={"pool": "sandbox"},
        secretEnv=True,
        sandboxSpot=True,
        agentRoles=["roles/aiplatform.user"],
    )
    assert settings.environment.quota.pods == 7
    assert settings.contract().node_selector == {"pool": "sandbox"}
    assert settings.contract().secret_env is True
    assert settings.gke is not None
    assert settings.gke.sandbox_spot is True
    assert settings.gke.agent_roles == ("roles/aiplatform.user",)


def test_node_selector_takes_every_label_that_a_node_can_have(least: Given) -> None:
    labels = {"cloud.google.com/gke-spot": "true", "node.kubernetes.io/instance-type": "n2d-standard-4", "Pool_1": ""}
    assert configured(least, nodeSelector=labels).contract().node_selector == labels


def test_unknown_key_without_a_likeness_lists_what_there_is(least: Given) -> None:
    message = refusal(least, zzz="1")
    assert message.startswith("adk-gke-sandbox:zzz is not a setting. There are: clusterMode, image, ")
    assert message.endswith("Remove it with `pulumi config rm zzz`")


def test_keys_of_other_packages_are_not_ours_to_judge(least: Given) -> None:
    assert configured(least, gcp__region="x", gcp__project="y", aws__thing="z").environment.image == IMAGE


# -- the image


@pytest.mark.parametrize(
    "name",
    ["python", "python:3.11-slim", "registry:5000/a/b", "registry:5000/a:V1", "a.b-c/d__e/f--g", "localhost/a/b"],
)
def test_image_keeps_its_name_on_a_cluster_that_is_there(least: Given, name: str) -> None:
    image = f"{name}@sha256:{'a' * 64}"
    assert configured(least, image=image).contract().image == image


def test_image_of_the_committed_files_is_refused_with_the_command_that_finds_one(gke: Given) -> None:
    settings = configured(gke, image=EXAMPLE_IMAGE)
    with pytest.raises(ConfigError) as raised:
        settings.environment.require_image()
    assert str(raised.value) == (
        "adk-gke-sandbox:image is still the example of the stack file, which is no image. Find the digest of one with "
        "`docker buildx imagetools inspect python:3.11-slim --format '{{.Manifest.Digest}}'`, then set it with "
        "`pulumi config set image python@DIGEST`"
    )


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        ("python", "library/python"),
        ("docker.io/python", "library/python"),
        ("docker.io/library/python", "library/python"),
        ("bitnami/python", "bitnami/python"),
        ("docker.io/bitnami/python", "bitnami/python"),
    ],
)
def test_image_of_docker_hub_comes_through_the_stacks_repository(gke: Given, image: str, pulled: str) -> None:
    digest = f"@sha256:{'b' * 64}"
    mirror = "europe-west4-docker.pkg.dev/a-project/sandbox-docker-hub-local"
    assert configured(gke, image=image + digest).contract().image == f"{mirror}/{pulled}{digest}"


@pytest.mark.parametrize("host", ["ghcr.io", "europe-docker.pkg.dev", "localhost", "registry:5000"])
def test_image_of_another_registry_keeps_its_name(gke: Given, host: str) -> None:
    image = f"{host}/team/python@sha256:{'b' * 64}"
    assert configured(gke, image=image).contract().image == image


# -- egress


def test_names_below_a_name_are_hosts(least: Given) -> None:
    settings = configured(least, egress="fqdn", egressHosts=["pypi.org", "*.pythonhosted.org"])
    assert settings.contract().egress == "fqdn"


@pytest.mark.parametrize(
    ("entry", "way_out", "names_hosts"),
    [
        ("10.20.0.5:5432", False, False),
        ("100.64.0.0/10:6379", False, False),
        ("240.1.0.5/32:5432", False, False),
        ("198.18.0.0/15:5432", False, False),
        ("203.0.113.7/32:5432", True, False),
        ("0.0.0.0/0:4317", True, False),
        ("db.example.com:5432", True, True),
        ("api.anthropic.com:443", True, False),
        ("db.europe-west4-a.c.my-project.internal:5432", False, True),
        ("*.googleapis.com:443", False, False),
    ],
)
def test_way_out_is_for_what_is_on_the_internet(gke: Given, entry: str, way_out: bool, names_hosts: bool) -> None:
    found = configured(gke, agentsEgress=[entry]).environment
    assert (found.way_out, found.names_hosts) == (way_out, names_hosts)
    assert configured(gke, egress="internet", agentsEgress=[entry]).environment.way_out


# -- a cluster that is there


@pytest.mark.parametrize("text", ["", "[]", "contexts: 3", "contexts: [{}]", "{", "\x00"])
def test_kubeconfig_is_not_readable_as_one(least: Given, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    assert "is not a readable kubeconfig (" in refusal(least, kubeconfig=str(tmp_path / "bad"))


def test_context_that_leads_nowhere(least: Given, tmp_path: Path) -> None:
    context = {"name": 7, "context": {"cluster": "gone", "user": "u"}}
    (tmp_path / "half").write_text(yaml.safe_dump({"clusters": [], "contexts": [context]}))
    assert refusal(least, kubeconfig=str(tmp_path / "half"), context="7") == (
        f"adk-gke-sandbox:context='7' leads to the cluster 'gone', which is not in {tmp_path}/half. "
        "Set it with `pulumi config set context my-cluster`"
    )


def test_gke_cluster_by_name(least: Given) -> None:
    settings = configured({"image": IMAGE}, gkeCluster="projects/their-project/locations/us-east1-b/clusters/theirs")
    cluster = settings.contract().cluster
    assert (cluster.project, cluster.location, cluster.name) == ("their-project", "us-east1-b", "theirs")


# -- settings that nothing looks at


def test_default_that_the_project_file_brings_is_no_setting(least: Given) -> None:
    assert configured(least, sandboxSpot=False, agentRoles=[], deletionProtection=True).gke is None


# -- maintenance


def test_more_times_without_upgrades_than_gke_takes(gke: Given) -> None:
    many = {str(number): "2026-12-18T00:00:00Z/2027-01-04T00:00:00Z" for number in range(21)}
    assert refusal(gke, maintenanceExclusions=many) == (
        "adk-gke-sandbox:maintenanceExclusions has 21 entries. Keep 20 at most, as GKE does"
    )


# -- production


def test_protection_is_the_default(gke: Given) -> None:
    assert configured(gke).protect
    assert not configured(gke, deletionProtection=False).protect


# -- documents


def test_project_file_declares_every_setting_with_the_same_default() -> None:
    declared = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["config"]
    expected: dict[str, Any] = {}
    for group in GROUPS:
        for entry in settings_of(group):
            if ":" in key(entry.name):
                continue  # Google's provider's own keys cannot be declared.
            value = entry.default_factory() if callable(entry.default_factory) else entry.default
            expected[key(entry.name)] = (
                list(value) if isinstance(value, tuple) else value if isinstance(value, (str, int)) else dict(value)
            )
    assert {name: entry["default"] for name, entry in declared.items()} == expected


def test_project_file_declares_the_types_of_the_fields() -> None:
    declared = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["config"]
    types = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    assert {name: entry["type"] for name, entry in declared.items()} == {
        name: types[type(entry["default"])] for name, entry in declared.items()
    }


def test_project_file_describes_a_setting_as_its_field_does() -> None:
    declared = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["config"]
    for group in GROUPS:
        texts = documentation(group)
        for entry in settings_of(group):
            if ":" not in key(entry.name):
                assert texts[entry.name].startswith(declared[key(entry.name)]["description"]), entry.name


def test_every_floor_and_every_pool_setting_is_a_setting() -> None:
    names = {entry.name for entry in settings_of(GkeSettings)}
    assert {*gke_checks.FLOORS, *STANDARD_ONLY} <= names


@pytest.mark.parametrize("stack", ["local", *GKE_STACKS])
def test_committed_stack_file_has_no_salt_and_no_secret(stack: str) -> None:
    document = yaml.safe_load((REPOSITORY / "infra" / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    assert set(document) == {"config"}
    assert all(isinstance(value, (str, int)) for value in document["config"].values())


@pytest.mark.parametrize("stack", GKE_STACKS)
def test_committed_stack_file_works_but_for_the_image(stack: str) -> None:
    settings = configured(committed(stack), stack)
    assert settings.environment.image == EXAMPLE_IMAGE
    (quotas,) = settings.warnings()
    assert quotas.startswith("at full size the stack takes more of quotas of europe-west4 than a new project has: ")


def test_committed_prod_is_production_and_protected() -> None:
    settings = configured(committed("prod"), "prod")
    assert settings.gke is not None
    assert settings.gke.production
    assert settings.protect
