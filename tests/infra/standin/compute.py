"""Networks, as Compute Engine would have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from standin.cloud import CloudError, Json, World
from standin.kinds import CLUSTER, FORWARDING_RULE, NETWORK, ROUTER, SUBNETWORK, Kind, kind, short, table
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
    for network in known(world, kind):
        if short(network["outputs"]["selfLink"]) == short(reference):
            return network
    what = "networks" if kind == NETWORK else "subnetworks"
    raise CloudError(f"googleapi: Error 404: The resource '{what}/{short(reference)}' was not found, notFound")


def known(world: World, kind: str) -> list[Json]:
    """Return all networks or subnetworks, those that were there before any stack among them."""
    theirs = table("theirs")["subnetwork"]
    link = theirs["network"] if kind == NETWORK else theirs["selfLink"]
    return [*world.of(kind), {"inputs": theirs, "outputs": {**theirs, "selfLink": link}}]


def looked_up(world: World, wanted: Json) -> Json:
    """Return a subnetwork as the data source has it.

    Raises:
        CloudError: there is none of that name in that project and region.
    """
    for each in known(world, SUBNETWORK):
        if all(each["outputs"][key] == wanted.get(key) for key in ("name", "project", "region")):
            return {**each["outputs"], "id": each["outputs"]["selfLink"]}
    where = "projects/{project}/regions/{region}/subnetworks/{name}".format(**wanted)
    raise CloudError(f"{where} not found")


def _release_network(world: World, outputs: Json) -> None:
    for each in (SUBNETWORK, ROUTER, CLUSTER, FORWARDING_RULE):
        for user in world.of(each):
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


def _in_its_network(world: World, inputs: Json) -> None:
    existing(world, NETWORK, inputs["network"])


def _linked(collection: str) -> Callable[[World, Json], Json]:
    return lambda _, state: {"selfLink": _link(collection, state)}


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        token: kind("compute", token, **rules)
        for token, rules in {
            NETWORK: {"check": _compute_name, "release": _release_network, "outputs": _linked("networks")},
            SUBNETWORK: {
                "check": _compute_name,
                "admit": _in_its_network,
                "release": _release_subnetwork,
                "outputs": _linked("subnetworks"),
            },
            ROUTER: {"check": _compute_name, "admit": _in_its_network, "outputs": _linked("routers")},
            "gcp:compute/routerNat:RouterNat": {},
            "gcp:compute/firewall:Firewall": {"check": _compute_name, "admit": _in_its_network},
        }.items()
    }
)
