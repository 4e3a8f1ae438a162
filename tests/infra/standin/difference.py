"""What an update would change: new inputs against the last state, as Terraform's SDK compares them.

The state is what Google answered, not what the program once asked for
(`schemaMap.Diff`, https://github.com/hashicorp/terraform-plugin-sdk/blob/main/helper/schema/schema.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from standin import schema
from standin.cloud import Json
from standin.kinds import Field, Kind, at, short, visible
from standin.wire import UNKNOWN

_CHANGES: Final = provider_pb2.PropertyDiff
_KINDS_OF_CHANGE: Final = {
    ("add", False): _CHANGES.ADD,
    ("add", True): _CHANGES.ADD_REPLACE,
    ("delete", False): _CHANGES.DELETE,
    ("delete", True): _CHANGES.DELETE_REPLACE,
    ("update", False): _CHANGES.UPDATE,
    ("update", True): _CHANGES.UPDATE_REPLACE,
}

_GOOGLES_LABEL: Final = re.compile(r"^goog-|\.google\.com/|\.gke\.io/")

Change = tuple[str, Any, Any]
"""Path, value in the state, value in the inputs."""


def difference(kind: Kind, state: Json, before: Json, after: Json, ignored: Sequence[str] = ()) -> Any:
    """Return the engine's answer: what changed, and whether that means a new resource.

    Args:
        kind: The resource type.
        state: What Google answered last.
        before: The last inputs.
        after: The new inputs.
        ignored: Paths whose changes the program does not want to see.
    """
    news = visible(after)
    detailed = {}
    replaces = []
    for path, old, new in _changes(kind, schema.properties(kind.token), "", state, news, news):
        if any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in ignored):
            continue
        forced = _forces(kind, path, old, new)
        if forced:
            replaces.append(path)
        change = "add" if _empty(old) else "delete" if new is None else "update"
        detailed[path] = _CHANGES(kind=_KINDS_OF_CHANGE[change, forced], inputDiff=True)
    named = kind.naming and kind.naming not in (before.get("__defaults") or [])
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if detailed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({re.split(r"[.\[]", path)[0] for path in detailed}),
        replaces=replaces,
        detailedDiff=detailed,
        hasDetailedDiff=True,
        # Two resources cannot have one name.
        deleteBeforeReplace=bool(replaces and named and before.get(kind.naming) == news.get(kind.naming)),
    )


def _changes(kind: Kind, known: schema.Properties, path: str, old: Json, new: Json, inputs: Json) -> Iterator[Change]:
    """Yield every difference between an object in the state and the same one in the inputs."""
    for key, inner in known.items():
        where = f"{path}.{key}" if path else key
        yield from _change(kind, inner, where, old.get(key), new.get(key), inputs)


def _change(
    kind: Kind, inner: schema.Properties | None, path: str, old: Any, new: Any, inputs: Json
) -> Iterator[Change]:
    field = kind.field(path)
    if field.read_only:
        return
    if new is None:
        if field.keep:
            return
        new = field.default
    if _same(field, old, new, inputs):
        return
    if inner is not None and isinstance(old, dict) and isinstance(new, dict):
        yield from _changes(kind, inner, path, old, new, inputs)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        if field.unordered:
            old, new = (sorted(each, key=_canonical) for each in (old, new))
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _change(kind, inner, f"{path}[{index}]", before, after, inputs)
    else:
        yield path, old, new


def _same(field: Field, old: Any, new: Any, inputs: Json) -> bool:
    """Whether two values are no difference; a block that is there with nothing in it is one to a block that is not."""
    if old == new or (new is None and _empty(old)):
        return True
    if field.same == "googles_labels":
        return _ours(old) == _ours(new)
    if new == UNKNOWN or isinstance(new, dict) or isinstance(old, dict):
        return field.same == "on_autopilot" and inputs.get("enableAutopilot") is True
    match field.same:
        case "name_of_link":
            return short(old) == short(new)
        case "any_case":
            return str(old).lower() == str(new).lower()
        case "on_autopilot" if inputs.get("enableAutopilot") is True:
            return True
    if isinstance(old, list) and isinstance(new, list):
        return False  # item by item
    return _text(old) == _text(new)


def _ours(labels: Json | None) -> Json:
    return {key: value for key, value in (labels or {}).items() if not _GOOGLES_LABEL.search(key)}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _text(value: Any) -> str:
    """Return a scalar as the provider compares it: as text, and nothing is the same as a zero."""
    return "" if _empty(value) else str(value).lower() if isinstance(value, bool) else str(value)


def _empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_empty, value.values()))
    return value in (None, "", False, 0, [], "0", "false")


def _forces(kind: Kind, path: str, old: Any, new: Any) -> bool:
    """Whether a change means a new resource: by the field itself, or by one inside a block that came or went."""
    field = kind.field(path)
    if field.new or kind.field("*").new:
        return True
    if field.new_when_off:
        return bool(old) and not new
    plain = re.sub(r"\[\d+\]", "", path) + "."
    return any(
        each.new and inside.startswith(plain) and not _empty(at(old or new, inside.removeprefix(plain)))
        for inside, each in kind.fields.items()
        if isinstance(old or new, (dict, list))
    )
