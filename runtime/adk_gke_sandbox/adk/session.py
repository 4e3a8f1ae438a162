"""What an ADK session says of its executions so far: the numbers of the files that were named by number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

_NUMBERED: Final = re.compile(r"(figure|stdout|stderr)_([0-9]{1,9})\.[a-z]+")

_CONTEXT: Final = "_code_execution_context"
"""Where ADK's flow keeps what is to outlast an execution: it writes this part of the state with each result."""

_NUMBERS: Final = "adk_gke_sandbox_numbers"


def next_number(context: Any, *kinds: str) -> int:
    """Return the first number that no file of these kinds has in the session, so that none hides an earlier one.

    Args:
        context: ADK's invocation context, or what stands for it.
        kinds: What the names begin with, for example ``figure``.
    """
    session = getattr(context, "session", None)
    events = getattr(session, "events", None)
    found = [0]
    for event in events if isinstance(events, list) else []:
        delta = getattr(getattr(event, "actions", None), "artifact_delta", None)
        found += [number for kind, number in _numbered(delta if isinstance(delta, dict) else ()) if kind in kinds]
    # An agent that is the tool of another one has a session of its own each time, with the state of the other's.
    found += [number for kind, number in _kept(session).items() if kind in kinds and isinstance(number, int)]
    return max(found) + 1


def remember(context: Any, names: Iterable[str]) -> None:
    """Keep the numbers of an execution's files in the session, where ADK's flow keeps anything."""
    session = getattr(context, "session", None)
    numbers = dict(_kept(session))
    for kind, number in _numbered(names):
        known = numbers.get(kind)
        numbers[kind] = max(number, known if isinstance(known, int) else 0)
    if numbers:
        _flow_context(session)[_NUMBERS] = numbers


def _numbered(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    matches = (_NUMBERED.fullmatch(name) for name in names if isinstance(name, str))
    return ((match[1], int(match[2])) for match in matches if match)


def _kept(session: Any) -> dict[str, Any]:
    numbers = _flow_context(session).get(_NUMBERS)
    return numbers if isinstance(numbers, dict) else {}


def _flow_context(session: Any) -> dict[str, Any]:
    """Return what ADK's flow keeps of executions; something that nobody keeps where the flow keeps nothing."""
    state = getattr(session, "state", None)
    context = state.get(_CONTEXT) if isinstance(state, dict) else None
    return context if isinstance(context, dict) else {}
