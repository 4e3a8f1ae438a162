"""How a resource type is described: a table of what is known of each field, and functions for what is no table.

The tables are `tables/*.yaml`; their keys are the attributes of `Kind` and `Field`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from standin.cloud import Json, World
from standin.schema import Problem
from standin.wire import UNKNOWN

CLUSTER: Final = "gcp:container/cluster:Cluster"
POOL: Final = "gcp:container/nodePool:NodePool"
NETWORK: Final = "gcp:compute/network:Network"
SUBNETWORK: Final = "gcp:compute/subnetwork:Subnetwork"
ROUTER: Final = "gcp:compute/router:Router"
FORWARDING_RULE: Final = "gcp:compute/forwardingRule:ForwardingRule"
ACCOUNT: Final = "gcp:serviceaccount/account:Account"
KEY: Final = "gcp:kms/cryptoKey:CryptoKey"
KEY_MEMBER: Final = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
LOG_BUCKET: Final = "gcp:logging/projectBucketConfig:ProjectBucketConfig"
LOG_SINK: Final = "gcp:logging/projectSink:ProjectSink"
REPOSITORY: Final = "gcp:artifactregistry/repository:Repository"
SERVICE: Final = "gcp:projects/service:Service"
SERVICE_IDENTITY: Final = "gcp:projects/serviceIdentity:ServiceIdentity"

_TABLES: Final = Path(__file__).parent / "tables"


@dataclass(slots=True, kw_only=True)
class Field:
    """What is known of one field of a resource type.

    Attributes:
        keep: "Optional and computed": left out, what Google has stays, and that is no difference.
        read_only: Google's alone ("computed"), although the SDK takes it.
        new: A change means a new resource.
        new_when_off: Switching it off means a new resource.
        unordered: A set: the order of its items is no difference.
        default: What the provider takes for a field that is left out.
        values: The only ones that the provider takes; empty is any.
        same: Name of the rule by which two values are no difference.
        rewrites: Name of the form in which Google gives a value back.
    """

    keep: bool = False
    read_only: bool = False
    new: bool = False
    new_when_off: bool = False
    unordered: bool = False
    default: Any = None
    values: list[str] = field(default_factory=list)
    same: str = ""
    rewrites: str = ""


PLAIN: Final = Field()


def _nothing(_world: World, _inputs: Json) -> None:
    pass


def _no_outputs(_world: World, _state: Json) -> Json:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One resource type.

    Attributes:
        token: Its name in Pulumi.
        service: The API that it belongs to.
        permission: What creating one takes.
        identity: Resource id, with the inputs in braces.
        naming: Input that gets a name when the program gives none.
        adds: Inputs that the provider adds.
        unknown: Nested outputs that a preview cannot know.
        fields: Path without indexes (``nodeConfig.spot``) -> what is known of it.
        answers: What Google says of fields that are left out.
        check: Returns what the provider refuses before any call to the API.
        admit: Raises what the API answers to a create that cannot work.
        release: Raises what the API answers to a delete that cannot work.
        outputs: Returns what Google adds to, and changes in, the state that the tables give.
    """

    token: str
    service: str
    permission: str
    identity: str
    naming: str | None = None
    adds: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    fields: Mapping[str, Field] = field(default_factory=dict)
    answers: Json = field(default_factory=dict)
    check: Callable[[Json], list[Problem]] = lambda _: []
    admit: Callable[[World, Json], None] = _nothing
    release: Callable[[World, Json], None] = _nothing
    outputs: Callable[[World, Json], Json] = _no_outputs

    def field(self, path: str) -> Field:
        """Return what is known of a field; indexes in its path do not count."""
        return self.fields.get(re.sub(r"\[\d+\]", "", path), PLAIN)


@cache
def table(name: str) -> Mapping[str, Json]:
    """Return the table of a group of types, by type."""
    return dict(yaml.load((_TABLES / f"{name}.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader))


def kind(group: str, token: str, **rules: Any) -> Kind:
    """Return a type: its table, with the functions that go with it."""
    row = table(group)[token]
    fields: dict[str, Field] = defaultdict(Field)
    for flag in ("keep", "new"):
        for parent, names in (row.get(flag) or {}).items():
            for name in names:
                setattr(fields[name if parent == "." else f"{parent}.{name}"], flag, True)
    for flag in ("read_only", "new_when_off", "unordered"):
        for path in row.get(flag, ()):
            setattr(fields[path], flag, True)
    for key in ("default", "values"):
        for path, value in row.get(key, {}).items():
            setattr(fields[path], key, value)
    for key in ("same", "rewrites"):
        for rule, paths in row.get(key, {}).items():
            for path in paths:
                setattr(fields[path], key, rule)
    plain = {key: row[key] for key in ("service", "permission", "identity", "naming", "adds", "answers") if key in row}
    return Kind(token=token, unknown=tuple(row.get("unknown", ())), fields=dict(fields), **plain, **rules)


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
