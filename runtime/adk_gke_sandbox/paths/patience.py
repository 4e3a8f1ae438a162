"""Waiting that never forgets to look up: at an abort, at the clock. Pure but for time and threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from adk_gke_sandbox.errors import ClusterError, Conflict, Gone, Unreachable

T = TypeVar("T")

TICK_SECONDS: Final = 0.2
"""How often a wait looks up."""

BACKOFF_SECONDS: Final = 0.3
BACKOFF_MAX_SECONDS: Final = 10.0

_jitter: Final = random.SystemRandom()
"""Not the module's own generator: the application may have seeded that one, and counts on its numbers."""


def transient(error: ClusterError) -> bool:
    """Return whether the same call may succeed later."""
    return isinstance(error, (Unreachable, Conflict, Gone)) or error.status == 429 or (error.status or 0) >= 500


def backoff(error: ClusterError, attempt: int) -> float:
    """Return the seconds to wait before trying again: what the server asks for, else doubling from 0.3 to 10 s."""
    if error.retry_after_seconds is not None:
        return error.retry_after_seconds
    # Executions that failed together do not come back together.
    return min(BACKOFF_SECONDS * 2.0**attempt, BACKOFF_MAX_SECONDS) * _jitter.uniform(0.8, 1.2)


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Wait, and look up meanwhile; ``check`` raises to end it."""
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        check()


def interruptible(
    call: Callable[[], T], check: Callable[[], None], abandoned: Callable[[T], Any] = lambda _: None
) -> T:
    """Make a call that may block, and look up before it and meanwhile.

    Args:
        call: Runs in a thread of its own, which ends with the call even when nobody waits for it any more.
        check: Raises to give the call up.
        abandoned: Gets the answer of a call that was given up, to undo it.
    """
    check()
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="adk-gke-sandbox-call", daemon=True).start()
    try:
        while True:
            try:
                return future.result(timeout=TICK_SECONDS)
            except TimeoutError:
                if future.done():
                    return future.result()
                check()
    except BaseException:
        future.add_done_callback(lambda done: None if done.exception() else abandoned(done.result()))
        raise
