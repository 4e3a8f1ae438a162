"""Pulumi's configuration of the running stack as keyword arguments of frozen dataclasses.

Knows how a field is called as a key and how a value is read, and no single setting. A field ``some_name`` is the
key ``adk-gke-sandbox:someName``; the two that belong to Google's provider keep its names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, Final

import pulumi
import yaml
from pulumi.runtime.config import CONFIG

from adk_gke_sandbox.errors import ConfigError

PROJECT: Final = "adk-gke-sandbox"

_PROVIDER_KEYS: Final = MappingProxyType({"project": "gcp:project", "region": "gcp:region"})
"""Keys under which Google's provider is configured everywhere else, too
(https://www.pulumi.com/registry/packages/gcp/installation-configuration/)."""


def key(field_name: str) -> str:
    """Return what follows ``pulumi config set`` for a field: ``cpu_limit`` is ``cpuLimit``."""
    if field_name in _PROVIDER_KEYS:
        return _PROVIDER_KEYS[field_name]
    first, *rest = field_name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def full_key(field_name: str) -> str:
    """Return the key with its namespace, as stack files have it."""
    name = key(field_name)
    return name if ":" in name else f"{PROJECT}:{name}"


def shown(field_name: str, value: Any) -> str:
    """Return key and value as a message has them."""
    value = dict(value) if isinstance(value, Mapping) else value
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else repr(value)
    return f"{full_key(field_name)}={text}"


def choose(field_name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ConfigError: it is not.
    """
    if value not in (choices := list(choices)):
        raise ConfigError(
            f"{shown(field_name, value)} is none of {', '.join(choices)}", repair(field_name, "|".join(choices))
        )


def repair(field_name: str, example: str, verb: str = "Set") -> str:
    """Return the command that sets a field."""
    return f"{verb} it with `pulumi config set {key(field_name)} {example}`"


def settings_of(group: type) -> tuple[Field[Any], ...]:
    """Return the fields of a group that are keys of the configuration."""
    return tuple(entry for entry in fields(group) if entry.metadata.get("setting", True))


def read(*groups: type) -> Iterator[dict[str, Any]]:
    """Yield for each group the keyword arguments that the configuration gives.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type.
    """
    known = [entry.name for group in groups for entry in settings_of(group)]
    _refuse_unknown({**CONFIG.get(), **pulumi.runtime.config.get_config_env()}, [key(name) for name in known])
    for group in groups:
        found = {}
        for entry in settings_of(group):
            namespace, _, name = full_key(entry.name).partition(":")
            text = pulumi.Config(namespace).get(name)
            if text is not None:
                found[entry.name] = _converted(entry.name, text, str(entry.type))
        yield found


def _refuse_unknown(config: Mapping[str, Any], known: Iterable[str]) -> None:
    known = list(known)
    for full in sorted(config):
        namespace, _, name = full.partition(":")
        if namespace != PROJECT or name in known:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"{full} is not a setting",
            (f"Did you mean {close[0]}? " if close else f"There are: {', '.join(known)}. ")
            + f"Remove it with `pulumi config rm {name}`",
        )


def _converted(name: str, text: str, kind: str) -> Any:
    if kind == "int":
        # Not what int() takes: 1_000 is a number in Python only.
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ConfigError(f"{shown(name, text)} is not a whole number", repair(name, "NUMBER"))
        return int(text)
    if kind == "bool":
        if text not in ("true", "false"):
            raise ConfigError(f"{shown(name, text)} is neither true nor false", repair(name, "true|false"))
        return text == "true"
    if kind.startswith("Mapping"):
        labels = _parsed(text)
        if not isinstance(labels, dict) or not all(isinstance(item, str) for pair in labels.items() for item in pair):
            raise ConfigError(
                f"{shown(name, text)} does not map names to strings",
                # Without the type, true and numbers would not be strings; without brackets, dots would nest.
                f"Set it with `pulumi config set --path '{key(name)}[\"LABEL\"]' VALUE --type string`",
            )
        return MappingProxyType(labels)
    if kind.startswith("tuple"):
        items = _parsed(text)
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise ConfigError(
                f"{shown(name, text)} is not a list of strings",
                f"Set it with `pulumi config set --path '{key(name)}[0]' VALUE`",
            )
        return tuple(items)
    return text


def _parsed(text: str) -> Any:
    """Return a structured value: the engine hands it over as JSON."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
