"""Settings: what is refused, and with which words. All of them go the way of a stack file."""

from __future__ import annotations

import json
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
from tests.infra.gke_variants import ALL_OF_OTHERS, NETWORK_OF_OTHERS

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/adk-gke-sandbox/data@sha256:{'a' * 64}"
SET_IMAGE = "Set it with `pulumi config set image europe-docker.pkg.dev/my-project/sandbox/data@sha256:DIGEST`"

Given = dict[str, Any]


@pytest.fixture
def least(kubeconfig: Path) -> Given:
    """The least for a cluster that is there."""
    return {"kubeconfig": str(kubeconfig), "context": "one", "image": IMAGE}


@pytest.fixture
def gke() -> Given:
    """The least for a cluster that the stack makes."""
    return {"clusterMode": "standard", "image": IMAGE, "gcp:project": "a-project", "gcp:region": "europe-west4"}


@pytest.fixture
def roomy(gke: Given) -> Given:
    """The same in a project whose quotas are enough."""
    return {**gke, "projectQuotas": dict.fromkeys(("SSD_TOTAL_GB", "CPUS", "N2D_CPUS"), "100000")}


def configured(given: Given, stack: str = "local", **changed: Any) -> Settings:
    """Return the settings of a stack file; ``gcp__region`` is the key ``gcp:region``."""
    config = {**given, **{name.replace("__", ":"): value for name, value in changed.items()}}
    pulumi.runtime.set_all_config(
        {
            name if ":" in name else f"adk-gke-sandbox:{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in config.items()
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


@pytest.mark.parametrize("text", ["many", "7.0", "1_000", " 7", "0x7", "\u0663", "", "1e3"])
def test_number_is_not_a_whole_number(least: Given, text: str) -> None:
    assert refusal(least, quotaPods=text) == (
        f"adk-gke-sandbox:quotaPods={text!r} is not a whole number. Set it with `pulumi config set quotaPods NUMBER`"
    )


@pytest.mark.parametrize("text", ["yes", "True", "1", ""])
def test_boolean_is_neither_true_nor_false(gke: Given, text: str) -> None:
    assert refusal(gke, sandboxSpot=text) == (
        f"adk-gke-sandbox:sandboxSpot={text!r} is neither true nor false. "
        "Set it with `pulumi config set sandboxSpot true|false`"
    )


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', '{"a": true}', "a", "{"])
def test_node_selector_does_not_map_names_to_strings(least: Given, text: str) -> None:
    assert refusal(least, nodeSelector=text) == (
        f"adk-gke-sandbox:nodeSelector={text!r} does not map names to strings. "
        "Set it with `pulumi config set --path 'nodeSelector[\"LABEL\"]' VALUE --type string`"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", "c"),
        ("a", "x y"),
        ("", "c"),
        ("a/b/c", "d"),
        ("A.io/b", "c"),
        ("a", "-"),
        ("a" * 64, "c"),
        ("a", "\u00e4"),
    ],
)
def test_node_selector_that_no_node_can_have(least: Given, name: str, value: str) -> None:
    assert refusal(least, nodeSelector={name: value}) == (
        f"adk-gke-sandbox:nodeSelector has {name!r}: {value!r}, which is not a label of Kubernetes. "
        "Write for example cloud.google.com/gke-spot: 'true'"
    )


def test_node_selector_takes_every_label_that_a_node_can_have(least: Given) -> None:
    labels = {"cloud.google.com/gke-spot": "true", "node.kubernetes.io/instance-type": "n2d-standard-4", "Pool_1": ""}
    assert configured(least, nodeSelector=labels).contract().node_selector == labels


@pytest.mark.parametrize("text", ["roles/aiplatform.user", "[1]", "{}", "["])
def test_list_is_not_a_list_of_strings(gke: Given, text: str) -> None:
    assert refusal(gke, agentRoles=text) == (
        f"adk-gke-sandbox:agentRoles={text!r} is not a list of strings. "
        "Set it with `pulumi config set --path 'agentRoles[0]' VALUE`"
    )


def test_misspelt_key(least: Given) -> None:
    assert refusal(least, quotaPod="3") == (
        "adk-gke-sandbox:quotaPod is not a setting. Did you mean quotaPods? Remove it with `pulumi config rm quotaPod`"
    )


def test_unknown_key_without_a_likeness_lists_what_there_is(least: Given) -> None:
    message = refusal(least, zzz="1")
    assert message.startswith("adk-gke-sandbox:zzz is not a setting. There are: clusterMode, image, ")
    assert message.endswith("Remove it with `pulumi config rm zzz`")


def test_keys_of_other_packages_are_not_ours_to_judge(least: Given) -> None:
    assert configured(least, gcp__region="x", gcp__project="y", aws__thing="z").environment.image == IMAGE


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("clusterMode", "gke", "standard, autopilot, existing"),
        ("egress", "all", "none, fqdn, internet"),
        ("releaseChannel", "regular", "RAPID, REGULAR, STABLE, EXTENDED"),
        ("sandboxUpgrade", "ROLLING", "SURGE, BLUE_GREEN"),
        ("binaryAuthorization", "on", "off, enforce, manage"),
        ("sandboxLogs", "drop", "exclude, keep"),
    ],
)
def test_value_is_not_one_of_the_choices(gke: Given, name: str, value: str, choices: str) -> None:
    assert refusal(gke, **{name: value}) == (
        f"adk-gke-sandbox:{name}={value!r} is none of {choices}. "
        f"Set it with `pulumi config set {name} {choices.replace(', ', '|')}`"
    )


# -- the image


def test_missing_image(least: Given) -> None:
    assert refusal(least, image="") == f"adk-gke-sandbox:image is not set. {SET_IMAGE}"


@pytest.mark.parametrize(
    "image",
    [
        "python:3.11-slim",
        "python@sha256:abc",
        f"@sha256:{'a' * 64}",
        f"x@sha256:{'A' * 64}",
        "x@sha256:DIGEST",
        f"a//b@sha256:{'a' * 64}",
        f"team/Python@sha256:{'a' * 64}",
        f"a:b:c@sha256:{'a' * 64}",
        f"a/@sha256:{'a' * 64}",
        f"x@sha256:{'a' * 64}\n",
    ],
)
def test_image_not_by_digest(least: Given, image: str) -> None:
    assert refusal(least, image=image) == f"adk-gke-sandbox:image={image!r} is not an image by digest. {SET_IMAGE}"


@pytest.mark.parametrize(
    "name",
    ["python", "python:3.11-slim", "registry:5000/a/b", "registry:5000/a:V1", "a.b-c/d__e/f--g", "localhost/a/b"],
)
def test_image_by_digest(least: Given, name: str) -> None:
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


def test_image_keeps_its_name_on_a_cluster_that_is_there(least: Given) -> None:
    image = f"python@sha256:{'b' * 64}"
    assert configured(least, image=image).contract().image == image


def test_image_that_closed_nodes_cannot_pull_draws_a_warning(roomy: Given) -> None:
    image = f"ghcr.io/team/python@sha256:{'b' * 64}"
    assert configured(roomy, image=image).warnings() == [
        "adk-gke-sandbox:image is in ghcr.io, which nodes without a way to the internet cannot reach. "
        "Push it to the stack's own repository (output `repository`) and name it there"
    ]
    assert configured(roomy, image=image, egress="internet").warnings() == []
    assert configured(roomy, image=f"python@sha256:{'b' * 64}").warnings() == []


@pytest.mark.parametrize(
    ("image", "admitted"),
    [
        ("europe-west4-docker.pkg.dev/a-project/sandbox-images-local/data", True),
        ("python", True),
        ("europe-west4-docker.pkg.dev/a-project/sandbox-images-locals/data", False),
        ("europe-docker.pkg.dev/a-project/sandbox/data", False),
    ],
)
def test_image_that_the_stacks_own_policy_refuses_draws_a_warning(roomy: Given, image: str, admitted: bool) -> None:
    named = f"{image}@sha256:{'b' * 64}"
    warning = (
        "adk-gke-sandbox:image is in no repository of the stack, and adk-gke-sandbox:binaryAuthorization='manage' "
        "admits no other. Push it to the stack's own repository (output `repository`) and name it there"
    )
    assert configured(roomy, image=named, binaryAuthorization="manage").warnings() == ([] if admitted else [warning])
    assert configured(roomy, image=named, binaryAuthorization="enforce").warnings() == []


# -- namespaces, limits, quota


@pytest.mark.parametrize("name", ["Agents", "agents_1", "-a", "a-", "a" * 64, "", "a.b", "a\n"])
def test_namespace_is_not_an_rfc_1123_label(least: Given, name: str) -> None:
    assert refusal(least, namespace=name) == (
        f"adk-gke-sandbox:namespace={name!r} is not a namespace name. "
        "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
    )


def test_agents_namespace_that_is_kubernetes_own(least: Given) -> None:
    assert refusal(least, agentsNamespace="kube-system") == (
        "adk-gke-sandbox:agentsNamespace='kube-system' is Kubernetes' own namespace. "
        "Name one that this stack may create and delete"
    )


def test_one_namespace_for_both(least: Given) -> None:
    assert refusal(least, namespace="agents") == (
        "adk-gke-sandbox:namespace and adk-gke-sandbox:agentsNamespace are both 'agents'. "
        "Name two namespaces: who may create Jobs can use every secret and identity of their namespace"
    )


@pytest.mark.parametrize(
    ("given", "high", "bound"),
    [
        ({"memCeiling": "256Mi"}, "memLimit=512Mi", "memCeiling=256Mi"),
        ({"cpuRequested": "2", "cpuLimit": "1500m"}, "cpuRequested=2", "cpuLimit=1500m"),
        ({"quotaMemory": "4Gi"}, "memCeiling=8Gi", "quotaMemory=4Gi"),
        ({"quotaPods": 121}, "quotaPods=121", "quotaJobs=120"),
        ({"timeoutSeconds": 600, "timeoutCeilingSeconds": 60}, "timeoutSeconds=600", "timeoutCeilingSeconds=60"),
    ],
)
def test_value_above_the_setting_that_bounds_it(least: Given, given: Given, high: str, bound: str) -> None:
    assert refusal(least, **given) == (
        f"adk-gke-sandbox:{high} is above adk-gke-sandbox:{bound}. "
        f"Lower {high.partition('=')[0]} or raise {bound.partition('=')[0]}"
    )


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [
        ("quotaPods", 0, 100_000),
        ("quotaPods", -1, 100_000),
        ("quotaJobs", 100_001, 100_000),
        ("timeoutSeconds", 0, 86_400),
        ("scheduleTimeoutSeconds", 86_401, 86_400),
    ],
)
def test_amount_out_of_range(least: Given, name: str, value: int, most: int) -> None:
    assert refusal(least, **{name: value}) == f"adk-gke-sandbox:{name}={value} is out of range. Give 1 to {most}"


def test_memory_limit_too_small_for_python(least: Given) -> None:
    assert refusal(least, memLimit="64Mi", memRequested="64Mi") == (
        "adk-gke-sandbox:memLimit=64Mi is too small for Python under gVisor. Give at least 128Mi"
    )


def test_quantity_is_not_one_of_kubernetes(least: Given) -> None:
    assert refusal(least, cpuLimit="banana") == (
        "adk-gke-sandbox:cpuLimit='banana' is not a Kubernetes quantity. "
        'Write for example "500m" or "2" for CPU, "512Mi" or "1Gi" for memory'
    )


def test_pod_security_version_without_a_minor(least: Given) -> None:
    assert refusal(least, podSecurityVersion="latest") == (
        "adk-gke-sandbox:podSecurityVersion='latest' is not a Kubernetes minor version. "
        "Set it with `pulumi config set podSecurityVersion v1.36`"
    )


# -- egress


def test_hosts_without_a_name(least: Given) -> None:
    assert refusal(least, egress="fqdn") == (
        "adk-gke-sandbox:egress='fqdn' without adk-gke-sandbox:egressHosts opens nothing. "
        "Set it with `pulumi config set --path 'egressHosts[0]' pypi.org`, or set egress to none"
    )


@pytest.mark.parametrize("egress", ["none", "internet"])
def test_hosts_that_nothing_looks_at(least: Given, egress: str) -> None:
    assert refusal(least, egress=egress, egressHosts=["pypi.org"]) == (
        f"adk-gke-sandbox:egressHosts has no effect with adk-gke-sandbox:egress={egress!r}. Remove it with "
        "`pulumi config rm egressHosts`, or allow only these hosts with `pulumi config set egress fqdn`"
    )


@pytest.mark.parametrize(
    "host", ["https://pypi.org", "pypi.org/simple", "*", "1.2.3.4", "pypi", "a.*.org", "p.org:443"]
)
def test_host_is_not_a_host_name(least: Given, host: str) -> None:
    assert refusal(least, egress="fqdn", egressHosts=["pypi.org", host]) == (
        f"adk-gke-sandbox:egressHosts has {host!r}, which is not a host name. "
        "Write a name such as pypi.org, or *.example.com for all names below it; no address, port or path"
    )


def test_names_below_a_name_are_hosts(least: Given) -> None:
    settings = configured(least, egress="fqdn", egressHosts=["pypi.org", "*.pythonhosted.org"])
    assert settings.contract().egress == "fqdn"


WRITE_DESTINATION = "Write for example db.example.com:5432 or 10.20.0.0/24:5432; a range begins at its first address"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        *(
            ([entry], f"{entry!r}, which is neither HOST:PORT nor RANGE:PORT. {WRITE_DESTINATION}")
            for entry in (
                "pypi.org",
                "pypi.org:0",
                "pypi.org:65536",
                "pypi:80",
                "https://pypi.org:443",
                "10.0.0.1/24:5432",
                "10.0.0:5432",
                "[fd00::1]:443",
                "",
            )
        ),
        (["a.org:80", "a.org:80"], "'a.org:80' twice. Remove one of them"),
        (
            ["169.254.169.254:80"],
            "'169.254.169.254:80', which is where the metadata server is. "
            "Remove it: agents reach it for their own identity, and name servers, without being told",
        ),
        (
            ["otel.metrics.svc.cluster.local:4317"],
            "'otel.metrics.svc.cluster.local:4317', a Service, of which a policy sees only the pods. "
            "Make a NetworkPolicy of your own in the agents' namespace that selects these pods",
        ),
    ],
)
def test_agents_cannot_be_let_there(least: Given, given: list[str], what: str) -> None:
    assert refusal(least, agentsEgress=given) == f"adk-gke-sandbox:agentsEgress has {what}"


@pytest.mark.parametrize(
    ("entry", "way_out", "names_hosts"),
    [
        ("10.20.0.5:5432", False, False),
        ("100.64.0.0/10:6379", False, False),
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


def test_missing_kubeconfig(least: Given) -> None:
    assert refusal(least, kubeconfig="") == (
        "adk-gke-sandbox:kubeconfig is not set. Set it with `pulumi config set kubeconfig ~/.kube/config`"
    )


def test_kubeconfig_file_that_does_not_exist(least: Given) -> None:
    assert refusal(least, kubeconfig="/nowhere/config") == (
        "adk-gke-sandbox:kubeconfig='/nowhere/config': no such file. Start the cluster with "
        "`python infra/local up`, or set it with `pulumi config set kubeconfig ~/.kube/config`"
    )


@pytest.mark.parametrize("text", ["", "[]", "contexts: 3", "contexts: [{}]", "{", "\x00"])
def test_kubeconfig_is_not_readable_as_one(least: Given, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    assert "is not a readable kubeconfig (" in refusal(least, kubeconfig=str(tmp_path / "bad"))


def test_context_that_is_not_in_the_kubeconfig(least: Given, kubeconfig: Path) -> None:
    assert refusal(least, context="prod") == (
        f"adk-gke-sandbox:context='prod' is not in {kubeconfig}, which has: one, two. "
        "Set it with `pulumi config set context my-cluster`"
    )


def test_context_that_leads_nowhere(least: Given, tmp_path: Path) -> None:
    context = {"name": 7, "context": {"cluster": "gone", "user": "u"}}
    (tmp_path / "half").write_text(yaml.safe_dump({"clusters": [], "contexts": [context]}))
    assert refusal(least, kubeconfig=str(tmp_path / "half"), context="7") == (
        f"adk-gke-sandbox:context='7' leads to the cluster 'gone', which is not in {tmp_path}/half. "
        "Set it with `pulumi config set context my-cluster`"
    )


@pytest.mark.parametrize(
    ("path", "error"),
    [("/", "IsADirectoryError"), ("~nobody-of-that-name/config", "RuntimeError"), ("a\0", "ValueError")],
)
def test_kubeconfig_is_not_a_file(least: Given, path: str, error: str) -> None:
    assert refusal(least, kubeconfig=path) == (
        f"adk-gke-sandbox:kubeconfig={path!r} is not a readable kubeconfig ({error}). "
        "Set it with `pulumi config set kubeconfig ~/.kube/config`"
    )


def test_missing_context_is_not_the_current_one(least: Given) -> None:
    assert refusal(least, context="").startswith("adk-gke-sandbox:context is not set. ")


def test_gke_cluster_by_name(least: Given) -> None:
    settings = configured({"image": IMAGE}, gkeCluster="projects/their-project/locations/us-east1-b/clusters/theirs")
    cluster = settings.contract().cluster
    assert (cluster.project, cluster.location, cluster.name) == ("their-project", "us-east1-b", "theirs")


@pytest.mark.parametrize(
    "name", ["theirs", "projects/p/locations/us-east1/clusters/theirs", "projects/their-project/x"]
)
def test_gke_cluster_by_half_a_name(name: str) -> None:
    assert refusal({"image": IMAGE}, gkeCluster=name) == (
        f"adk-gke-sandbox:gkeCluster={name!r} is not the full name of a GKE cluster. Set it with "
        "`pulumi config set gkeCluster projects/my-project/locations/europe-west4/clusters/my-cluster`"
    )


def test_cluster_that_is_named_twice(least: Given) -> None:
    assert refusal(least, gkeCluster="projects/their-project/locations/us-east1/clusters/theirs") == (
        "adk-gke-sandbox:gkeCluster and adk-gke-sandbox:kubeconfig are both set. Name the cluster in one way: remove "
        "the other with `pulumi config rm gkeCluster`, or `pulumi config rm kubeconfig` and `pulumi config rm context`"
    )


# -- settings that nothing looks at


def test_setting_of_a_pool_for_a_cluster_that_is_there(least: Given) -> None:
    assert refusal(least, sandboxSpot=True) == (
        "adk-gke-sandbox:sandboxSpot=true has no effect with adk-gke-sandbox:clusterMode='existing'. "
        "Remove it with `pulumi config rm sandboxSpot`, or set another clusterMode"
    )


def test_default_that_the_project_file_brings_is_no_setting(least: Given) -> None:
    assert configured(least, sandboxSpot=False, agentRoles=[], deletionProtection=True).gke is None


def test_setting_of_a_pool_for_autopilot(gke: Given) -> None:
    assert refusal(gke, clusterMode="autopilot", sandboxNodesMax=3) == (
        "adk-gke-sandbox:sandboxNodesMax=3 has no effect with adk-gke-sandbox:clusterMode='autopilot'. "
        "Remove it with `pulumi config rm sandboxNodesMax`, or set another clusterMode"
    )


def test_kubeconfig_for_a_cluster_that_the_stack_makes(gke: Given) -> None:
    assert refusal(gke, kubeconfig="~/.kube/config") == (
        "adk-gke-sandbox:kubeconfig='~/.kube/config' has no effect with adk-gke-sandbox:clusterMode='standard'. "
        "Remove it with `pulumi config rm kubeconfig`, or set another clusterMode"
    )


# -- project and region


@pytest.mark.parametrize(("name", "example"), [("gcp:project", "my-project"), ("gcp:region", "europe-west4")])
def test_missing_place(gke: Given, name: str, example: str) -> None:
    del gke[name]
    assert refusal(gke) == f"{name} is not set. Set it with `pulumi config set {name} {example}`"


@pytest.mark.parametrize("project", ["123456789012", "My Project", "short", "a" * 31, "ends-", "projects/a-project"])
def test_project_is_not_an_id(gke: Given, project: str) -> None:
    assert refusal(gke, gcp__project=project) == (
        f"gcp:project={project!r} is not the id of a project. "
        "Use the id that `gcloud projects list` prints in its first column, not the name or the number"
    )


def test_zone_in_place_of_a_region(gke: Given) -> None:
    assert refusal(gke, gcp__region="europe-west4-b") == (
        "gcp:region='europe-west4-b' is a zone: the cluster would have one control plane, and none while it is "
        "upgraded. Set it with `pulumi config set gcp:region europe-west4`"
    )


@pytest.mark.parametrize("region", ["europe", "EU-west4", "europe-west", "europe_west4", "europe-west4-"])
def test_malformed_region(gke: Given, region: str) -> None:
    assert refusal(gke, gcp__region=region) == (
        f"gcp:region={region!r} is not a region. Set it with `pulumi config set gcp:region europe-west4`"
    )


# -- addresses


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0/8", "nodes", "", "fd00::/64", "10.64.0.0", "10.64.0.0/255.255.240.0"]
)
def test_range_is_not_one_of_ipv4_addresses(gke: Given, text: str) -> None:
    assert refusal(gke, subnetCidr=text) == (
        f"adk-gke-sandbox:subnetCidr={text!r} is not a range of IPv4 addresses. "
        "Set it with `pulumi config set subnetCidr 10.64.0.0/20`"
    )


def test_range_does_not_begin_at_its_first_address(gke: Given) -> None:
    assert refusal(gke, podsCidr="10.68.1.0/16") == (
        "adk-gke-sandbox:podsCidr='10.68.1.0/16' does not begin at the range's first address. "
        "Set it with `pulumi config set podsCidr 10.68.0.0/16`"
    )


def test_public_range(gke: Given) -> None:
    assert refusal(gke, podsCidr="8.0.0.0/14") == (
        "adk-gke-sandbox:podsCidr=8.0.0.0/14 is not a private range. "
        "Take it from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10"
    )


@pytest.mark.parametrize("cidr", ["172.17.0.0/16", "172.16.0.0/12", "172.17.4.0/22"])
def test_range_that_nodes_use_inside(gke: Given, cidr: str) -> None:
    assert refusal(gke, podsCidr=cidr) == (
        f"adk-gke-sandbox:podsCidr={cidr} overlaps 172.17.0.0/16, which every node uses inside. "
        "Set it with `pulumi config set podsCidr 10.68.0.0/16`"
    )


@pytest.mark.parametrize(
    ("first", "second", "range_"),
    [
        ("subnetCidr", "podsCidr", "10.64.8.0/21"),
        ("podsCidr", "servicesCidr", "10.68.16.0/20"),
        ("subnetCidr", "servicesCidr", "10.64.0.0/20"),
    ],
)
def test_ranges_that_overlap(gke: Given, first: str, second: str, range_: str) -> None:
    taken = {"subnetCidr": "10.64.0.0/20", "podsCidr": "10.68.0.0/16"}[first]
    assert refusal(gke, **{second: range_}) == (
        f"adk-gke-sandbox:{second}={range_} overlaps adk-gke-sandbox:{first}={taken}. Give nodes, pods and services a "
        "range each, such as the defaults 10.64.0.0/20, 10.68.0.0/16 and 10.72.0.0/20"
    )


@pytest.mark.parametrize(
    ("name", "cidr", "bounds"),
    [
        ("servicesCidr", "10.72.0.0/28", "/16 and /27"),
        ("servicesCidr", "10.72.0.0/15", "/16 and /27"),
        ("subnetCidr", "10.64.0.0/30", "/8 and /29"),
        ("podsCidr", "10.0.0.0/8", "/9 and /26"),
    ],
)
def test_range_of_a_size_that_google_does_not_take(gke: Given, name: str, cidr: str, bounds: str) -> None:
    prefix = cidr.partition("/")[2]
    assert refusal(gke, **{name: cidr}) == (
        f"adk-gke-sandbox:{name}={cidr} has a prefix of /{prefix}. Give a range between {bounds}"
    )


def test_more_nodes_than_addresses(gke: Given) -> None:
    assert refusal(gke, subnetCidr="10.64.0.0/28") == (
        "adk-gke-sandbox:subnetCidr=10.64.0.0/28 has 12 addresses, and the pools may grow to 16 nodes during an "
        "upgrade. Give a range of /27 or larger, or lower sandboxNodesMax or systemNodesMax"
    )


def test_blue_green_upgrade_takes_the_pool_twice(gke: Given) -> None:
    roomy = {"subnetCidr": "10.64.0.0/27", "sandboxNodesMax": 20, "systemNodesMax": 4}
    assert configured(gke, **roomy)
    assert "has 28 addresses, and the pools may grow to 45 nodes" in refusal(gke, **roomy, sandboxUpgrade="BLUE_GREEN")


def test_more_pods_than_addresses(gke: Given) -> None:
    assert refusal(gke, podsCidr="10.68.0.0/22") == (
        "adk-gke-sandbox:podsCidr=10.68.0.0/22 has 1024 addresses, and 16 nodes take 2048. "
        "Give a range of /21 or larger, or lower sandboxNodesMax or sandboxPodsPerNode"
    )


def test_smaller_nodes_take_fewer_addresses(gke: Given) -> None:
    assert configured(gke, podsCidr="10.68.0.0/21", sandboxPodsPerNode=32, sandboxNodesMax=20)


# -- what is there already

WITHOUT = "adk-gke-sandbox:{} without adk-gke-sandbox:{}. Set it with `pulumi config set {} {}`"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"network": ""}, WITHOUT.format("subnetwork='gke-nodes'", "network", "network", "shared")),
        ({"podsRange": ""}, WITHOUT.format("subnetwork='gke-nodes'", "podsRange", "podsRange", "gke-pods")),
        (
            {"subnetwork": "", "podsRange": "", "servicesRange": ""},
            WITHOUT.format("networkProject='host-project'", "subnetwork", "subnetwork", "gke-nodes"),
        ),
        (
            {"subnetwork": "", "networkProject": ""},
            WITHOUT.format("podsRange='gke-pods'", "subnetwork", "subnetwork", "gke-nodes"),
        ),
        (
            {"servicesRange": "gke-pods"},
            "adk-gke-sandbox:podsRange and adk-gke-sandbox:servicesRange are both 'gke-pods'. Name a range for each",
        ),
        (
            {"podsCidr": "10.0.0.0/16"},
            "adk-gke-sandbox:podsCidr='10.0.0.0/16' has no effect with adk-gke-sandbox:subnetwork='gke-nodes', which "
            "has its own ranges. Remove it with `pulumi config rm podsCidr`",
        ),
        (
            {"network": "projects/host/global/networks/shared"},
            "adk-gke-sandbox:network='projects/host/global/networks/shared' is not the name of a VPC. "
            "Set it with `pulumi config set network shared`",
        ),
        (
            {"nodeServiceAccount": "1234-compute@developer.gserviceaccount.com"},
            "adk-gke-sandbox:nodeServiceAccount='1234-compute@developer.gserviceaccount.com' is not the e-mail of a "
            "service account of a project. Set it with `pulumi config set nodeServiceAccount "
            "gke-nodes@my-project.iam.gserviceaccount.com`",
        ),
        (
            {"kmsKey": "projects/their-project/locations/global/keyRings/r/cryptoKeys/k"},
            "adk-gke-sandbox:kmsKey='projects/their-project/locations/global/keyRings/r/cryptoKeys/k' is in global, "
            "and the cluster in europe-west4. Name a key in the cluster's region",
        ),
        (
            {"repository": "their-project/images"},
            "adk-gke-sandbox:repository='their-project/images' is not a repository of Artifact Registry. Set it with "
            "`pulumi config set repository europe-west4-docker.pkg.dev/my-project/my-images`",
        ),
    ],
)
def test_what_is_there_is_named_wrongly(gke: Given, changed: Given, said: str) -> None:
    assert refusal({**gke, **ALL_OF_OTHERS}, **changed) == said


def test_way_out_of_somebody_elses_subnetwork_is_theirs_to_see_to(roomy: Given) -> None:
    given = {**roomy, **NETWORK_OF_OTHERS, "image": f"python@sha256:{'b' * 64}"}
    assert configured(given, egress="internet").warnings() == [
        "adk-gke-sandbox:egress takes a way to the internet, and the stack makes none for "
        "adk-gke-sandbox:subnetwork='gke-nodes'. Have its owner see to Cloud NAT or another route"
    ]
    (warning,) = configured(given, agentsEgress=["api.anthropic.com:443"]).warnings()
    assert warning.startswith("adk-gke-sandbox:agentsEgress takes a way to the internet")
    assert configured(given, agentsEgress=["10.20.0.5:5432"]).warnings() == []


# -- maintenance


@pytest.mark.parametrize(
    "text",
    [
        "tonight",
        "2026-01-03T02:00:00",
        "",
        "2026-01-03",
        "2026-01-03T02:00Z",
        "2026-01-03 02:00:00Z",
        "2026-13-03T02:00:00Z",
    ],
)
def test_time_without_its_zone(gke: Given, text: str) -> None:
    assert refusal(gke, maintenanceStart=text) == (
        f"adk-gke-sandbox:maintenanceStart={text!r} is not a time of RFC 3339, with its zone. "
        "Set it with `pulumi config set maintenanceStart 2026-01-03T02:00:00Z`"
    )


@pytest.mark.parametrize(
    ("end", "hours"), [("2026-01-03T05:00:00Z", "3"), ("2026-01-03T01:00:00Z", "-1"), ("2026-01-04T02:30:00Z", "24.5")]
)
def test_window_of_a_length_that_gke_does_not_take(gke: Given, end: str, hours: str) -> None:
    assert refusal(gke, maintenanceEnd=end) == (
        f"adk-gke-sandbox:maintenanceEnd is {hours} hours after adk-gke-sandbox:maintenanceStart. Give 4 to 24 hours"
    )


@pytest.mark.parametrize(
    "rule",
    [
        "every sunday",
        "FREQ=MONTHLY",
        "",
        "FREQ=WEEKLY;BYDAY=SAT,SUN",
        "FREQ=WEEKLY;BYDAY=",
        "FREQ=WEEKLY;INTERVAL=4;BYDAY=SA,SU",
        "FREQ=DAILY;COUNT=1",
        "RRULE:FREQ=DAILY",
    ],
)
def test_recurrence_is_not_a_rule_of_rfc_5545(gke: Given, rule: str) -> None:
    assert refusal(gke, maintenanceRecurrence=rule) == (
        f"adk-gke-sandbox:maintenanceRecurrence={rule!r} is not a daily or weekly rule of RFC 5545. "
        "Set it with `pulumi config set maintenanceRecurrence 'FREQ=WEEKLY;BYDAY=SA,SU'`"
    )


@pytest.mark.parametrize(
    "rule", ["FREQ=WEEKLY;BYDAY=SU", "FREQ=WEEKLY", "FREQ=DAILY;BYDAY=MO", "FREQ=WEEKLY;BYDAY=SA,SA"]
)
def test_too_little_time_for_maintenance(gke: Given, rule: str) -> None:
    assert refusal(gke, maintenanceRecurrence=rule) == (
        f"adk-gke-sandbox:maintenanceRecurrence={rule!r} with windows of 6 hours leaves 24 hours in "
        "32 days, and GKE wants 48. Add days to BYDAY, or move maintenanceEnd"
    )


def test_daily_window(gke: Given) -> None:
    assert configured(gke, maintenanceRecurrence="FREQ=DAILY")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-12-18",
        "2026-12-18T00:00:00Z",
        "2026-12-18T00:00:00Z/2027-01-04T00:00:00",
        "2026-12-18T00:00:00Z/2027-13-04T00:00:00Z",
        "2026-12-18T00:00:00Z/2027-01-04T00:00:00Z NO_PATCHES",
    ],
)
def test_time_without_upgrades_is_none(gke: Given, text: str) -> None:
    assert refusal(gke, maintenanceExclusions={"holidays": text}) == (
        f"adk-gke-sandbox:maintenanceExclusions has 'holidays': {text!r}, which is not BEGIN/END in times of RFC 3339, "
        "and if you like one of NO_UPGRADES, NO_MINOR_UPGRADES, NO_MINOR_OR_NODE_UPGRADES. Set it with `pulumi config "
        "set --path 'maintenanceExclusions[\"year-end\"]' '2026-12-18T00:00:00Z/2027-01-04T00:00:00Z NO_UPGRADES' "
        "--type string`"
    )


def test_time_without_upgrades_ends_after_it_begins(gke: Given) -> None:
    assert refusal(gke, maintenanceExclusions={"a": "2027-01-04T00:00:00+01:00/2027-01-03T23:00:00Z"}) == (
        "adk-gke-sandbox:maintenanceExclusions has 'a', which ends before it begins. Give the begin first"
    )


def test_more_times_without_upgrades_than_gke_takes(gke: Given) -> None:
    many = {str(number): "2026-12-18T00:00:00Z/2027-01-04T00:00:00Z" for number in range(21)}
    assert refusal(gke, maintenanceExclusions=many) == (
        "adk-gke-sandbox:maintenanceExclusions has 21 entries. Keep 20 at most, as GKE does"
    )


# -- quotas of the project


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "a new project has: 80 CPUS_PER_VM_FAMILY of 8, 1050 SSD_TOTAL_GB of 250"),
        ({"SSD_TOTAL_GB": "1049"}, "the project has: 80 CPUS_PER_VM_FAMILY of 8, 1050 SSD_TOTAL_GB of 1049"),
        ({"SSD_TOTAL_GB": "1050"}, "a new project has: 80 CPUS_PER_VM_FAMILY of 8"),
        ({"SSD_TOTAL_GB": "1050", "CPUS_PER_VM_FAMILY": "80"}, ""),
    ],
)
def test_full_size_beyond_a_quota_draws_a_warning(gke: Given, given: dict[str, str], told: str) -> None:
    # Five system nodes of 4 vCPU and 50 GB; twice ten of 4 vCPU, whose Hyperdisks count elsewhere, or 40 GB each.
    pool = {"sandboxMachineType": "c3d-standard-4", "sandboxDiskGb": 40, "sandboxUpgrade": "BLUE_GREEN"}
    image = f"python@sha256:{'b' * 64}"
    (*_, found) = ["", *configured(gke, image=image, projectQuotas=given, **pool).warnings()]
    assert found.partition("than ")[2].partition(". ")[0] == told
    assert ("--path 'projectQuotas[\"" in found) == bool(told)


def test_quota_is_a_number(gke: Given) -> None:
    assert refusal(gke, projectQuotas={"CPUS": "many"}) == (
        "adk-gke-sandbox:projectQuotas has 'CPUS': 'many', which is not a whole number. "
        "Set it with `pulumi config set --path 'projectQuotas[\"CPUS\"]' NUMBER --type string`"
    )


def test_map_without_effect_is_refused(least: Given) -> None:
    assert refusal(least, projectQuotas={"CPUS": "24"}).startswith(
        "adk-gke-sandbox:projectQuotas={'CPUS': '24'} has no effect with adk-gke-sandbox:clusterMode='existing'"
    )


# -- logs, and the login to Docker Hub

TOKEN = "projects/123456789012/secrets/docker-hub/versions/1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sandboxLogDays": 0}, "sandboxLogDays=0 is out of range. Give 1 to 3650"),
        ({"sandboxLogDays": 3651}, "sandboxLogDays=3651 is out of range. Give 1 to 3650"),
        ({"dockerHubUser": "me"}, "dockerHubUser is set without adk-gke-sandbox:dockerHubToken. Set both or none"),
        ({"dockerHubToken": TOKEN}, "dockerHubToken is set without adk-gke-sandbox:dockerHubUser. Set both or none"),
        (
            {"dockerHubUser": "me", "dockerHubToken": "dckr_pat_0"},
            "dockerHubToken='dckr_pat_0' is not the name of a version in Secret Manager. Set it with `pulumi config "
            f"set dockerHubToken {TOKEN}`; the token itself does not belong into a stack file",
        ),
    ],
)
def test_logs_and_login_that_cannot_be(gke: Given, given: Given, message: str) -> None:
    assert refusal(gke, **given) == f"adk-gke-sandbox:{message}"


# -- pools


@pytest.mark.parametrize("name", ["systemNodesMin", "sandboxNodesMin"])
def test_fewest_nodes_are_too_few(gke: Given, name: str) -> None:
    least, why = (1, "GKE's own pods need a node without gVisor. ") if name == "systemNodesMin" else (0, "")
    assert refusal(gke, **{name: least - 1}) == (
        f"adk-gke-sandbox:{name}={least - 1} is out of range. {why}Give {least} or more"
    )


@pytest.mark.parametrize(("most", "least"), [(1, 2), (0, 0), (1001, 0)])
def test_most_nodes_that_do_not_fit_the_fewest(gke: Given, most: int, least: int) -> None:
    assert refusal(gke, sandboxNodesMin=least, sandboxNodesMax=most) == (
        f"adk-gke-sandbox:sandboxNodesMax={most} does not fit adk-gke-sandbox:sandboxNodesMin={least}. "
        f"Give {max(1, least)} to 1000"
    )


@pytest.mark.parametrize("machine", ["big", "n2d", "N2D-standard-4", "n2d-standard-4 "])
def test_machine_type_is_malformed(gke: Given, machine: str) -> None:
    assert refusal(gke, sandboxMachineType=machine) == (
        f"adk-gke-sandbox:sandboxMachineType={machine!r} is not a machine type. "
        "Set it with `pulumi config set sandboxMachineType n2d-standard-4`"
    )


@pytest.mark.parametrize("machine", ["e2-medium", "n2d-custom-4-8192", "c3d-standard-8-lssd", "t2d-standard-1"])
def test_machine_types_of_google(gke: Given, machine: str) -> None:
    assert configured(gke, systemMachineType=machine)


@pytest.mark.parametrize("pods", [7, 257])
def test_pods_per_node_out_of_range(gke: Given, pods: int) -> None:
    assert refusal(gke, sandboxPodsPerNode=pods) == (
        f"adk-gke-sandbox:sandboxPodsPerNode={pods} is out of range. Give 8 to 256"
    )


def test_disk_type_is_not_one_of_googles(gke: Given) -> None:
    assert refusal(gke, sandboxDiskType="ssd") == (
        "adk-gke-sandbox:sandboxDiskType='ssd' is none of pd-standard, pd-balanced, pd-ssd, hyperdisk-balanced. "
        "Set it with `pulumi config set sandboxDiskType pd-balanced`"
    )


@pytest.mark.parametrize("size", [29, 65_537])
def test_disk_of_an_impossible_size(gke: Given, size: int) -> None:
    assert refusal(gke, sandboxDiskGb=size) == (
        f"adk-gke-sandbox:sandboxDiskGb={size} is out of range. Give 30 to 65536"
    )


@pytest.mark.parametrize("family", ["c4", "n4", "c4a"])
def test_machine_without_persistent_disks(gke: Given, family: str) -> None:
    machine = f"{family}-standard-4"
    assert refusal(gke, sandboxMachineType=machine) == (
        f"adk-gke-sandbox:sandboxMachineType={machine!r} takes no pd-balanced disk. "
        "Set it with `pulumi config set sandboxDiskType hyperdisk-balanced`"
    )
    assert configured(gke, sandboxMachineType=machine, sandboxDiskType="hyperdisk-balanced")


def test_system_machine_without_persistent_disks(gke: Given) -> None:
    assert refusal(gke, systemMachineType="n4-standard-4") == (
        "adk-gke-sandbox:systemMachineType='n4-standard-4' takes no pd-balanced disk, which system nodes have. "
        "Set it with `pulumi config set systemMachineType e2-standard-4`"
    )


def test_quota_that_no_pool_has_room_for(gke: Given) -> None:
    assert refusal(gke, sandboxNodesMax=1, sandboxPodsPerNode=32) == (
        "adk-gke-sandbox:quotaPods=60 is more than the 32 pods that adk-gke-sandbox:sandboxNodesMax=1 nodes of "
        "adk-gke-sandbox:sandboxPodsPerNode=32 have room for. Lower quotaPods or raise sandboxNodesMax"
    )


@pytest.mark.parametrize(
    ("machine", "name", "value"), [("n2d-standard-2", "cpuCeiling", "4"), ("e2-highcpu-4", "memCeiling", "16Gi")]
)
def test_ceiling_above_a_whole_machine(gke: Given, machine: str, name: str, value: str) -> None:
    assert refusal(gke, sandboxMachineType=machine, **{name: value}) == (
        f"adk-gke-sandbox:{name}={value} is more than a whole adk-gke-sandbox:sandboxMachineType={machine!r} has. "
        f"Lower {name} or take a larger machine type"
    )


def test_machine_whose_size_its_name_does_not_tell(gke: Given) -> None:
    assert configured(gke, sandboxMachineType="n2d-custom-2-4096")


# -- versions


@pytest.mark.parametrize("version", ["latest", "1", "v1.36", "1.36.3-gke", "2.0"])
def test_version_is_not_one_of_gke(gke: Given, version: str) -> None:
    assert refusal(gke, minVersion=version) == (
        f"adk-gke-sandbox:minVersion={version!r} is not a GKE version. Use one that "
        "`gcloud container get-server-config --region REGION` lists, such as 1.35.3-gke.1234000"
    )


@pytest.mark.parametrize("name", ["agentSandboxAddon", "podSnapshots"])
@pytest.mark.parametrize("version", ["", "1.34.9-gke.9999999", "1.35", "1.35.2-gke.1268999"])
def test_version_below_the_floor_of_an_add_on(gke: Given, name: str, version: str) -> None:
    floor = {"agentSandboxAddon": "1.35.2-gke.1269000", "podSnapshots": "1.35.3-gke.1234000"}[name]
    assert refusal(gke, minVersion=version, **{name: True}) == (
        f"adk-gke-sandbox:{name}=true takes GKE {floor} or later, and adk-gke-sandbox:minVersion={version!r}. "
        f"Set it with `pulumi config set minVersion {floor}`, or `pulumi config set {name} false`"
    )


@pytest.mark.parametrize("version", ["1.35.3-gke.1234000", "1.35.4", "1.36", "1.100.0-gke.1"])
def test_version_at_or_above_the_floor(gke: Given, version: str) -> None:
    assert configured(gke, minVersion=version, agentSandboxAddon=True, podSnapshots=True)


def test_snapshots_of_pods_on_e2(gke: Given) -> None:
    assert refusal(gke, podSnapshots=True, minVersion="1.36", sandboxMachineType="e2-standard-4") == (
        "adk-gke-sandbox:podSnapshots=true does not work with adk-gke-sandbox:sandboxMachineType='e2-standard-4': "
        "E2 machines have different processors. Set it with `pulumi config set sandboxMachineType n2d-standard-4`"
    )


# -- identity


@pytest.mark.parametrize("role", ["aiplatform.user", "roles/", "roles/aiplatform user", "projects/p/x"])
def test_role_is_not_one_of_iam(gke: Given, role: str) -> None:
    assert refusal(gke, agentRoles=[role]) == (
        f"adk-gke-sandbox:agentRoles has {role!r}, which is not an IAM role. Write for example roles/aiplatform.user"
    )


@pytest.mark.parametrize("role", ["roles/owner", "roles/editor", "roles/viewer"])
def test_role_for_everything(gke: Given, role: str) -> None:
    assert refusal(gke, agentRoles=["roles/aiplatform.user", role]) == (
        f"adk-gke-sandbox:agentRoles has {role!r}, which is for everything in the project. "
        "Name the roles of the services that agents call, such as roles/aiplatform.user"
    )


def test_role_that_is_there_twice(gke: Given) -> None:
    assert refusal(gke, agentRoles=["roles/aiplatform.user", "roles/aiplatform.user"]) == (
        "adk-gke-sandbox:agentRoles has 'roles/aiplatform.user' twice. Remove one of them"
    )


def test_custom_roles(gke: Given) -> None:
    assert configured(gke, agentRoles=["projects/a-project/roles/agent", "organizations/123/roles/agent"])


@pytest.mark.parametrize("group", ["team@example.com", "gke-security-groups", "gke-security-groups@example"])
def test_security_group_of_another_name(gke: Given, group: str) -> None:
    assert refusal(gke, rbacSecurityGroup=group) == (
        f"adk-gke-sandbox:rbacSecurityGroup={group!r} is not called gke-security-groups@DOMAIN. GKE takes a group of "
        "this name only; nest the groups that RBAC names in it "
        "(https://cloud.google.com/kubernetes-engine/docs/how-to/google-groups-rbac)"
    )


# -- production


def test_spot_machines_in_production(gke: Given) -> None:
    assert refusal(gke, production=True, sandboxSpot=True) == (
        "adk-gke-sandbox:sandboxSpot=true in a production stack: every execution on a machine that Google takes back "
        "is lost. Set it with `pulumi config set sandboxSpot false`, or `pulumi config set production false`"
    )


def test_rapid_channel_in_production(gke: Given) -> None:
    assert refusal(gke, production=True, releaseChannel="RAPID") == (
        "adk-gke-sandbox:releaseChannel='RAPID' in a production stack: its versions have no service level agreement. "
        "Set it with `pulumi config set releaseChannel REGULAR`, or `pulumi config set production false`"
    )


def test_production_without_protection_draws_a_warning(roomy: Given) -> None:
    settings = configured(roomy, production=True, deletionProtection=False, image=f"python@sha256:{'b' * 64}")
    assert settings.warnings() == [
        "adk-gke-sandbox:deletionProtection=false in a production stack: `pulumi destroy` would delete the cluster and "
        "everything that runs in it. Set it to true again unless you are tearing the stack down"
    ]


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
