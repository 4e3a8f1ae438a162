"""The cost formula, by numbers that were worked out by hand and by what must hold of any. No price in here is real."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adk_gke_sandbox.errors import ConfigError
from infra.cost.formula import (
    Line,
    Load,
    Machine,
    Nodes,
    Pool,
    Prices,
    Sandbox,
    Stack,
    idle,
    per_thousand,
    places,
    total,
)


def d(text: str) -> Decimal:
    return Decimal(text)


PRICES = Prices(
    cluster_hour=d("1"),
    system_node_hour=d("2"),
    sandbox_node_hour=d("3"),
    system_disk_gb_month=d("0.1"),
    sandbox_disk_gb_month=d("0.2"),
    key_month=d("5"),
    registry_gib_month=d("4"),
    log_gib=d("6"),
    nat_hour=d("7"),
    nat_gib=d("8"),
    pod_vcpu_hour=d("9"),
    pod_gib_hour=d("10"),
)
LOAD = Load(
    run_seconds=d("34"),
    around_seconds=d("2"),
    occupancy=d("0.5"),
    executions_per_burst=d("100"),
    start_seconds=d("120"),
    linger_seconds=d("600"),
    on_floor=d("0"),
    reserved=d("0.375"),
    reserved_pods=d("12"),
    log_mib=d("0.128"),
    egress_mib=d("1.024"),
    idle_log_gib=d("10"),
    registry_gib=d("3"),
)
SANDBOX = Sandbox(vcpus=d("0.25"), memory_gib=d("0.5"))
MACHINE = Machine(vcpus=d("4"), memory_gib=d("16"), pods=64)
STACK = Stack(
    nodes=Nodes(system=Pool(floor=2, disk_gb=50), sandbox=Pool(floor=1, disk_gb=365), machine=MACHINE),
    sandbox=SANDBOX,
    keys=2,
    nat=True,
    logs=True,
)
AUTOPILOT = replace(STACK, nodes=None, nat=False)


def costs(lines: tuple[Line, ...]) -> dict[str, Decimal]:
    return {line.what: line.cost for line in lines}


# -- worked out by hand


def test_month_without_executions() -> None:
    lines = idle(PRICES, STACK, LOAD)
    assert costs(lines) == {
        "cluster management": d("730"),  # 730 h of 1
        "system nodes": d("2920"),  # 2 nodes, 730 h of 2
        "disks of system nodes": d("10"),  # 2 disks, 50 GB of 0.1
        "sandbox nodes": d("2190"),  # 730 h of 3
        "disks of sandbox nodes": d("73"),  # 365 GB of 0.2
        "keys": d("10"),
        "images": d("12"),
        "logs of the cluster": d("60"),
        "Cloud NAT": d("5110"),  # 730 h of 7
    }
    assert total(lines) == d("11115")


def test_thousand_executions() -> None:
    """They hold a place for 36 s each, 10 h in all; a node has 10 places, of which 5 are taken on average."""
    lines = per_thousand(PRICES, STACK, LOAD)
    assert costs(lines) == {
        "sandbox nodes at work": d("6"),  # 2 h of 3
        "sandbox nodes starting or lingering": d("6"),  # 10 times 720 s, 2 h of 3
        "their disks": d("0.4"),  # 365 GB for 4 h of 730 are 2 GB months of 0.2
        "logs of executions": d("0.75"),  # 128 MiB, 0.125 GiB of 6
        "traffic through Cloud NAT": d("8"),  # 1024 MiB, 1 GiB of 8
    }
    assert total(lines) == d("21.15")


def test_thousand_executions_on_autopilot_are_paid_by_pod() -> None:
    assert costs(per_thousand(PRICES, AUTOPILOT, LOAD)) == {
        "CPU of pods": d("22.5"),  # 10 h of a quarter vCPU of 9
        "memory of pods": d("50"),  # 10 h of half a GiB of 10
        "logs of executions": d("0.75"),
    }


def test_autopilot_has_no_nodes_to_pay_for() -> None:
    assert set(costs(idle(PRICES, AUTOPILOT, LOAD))) == {"cluster management", "keys", "images", "logs of the cluster"}


def test_pool_that_scales_to_zero_costs_nothing_idle() -> None:
    assert STACK.nodes is not None
    stack = replace(STACK, nodes=replace(STACK.nodes, sandbox=Pool(floor=0, disk_gb=365)))
    assert "sandbox nodes" not in costs(idle(PRICES, stack, LOAD))


def test_closed_network_has_no_nat_to_pay_for() -> None:
    stack = replace(STACK, nat=False)
    assert "Cloud NAT" not in costs(idle(PRICES, stack, LOAD))
    assert "traffic through Cloud NAT" not in costs(per_thousand(PRICES, stack, LOAD))


def test_logs_that_are_not_stored_cost_nothing() -> None:
    assert "logs of executions" not in costs(per_thousand(PRICES, replace(STACK, logs=False), LOAD))


def test_executions_on_nodes_that_are_there_anyhow_cost_their_logs_only() -> None:
    lines = costs(per_thousand(PRICES, replace(STACK, nat=False), replace(LOAD, on_floor=d("1"))))
    assert {what for what, cost in lines.items() if cost} == {"logs of executions"}


@pytest.mark.parametrize(
    ("sandbox", "fit"),
    [
        (Sandbox(vcpus=d("0.25"), memory_gib=d("0.5")), 10),  # of 2.5 vCPU that are left
        (Sandbox(vcpus=d("0.1"), memory_gib=d("3")), 3),  # of 10 GiB
        (Sandbox(vcpus=d("0.01"), memory_gib=d("0.1")), 52),  # 64 pods, 12 of them GKE's
        (Sandbox(vcpus=d("0.2"), memory_gib=d("0.5")), 12),  # 12 and a half
    ],
)
def test_places_of_a_node_are_the_least_of_cpu_memory_and_pods(sandbox: Sandbox, fit: int) -> None:
    assert places(MACHINE, sandbox, LOAD) == fit


# -- what is refused


def test_node_without_room_for_one_sandbox() -> None:
    with pytest.raises(ConfigError) as raised:
        places(MACHINE, Sandbox(vcpus=d("3"), memory_gib=d("1")), LOAD)
    assert str(raised.value) == (
        "a node of 4 vCPU, 16 GiB and 64 pods takes no sandbox of 3 vCPU and 1 GiB. "
        "Take a larger sandboxMachineType, or lower cpuRequested, memRequested or reserved"
    )


def test_missing_price_says_what_it_is_for_and_where_it_is_found() -> None:
    with pytest.raises(ConfigError) as raised:
        idle(replace(PRICES, system_node_hour=None), STACK, LOAD)
    assert str(raised.value) == (
        "the price system_node_hour is not given; it is for system nodes. "
        "Look it up on the page that infra/cost/example.yaml names, and write it in"
    )


def test_price_that_is_not_needed_may_be_missing() -> None:
    prices = replace(PRICES, pod_vcpu_hour=None, pod_gib_hour=None)
    assert total(per_thousand(prices, STACK, LOAD)) == d("21.15")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"run_seconds": d("-1")}, "run_seconds=-1 is negative. Give 0 or more"),
        ({"occupancy": d("1.5")}, "occupancy=1.5 is more than the whole. Give at most 1"),
        ({"on_floor": d("2")}, "on_floor=2 is more than the whole. Give at most 1"),
        ({"occupancy": d("0")}, "occupancy=0 would take endlessly many nodes. Give more than 0"),
        ({"executions_per_burst": d("0")}, "executions_per_burst=0 would take endlessly many nodes. Give more than 0"),
    ],
)
def test_load_that_cannot_be(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        replace(LOAD, **change)
    assert str(raised.value) == text


def test_negative_price() -> None:
    with pytest.raises(ConfigError, match=r"^the price log_gib=-1 is negative\. Give 0 or more$"):
        replace(PRICES, log_gib=d("-1"))


# -- what holds of any

amounts = st.decimals(min_value=0, max_value=1000, places=3)
some = st.decimals(min_value=d("0.01"), max_value=1000, places=2)
parts = st.decimals(min_value=0, max_value=1, places=2)
prices_ = st.builds(Prices, **{entry.name: amounts for entry in fields(Prices)})
loads = st.builds(
    Load,
    **{entry.name: amounts for entry in fields(Load)}
    | {
        "occupancy": st.decimals(min_value=d("0.01"), max_value=1, places=2),
        "executions_per_burst": some,
        "on_floor": parts,
        "reserved": st.decimals(min_value=0, max_value=d("0.5"), places=2),
        "reserved_pods": st.integers(min_value=0, max_value=16).map(Decimal),
    },
)
pools = st.builds(Pool, floor=st.integers(0, 20), disk_gb=st.integers(30, 500))
machines = st.builds(
    Machine,
    vcpus=st.integers(2, 64).map(Decimal),
    memory_gib=st.integers(4, 256).map(Decimal),
    pods=st.integers(20, 256),
)
stacks = st.builds(
    Stack,
    nodes=st.one_of(st.none(), st.builds(Nodes, system=pools, sandbox=pools, machine=machines)),
    sandbox=st.builds(
        Sandbox,
        vcpus=st.decimals(min_value=d("0.05"), max_value=1, places=2),
        memory_gib=st.decimals(min_value=d("0.125"), max_value=2, places=3),
    ),
    keys=st.integers(0, 3),
    nat=st.booleans(),
)
NEARLY = pytest.approx


@given(prices_, stacks, loads)
def test_doubled_prices_double_the_cost(prices: Prices, stack: Stack, load: Load) -> None:
    doubled = Prices(**{entry.name: 2 * getattr(prices, entry.name) for entry in fields(Prices)})
    for estimate in (idle, per_thousand):
        assert total(estimate(doubled, stack, load)) == NEARLY(2 * total(estimate(prices, stack, load)))


@given(stacks, loads)
def test_nothing_costs_anything_where_all_prices_are_zero(stack: Stack, load: Load) -> None:
    free = Prices(**{entry.name: Decimal(0) for entry in fields(Prices)})
    assert total(idle(free, stack, load)) == total(per_thousand(free, stack, load)) == 0


@given(prices_, stacks, loads, amounts)
def test_longer_programs_never_cost_less(prices: Prices, stack: Stack, load: Load, more: Decimal) -> None:
    longer = replace(load, run_seconds=load.run_seconds + more)
    assert total(per_thousand(prices, stack, longer)) >= total(per_thousand(prices, stack, load))


@given(prices_, stacks, loads, parts)
def test_fuller_nodes_never_cost_more(prices: Prices, stack: Stack, load: Load, more: Decimal) -> None:
    fuller = replace(load, occupancy=min(load.occupancy + more, Decimal(1)))
    assert total(per_thousand(prices, stack, fuller)) <= total(per_thousand(prices, stack, load))


@given(prices_, stacks, loads, st.integers(1, 10))
def test_executions_do_not_change_an_idle_month(prices: Prices, stack: Stack, load: Load, factor: int) -> None:
    busier = replace(load, run_seconds=load.run_seconds * factor, log_mib=load.log_mib * factor)
    assert idle(prices, stack, busier) == idle(prices, stack, load)


@given(prices_, stacks, loads, st.integers(1, 10))
def test_a_node_on_the_floor_costs_its_machine_and_its_disk(
    prices: Prices, stack: Stack, load: Load, more: int
) -> None:
    if stack.nodes is None:
        return
    sandbox = stack.nodes.sandbox
    larger = replace(stack, nodes=replace(stack.nodes, sandbox=replace(sandbox, floor=sandbox.floor + more)))
    assert prices.sandbox_node_hour is not None
    assert prices.sandbox_disk_gb_month is not None
    each = 730 * prices.sandbox_node_hour + sandbox.disk_gb * prices.sandbox_disk_gb_month
    grown = total(idle(prices, larger, load)) - total(idle(prices, stack, load))
    assert grown == NEARLY(more * each)
