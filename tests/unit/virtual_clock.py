"""A clock that does not make tests wait: its time passes when its owner waits in vain."""

from __future__ import annotations

import threading
import time
from typing import Final

from adk_gke_sandbox.paths.attempt import TICK_SECONDS, Clock

SPEED: Final = 10
"""How much faster it is than real time, which threads that answer need."""

WORK_SECONDS: Final = 5
"""What another thread gets to do what it was started for, such as a deletion; on a busy machine it takes its time."""


class VirtualClock(Clock):
    """Time of the thread that made it. Other threads wait for real, and their waiting moves nothing."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._owner = threading.get_ident()

    def now(self) -> float:
        return self._now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.wait(seconds / SPEED if seconds <= TICK_SECONDS else WORK_SECONDS):
            self._pass(seconds)
        return event.is_set()

    def sleep(self, seconds: float) -> None:
        time.sleep(0.001 if self._owned else seconds / SPEED)
        self._pass(seconds)

    @property
    def _owned(self) -> bool:
        return threading.get_ident() == self._owner

    def _pass(self, seconds: float) -> None:
        if self._owned:
            self._now += seconds
