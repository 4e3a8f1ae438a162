"""Pulumi's wire format <-> plain JSON values, secrets apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

UNKNOWN: Final = rpc.UNKNOWN
"""What a value that a preview cannot know looks like; it travels as a string."""

_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"


def decode(message: struct_pb2.Struct) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the values, and which top-level keys hold a secret anywhere."""
    secrets: set[str] = set()
    values = {key: _plain(value, key, secrets) for key, value in message.fields.items()}
    return values, frozenset(secrets)


def _plain(value: struct_pb2.Value, key: str, secrets: set[str]) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "list_value":
            return [_plain(item, key, secrets) for item in value.list_value.values]
        case "struct_value":
            fields = value.struct_value.fields
            if _SIGNATURE in fields:
                if fields[_SIGNATURE].string_value != _SECRET:
                    raise ValueError(f"{key} holds a kind of value that the stand-in does not know")
                secrets.add(key)
                return _plain(fields["value"], key, secrets)
            return {name: _plain(item, key, secrets) for name, item in fields.items()}
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case _:
            return None


def secret(value: Any) -> dict[str, Any]:
    """Return a value that travels as a secret, wherever it stands."""
    return {_SIGNATURE: _SECRET, "value": value}


def encode(values: Mapping[str, Any], secrets: Collection[str] = ()) -> struct_pb2.Struct:
    """Return values for the wire; the top-level keys in ``secrets`` travel as secrets."""
    message = struct_pb2.Struct()
    for key, value in values.items():
        message.fields[key].CopyFrom(_value(secret(value) if key in secrets else value))
    return message


def _value(value: Any) -> struct_pb2.Value:
    message = struct_pb2.Value()
    match value:
        case None:
            message.null_value = struct_pb2.NULL_VALUE
        case bool():
            message.bool_value = value
        case int() | float():
            message.number_value = value
        case str():
            message.string_value = value
        case list() | tuple():
            message.list_value.values.extend([_value(item) for item in value])
            if not value:
                message.list_value.Clear()
                message.list_value.SetInParent()
        case Mapping():
            message.struct_value.SetInParent()
            for key, item in value.items():
                message.struct_value.fields[key].CopyFrom(_value(item))
        case _:
            raise TypeError(f"no wire format for {type(value).__name__}")
    return message
