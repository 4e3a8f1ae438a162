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

from standin.cloud import Cloud, CloudError, Json, World
from standin.kinds import POOL, Kind


class Fault(StrEnum):
    """A way in which an operation fails."""

    QUOTA = "quota"
    """Refused at once; nothing was made."""

    STOCK_OUT = "stock-out"
    """A pool whose machines never come: the API made the pool, and its state is an error."""

    ERROR = "error"
    """A cluster whose creation ends in an error: it is there with its first pool, and without an endpoint."""

    GRANT_LATE = "grant-late"
    """A grant that was made and does not act yet."""

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
FIRST_POOL: Final = "default-pool"


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


def before(fault: Fault | None, verb: str, kind: Kind, inputs: Json) -> None:
    """Raise what the API answers at once."""
    project = inputs.get("project")
    prefix = "error creating NodePool: " if verb == "create" and kind.token == POOL else ""
    if fault is Fault.QUOTA:
        raise CloudError(
            f'{prefix}googleapi: Error 403: Insufficient regional quota to satisfy request: resource "CPUS": request '
            "requires '12.0' and is short '4.0'. project has a quota of '8.0' with '8.0' available. View and manage "
            f"quotas at https://console.cloud.google.com/iam-admin/quotas?usage=USED&project={project}., forbidden"
        )
    if fault is Fault.GRANT_LATE:
        raise CloudError(
            f"{prefix}googleapi: Error 400: Cloud KMS key used for encryption is not usable: Permission "
            "'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource 'a-key' (or it may not exist)., badRequest"
        )


def half_made(fault: Fault | None, world: World, identity: str) -> None:
    """Leave behind what a creation leaves that ends in an error.

    The provider removes the first pool only after a creation that succeeds, and has read nothing by then
    (`resourceContainerClusterCreate`,
    https://github.com/hashicorp/terraform-provider-google/blob/main/google/services/container/resource_container_cluster.go).
    """
    if fault is Fault.ERROR:
        made = world.resources[identity]
        made["outputs"]["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["endpoint"] = ""
        first_pool(world, identity)


def first_pool(world: World, cluster: str) -> None:
    """Give a cluster the pool that each begins with."""
    pool = f"{cluster}/nodePools/{FIRST_POOL}"
    record = {"type": POOL, "id": pool, "name": "", "inputs": {"cluster": cluster}, "outputs": {"name": FIRST_POOL}}
    world.resources[pool] = record


def after(fault: Fault | None, inputs: Json) -> None:
    """Raise what the wait for a finished operation answers."""
    if fault is Fault.STOCK_OUT:
        # What the API said of the machines ("GCE_STOCKOUT") is lost: the provider looks at the pool's state alone
        # (`resourceContainerNodePoolCreate`).
        raise HalfMade(f'NodePool {inputs["name"]} was created in the error state "RUNNING_WITH_ERROR"')
    if fault is Fault.ERROR:
        raise HalfMade(
            "Error waiting for creating GKE cluster: All cluster resources were brought up, but: only 0 nodes out of "
            "3 have registered; cluster may be unhealthy."
        )
    if fault is Fault.HANG:
        time.sleep(HANG_SECONDS)
