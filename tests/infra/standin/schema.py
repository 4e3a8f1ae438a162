"""What keys a resource takes, read from the argument types of `pulumi_gcp`.

The SDK itself checks the dicts that it takes in place of those types against nothing. Importing it takes seconds, and
the engine starts its plugins for every run: what was read is kept in a file.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import threading
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

from standin.wire import UNKNOWN

Problem = tuple[str, str]
"""Path of a property and what is wrong with it, in the words of the real provider."""

Shape = Any
"""A type as plain data: its name, a list with the shape of its items, or a mapping that is an object's: ``keys`` with
their shapes, and which of them are ``required``."""

Properties = Mapping[str, "Properties | None"]
"""Keys of an object -> those of the object, or of each object of the list, that is there; ``None`` is a plain value."""


def problems(token: str, inputs: Mapping[str, Any]) -> list[Problem]:
    """Return unknown keys, missing keys and values of the wrong type, in nested objects too."""
    return list(_object(arguments(token), inputs, ""))


def keys(token: str) -> frozenset[str]:
    """Return the top-level keys that a resource takes."""
    return frozenset(arguments(token)["keys"])


@cache
def properties(token: str) -> Properties:
    """Return the top-level keys that a resource takes, with what is inside each."""
    return _inside(arguments(token)) or {}


def _inside(shape: Shape) -> Properties | None:
    if isinstance(shape, list):
        return _inside(shape[0])
    return {key: _inside(each) for key, each in shape["keys"].items()} if isinstance(shape, dict) else None


def provider_keys() -> frozenset[str]:
    """Return the keys of the provider's own configuration, and those that the engine adds."""
    return keys("gcp::Provider") | {"version", "pluginDownloadURL", "__internal"}


@cache
def arguments(token: str) -> Shape:
    """Return the shape of a resource's arguments, such as ``gcp:container/nodePool:NodePool``."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "adk-gke-sandbox", "standin")
    # Another SDK, or another way to read it, has files of its own.
    kind = f"{version('pulumi_gcp')}-{crc32(Path(__file__).read_bytes()):08x}"
    kept = folder / f"{token.replace('/', '.').replace(':', '.')}-{kind}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        temporary.write_text(json.dumps(_read(token)), encoding="utf-8")
        temporary.replace(kept)
    return json.loads(kept.read_text(encoding="utf-8"))


def _read(token: str) -> Shape:
    """Return the shape of a resource's arguments as the SDK has them."""
    _, path, name = token.split(":")
    # The SDK's own deprecated classes warn when their module is loaded, which is when it is first looked into.
    with _LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module(".".join(filter(None, ("pulumi_gcp", path.split("/")[0]))))
        return _shape(getattr(module, f"{name}Args"))


_LOADING = threading.Lock()
"""The SDK loads a module when it is first looked into, and two threads at once see half of it."""


def _shape(kind: Any) -> Shape:
    from pulumi import _types

    # The plain type in ``Input[T]``: the generated unions put it first.
    while typing.get_origin(kind) is typing.Union:
        kind = typing.get_args(kind)[0]
    origin = typing.get_origin(kind)
    if origin is not None and issubclass(origin, Sequence):
        return [_shape(typing.get_args(kind)[0])]
    if origin is not None and issubclass(origin, Mapping):
        return "map"
    if not (isinstance(kind, type) and _types.is_input_type(kind)):
        return kind.__name__ if kind in (str, int, float, bool) else "any"
    names = _types.input_type_py_to_pulumi_names(kind)
    # The generated `__init__` is wrapped by nothing; its first parameter is `__self__`.
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    required = [names[each.name] for each in parameters if each.default is each.empty and each.name in names]
    known = _types.input_type_types(kind)
    return {"keys": {key: _shape(each) for key, each in known.items()}, "required": sorted(required)}


def not_allowed(kind: Any, inputs: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the texts that are none of those that a field takes.

    Args:
        kind: The `Kind`, with its fields.
        inputs: The inputs of the resource.
    """
    return _not_allowed(kind, inputs, "", "")


def _not_allowed(kind: Any, value: Any, path: str, shown: str) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        inside = f"{shown}.0." if shown else ""
        for key, item in value.items():
            yield from _not_allowed(kind, item, f"{path}.{key}" if path else key, inside + _snake(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_allowed(kind, item, f"{path}[{index}]", shown)
    elif isinstance(value, str) and value != UNKNOWN and (allowed := kind.field(path).values) and value not in allowed:
        listed = " ".join(f'"{each}"' for each in allowed)
        yield path, f"expected {shown} to be one of [{listed}], got {value}"


def _object(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key.startswith("__"):
            continue
        if key not in shape["keys"]:
            yield where, "Invalid or unknown key"
        else:
            yield from _item(shape["keys"][key], item, where)
    for key in shape["required"]:
        if value.get(key) is None:
            yield (
                f"{path}.{key}" if path else key,
                f'Missing required argument. The argument "{_snake(key)}" is required, but no definition was found.',
            )


def _item(shape: Shape, value: Any, path: str) -> Iterator[Problem]:
    if value is None or value == UNKNOWN:
        return
    wanted = {list: "a list", dict: "an object"}.get(type(shape), f"a {shape}")
    if isinstance(shape, list) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _item(shape[0], item, f"{path}[{index}]")
    elif isinstance(shape, dict) and isinstance(value, dict):
        yield from _object(shape, value, path)
    elif isinstance(shape, (list, dict)) or not _fits(shape, value):
        yield path, f"expected {wanted}, got {_name(value)}"


def _fits(name: str, value: Any) -> bool:
    if name in ("map", "any"):
        return name == "any" or isinstance(value, dict)
    # As in the real provider, text that reads as a number or a boolean is one, and the reverse.
    if name == "bool":
        return isinstance(value, bool) or value in ("true", "false")
    if isinstance(value, (dict, list)):
        return False
    if name in ("int", "float") and isinstance(value, str):
        return value.lstrip("-").replace(".", "", 1).isdigit()
    return True


def _name(value: Any) -> str:
    return {dict: "object", list: "list"}.get(type(value), type(value).__name__)


def _snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
