"""What an ADK session says of its executions so far: the files that were named by number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

_NUMBERED: Final = re.compile(r"(figure|stdout|stderr)_([0-9]{1,9})\.[a-z]+")

_CONTEXT: Final = "_code_execution_context"
"""The part of the state that ADK's flow writes with each result, to outlast the execution."""

_LATEST: Final = "adk_gke_sandbox_latest"


def next_number(context: Any, *kinds: str) -> int:
    """Return the first number that no file of these kinds has in the session, so that none hides an earlier one.

    Args:
        context: ADK's invocation context, or what stands for it.
        kinds: What the names begin with, for example ``figure``.
    """
    session = getattr(context, "session", None)
    events = getattr(session, "events", None)
    # Events may be left out of a session that is loaded. An agent that is the tool of another one has a session of its
    # own each time; its state is the other's.
    names = _latest(session)
    for event in events if isinstance(events, list) else []:
        saved = getattr(getattr(event, "actions", None), "artifact_delta", None)
        names += saved if isinstance(saved, dict) else ()
    return 1 + max((number for number, kind, _ in _numbered(names) if kind in kinds), default=0)


def remember(context: Any, names: Iterable[str]) -> None:
    """Keep the latest file of each kind in the session, where ADK's flow keeps anything."""
    session = getattr(context, "session", None)
    latest = {kind: name for _, kind, name in sorted(_numbered([*_latest(session), *names]))}
    if latest:
        _kept(session)[_LATEST] = [*latest.values()]


def _numbered(names: Iterable[str]) -> Iterable[tuple[int, str, str]]:
    return [(int(found[2]), found[1], found[0]) for found in map(_NUMBERED.fullmatch, names) if found]


def _latest(session: Any) -> list[str]:
    return list(_kept(session).get(_LATEST, ()))


def _kept(session: Any) -> dict[str, Any]:
    """Return what ADK's flow keeps of executions; something that nobody keeps where the flow keeps nothing."""
    state = getattr(session, "state", None)
    context = state.get(_CONTEXT) if isinstance(state, dict) else None
    return context if isinstance(context, dict) else {}
