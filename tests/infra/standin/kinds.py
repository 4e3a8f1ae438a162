"""How a resource type is described, and how its inputs are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from standin.cloud import Json, World
from standin.schema import Problem
from standin.wire import UNKNOWN

CLUSTER: Final = "gcp:container/cluster:Cluster"
POOL: Final = "gcp:container/nodePool:NodePool"
NETWORK: Final = "gcp:compute/network:Network"
SUBNETWORK: Final = "gcp:compute/subnetwork:Subnetwork"
ROUTER: Final = "gcp:compute/router:Router"
ACCOUNT: Final = "gcp:serviceaccount/account:Account"
KEY: Final = "gcp:kms/cryptoKey:CryptoKey"
KEY_MEMBER: Final = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
REPOSITORY: Final = "gcp:artifactregistry/repository:Repository"

EVERY: Final = frozenset({"*"})
"""All inputs."""


def _nothing(_world: World, _inputs: Json) -> None:
    pass


def _no_outputs(_world: World, _inputs: Json) -> Json:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One resource type.

    Attributes:
        service: The API that it belongs to.
        permission: What creating one takes.
        identity: Resource id, with the inputs in braces.
        naming: Input that gets a name when the program gives none.
        replaces: Inputs (with dots for nested ones) whose change means a new resource; ``*`` is all.
        defaults: Inputs that the provider adds.
        check: Returns what the provider refuses before any call to the API.
        admit: Raises what the API answers to a create that cannot work.
        release: Raises what the API answers to a delete that cannot work.
        outputs: Returns what Google adds to the inputs.
        unknown: Nested outputs that a preview cannot know.
    """

    service: str
    permission: str
    identity: str
    naming: str | None = None
    replaces: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Json], list[Problem]] = lambda _: []
    admit: Callable[[World, Json], None] = _nothing
    release: Callable[[World, Json], None] = _nothing
    outputs: Callable[[World, Json], Json] = _no_outputs
    unknown: tuple[str, ...] = ()

    def other(self, verb: str) -> str:
        """Return the permission for another verb than create."""
        return f"{self.permission.rsplit('.', 1)[0]}.{verb}"


def at(inputs: Any, path: str) -> Any:
    """Return a nested value, or ``None``; a list of one object is that object."""
    for key in path.split("."):
        if isinstance(inputs, list):
            inputs = inputs[0] if inputs else None
        if not isinstance(inputs, dict):
            return UNKNOWN if inputs == UNKNOWN else None
        inputs = inputs.get(key)
    return inputs


def short(reference: Any) -> str:
    """Return the name at the end of a self link or resource id."""
    return str(reference).rsplit("/", 1)[-1]


def version_key(version: str) -> tuple[int, ...]:
    """Return a GKE version as numbers: ``1.35.2-gke.1269000`` is (1, 35, 2, 1269000)."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def visible(values: Json) -> Json:
    """Return inputs without the provider's own notes."""
    return {key: value for key, value in values.items() if not key.startswith("__")}
