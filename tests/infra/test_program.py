"""The whole Pulumi program under mocks: what it registers, with which inputs, in which order."""

from __future__ import annotations

import importlib
import json
from typing import Any, Union, get_args, get_origin

import pulumi
import pytest
from pulumi._types import input_type_types, is_input_type

from adk_gke_sandbox.contract import EXECUTOR_RULES, parse
from tests.infra.conftest import IMAGE, Run

PROVIDER = "pulumi:providers:kubernetes"
COMPONENT = "adk:infra:SandboxEnvironment"


def test_preview_registers_the_same_set(run: Run) -> None:
    up = sorted((resource.type, resource.name) for resource in run().resources)
    preview = sorted((resource.type, resource.name) for resource in run(preview=True).resources)
    assert preview == up


def test_runtime_class_is_never_created(run: Run) -> None:
    assert run().of("RuntimeClass") == []


def test_every_kubernetes_object_is_a_child_of_the_component_and_uses_the_explicit_provider(run: Run) -> None:
    program = run()
    for resource in program.resources:
        if resource.type.startswith("kubernetes:"):
            assert resource.request.parent.endswith(f"{COMPONENT}::sandbox"), resource.name
            assert f"{PROVIDER}::cluster" in resource.request.provider, resource.name


def test_nothing_is_protected_in_the_local_stack(run: Run) -> None:
    assert [resource.name for resource in run().resources if resource.request.protect] == []


def test_contract_is_exported_and_mounted_alike(run: Run) -> None:
    program = run(image=IMAGE)
    (document,) = program.one("ConfigMap", "sandbox-contract").inputs["data"].values()
    assert program.one("ConfigMap", "sandbox-contract").inputs["metadata"]["namespace"] == "agents"
    assert parse(document) == parse(json.dumps(program.outputs["sandbox"]))
    assert parse(document).image == IMAGE


@pytest.mark.parametrize("preview", [False, True])
def test_exported_contract_has_no_null(run: Run, preview: bool) -> None:
    assert "null" not in json.dumps(run(preview=preview).outputs["sandbox"])


def test_contract_names_the_stack_the_context_and_the_api_server(run: Run) -> None:
    contract = parse(json.dumps(run(stack="mine").outputs["sandbox"]))
    assert contract.stack == "mine"
    assert contract.cluster.context == "one"
    assert contract.cluster.endpoint == "https://127.0.0.1:6443"


def test_role_is_exactly_the_executor_rules(run: Run) -> None:
    role = run().one("Role", "sandbox-executor").inputs
    assert role["metadata"]["namespace"] == "agent-sandbox"
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        ([rule.api_group], [rule.resource], list(rule.verbs)) for rule in EXECUTOR_RULES
    ]


def test_only_the_agent_is_bound_and_only_to_the_executor_role(run: Run) -> None:
    (binding,) = run().of("RoleBinding")
    assert binding.inputs["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "sandbox-executor",
    }
    assert binding.inputs["subjects"] == [{"kind": "ServiceAccount", "name": "agent", "namespace": "agents"}]


def test_agent_is_bound_after_the_walls_stand(run: Run) -> None:
    binding = run().one("RoleBinding", "sandbox-executor")
    awaited = {urn.rpartition("::")[2] for urn in binding.request.dependencies}
    assert {"sandbox-quota", "sandbox-limits", "sandbox-deny-all", "sandbox-runner"} <= awaited


def test_objects_wait_for_their_namespace(run: Run) -> None:
    for resource in run().resources:
        namespace = resource.inputs.get("metadata", {}).get("namespace")
        if namespace:
            logical = {"agents": "sandbox-agents-namespace", "agent-sandbox": "sandbox-namespace"}[namespace]
            assert any(urn.endswith(f"::{logical}") for urn in resource.request.dependencies), resource.name


def test_walls_stand_until_the_namespace_goes(run: Run) -> None:
    for resource in run().resources:
        namespace = resource.inputs.get("metadata", {}).get("namespace")
        if namespace:
            logical = {"agents": "sandbox-agents-namespace", "agent-sandbox": "sandbox-namespace"}[namespace]
            assert resource.request.deletedWith.endswith(f"::{logical}"), resource.name


def test_sandbox_identities_get_no_token(run: Run) -> None:
    program = run()
    for kind, name in (
        ("ServiceAccount", "sandbox-runner"),
        ("ServiceAccountPatch", "sandbox-default"),
        ("ServiceAccountPatch", "sandbox-agents-default"),
    ):
        assert program.one(kind, name).inputs["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("logical", "level"), [("sandbox-namespace", "restricted"), ("sandbox-agents-namespace", "baseline")]
)
def test_namespace_is_held_to_a_pinned_pod_security_standard(run: Run, logical: str, level: str) -> None:
    labels = run(podSecurityVersion="v1.36").one("Namespace", logical).inputs["metadata"]["labels"]
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == level
        assert labels[f"pod-security.kubernetes.io/{mode}-version"] == "v1.36"


def test_every_object_of_ours_carries_the_stack_name(run: Run) -> None:
    for resource in run(stack="mine").resources:
        if resource.type.startswith("kubernetes:") and not resource.type.endswith("Patch"):
            assert resource.inputs["metadata"]["labels"] == {
                **resource.inputs["metadata"]["labels"],
                "app.kubernetes.io/name": "adk-gke-sandbox",
                "app.kubernetes.io/managed-by": "pulumi",
                "adk-gke-sandbox/stack": "mine",
            }


def test_quota_forbids_secrets_unless_programs_may_have_some(run: Run) -> None:
    hard = run(secretEnv=True).one("ResourceQuota", "sandbox-quota").inputs["spec"]["hard"]
    assert "count/secrets" not in hard


def test_no_policy_opens_anything_in_the_sandbox_namespace(run: Run) -> None:
    policies = [p for p in run().of("NetworkPolicy") if p.inputs["metadata"]["namespace"] == "agent-sandbox"]
    assert [policy.name for policy in policies] == ["sandbox-deny-all"]


def test_agents_reach_dns_and_tls_but_no_metadata_server(run: Run) -> None:
    dns, tls = run().one("NetworkPolicy", "sandbox-agents-egress").inputs["spec"]["egress"]
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert [port["port"] for port in tls["ports"]] == [443, 6443]
    assert tls["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]


def test_settings_reach_the_objects(run: Run) -> None:
    program = run(namespace="runs", agentsNamespace="bots", quotaPods="3", memCeiling="1Gi", cpuLimit="1")
    assert program.one("Namespace", "sandbox-namespace").inputs["metadata"]["name"] == "runs"
    assert program.one("RoleBinding", "sandbox-executor").inputs["subjects"][0]["namespace"] == "bots"
    assert program.one("ResourceQuota", "sandbox-quota").inputs["spec"]["hard"]["pods"] == "3"
    container = program.one("LimitRange", "sandbox-limits").inputs["spec"]["limits"][0]
    assert container["max"]["memory"] == "1Gi"
    assert container["default"]["cpu"] == "1"


def test_bad_setting_ends_the_program_before_any_resource_with_one_line(run: Run) -> None:
    with pytest.raises(
        pulumi.RunError, match=r"^adk-gke-sandbox:image='python:3\.11-slim' is not an image by digest\."
    ):
        run(image="python:3.11-slim")


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("stack", ["local", "staging", "prod"])
def test_every_nested_key_is_one_the_provider_knows(run: Run, stack: str, preview: bool) -> None:
    """A misspelt key of a nested dict passes SDK and mocks unchanged."""
    for resource in run(stack=stack, preview=preview).resources:
        if resource.type.startswith(("kubernetes:", "gcp:")):
            assert unknown_keys(resource.inputs, arguments_of(resource.type)) == [], resource.name


def test_misspelt_nested_key_would_be_found(run: Run) -> None:
    policy = run().one("NetworkPolicy", "sandbox-agents-egress")
    policy.inputs["spec"]["egress"][1]["to"][0]["ipBlock"]["exept"] = []
    assert unknown_keys(policy.inputs, arguments_of(policy.type)) == ["spec.egress.to.ipBlock.exept"]


def arguments_of(token: str) -> type:
    """Return the class of a resource's arguments: `kubernetes:core/v1:Namespace` has `NamespaceInitArgs`."""
    package, group, kind = token.split(":")
    if package == "gcp":
        module = importlib.import_module(f"pulumi_gcp.{group.split('/')[0]}")
    else:
        group = group.replace(".authorization", "").replace(".k8s.io", "").replace("/", ".")
        module = importlib.import_module(f"pulumi_kubernetes.{group}.{kind}")
    found = getattr(module, f"{kind}InitArgs", None) or getattr(module, f"{kind}Args")
    assert isinstance(found, type)
    return found


def unknown_keys(value: Any, kind: Any, path: str = "") -> list[str]:
    """Return the paths of keys that the argument classes do not have."""
    if isinstance(value, list):
        (element, *_) = get_args(kind)
        return [key for item in value for key in unknown_keys(item, _plain(element), path)]
    if not isinstance(value, dict) or not is_input_type(kind):
        return []
    types = input_type_types(kind)
    found = []
    for key, item in value.items():
        where = f"{path}.{key}".lstrip(".")
        found += unknown_keys(item, _plain(types[key]), where) if key in types else [where]
    return found


def _plain(kind: Any) -> Any:
    """Return the argument class or sequence in `Input[X]`."""
    return get_args(kind)[0] if get_origin(kind) is Union else kind
