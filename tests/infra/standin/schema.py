"""What keys a resource takes, read from the argument types of `pulumi_gcp`.

The SDK itself checks the dicts that it takes in place of those types against nothing.
"""

from __future__ import annotations

import importlib
import inspect
import threading
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import pulumi_gcp
from pulumi import _types

from standin.wire import UNKNOWN

_LOADING: Final = threading.Lock()

Problem = tuple[str, str]
"""Path of a property and what is wrong with it, in the words of the real provider."""


def arguments(token: str) -> type:
    """Return the argument type of a resource, such as ``gcp:container/nodePool:NodePool``."""
    _, path, name = token.split(":")
    # The SDK loads a module when it is first looked into, and two threads at once see half of it.
    with _LOADING, warnings.catch_warnings():
        # The SDK's own deprecated classes warn when their module is loaded, which is when it is first looked into.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module("pulumi_gcp." + path.split("/")[0])
        return typing.cast(type, getattr(module, f"{name}Args"))


def problems(token: str, inputs: Mapping[str, Any]) -> list[Problem]:
    """Return unknown keys, missing keys and values of the wrong type, in nested objects too."""
    return list(_object(arguments(token), inputs, ""))


Properties = Mapping[str, "Properties | None"]
"""Keys of an object -> those of the object, or of each object of the list, that is there; ``None`` is a plain value."""


def keys(token: str) -> frozenset[str]:
    """Return the top-level keys that a resource takes."""
    return frozenset(_types_of(arguments(token)))


def properties(token: str) -> Properties:
    """Return the top-level keys that a resource takes, with what is inside each."""
    return _properties(arguments(token))


@cache
def _properties(kind: type) -> Properties:
    return {key: _inside(each) for key, each in _types_of(kind).items()}


def _inside(kind: Any) -> Properties | None:
    kind = _without_promises(kind)
    origin = typing.get_origin(kind)
    if origin is not None and issubclass(origin, Sequence):
        return _inside(typing.get_args(kind)[0])
    return _properties(kind) if isinstance(kind, type) and _types.is_input_type(kind) else None


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


def provider_keys() -> frozenset[str]:
    """Return the keys of the provider's own configuration, and those that the engine adds."""
    return frozenset(_types_of(pulumi_gcp.ProviderArgs)) | {"version", "pluginDownloadURL", "__internal"}


@cache
def _types_of(kind: type) -> dict[str, Any]:
    return dict(_types.input_type_types(kind))


@cache
def _required(kind: type) -> frozenset[str]:
    names = _types.input_type_py_to_pulumi_names(kind)
    # The generated `__init__` is wrapped by nothing; its first parameter is `__self__`.
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return frozenset(names[each.name] for each in parameters if each.default is each.empty and each.name in names)


def _object(kind: type, value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    known = _types_of(kind)
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key.startswith("__"):
            continue
        if key not in known:
            yield where, "Invalid or unknown key"
        else:
            yield from _item(known[key], item, where)
    for key in sorted(_required(kind)):
        if value.get(key) is None:
            yield (
                f"{path}.{key}" if path else key,
                f'Missing required argument. The argument "{_snake(key)}" is required, but no definition was found.',
            )


def _item(kind: Any, value: Any, path: str) -> Iterator[Problem]:
    if value is None or value == UNKNOWN:
        return
    kind = _without_promises(kind)
    origin = typing.get_origin(kind)
    if origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, list):
            yield path, f"expected a list, got {_name(value)}"
            return
        for index, item in enumerate(value):
            yield from _item(typing.get_args(kind)[0], item, f"{path}[{index}]")
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield path, f"expected a map, got {_name(value)}"
    elif isinstance(kind, type) and _types.is_input_type(kind):
        if not isinstance(value, dict):
            yield path, f"expected an object, got {_name(value)}"
            return
        yield from _object(kind, value, path)
    elif kind in (str, int, float, bool) and not _fits(kind, value):
        yield path, f"expected a {kind.__name__}, got {_name(value)}"


def _without_promises(kind: Any) -> Any:
    """Return the plain type in ``Input[T]``: the generated unions put it first."""
    while typing.get_origin(kind) is typing.Union:
        kind = typing.get_args(kind)[0]
    return kind


def _fits(kind: type, value: Any) -> bool:
    # As in the real provider, text that reads as a number or a boolean is one, and the reverse.
    if kind is bool:
        return isinstance(value, bool) or value in ("true", "false")
    if isinstance(value, (dict, list)):
        return False
    if kind in (int, float) and isinstance(value, str):
        return value.lstrip("-").replace(".", "", 1).isdigit()
    return True


def _name(value: Any) -> str:
    return {dict: "object", list: "list"}.get(type(value), type(value).__name__)


def _snake(key: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)
