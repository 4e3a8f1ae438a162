"""Executions whose agent run was cancelled: found and ended, which ADK itself has no means for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from google.adk.plugins.base_plugin import BasePlugin

_running: Final[dict[threading.Event, tuple[str, str]]] = {}
"""Flags that end the executions of this process, with ADK's invocation and agent. Each call of a dict is atomic."""


@contextmanager
def cancellable(context: Any) -> Iterator[threading.Event]:
    """Make an execution one that ``cancel`` finds; return the flag that ends it."""
    flag = threading.Event()
    _running[flag] = _key(context)
    try:
        yield flag
    finally:
        del _running[flag]


def cancel(context: Any) -> int:
    """End all executions of the agent in the invocation; return how many there were."""
    flags = [flag for flag, key in _running.copy().items() if key == _key(context)]
    for flag in flags:
        flag.set()
    return len(flags)


def _key(context: Any) -> tuple[str, str]:
    agent = getattr(context, "agent_name", None) or getattr(getattr(context, "agent", None), "name", "")
    return str(getattr(context, "invocation_id", "")), str(agent)


class CancelPlugin(BasePlugin):
    """Ends the executions of an agent run whose task was cancelled; give it to the ``Runner`` or the ``App``.

    ADK does not tell executors of a cancelled task (only of an abort): without this plugin a program that nobody waits
    for runs on until its timeout. An agent that ends while a program of its own still runs was cancelled.
    """

    def __init__(self, name: str = "adk_gke_sandbox_cancel") -> None:
        super().__init__(name=name)

    async def after_agent_callback(self, *, agent: Any, callback_context: Any) -> None:  # noqa: ARG002 - ADK calls by name
        """Called by ADK when an agent has ended, by cancellation too."""
        cancel(callback_context)
