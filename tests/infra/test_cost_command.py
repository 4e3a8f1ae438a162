"""What `python infra/cost` reads and prints: the settings of a stack, a file of prices. No price in here is real."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from adk_gke_sandbox.errors import ConfigError
from infra.cost import inputs
from infra.cost.formula import Load, Machine, Prices
from tests.infra.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
LOAD = yaml.safe_load(inputs.EXAMPLE.read_text())["load"]
PRICES = dict.fromkeys((entry.name for entry in fields(Prices)), 1)


@pytest.fixture(autouse=True)
def no_configuration() -> Any:
    yield
    pulumi.runtime.set_all_config({})


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "costs.yaml"
    path.write_text(yaml.safe_dump({"prices": PRICES, "load": LOAD, **sections}))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        inputs.read(path)
    return str(raised.value).replace(str(path), "FILE").replace(str(inputs.EXAMPLE), "EXAMPLE")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "infra" / "cost"), *map(str, arguments)]
    return subprocess.run(line, check=False, capture_output=True, text=True)


# -- the command


def test_command_prints_both_tables_and_the_month(tmp_path: Path) -> None:
    done = run("staging", written(tmp_path, currency="XTS"), "--executions", 50_000)
    assert done.returncode == 0, done.stderr
    assert "staging: a month without executions" in done.stdout
    assert "staging: 1,000 executions" in done.stdout
    assert "a month with 50,000 executions: " in done.stdout
    # 730 h of cluster and of one system node, a disk of 50 GB, a key, 2 GiB of images, 10 GiB of logs; all of 1.
    assert "1,523.00 XTS" in done.stdout


def test_command_fails_with_one_line_where_no_price_is_given() -> None:
    done = run("staging", inputs.EXAMPLE)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "infra/cost: the price cluster_hour is not given; it is for cluster management. "
        "Look it up on the page that infra/cost/example.yaml names, and write it in\n"
    )


# -- the file


def test_example_names_every_price_and_has_none() -> None:
    prices = yaml.safe_load(inputs.EXAMPLE.read_text())["prices"]
    assert set(prices) == {entry.name for entry in fields(Prices)}
    assert set(prices.values()) == {None}


def test_example_has_the_whole_load() -> None:
    assert set(LOAD) == {entry.name for entry in fields(Load)}


def test_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nix.yaml").endswith("No such file or directory. Copy EXAMPLE and fill it in")


@pytest.mark.parametrize("text", ["{", "- 1", ""])
def test_file_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text(text)
    assert refusal(path).endswith("Copy EXAMPLE and fill it in")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"price": {}}, "FILE has 'price', which is not known. Did you mean prices?"),
        (
            {"prices": {"node_hour": 1}},
            "FILE: prices has 'node_hour', which is not known. Did you mean system_node_hour?",
        ),
        ({"prices": {"log_gib": "free"}}, "FILE: prices.log_gib='free' is not a number. Write for example 0.25"),
        ({"prices": {"log_gib": True}}, "FILE: prices.log_gib=True is not a number. Write for example 0.25"),
        ({"prices": {"log_gib": ".inf"}}, "FILE: prices.log_gib='.inf' is not a number. Write for example 0.25"),
        ({"prices": {"log_gib": -1}}, "the price log_gib=-1 is negative. Give 0 or more"),
        ({"prices": 3}, "FILE: prices is not a list of names with numbers. Write it as in EXAMPLE"),
        ({"load": {**LOAD, "log_mib": None}}, "FILE: load is without log_mib. EXAMPLE says what each is"),
        ({"load": {**LOAD, "occupancy": 2}}, "occupancy=2 is more than the whole. Give at most 1"),
        ({"machine": {"vcpus": 2}}, "FILE: machine is without memory_gib. EXAMPLE says what each is"),
    ],
)
def test_value_that_cannot_be(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    assert refusal(written(tmp_path, **sections)) == message


def test_prices_are_read_as_they_are_written(tmp_path: Path) -> None:
    """A binary fraction of a price would show in the sums."""
    path = written(tmp_path, prices={"log_gib": 0.1}, currency="XTS")
    assert inputs.read(path).prices.log_gib == Decimal("0.1")
    assert inputs.read(path).currency == "XTS"


# -- the stack


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_quantities_are_what_the_program_makes(run: Run, stack: str) -> None:
    kept = inputs.stack(inputs.settings(stack), None)
    program = run(stack=stack)
    assert kept.nodes is not None
    assert kept.keys == len(program.of("CryptoKey"))
    assert kept.nat == bool(program.of("RouterNat"))
    for pool in program.of("NodePool"):
        config = pool.inputs["nodeConfig"]
        found = kept.nodes.sandbox if "sandboxConfig" in config else kept.nodes.system
        assert found.floor == pool.inputs["autoscaling"]["totalMinNodeCount"]
        assert found.disk_gb == config["bootDisk"]["sizeGb"]


def other_stack(folder: Path, **changed: Any) -> inputs.Stack:
    document = yaml.safe_load((inputs.STACKS / "Pulumi.staging.yaml").read_text())
    for name, value in changed.items():
        document["config"][f"adk-gke-sandbox:{name}"] = value
    (folder / "Pulumi.other.yaml").write_text(yaml.safe_dump(document))
    return inputs.stack(inputs.settings("other", folder), None)


@pytest.mark.parametrize(
    ("machine_type", "vcpus", "memory"),
    [
        ("n2d-standard-4", "4", "16"),
        ("n2-standard-4", "2", "16"),  # Intel: no hyper-threading under gVisor
        ("c3d-highmem-8", "8", "64"),
    ],
)
def test_machine_type_tells_its_size(tmp_path: Path, machine_type: str, vcpus: str, memory: str) -> None:
    found = other_stack(tmp_path, sandboxMachineType=machine_type)
    assert found.nodes is not None
    assert found.nodes.machine == Machine(vcpus=Decimal(vcpus), memory_gib=Decimal(memory), pods=64)


def test_machine_type_that_does_not_tell_its_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        other_stack(tmp_path, sandboxMachineType="n2d-custom-4-8192")
    assert str(raised.value) == (
        "the name of the machine type n2d-custom-4-8192 does not tell its size. "
        "Add `machine: {vcpus: NUMBER, memory_gib: NUMBER}` to the file"
    )


def test_egress_and_kept_logs_are_paid_for(tmp_path: Path) -> None:
    assert other_stack(tmp_path, egress="internet").nat
    assert other_stack(tmp_path, sandboxLogs="keep").logs
    assert not other_stack(tmp_path).logs


def test_stack_without_a_cluster_of_its_own() -> None:
    with pytest.raises(ConfigError) as raised:
        inputs.settings("local")
    assert str(raised.value) == (
        "stack local uses a cluster that is there already, and what that costs is not in its settings. "
        "Name a stack with clusterMode standard or autopilot"
    )


def test_stack_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"Pulumi\.nix\.yaml\. There are: local, prod, staging$"):
        inputs.settings("nix")
