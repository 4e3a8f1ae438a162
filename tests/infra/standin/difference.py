"""What is between two sets of inputs, and whether Google can change it in place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from standin.cloud import Json
from standin.kinds import Kind, at, visible

REPLACED_WHEN_OFF: Final = frozenset({"enableFqdnNetworkPolicy", "enableL4IlbSubsetting"})
"""Inputs of a cluster that can be switched on in place, but not off."""

_CHANGES: Final = provider_pb2.PropertyDiff
_KINDS_OF_CHANGE: Final = {
    ("add", False): _CHANGES.ADD,
    ("add", True): _CHANGES.ADD_REPLACE,
    ("delete", False): _CHANGES.DELETE,
    ("delete", True): _CHANGES.DELETE_REPLACE,
    ("update", False): _CHANGES.UPDATE,
    ("update", True): _CHANGES.UPDATE_REPLACE,
}


def difference(kind: Kind, before: Json, after: Json) -> Any:
    """Return the engine's answer: what changed, and whether that means a new resource."""
    olds, news = visible(before), visible(after)
    detailed = {}
    replaces = []
    for path, change in _changes(olds, news):
        forced = _forces(kind, path, olds, news)
        if forced:
            replaces.append(path)
        detailed[path] = _CHANGES(kind=_KINDS_OF_CHANGE[change, forced], inputDiff=True)
    named = kind.naming and kind.naming not in (before.get("__defaults") or [])
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if detailed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({re.split(r"[.\[]", path)[0] for path in detailed}),
        replaces=replaces,
        detailedDiff=detailed,
        hasDetailedDiff=True,
        # Two resources cannot have one name.
        deleteBeforeReplace=bool(replaces and named and olds.get(kind.naming) == news.get(kind.naming)),
    )


def _changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and kind of every difference between two sets of inputs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            if key not in old:
                yield inner, "add"
            elif key not in new:
                yield inner, "delete"
            else:
                yield from _changes(old[key], new[key], inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, f"{path}[{index}]")
    elif old != new:
        yield path, "update"


def _forces(kind: Kind, path: str, olds: Json, news: Json) -> bool:
    plain = re.sub(r"\[\d+\]", "", path)
    if plain in REPLACED_WHEN_OFF:
        return bool(at(olds, plain)) and not at(news, plain)
    if "*" in kind.replaces:
        return True
    # Inside a key that forces, or around it: the whole block came or went.
    return any(
        plain == key or plain.startswith(f"{key}.") or (key.startswith(f"{plain}.") and _differ(olds, news, key))
        for key in kind.replaces
    )


def _differ(olds: Json, news: Json, path: str) -> bool:
    return bool(at(olds, path) != at(news, path))
