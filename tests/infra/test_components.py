"""The components as an interface: types, logical names, arguments and outputs, for programs that are not ours.

What they make is the business of `test_program` and `test_cluster`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from adk_gke_sandbox.contract import Contract, parse
from infra.cluster import SandboxCluster, SandboxClusterArgs
from infra.environment import SandboxEnvironment, SandboxEnvironmentArgs
from infra.environment_settings import Destination
from infra.former_names import aliased
from infra.gke_settings import GkeSettings
from tests.infra.conftest import IMAGE, Program, Registered, run_program

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
NAMES = Path(__file__).parent / "golden" / "component_names.txt"
EXAMPLE = ROOT / "examples" / "own_program"
COMPONENTS = {"SandboxCluster": SandboxCluster, "SandboxEnvironment": SandboxEnvironment}
TYPES = {name: f"adk:infra:{name}" for name in COMPONENTS}


def contract(namespace: str = "agent-sandbox", egress: str = "none") -> Contract:
    return Contract.model_validate(
        {
            "stack": "team",
            "image": IMAGE,
            "namespace": namespace,
            "agents_namespace": f"{namespace}-agents",
            "egress": egress,
        }
    )


def environment(name: str = "sandbox", namespace: str = "agent-sandbox", egress: str = "none") -> SandboxEnvironment:
    provider = kubernetes.Provider(f"{name}-provider", kubeconfig="{}")
    args = SandboxEnvironmentArgs(
        contract=contract(namespace, egress),
        pod_security_version="v1.36",
        egress_hosts=["pypi.org"],
        agents_egress=[Destination(host="db.example.com", port=5432)],
    )
    return SandboxEnvironment(name, args, pulumi.ResourceOptions(providers=[provider]))


def cluster(name: str = "sandbox") -> SandboxCluster:
    gke = GkeSettings(
        project="a-project",
        region="europe-west4",
        agent_roles=("roles/aiplatform.user",),
        binary_authorization="manage",
        sandbox_logs="keep",
    )
    return SandboxCluster(name, SandboxClusterArgs(stack=name, gke=gke, way_out=True))


def one_of_each(name: str) -> Callable[[], None]:
    """Return a program with both components, and everything switched on."""

    def program() -> None:
        cluster(name)
        environment(name, egress="fqdn")

    return program


@cache
def made(name: str = "sandbox") -> Program:
    return run_program({}, "team", program=one_of_each(name))


def parent(resource: Registered) -> str:
    """Return the type of a resource's parent."""
    return str(resource.request.parent.split("::")[-2].rpartition("$")[2]) if resource.request.parent else ""


def children(program: Program, component: str) -> set[tuple[str, str]]:
    """Return type and logical name of each child of a component."""
    return {(each.type, each.name) for each in program.resources if parent(each) == TYPES[component]}


def former(program: Program, component: str) -> dict[tuple[str, str], str]:
    """Return the former logical names of children, by type and present name."""
    return {
        (each.type, each.name): alias.spec.name
        for each in program.resources
        if parent(each) == TYPES[component]
        for alias in each.request.aliases
        if alias.spec.name
    }


def listed(component: str) -> Iterator[tuple[str, str, str]]:
    """Yield type, logical name and former name of each child that the page lists for a component."""
    section = PAGE.partition(f"### Children of {component}\n")[2].partition("\n#")[0]
    row = r"^\| `([^`]+)` \| `([^`]+)` \| (?:`([^`]+)`)? ?\|$"
    for kind, name, before in re.findall(row, section, flags=re.MULTILINE):
        yield kind, name.replace("NAME", "sandbox"), before


# -- names


@pytest.mark.parametrize("component", COMPONENTS)
def test_type_of_a_component_does_not_change(component: str) -> None:
    assert [each.type for each in made().of(component)] == [TYPES[component]]
    assert f"`{TYPES[component]}`" in PAGE


@pytest.mark.parametrize("component", COMPONENTS)
def test_page_lists_every_child_of_a_component(component: str) -> None:
    assert {(kind, name) for kind, name, _ in listed(component)} == children(made(), component)


@pytest.mark.parametrize("component", COMPONENTS)
def test_former_names_on_the_page_are_aliases(component: str) -> None:
    assert {(kind, name): before for kind, name, before in listed(component) if before} == former(made(), component)


def test_every_name_that_there_ever_was_is_a_name_or_an_alias() -> None:
    """A name that is neither makes Pulumi delete what a stack in use has under it."""
    known = set()
    for component, kind in TYPES.items():
        known |= {f"{kind} {each} {name}" for each, name in children(made(), component)}
        known |= {f"{kind} {each} {name}" for (each, _), name in former(made(), component).items()}
    assert NAMES.read_text(encoding="utf-8").splitlines() == sorted(known)


@pytest.mark.parametrize("component", COMPONENTS)
def test_children_carry_the_name_of_their_component(component: str) -> None:
    renamed = {(kind, name.replace("sandbox-", "other-", 1)) for kind, name in children(made(), component)}
    assert children(made("other"), component) == renamed


def test_several_of_each_fit_in_one_program() -> None:
    """Pulumi refuses two resources of one URN; mocks do not."""

    def program() -> None:
        for name in ("a", "b"):
            cluster(name)
            environment(name, f"{name}-sandboxes")

    resources = run_program({}, "team", program=program).resources
    counted = Counter((parent(each), each.type, each.name) for each in resources)
    assert [urn for urn, times in counted.items() if times > 1] == []


def test_alias_keeps_everything_else_that_a_child_asks_for() -> None:
    class Component(pulumi.ComponentResource):
        def __init__(self) -> None:
            former = pulumi.ResourceOptions(transformations=[aliased("c", {"new": "old"})])
            super().__init__("test:index:Component", "c", None, former)
            for name in ("c-new", "c-same"):
                opts = pulumi.ResourceOptions(parent=self, protect=True, aliases=[pulumi.Alias(name=f"{name}-oldest")])
                kubernetes.core.v1.ConfigMap(name, data={"k": "v"}, opts=opts)

    program = run_program({}, "team", program=lambda: Component() and None)
    aliases = {each.name: {alias.spec.name for alias in each.request.aliases} for each in program.of("ConfigMap")}
    assert aliases == {"c-new": {"old", "c-new-oldest"}, "c-same": {"c-same-oldest"}}
    for each in program.of("ConfigMap"):
        assert each.request.protect
        assert each.inputs["data"] == {"k": "v"}


# -- arguments and outputs


def cells(component: str, heading: str) -> set[str]:
    """Return what the first column of a table in a component's section names."""
    section = PAGE.partition(f"\n## {component}\n")[2].partition("\n## ")[0]
    rows = section.partition(f"| {heading} | |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize("args", [SandboxClusterArgs, SandboxEnvironmentArgs])
def test_page_lists_every_argument(args: type) -> None:
    component = args.__name__.removesuffix("Args")
    assert cells(component, "Argument") == {entry.name for entry in dataclasses.fields(args)}


@pytest.mark.parametrize("component", COMPONENTS.values())
def test_page_lists_every_output(component: type) -> None:
    assert cells(component.__name__, "Output") == set(component.__annotations__)


# -- the example


def example(**settings: str) -> Program:
    least = {"kubeconfig": "~/.kube/config", "context": "team", "endpoint": "https://10.0.0.2:6443", "image": IMAGE}
    return run_program(
        {**least, **settings}, "team", program=lambda: runpy.run_path(str(EXAMPLE / "__main__.py")) and None
    )


def test_example_adds_the_environment_and_nothing_else() -> None:
    program = example()
    own = {each.type for each in program.resources if not parent(each).startswith("adk:")}
    assert own == {"pulumi:providers:kubernetes", TYPES["SandboxEnvironment"]}


def test_example_makes_everything_with_the_teams_provider() -> None:
    for each in example().resources:
        if each.type.startswith("kubernetes:"):
            assert "pulumi:providers:kubernetes::team-cluster::" in each.request.provider, each.name


def test_example_exports_what_contract_pull_reads() -> None:
    found = parse(json.dumps(example(sandboxes="boxes", agents="bots").outputs["sandbox"]))
    assert (found.namespace, found.agents_namespace, found.stack) == ("boxes", "bots", "team")
    assert found.image == IMAGE
    assert found.cluster.endpoint == "https://10.0.0.2:6443"


def test_example_lets_agents_reach_the_teams_api_server() -> None:
    policy = example().one("NetworkPolicy", "sandbox-agents-egress")
    ports = {port["port"] for rule in policy.inputs["spec"]["egress"] for port in rule["ports"]}
    assert 6443 in ports
