"""Networks, as Compute Engine would have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from standin.cloud import CloudError, Json, World
from standin.kinds import CLUSTER, NETWORK, ROUTER, SUBNETWORK, Kind, short
from standin.schema import Problem

_COMPUTE_NAME: Final = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"


def _compute_name(inputs: Json) -> list[Problem]:
    name = inputs["name"]
    if re.fullmatch(_COMPUTE_NAME, name):
        return []
    return [("name", f'"name" ("{name}") doesn\'t match regexp "^(?:{_COMPUTE_NAME})$"')]


def _link(collection: str, inputs: Json) -> str:
    where = "global" if collection == "networks" else f"regions/{inputs.get('region')}"
    return f"https://www.googleapis.com/compute/v1/projects/{inputs['project']}/{where}/{collection}/{inputs['name']}"


def existing(world: World, kind: str, reference: Any) -> Json:
    """Return the network or subnetwork that an input names.

    Raises:
        CloudError: there is none.
    """
    for network in world.of(kind):
        if short(network["outputs"]["selfLink"]) == short(reference):
            return network
    what = "networks" if kind == NETWORK else "subnetworks"
    raise CloudError(f"googleapi: Error 404: The resource '{what}/{short(reference)}' was not found, notFound")


def _release_network(world: World, outputs: Json) -> None:
    for kind in (SUBNETWORK, ROUTER, CLUSTER):
        for user in world.of(kind):
            if short(user["inputs"].get("network")) == outputs["name"]:
                raise CloudError(
                    "Error waiting for Deleting Network: The network resource "
                    f"'projects/{outputs['project']}/global/networks/{outputs['name']}' is already being used by "
                    f"'{user['id']}'"
                )


def _release_subnetwork(world: World, outputs: Json) -> None:
    for user in world.of(CLUSTER):
        if short(user["inputs"].get("subnetwork")) == outputs["name"]:
            raise CloudError(
                "Error waiting for Deleting Subnetwork: The subnetwork resource "
                f"'{outputs['name']}' is already being used by '{user['id']}'"
            )


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        NETWORK: Kind(
            service="compute.googleapis.com",
            permission="compute.networks.create",
            identity="projects/{project}/global/networks/{name}",
            naming="name",
            replaces=frozenset({"name", "project", "autoCreateSubnetworks", "description"}),
            check=_compute_name,
            release=_release_network,
            outputs=lambda _, inputs: {"selfLink": _link("networks", inputs), "numericId": "1", "networkId": "1"},
        ),
        SUBNETWORK: Kind(
            service="compute.googleapis.com",
            permission="compute.subnetworks.create",
            identity="projects/{project}/regions/{region}/subnetworks/{name}",
            naming="name",
            replaces=frozenset({"name", "project", "region", "network", "description", "purpose"}),
            check=_compute_name,
            admit=lambda world, inputs: (existing(world, NETWORK, inputs["network"]), None)[1],
            release=_release_subnetwork,
            outputs=lambda _, inputs: {"selfLink": _link("subnetworks", inputs), "subnetworkId": 1},
        ),
        ROUTER: Kind(
            service="compute.googleapis.com",
            permission="compute.routers.create",
            identity="projects/{project}/regions/{region}/routers/{name}",
            naming="name",
            replaces=frozenset({"name", "project", "region", "network"}),
            check=_compute_name,
            admit=lambda world, inputs: (existing(world, NETWORK, inputs["network"]), None)[1],
            outputs=lambda _, inputs: {"selfLink": _link("routers", inputs)},
        ),
        "gcp:compute/routerNat:RouterNat": Kind(
            service="compute.googleapis.com",
            permission="compute.routers.update",
            identity="{project}/{region}/{router}/{name}",
            naming="name",
            replaces=frozenset({"name", "project", "region", "router"}),
        ),
        "gcp:compute/firewall:Firewall": Kind(
            service="compute.googleapis.com",
            permission="compute.firewalls.create",
            identity="projects/{project}/global/firewalls/{name}",
            naming="name",
            replaces=frozenset({"name", "project", "network", "direction"}),
            check=_compute_name,
            admit=lambda world, inputs: (existing(world, NETWORK, inputs["network"]), None)[1],
        ),
    }
)
