"""Failures to order: which operation fails next, how, and in Google's words.

A test writes them with `order`; the plugin looks at each operation. Texts are those that Google's APIs and
the Terraform provider print, taken from public bug reports; names and numbers in them are ours.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from standin.cloud import Cloud, CloudError, Json


class Fault(StrEnum):
    """A way in which an operation fails."""

    QUOTA = "quota"
    """Refused at once; nothing was made."""

    STOCK_OUT = "stock-out"
    """A pool whose machines never come: the API made the pool, and the wait for it failed."""

    DENIED = "denied"
    """Whoever runs the engine lacks a permission."""

    HANG = "hang"
    """Made, but the answer never comes: for tests that kill the engine meanwhile."""


class HalfMade(Exception):
    """What the provider answers if the resource exists although its creation failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One failure.

    Attributes:
        fault: What happens.
        verb: ``create``, ``update`` or ``delete``.
        type: Last part of the resource type, such as ``NodePool``.
        name: Logical name; empty is any.
        times: How often.
    """

    fault: Fault
    verb: str
    type: str
    name: str = ""
    times: int = 1


HANG_SECONDS: Final = 600.0


def order(cloud: Cloud, *orders: Order) -> None:
    """Let these operations fail from now on; no order at all lets all succeed again."""
    cloud.folder.mkdir(parents=True, exist_ok=True)
    _write(cloud.faults, [asdict(each) for each in orders])


def ordered(cloud: Cloud, verb: str, kind: str, name: str) -> Fault | None:
    """Return how this operation is to fail, and count it."""
    if not cloud.faults.exists():
        return None
    with cloud.change():  # one process and thread at a time
        orders: list[Json] = json.loads(cloud.faults.read_text(encoding="utf-8"))
        for each in orders:
            if (
                each["times"] > 0
                and each["verb"] == verb
                and each["type"] == kind.rsplit(":", 1)[1]
                and each["name"] in ("", name)
            ):
                each["times"] -= 1
                _write(cloud.faults, orders)
                return Fault(each["fault"])
    return None


def _write(path: Path, orders: list[Json]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(orders), encoding="utf-8")
    temporary.replace(path)


def before(fault: Fault | None, verb: str, kind: str, permission: str, inputs: Json) -> None:
    """Raise what the API answers at once."""
    project = inputs.get("project")
    prefix = "error creating NodePool: " if verb == "create" and kind.endswith(":NodePool") else ""
    if fault is Fault.QUOTA:
        raise CloudError(
            f'{prefix}googleapi: Error 403: Insufficient regional quota to satisfy request: resource "CPUS": request '
            "requires '12.0' and is short '4.0'. project has a quota of '8.0' with '8.0' available. View and manage "
            f"quotas at https://console.cloud.google.com/iam-admin/quotas?usage=USED&project={project}., forbidden"
        )
    if fault is Fault.DENIED:
        raise CloudError(
            f'{prefix}googleapi: Error 403: Required "{permission}" permission(s) for "projects/{project}"., forbidden'
        )


def after(fault: Fault | None, inputs: Json) -> None:
    """Raise what the wait for a finished operation answers."""
    if fault is Fault.STOCK_OUT:
        zone = f"{inputs.get('location')}-b" if str(inputs.get("location")).count("-") == 1 else inputs.get("location")
        raise HalfMade(
            "Error waiting for creating GKE NodePool: Google Compute Engine: Not all instances running in IGM after "
            f"35m4.033429035s. Expected 1, running 0, transitioning 1. Current errors: [GCE_STOCKOUT]: Instance "
            f"'gke-{inputs['name']}-97da88a9-8gmv' creation failed: The zone 'projects/{inputs['project']}/zones/"
            f"{zone}' does not have enough resources available to fulfill the request. '(resource type:compute)'."
        )
    if fault is Fault.HANG:
        time.sleep(HANG_SECONDS)
