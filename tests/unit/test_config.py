from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from adk_gke_sandbox.cluster import manifests
from adk_gke_sandbox.config import ExecutorConfig, quantity
from adk_gke_sandbox.contract import Ceilings, Contract
from adk_gke_sandbox.errors import ConfigError

CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)


def test_the_nine_parameters_have_adks_names_and_defaults() -> None:
    defaults = {field.name: getattr(ExecutorConfig(), field.name) for field in fields(ExecutorConfig)}
    assert list(defaults.items())[:9] == [
        ("namespace", "default"),
        ("image", "python:3.11-slim"),
        ("timeout_seconds", 300),
        ("cpu_requested", "200m"),
        ("mem_requested", "256Mi"),
        ("cpu_limit", "500m"),
        ("mem_limit", "512Mi"),
        ("kubeconfig_path", None),
        ("kubeconfig_context", None),
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2), ("1.5", 1.5), ("512Mi", 512 * 2**20), ("1G", 10**9), ("1k", 1000)]
)
def test_quantities_are_read_as_kubernetes_reads_them(text: str, value: float) -> None:
    assert quantity(text, setting="x") == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_limit": "banana"}, "cpu_limit='banana' is not a Kubernetes quantity. Write for example \"500m\""),
        ({"mem_limit": "-1Gi"}, "mem_limit='-1Gi' is not a Kubernetes quantity"),
        ({"mem_limit": "64Mi", "mem_requested": "64Mi"}, "mem_limit='64Mi' is too small for Python under gVisor"),
        ({"cpu_requested": "2"}, "cpu_requested='2' is above cpu_limit='500m'. Lower the request or raise the limit"),
        ({"namespace": ""}, "namespace='' is not a Kubernetes name. Use 1 to 63 lower-case letters"),
        ({"namespace": "No"}, "namespace='No' is not a Kubernetes name"),
        ({"image": ""}, "image='' is not an image reference"),
        ({"timeout_seconds": 0}, "timeout_seconds=0 is out of range. Give seconds, above 0"),
        ({"timeout_seconds": True}, "timeout_seconds=True is out of range"),
        ({"schedule_timeout_seconds": -1}, "schedule_timeout_seconds=-1 is out of range"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy='Sometimes' is unknown. Use one of IfNotPresent"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_what_to_write(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ExecutorConfig(**settings)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("limit", "address_space"), [("512Mi", 362), ("128Mi", 64), ("300Mi", 150)])
def test_the_address_space_stays_below_the_memory_limit(limit: str, address_space: int) -> None:
    config = ExecutorConfig(mem_limit=limit, mem_requested="100Mi")
    assert config.request("").memory_bytes == address_space * 2**20


def test_a_contract_gives_every_setting() -> None:
    config = ExecutorConfig.from_contract(CONTRACT)
    assert (config.namespace, config.image, config.service_account) == (
        "agent-sandbox",
        CONTRACT.image,
        "sandbox-runner",
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"cpu_limit": "5"}, "cpu_limit='5' is above the stack's ceiling '4'"),
        ({"mem_limit": "9Gi"}, "mem_limit='9Gi' is above the stack's ceiling '8Gi'"),
        ({"timeout_seconds": 3601}, "timeout_seconds=3601 is above the stack's ceiling 3600"),
    ],
)
def test_an_override_above_a_ceiling_is_refused(override: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ExecutorConfig.from_contract(CONTRACT, **override)
    assert message in str(raised.value)
    assert "have the platform team raise the ceiling" in str(raised.value)


def test_a_ceiling_itself_is_allowed() -> None:
    contract = CONTRACT.model_copy(update={"ceilings": Ceilings(cpu="1", memory="1Gi", timeout_seconds=60)})
    config = ExecutorConfig.from_contract(contract, cpu_limit="1000m", mem_limit="1024Mi", timeout_seconds=60)
    assert config.timeout_seconds == 60


@pytest.mark.parametrize(
    ("egress", "policy"), [("none", "None"), ("fqdn", "ClusterFirst"), ("internet", "ClusterFirst")]
)
def test_names_resolve_where_the_contract_lets_sandboxes_out(egress: Any, policy: str) -> None:
    contract = CONTRACT.model_copy(update={"egress": egress})
    config = ExecutorConfig.from_contract(contract)
    pod = manifests.job(config, "x", [{}])["spec"]["template"]["spec"]
    assert pod["dnsPolicy"] == policy
    assert ("dnsConfig" in pod) == (policy == "None")


def test_a_dns_policy_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        ExecutorConfig(dns_policy="Default")
    assert str(raised.value) == "dns_policy='Default' is unknown. Use one of None, ClusterFirst"
