"""Networks, as Compute Engine would have them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from standin.cloud import CloudError, Json, World
from standin.kinds import CLUSTER, NETWORK, ROUTER, SUBNETWORK, Kind, short
from standin.schema import Problem
from standin.wire import UNKNOWN

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


def _check_subnetwork(inputs: Json) -> list[Problem]:
    found = _compute_name(inputs)
    for path, value in _ranges(inputs).items():
        try:
            ipaddress.ip_network(value)
        except ValueError:
            found.append((path, f'"{path}" is not a valid CIDR: invalid CIDR address: {value}'))
    return found


def _ranges(inputs: Json) -> dict[str, str]:
    secondary = inputs.get("secondaryIpRanges") or []
    ranges = {f"secondaryIpRanges[{index}].ipCidrRange": each["ipCidrRange"] for index, each in enumerate(secondary)}
    found = {"ipCidrRange": inputs.get("ipCidrRange"), **ranges}
    return {path: value for path, value in found.items() if value not in (None, UNKNOWN)}


def _admit_subnetwork(world: World, inputs: Json) -> None:
    network = existing(world, NETWORK, inputs["network"])
    taken = [
        (ipaddress.ip_network(each), other["outputs"]["selfLink"])
        for other in world.of(SUBNETWORK)
        if short(other["inputs"]["network"]) == short(network["outputs"]["selfLink"])
        for each in _ranges(other["inputs"]).values()
    ]
    for value in _ranges(inputs).values():
        mine = ipaddress.ip_network(value)
        for theirs, owner in taken:
            if mine.overlaps(theirs):
                raise CloudError(
                    "Error waiting to create Subnetwork: Error waiting for Creating Subnetwork: "
                    f"Invalid IPCidrRange: {value} conflicts with existing subnetwork '{short(owner)}' "
                    f"in region '{inputs['region']}'."
                )
        taken.append((mine, inputs["name"]))


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
            check=_check_subnetwork,
            admit=_admit_subnetwork,
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
