"""What Google has of a resource after a create or an update, and what a refresh makes of it."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

from standin import schema
from standin.cloud import Json
from standin.kinds import Kind, visible
from standin.wire import UNKNOWN


def settled(kind: Kind, inputs: Json, before: Json | None = None) -> Json:
    """Return the state by the tables: inputs in Google's form, and Google's word for all that was left out."""
    return _settled(kind, schema.properties(kind.token), "", visible(inputs), before or {}, kind.answers)


def _settled(kind: Kind, known: schema.Properties, path: str, given: Json, before: Json, answers: Json) -> Json:
    state: Json = {}
    for key, inner in known.items():
        where = f"{path}.{key}" if path else key
        field = kind.field(where)
        value = given.get(key)
        if inner is not None and isinstance(value, dict):
            old = before.get(key)
            state[key] = _settled(
                kind, inner, where, value, old if isinstance(old, dict) else {}, answers.get(key) or {}
            )
        elif isinstance(value, list) and inner is not None:
            state[key] = [_settled(kind, inner, where, each, {}, {}) for each in value]
        elif value is not None:
            state[key] = rewritten(field.rewrites, value)
        else:
            kept = before.get(key) if field.keep else None
            # Of a block that is no "computed" one, Google says nothing if it is left out.
            said = answers.get(key) if field.keep or inner is None else None
            fallback = next((each for each in (kept, said, field.default) if each is not None), None)
            if fallback is not None:
                state[key] = copy.deepcopy(fallback)
    return state


def rewritten(form: str, value: Any) -> Any:
    """Return a value in the form in which Google gives it back."""
    if value == UNKNOWN:
        return value
    match form:
        case "utc":
            return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "path_of_link":
            return re.sub(r"^https://[^/]+/compute/v1/", "", value)
    return value


def read(inputs: Any, state: Any) -> Any:
    """Return inputs as a refresh leaves them: of what the program once gave, what Google now says."""
    if isinstance(inputs, dict) and isinstance(state, dict):
        return {
            key: value if key.startswith("__") else read(value, state[key])
            for key, value in inputs.items()
            if key.startswith("__") or key in state
        }
    if isinstance(inputs, list) and isinstance(state, list) and len(inputs) == len(state):
        return [read(*each) for each in zip(inputs, state, strict=True)]
    return state
