"""What a stack costs: a formula with unit prices as inputs. Pure.

Prices are never built in: they differ by region, contract and month. Quantities of the stack come from its settings
(``inputs``). Left out, because they are other bills or come to little: model calls of agents, agents' pods on
Autopilot, operations on keys, and traffic within a region.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final

from adk_gke_sandbox.errors import ConfigError

HOURS_PER_MONTH: Final = Decimal(730)
"""365 * 24 / 12, as price lists count."""

THOUSAND: Final = Decimal(1000)
_SECONDS_PER_HOUR: Final = Decimal(3600)
_MIB_PER_GIB: Final = Decimal(1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Unit prices, all in one currency; what each is, and where it is found, is in ``example.yaml``.

    A price that the stack does not need may be ``None``.

    Raises:
        ConfigError: a price below zero.
    """

    cluster_hour: Decimal | None = None
    system_node_hour: Decimal | None = None
    sandbox_node_hour: Decimal | None = None
    system_disk_gb_month: Decimal | None = None
    sandbox_disk_gb_month: Decimal | None = None
    key_month: Decimal | None = None
    registry_gib_month: Decimal | None = None
    log_gib: Decimal | None = None
    nat_hour: Decimal | None = None
    nat_gib: Decimal | None = None
    pod_vcpu_hour: Decimal | None = None
    pod_gib_hour: Decimal | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            price = getattr(self, entry.name)
            if price is not None and price < 0:
                raise ConfigError(f"the price {entry.name}={price} is negative", "Give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A node pool.

    Attributes:
        floor: Nodes that are always there.
        disk_gb: Boot disk of a node in GB.
    """

    floor: int
    disk_gb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What a sandbox requests.

    Attributes:
        vcpus: CPU.
        memory_gib: Memory in GiB.
    """

    vcpus: Decimal
    memory_gib: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node as the scheduler sees it.

    Attributes:
        vcpus: Logical processors that are switched on.
        memory_gib: Memory in GiB.
        pods: Most pods, GKE's own included.
    """

    vcpus: Decimal
    memory_gib: Decimal
    pods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The pools of a Standard cluster.

    Attributes:
        system: For agents and GKE's own pods.
        sandbox: With gVisor.
        machine: Of the second.
    """

    system: Pool
    sandbox: Pool
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What a stack keeps, and what one execution takes.

    Attributes:
        nodes: The pools; ``None`` with Autopilot, which is paid by pod.
        sandbox: What a sandbox requests.
        keys: Keys in Cloud KMS.
        nat: Whether nodes have a way out, by Cloud NAT.
        logs: Whether what sandboxes print is stored in Cloud Logging.
    """

    nodes: Nodes | None
    sandbox: Sandbox
    keys: int
    nat: bool
    logs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How a stack is used.

    Attributes:
        run_seconds: Mean time that a program runs.
        around_seconds: Mean time that a sandbox holds its place before and after that.
        occupancy: Mean part of a node's places that are taken while the node is there; above 0, at most 1.
        executions_per_burst: Executions for which the pool grows by a node once.
        start_seconds: From the wish for a node until it takes sandboxes.
        linger_seconds: How long the autoscaler leaves a node without work.
        on_floor: Part of the executions that find room on nodes which are there anyhow; 0 to 1.
        reserved: Part of a node's CPU and memory that GKE keeps for the node and its own pods; below 1.
        reserved_pods: GKE's own pods on a node.
        log_mib: Log of an execution: its reply, encoded.
        egress_mib: Traffic of an execution through Cloud NAT.
        idle_log_gib: Log of the cluster itself in a month.
        registry_gib: Images in the stack's repositories.

    Raises:
        ConfigError: a value that cannot be.
    """

    run_seconds: Decimal
    around_seconds: Decimal
    occupancy: Decimal
    executions_per_burst: Decimal
    start_seconds: Decimal
    linger_seconds: Decimal
    on_floor: Decimal
    reserved: Decimal
    reserved_pods: Decimal
    log_mib: Decimal
    egress_mib: Decimal
    idle_log_gib: Decimal
    registry_gib: Decimal

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value < 0:
                raise ConfigError(f"{entry.name}={value} is negative", "Give 0 or more")
        for name in ("occupancy", "on_floor", "reserved"):
            if getattr(self, name) > 1:
                raise ConfigError(f"{name}={getattr(self, name)} is more than the whole", "Give at most 1")
        for name in ("occupancy", "executions_per_burst"):
            if not getattr(self, name):
                raise ConfigError(f"{name}=0 would take endlessly many nodes", "Give more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of an estimate.

    Attributes:
        what: What is paid for.
        quantity: How much of it.
        unit: In what it is measured.
        price: Price of one unit.
    """

    what: str
    quantity: Decimal
    unit: str
    price: Decimal

    @property
    def cost(self) -> Decimal:
        """Quantity times price."""
        return self.quantity * self.price


def total(lines: Iterable[Line]) -> Decimal:
    """Return what lines cost together."""
    return sum((line.cost for line in lines), Decimal(0))


def places(machine: Machine, sandbox: Sandbox, load: Load) -> int:
    """Return how many sandboxes a node takes at once: the least of what CPU, memory and pods allow.

    Raises:
        ConfigError: not even one.
    """
    left = 1 - load.reserved
    room = min(
        machine.vcpus * left // sandbox.vcpus,
        machine.memory_gib * left // sandbox.memory_gib,
        machine.pods - load.reserved_pods,
    )
    if room < 1:
        raise ConfigError(
            f"a node of {machine.vcpus} vCPU, {machine.memory_gib} GiB and {machine.pods} pods takes no sandbox of "
            f"{sandbox.vcpus} vCPU and {sandbox.memory_gib} GiB",
            "Take a larger sandboxMachineType, or lower cpuRequested, memRequested or reserved",
        )
    return int(room)


def idle(prices: Prices, stack: Stack, load: Load) -> tuple[Line, ...]:
    """Return what a month costs in which nothing is executed.

    Raises:
        ConfigError: a price is missing.
    """
    lines = [_line(prices, "cluster_hour", "cluster management", HOURS_PER_MONTH, "h")]
    if stack.nodes:
        for name, pool in (("system", stack.nodes.system), ("sandbox", stack.nodes.sandbox)):
            if pool.floor:
                hours, disk = pool.floor * HOURS_PER_MONTH, Decimal(pool.floor * pool.disk_gb)
                lines.append(_line(prices, f"{name}_node_hour", f"{name} nodes", hours, "node h"))
                lines.append(_line(prices, f"{name}_disk_gb_month", f"disks of {name} nodes", disk, "GB months"))
    lines += [
        _line(prices, "key_month", "keys", Decimal(stack.keys), "key months"),
        _line(prices, "registry_gib_month", "images", load.registry_gib, "GiB months"),
        _line(prices, "log_gib", "logs of the cluster", load.idle_log_gib, "GiB"),
    ]
    if stack.nat:
        lines.append(_line(prices, "nat_hour", "Cloud NAT", HOURS_PER_MONTH, "h"))
    return tuple(lines)


def per_thousand(prices: Prices, stack: Stack, load: Load) -> tuple[Line, ...]:
    """Return what 1,000 executions cost on top of an idle month.

    A node is paid for as a whole: the places on it that nobody takes, its start, and the time until the autoscaler
    takes it away.

    Raises:
        ConfigError: a price is missing, or a node takes no sandbox.
    """
    held = THOUSAND * (load.run_seconds + load.around_seconds) / _SECONDS_PER_HOUR
    lines = _on_nodes(prices, stack, load, held) if stack.nodes else _by_pod(prices, stack.sandbox, held)
    if stack.logs:
        lines.append(_line(prices, "log_gib", "logs of executions", THOUSAND * load.log_mib / _MIB_PER_GIB, "GiB"))
    if stack.nat:
        traffic = THOUSAND * load.egress_mib / _MIB_PER_GIB
        lines.append(_line(prices, "nat_gib", "traffic through Cloud NAT", traffic, "GiB"))
    return tuple(lines)


def _by_pod(prices: Prices, sandbox: Sandbox, held: Decimal) -> list[Line]:
    return [
        _line(prices, "pod_vcpu_hour", "CPU of pods", held * sandbox.vcpus, "vCPU h"),
        _line(prices, "pod_gib_hour", "memory of pods", held * sandbox.memory_gib, "GiB h"),
    ]


def _on_nodes(prices: Prices, stack: Stack, load: Load, held: Decimal) -> list[Line]:
    assert stack.nodes is not None
    beyond_floor = 1 - load.on_floor
    work = beyond_floor * held / (places(stack.nodes.machine, stack.sandbox, load) * load.occupancy)
    bursts = beyond_floor * THOUSAND / load.executions_per_burst
    around = bursts * (load.start_seconds + load.linger_seconds) / _SECONDS_PER_HOUR
    disk = (work + around) * stack.nodes.sandbox.disk_gb / HOURS_PER_MONTH
    return [
        _line(prices, "sandbox_node_hour", "sandbox nodes at work", work, "node h"),
        _line(prices, "sandbox_node_hour", "sandbox nodes starting or lingering", around, "node h"),
        _line(prices, "sandbox_disk_gb_month", "their disks", disk, "GB months"),
    ]


def _line(prices: Prices, name: str, what: str, quantity: Decimal, unit: str) -> Line:
    price = getattr(prices, name)
    if price is None:
        raise ConfigError(
            f"the price {name} is not given; it is for {what}",
            "Look it up on the page that infra/cost/example.yaml names, and write it in",
        )
    return Line(what=what, quantity=quantity, unit=unit, price=Decimal(price))
