"""Executions whose agent run was cancelled: found and ended, which ADK itself has no means for."""

from __future__ import annotations

import threading
from typing import Any, Final

from google.adk.plugins.base_plugin import BasePlugin


class Running:
    """The executions of this process, by ADK's invocation and agent, so that they can be ended from outside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flags: dict[tuple[str, str], set[threading.Event]] = {}

    def enter(self, context: Any) -> threading.Event:
        """Return the flag that ends a new execution."""
        flag = threading.Event()
        with self._lock:
            self._flags.setdefault(_key(context), set()).add(flag)
        return flag

    def leave(self, context: Any, flag: threading.Event) -> None:
        """Forget an execution that has ended."""
        with self._lock:
            flags = self._flags.get(_key(context), set())
            flags.discard(flag)
            if not flags:
                self._flags.pop(_key(context), None)

    def cancel(self, context: Any) -> int:
        """End all executions of the agent in the invocation; return how many there were."""
        with self._lock:
            flags = list(self._flags.get(_key(context), ()))
        for flag in flags:
            flag.set()
        return len(flags)


def _key(context: Any) -> tuple[str, str]:
    agent = getattr(context, "agent_name", None) or getattr(getattr(context, "agent", None), "name", "")
    return str(getattr(context, "invocation_id", "")), str(agent)


running: Final = Running()


class CancelPlugin(BasePlugin):
    """Ends the executions of an agent run whose task was cancelled; give it to the ``Runner`` or the ``App``.

    ADK does not tell executors of a cancelled task (only of an abort): without this plugin a program that nobody waits
    for runs on until its timeout. An agent that ends while a program of its own still runs was cancelled.
    """

    def __init__(self, name: str = "adk_gke_sandbox_cancel") -> None:
        super().__init__(name=name)

    async def after_agent_callback(self, *, agent: Any, callback_context: Any) -> None:  # noqa: ARG002 - ADK calls by name
        """Called by ADK when an agent has ended, by cancellation too."""
        running.cancel(callback_context)
