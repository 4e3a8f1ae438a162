"""Settings: what is refused, and with which words."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from adk_gke_sandbox.errors import ConfigError
from infra.settings import Settings, key

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/adk-gke-sandbox/data@sha256:{'a' * 64}"
SET_IMAGE = "Set it with `pulumi config set image europe-docker.pkg.dev/my-project/sandbox/data@sha256:DIGEST`"


@pytest.fixture
def least(kubeconfig: Path) -> dict[str, Any]:
    return {"stack": "local", "kubeconfig": str(kubeconfig), "context": "one", "image": IMAGE}


def refusal(given: dict[str, Any], **changed: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        Settings(**{**given, **changed})
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_least_configuration_is_enough(least: dict[str, Any]) -> None:
    assert Settings(**least).contract().namespace == "agent-sandbox"


def test_missing_image(least: dict[str, Any]) -> None:
    assert refusal(least, image="") == f"adk-gke-sandbox:image is not set. {SET_IMAGE}"


@pytest.mark.parametrize(
    "image",
    [
        "python:3.11-slim",
        "python@sha256:abc",
        f"@sha256:{'a' * 64}",
        f"x@sha256:{'A' * 64}",
        "x@sha256:DIGEST",
    ],
)
def test_image_not_by_digest(least: dict[str, Any], image: str) -> None:
    assert refusal(least, image=image) == f"adk-gke-sandbox:image={image!r} is not an image by digest. {SET_IMAGE}"


@pytest.mark.parametrize("name", ["Agents", "agents_1", "-a", "a-", "a" * 64, "", "a.b", "a\n"])
def test_namespace_that_is_no_rfc_1123_label(least: dict[str, Any], name: str) -> None:
    assert refusal(least, namespace=name) == (
        f"adk-gke-sandbox:namespace={name!r} is not a namespace name. "
        "Use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
    )


def test_agents_namespace_that_is_kubernetes_own(least: dict[str, Any]) -> None:
    assert refusal(least, agents_namespace="kube-system") == (
        "adk-gke-sandbox:agentsNamespace='kube-system' is Kubernetes' own namespace. "
        "Name one that this stack may create and delete"
    )


def test_one_namespace_for_both(least: dict[str, Any]) -> None:
    assert refusal(least, namespace="agents") == (
        "adk-gke-sandbox:namespace and adk-gke-sandbox:agentsNamespace are both 'agents'. "
        "Name two namespaces: who may create Jobs can use every secret and identity of their namespace"
    )


def test_ceiling_below_the_default(least: dict[str, Any]) -> None:
    assert refusal(least, mem_ceiling="256Mi") == (
        "adk-gke-sandbox:memLimit=512Mi is above adk-gke-sandbox:memCeiling=256Mi. Lower memLimit or raise memCeiling"
    )


def test_request_above_the_limit(least: dict[str, Any]) -> None:
    assert refusal(least, cpu_requested="2", cpu_limit="1500m") == (
        "adk-gke-sandbox:cpuRequested=2 is above adk-gke-sandbox:cpuLimit=1500m. Lower cpuRequested or raise cpuLimit"
    )


def test_quota_below_the_ceiling_of_one_execution(least: dict[str, Any]) -> None:
    assert refusal(least, quota_memory="4Gi") == (
        "adk-gke-sandbox:memCeiling=8Gi is above adk-gke-sandbox:quotaMemory=4Gi. Lower memCeiling or raise quotaMemory"
    )


def test_timeout_above_its_ceiling(least: dict[str, Any]) -> None:
    assert refusal(least, timeout_seconds=600, timeout_ceiling_seconds=60) == (
        "adk-gke-sandbox:timeoutSeconds=600 is above adk-gke-sandbox:timeoutCeilingSeconds=60. "
        "Lower timeoutSeconds or raise timeoutCeilingSeconds"
    )


@pytest.mark.parametrize("value", [0, -1, 100_001])
def test_count_out_of_range(least: dict[str, Any], value: int) -> None:
    assert refusal(least, quota_pods=value) == (f"adk-gke-sandbox:quotaPods={value} is out of range. Give 1 to 100000")


def test_memory_limit_too_small_for_python(least: dict[str, Any]) -> None:
    assert refusal(least, mem_limit="64Mi", mem_requested="64Mi") == (
        "adk-gke-sandbox:memLimit=64Mi is too small for Python under gVisor. Give at least 128Mi"
    )


def test_quantity_that_is_none(least: dict[str, Any]) -> None:
    assert refusal(least, cpu_limit="banana") == (
        "adk-gke-sandbox:cpuLimit='banana' is not a Kubernetes quantity. "
        'Write for example "500m" or "2" for CPU, "512Mi" or "1Gi" for memory'
    )


def test_pod_security_version_without_a_minor(least: dict[str, Any]) -> None:
    assert refusal(least, pod_security_version="latest") == (
        "adk-gke-sandbox:podSecurityVersion='latest' is not a Kubernetes minor version. "
        "Set it with `pulumi config set podSecurityVersion v1.36`"
    )


def test_missing_kubeconfig(least: dict[str, Any]) -> None:
    assert refusal(least, kubeconfig="") == (
        "adk-gke-sandbox:kubeconfig is not set. Set it with `pulumi config set kubeconfig ~/.kube/config`"
    )


def test_kubeconfig_file_that_does_not_exist(least: dict[str, Any]) -> None:
    assert refusal(least, kubeconfig="/nowhere/config") == (
        "adk-gke-sandbox:kubeconfig='/nowhere/config': no such file. Start the cluster with "
        "`python infra/local up`, or set it with `pulumi config set kubeconfig ~/.kube/config`"
    )


@pytest.mark.parametrize("text", ["", "[]", "contexts: 3", "contexts: [{}]", "{", "\x00"])
def test_kubeconfig_that_is_none(least: dict[str, Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    assert "is not a readable kubeconfig (" in refusal(least, kubeconfig=str(tmp_path / "bad"))


def test_context_that_is_not_in_the_kubeconfig(least: dict[str, Any], kubeconfig: Path) -> None:
    assert refusal(least, context="prod") == (
        f"adk-gke-sandbox:context='prod' is not in {kubeconfig}, which has: one, two. "
        "Set it with `pulumi config set context my-cluster`"
    )


def test_missing_context_is_not_the_current_one(least: dict[str, Any]) -> None:
    assert refusal(least, context="").startswith("adk-gke-sandbox:context is not set. ")


def configured(**config: str) -> Settings:
    pulumi.runtime.set_all_config({f"adk-gke-sandbox:{name}": value for name, value in config.items()})
    try:
        return Settings.from_config("local")
    finally:
        pulumi.runtime.set_all_config({})


def test_configuration_text_becomes_numbers_and_labels(config: dict[str, str]) -> None:
    settings = configured(**config, quotaPods="7", nodeSelector='{"pool": "sandbox"}')
    assert settings.quota.pods == 7
    assert settings.contract().node_selector == {"pool": "sandbox"}


def test_number_that_is_none(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^adk-gke-sandbox:quotaPods='many' is not a whole number\. Set it with"):
        configured(**config, quotaPods="many")


def test_node_selector_that_is_no_map_of_strings(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^adk-gke-sandbox:nodeSelector='\[1\]' does not map names to strings\."):
        configured(**config, nodeSelector="[1]")


def test_unknown_key_without_a_likeness_lists_what_there_is(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^adk-gke-sandbox:zzz is not a setting\. There are: kubeconfig, context, "):
        configured(**config, zzz="1")


def test_keys_of_other_packages_are_not_ours_to_judge(config: dict[str, str]) -> None:
    pulumi.runtime.set_all_config(
        {"gcp:region": "x", **{f"adk-gke-sandbox:{name}": value for name, value in config.items()}}
    )
    try:
        assert Settings.from_config("local").image == IMAGE
    finally:
        pulumi.runtime.set_all_config({})


def test_project_file_declares_every_setting_with_the_same_default(least: dict[str, Any]) -> None:
    declared = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["config"]
    own = Settings(**least)
    expected = {}
    for entry in fields(Settings):
        if entry.name == "stack":
            continue
        required = entry.name in least
        value = "" if required else getattr(own, entry.name)
        expected[key(entry.name)] = value if isinstance(value, (str, int)) else dict(value)
    assert {name: entry["default"] for name, entry in declared.items()} == expected
    assert all(entry["description"] for entry in declared.values())


def test_every_setting_is_documented() -> None:
    for entry in fields(Settings):
        assert f"        {entry.name}: " in (Settings.__doc__ or "")


def test_committed_stack_file_has_no_salt_and_no_secret() -> None:
    text = (REPOSITORY / "infra" / "stacks" / "Pulumi.local.yaml").read_text()
    document = yaml.safe_load(text)
    assert set(document) == {"config"}
    assert all(isinstance(value, (str, int)) for value in document["config"].values())
