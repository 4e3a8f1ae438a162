"""The inputs of an estimate: prices and load from a file of the user's, quantities from the settings of a stack.

Reads files only; asks neither Google nor a cluster.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TypeVar

import pulumi
import yaml

from adk_gke_sandbox.errors import ConfigError
from adk_gke_sandbox.values import quantity
from infra import gke_checks
from infra.configuration import full_key
from infra.cost.formula import Load, Machine, Nodes, Pool, Prices, Sandbox, Stack
from infra.gke_checks import SYSTEM_DISK_GB
from infra.gke_settings import GkeSettings
from infra.settings import Settings

STACKS: Final = Path(__file__).resolve().parents[1] / "stacks"
EXAMPLE: Final = Path(__file__).with_name("example.yaml")

_GIB: Final = Decimal(1024**3)
_KEEPS_THREADS: Final = re.compile(r"[a-z]\d+[ad]-")
"""Families with AMD or Arm processors; on Intel, GKE switches hyper-threading off in gVisor pools
(https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods#smt)."""

_SECTIONS: Final = ("currency", "prices", "load", "machine")

Group = TypeVar("Group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What the name of a machine type does not tell.

    Attributes:
        vcpus: Logical processors that are switched on.
        memory_gib: Memory in GiB.
    """

    vcpus: Decimal
    memory_gib: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A file of inputs.

    Attributes:
        prices: Unit prices.
        load: How the stack is used.
        currency: What the prices are in; empty if the file does not say.
        size: Of the gVisor nodes; ``None`` where the name of their machine type tells.
    """

    prices: Prices
    load: Load
    currency: str
    size: Size | None


def read(path: Path) -> Inputs:
    """Return the inputs in a file of the form of ``example.yaml``.

    Raises:
        ConfigError: no such file, an unknown or missing name, a value that is no number or cannot be.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", f"Copy {EXAMPLE} and fill it in") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML", f"Copy {EXAMPLE} and fill it in") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} has no prices and no load", f"Copy {EXAMPLE} and fill it in")
    _refuse_unknown(document, _SECTIONS, str(path))
    prices = _numbers(document, "prices", Prices, path)
    return Inputs(
        prices=Prices(**prices),
        load=_complete(Load, _numbers(document, "load", Load, path), f"{path}: load"),
        currency=str(document.get("currency") or ""),
        size=_complete(Size, _numbers(document, "machine", Size, path), f"{path}: machine")
        if document.get("machine")
        else None,
    )


def settings(stack: str, folder: Path = STACKS) -> Settings:
    """Return the settings in a stack's file, read and checked as ``pulumi up`` does.

    Raises:
        ConfigError: no such stack, one that makes no cluster, or settings that cannot work.
    """
    path = folder / f"Pulumi.{stack}.yaml"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        found = sorted(each.name.split(".")[1] for each in folder.glob("Pulumi.*.yaml"))
        raise ConfigError(f"there is no stack file {path}", f"There are: {', '.join(found)}") from error
    config = document.get("config") or {}
    if config.get(full_key("cluster_mode"), "existing") == "existing":
        raise ConfigError(
            f"stack {stack} uses a cluster that is there already, and what that costs is not in its settings",
            "Name a stack with clusterMode standard or autopilot",
        )
    # The engine hands values over in this form, too.
    pulumi.runtime.set_all_config(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}
    )
    return Settings.from_config(stack)


def stack(of: Settings, size: Size | None) -> Stack:
    """Return what a stack that makes its cluster keeps.

    Raises:
        ConfigError: the size of its nodes is not known.
    """
    assert of.gke is not None
    environment = of.environment
    return Stack(
        nodes=None if of.cluster_mode == "autopilot" else _nodes(of.gke, size),
        sandbox=Sandbox(
            vcpus=quantity(environment.cpu_requested, setting="cpuRequested"),
            memory_gib=quantity(environment.mem_requested, setting="memRequested") / _GIB,
        ),
        keys=0 if of.gke.kms_key else 1,
        nat=environment.way_out and not of.gke.subnetwork,
        # What an exclusion filters out is not billed (https://cloud.google.com/stackdriver/pricing#logging-costs).
        logs=of.gke.sandbox_logs == "keep",
    )


def _nodes(gke: GkeSettings, size: Size | None) -> Nodes:
    size = size or _size(gke.sandbox_machine_type)
    return Nodes(
        system=Pool(floor=gke.system_nodes_min, disk_gb=SYSTEM_DISK_GB),
        sandbox=Pool(floor=gke.sandbox_nodes_min, disk_gb=gke.sandbox_disk_gb),
        machine=Machine(vcpus=size.vcpus, memory_gib=size.memory_gib, pods=gke.sandbox_pods_per_node),
    )


def _size(machine_type: str) -> Size:
    found = gke_checks.machine(machine_type)
    if found is None:
        raise ConfigError(
            f"the name of the machine type {machine_type} does not tell its size",
            "Add `machine: {vcpus: NUMBER, memory_gib: NUMBER}` to the file",
        )
    vcpus, memory_bytes = found
    usable = Decimal(vcpus) if _KEEPS_THREADS.match(machine_type) else Decimal(vcpus) / 2
    return Size(vcpus=usable, memory_gib=memory_bytes / _GIB)


def _numbers(document: Mapping[str, Any], section: str, group: type, path: Path) -> dict[str, Decimal]:
    """Return the numbers of a section; what is empty is not there."""
    given = document.get(section) or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: {section} is not a list of names with numbers", f"Write it as in {EXAMPLE}")
    _refuse_unknown(given, [entry.name for entry in fields(group)], f"{path}: {section}")
    found = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("nan")
        if isinstance(value, bool) or not number.is_finite():
            raise ConfigError(f"{path}: {section}.{name}={value!r} is not a number", "Write for example 0.25")
        found[name] = number
    return found


def _complete(group: type[Group], given: Mapping[str, Decimal], where: str) -> Group:
    missing = [entry.name for entry in fields(group) if entry.name not in given]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(f"{where} is without {', '.join(missing)}", f"{EXAMPLE} says what each is")
    return group(**given)


def _refuse_unknown(given: Mapping[str, Any], known: Any, where: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            raise ConfigError(
                f"{where} has {name!r}, which is not known",
                f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known)}",
            )
