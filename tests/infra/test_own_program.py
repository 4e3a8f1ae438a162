"""Somebody else's Pulumi program with our component in it, on the real engine and the local cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from infra.environment import FORMER_NAMES
from infra.local import engine, stack
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SANDBOX = "sandbox"
"""What the example calls the component."""

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_program"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team with a project folder, a stack and namespaces of its own."""

    where: engine.Stack
    sandboxes: str
    agents: str

    def run(self, verb: str, *arguments: str) -> str:
        lines: list[str] = []
        engine.stream(self.where, verb, [*arguments], lines.append)
        return "\n".join(lines)

    def up(self) -> str:
        return self.run("up", "--yes", "--skip-preview")

    def output(self) -> str:
        shown = engine.run(self.where, "output", ["stack", "output", "sandbox", "--json", "--stack", self.where.name])
        return str(shown)


@pytest.fixture(scope="module")
def layout() -> Layout:
    found = Layout(name="local")
    if not found.kubeconfig.exists():
        pytest.fail("the local cluster is not up: run `make up`, or `make test` for everything")
    return found


@pytest.fixture(scope="module")
def core(layout: Layout) -> Iterator[client.CoreV1Api]:
    with config.new_client_from_config(str(layout.kubeconfig)) as api:
        yield client.CoreV1Api(api)


@pytest.fixture(scope="module")
def team(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    name = f"team-{secrets.token_hex(3)}"
    usual = stack.Stack.of(layout, lambda _: None)
    where = dataclasses.replace(usual, name=name, folder=tmp_path_factory.mktemp("team"))
    made = Team(where=where, sandboxes=name, agents=f"{name}-agents")
    target = engine.target(layout.kubeconfig)
    images = json.loads(layout.images.read_text())["data"]["references"]
    write_project(
        where,
        {
            "kubeconfig": str(layout.kubeconfig),
            "context": target.context,
            "endpoint": target.server,
            "image": next(reference for reference in images if "@sha256:" in reference),
            "sandboxes": made.sandboxes,
            "agents": made.agents,
        },
    )
    try:
        engine.run(where, "init", ["stack", "init", name])
        made.up()
        yield made
    finally:
        made.run("destroy", "--yes", "--skip-preview", "--refresh", "--remove")


def write_project(where: engine.Stack, settings: dict[str, str]) -> None:
    """Lay out the example as a project of its own: its program, with this machine's engine and interpreter."""
    for folder in (where.project, where.backend, where.folder / "bin"):
        folder.mkdir()
    (where.project / "__main__.py").symlink_to(EXAMPLE / "__main__.py")
    project = yaml.safe_load((EXAMPLE / "Pulumi.yaml").read_text())
    project["runtime"]["options"]["virtualenv"] = str(where.python.parent)
    plugin = where.tools["pulumi-resource-kubernetes"].parent
    project["plugins"] = {"providers": [{"name": "kubernetes", "path": str(plugin)}]}
    (where.project / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    document = {"config": {f"own-program:{name}": value for name, value in settings.items()}}
    (where.project / f"Pulumi.{where.name}.yaml").write_text(yaml.safe_dump(document))
    for tool in ("pulumi-language-python", "pulumi-language-python-exec"):
        (where.folder / "bin" / tool).hardlink_to(where.tools[tool])


def test_teams_own_quota_is_in_force(team: Team, core: client.CoreV1Api) -> None:
    hard = core.read_namespaced_resource_quota("sandbox", team.sandboxes).spec.hard
    assert (hard["pods"], hard["limits.memory"]) == ("20", "20Gi")


def test_exported_contract_runs_a_program_in_gvisor(team: Team, layout: Layout, tmp_path: Path) -> None:
    contract, script = tmp_path / "contract.json", tmp_path / "script.py"
    contract.write_text(team.output())
    script.write_text(
        "import pandas, subprocess; print(subprocess.run('dmesg', capture_output=True, text=True).stdout)"
    )
    command = [Path(sys.executable).with_name("adk-gke-sandbox"), "run", script, "--contract", contract]
    environment = {**os.environ, "KUBECONFIG": str(layout.kubeconfig)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Starting gVisor" in done.stdout


def test_state_with_former_names_is_taken_over(team: Team, core: client.CoreV1Api) -> None:
    """Without an alias the namespace of the agents would be deleted, with everything in it."""
    before = core.read_namespace(team.agents).metadata.uid
    state = exported(team)
    for end, former in FORMER_NAMES.items():
        assert f'::{SANDBOX}-{end}"' in state
        state = state.replace(f'::{SANDBOX}-{end}"', f'::{former}"')
    file = team.where.folder / "former.json"
    file.write_text(state)
    engine.run(team.where, "import", ["stack", "import", "--stack", team.where.name, "--file", str(file)])
    assert f"::{SANDBOX}-agents-namespace" not in exported(team)
    report = team.up()
    assert not {"created", "updated", "replaced", "deleted"} & set(report.split())
    assert core.read_namespace(team.agents).metadata.uid == before
    assert f"::{SANDBOX}-agents-namespace" in exported(team)


def exported(team: Team) -> str:
    return engine.run(team.where, "export", ["stack", "export", "--stack", team.where.name])


def test_destroy_leaves_nothing_of_the_team(team: Team, core: client.CoreV1Api) -> None:
    team.run("destroy", "--yes", "--skip-preview", "--refresh")
    left = {each.metadata.name for each in core.list_namespace().items}
    assert left.isdisjoint({team.sandboxes, team.agents})
