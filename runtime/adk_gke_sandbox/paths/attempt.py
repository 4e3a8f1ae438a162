"""One attempt to run a program in a sandbox: how far it has come, when it is given up, calls that are tried again.

It knows nothing of Jobs or pools: every way to a sandbox goes through the same stages, under the same deadlines.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final, TypeVar

from adk_gke_sandbox.errors import ClusterError, Conflict, Gone, Unreachable
from adk_gke_sandbox.execution import Event, Output, Started, Timings

T = TypeVar("T")

TICK_SECONDS: Final = 0.2
"""How often a wait looks at the clock, and whether the caller has given up."""

BACKOFF_SECONDS: Final = 0.3
BACKOFF_MAX_SECONDS: Final = 10.0

UNREACHABLE_SECONDS: Final = 10.0
"""How long an API server that has never answered is tried: it is a wrong address more often than a restart."""

START_SECONDS: Final = 2.0
"""How long after the schedule deadline a program may still start in a container that runs."""

REPLY_SECONDS: Final = 5.0
"""How long the rest of a reply is awaited in silence: after the program's timeout, and after each part of it."""

CALL_SECONDS: Final = 5.5
"""How long after both timeouts together a reply is still read.

With the deletion that follows, a call returns within ten seconds after both, as the documentation promises.
"""

_jitter: Final = random.SystemRandom()
"""Apart from the shared generator of ``random``, which the application may have seeded."""


class Clock:
    """The time of this machine, and the only ways to wait."""

    def now(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until an event is set, or the seconds are over; return whether it is set."""
        return event.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Wait for some time."""
        time.sleep(seconds)


class Stage(IntEnum):
    """How far an attempt has come. Each stage is reached once, in this order; an attempt may end after any of them.

        BEGUN ──> SUBMITTED ──> RUNNING ──> STARTED ──> EXITED ──> COLLECTED ──> DELETED
          └───────────┴────────────┴───────────┴──────────┴──────────>┘

    Up to RUNNING the schedule timeout applies, from STARTED on the program's own. From RUNNING on the program may have
    begun, so that it is never run again.
    """

    BEGUN = 0
    SUBMITTED = 1
    """All objects are created. Nothing runs yet."""
    RUNNING = 2
    """The container runs or has run. The program need not have begun."""
    STARTED = 3
    """The program has begun."""
    EXITED = 4
    """The program has ended. Its files, and the rest of its output, may still be on their way."""
    COLLECTED = 5
    """Nothing more is read: the reply is complete, or given up."""
    DELETED = 6
    """The deletion is accepted, or goes on in the background."""


class Interrupted(Exception):
    """A wait ended because the caller gave up, or because a deadline passed.

    Attributes:
        aborted: Whether it was the caller.
    """

    def __init__(self, *, aborted: bool) -> None:
        super().__init__("aborted" if aborted else "a deadline passed")
        self.aborted = aborted


@dataclass(kw_only=True, eq=False)
class Attempt:
    """The clock, the deadlines and the progress of one attempt; every wait and every call goes through it.

    Attributes:
        schedule_seconds: Time for everything before the program starts.
        program_seconds: Time of the program.
        aborted: Asked every 0.2 s; true interrupts.
        on_event: Told of the program's start and of its output, once each. Must not block.
        clock: Time.
        begin: When the schedule timeout began, on the clock; ``None`` means now.
        answered: Whether the API server has ever answered.
        trouble: The error of the last call, if it failed.
        wake: Set by streams when there is something to read.
    """

    schedule_seconds: float
    program_seconds: float
    aborted: Callable[[], bool]
    on_event: Callable[[Event], object] = lambda _: None
    clock: Clock = field(default_factory=Clock)
    begin: float | None = None
    answered: bool = False
    trouble: ClusterError | None = field(default=None, init=False)
    wake: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        self._begin = self._progress = self.clock.now() if self.begin is None else self.begin
        self._reached = {Stage.BEGUN: self._begin}
        self._told = -1

    def again(self) -> Attempt:
        """Return the next attempt at the same execution; the schedule timeout goes on."""
        return replace(self, begin=self._begin)

    def question(self, seconds: float) -> Attempt:
        """Return an attempt for one more call to the API server, with a deadline of its own and the same caller."""
        return Attempt(schedule_seconds=seconds, program_seconds=0, aborted=self.aborted, clock=self.clock)

    # Progress

    def reach(self, stage: Stage) -> None:
        """Note that the attempt has come so far; only the first time counts."""
        self._reached.setdefault(stage, self.clock.now())

    def has(self, stage: Stage) -> bool:
        """Return whether the attempt has come so far. COLLECTED and DELETED do not count: all attempts reach them."""
        return any(stage <= reached < Stage.COLLECTED for reached in self._reached)

    def tell(self, number: int, output: Output | None) -> None:
        """Tell the caller of a frame of the reply, unless it was told of it by an earlier reading.

        Args:
            number: The frame's; it came from a program that may have run.
            output: What it brought, if that is output.
        """
        if self._told < 0:
            self.on_event(Started())
        if number > self._told:
            self._told = number
            if output is not None:
                self.on_event(output)

    def progress(self) -> None:
        """Note that a part of the reply has arrived, so that its rest is worth waiting for."""
        self._progress = self.clock.now()

    def seconds_since(self, stage: Stage) -> float:
        """Return the seconds since a stage was reached; 0 if it was not."""
        return self.clock.now() - self._reached.get(stage, self.clock.now())

    def timings(self, program_seconds: float | None) -> Timings:
        """Return how long the phases took.

        Args:
            program_seconds: The program's own time, measured inside; ``None`` if nobody knows.
        """
        # A phase in which the attempt ended lasted until the next stage that there is; those after it take no time.
        at = [self._reached[Stage.DELETED]]
        for stage in (Stage.COLLECTED, Stage.STARTED, Stage.RUNNING, Stage.SUBMITTED):
            at.insert(0, self._reached.get(stage, at[0]))
        submit, schedule, start, ran, delete = (b - a for a, b in pairwise([self._begin, *at]))
        run = ran if program_seconds is None else min(ran, program_seconds)
        return Timings(submit=submit, schedule=schedule, start=start, run=run, collect=ran - run, delete=delete)

    # Deadlines

    @property
    def schedule_deadline(self) -> float:
        """When the program must have started, on the clock."""
        return self._begin + self.schedule_seconds

    @property
    def deadline(self) -> float:
        """When the attempt is given up, on the clock; what runs in the pod keeps the program's own timeout."""
        if not self.has(Stage.STARTED):
            return self.schedule_deadline + (START_SECONDS if self.has(Stage.RUNNING) else 0)
        last = self.schedule_deadline + self.program_seconds + CALL_SECONDS
        return min(max(self.program_deadline, self._progress) + REPLY_SECONDS, last)

    @property
    def arriving(self) -> bool:
        """Whether parts of the reply have arrived after the program's time was over."""
        return self._progress > self.program_deadline

    @property
    def program_deadline(self) -> float:
        """When the program's time is over, on the clock."""
        return self._reached.get(Stage.STARTED, self._begin) + self.program_seconds

    def check(self) -> None:
        """Look at the caller and at the clock.

        Raises:
            Interrupted: the caller gave up, or the deadline has passed.
        """
        if self.aborted():
            raise Interrupted(aborted=True)
        if self.clock.now() > self.deadline:
            raise Interrupted(aborted=False)

    # Waits and calls

    def wait(self) -> None:
        """Wait until a stream has something to read, or for 0.2 s; then check.

        Raises:
            Interrupted: the caller gave up, or the deadline has passed.
        """
        self.clock.wait(self.wake, TICK_SECONDS)
        # Cleared before the streams are read, so that what arrives meanwhile sets it again.
        self.wake.clear()
        self.check()

    def pause(self, seconds: float) -> None:
        """Wait for some time whatever arrives, and check meanwhile.

        Raises:
            Interrupted: the caller gave up, or the deadline has passed.
        """
        until = self.clock.now() + seconds
        self.check()
        while (left := until - self.clock.now()) > 0:
            self.clock.sleep(min(left, TICK_SECONDS))
            self.check()

    def call(self, call: Callable[[], T], undo: Callable[[T], Any] = lambda _: None) -> T:
        """Make a call of the API; again and again while it fails for reasons that pass.

        Args:
            call: The call. It must be safe to repeat.
            undo: Gets the answer of a call that was given up while it was on its way.

        Raises:
            ClusterError: the cluster refuses, or the deadline leaves no time for another try.
            Interrupted: the caller gave up, or the deadline has passed.
        """
        tries = 0
        while True:
            try:
                answer = self.interruptible(call, undo)
            except ClusterError as error:
                self.answered, self.trouble = self.answered or error.status is not None, error
                wait, tries = backoff(error, tries), tries + 1
                if not transient(error) or self.clock.now() + wait > self._until(error):
                    raise
                self.pause(wait)
            else:
                self.answered, self.trouble = True, None
                return answer

    def _until(self, error: ClusterError) -> float:
        """Return until when a call that failed like this is tried again, on the clock."""
        if isinstance(error, Unreachable) and not self.answered:
            return min(self._begin + UNREACHABLE_SECONDS, self.deadline)
        return self.deadline

    def interruptible(self, call: Callable[[], T], undo: Callable[[T], Any] = lambda _: None) -> T:
        """Make a call that may block, and check before it and meanwhile.

        Args:
            call: Runs in a thread of its own, which ends with the call even when nobody waits for it any more.
            undo: Gets the answer of a call that was given up.

        Raises:
            Interrupted: the caller gave up, or the deadline has passed. Whatever the call raises is raised, too.
        """
        self.check()
        future: Future[T] = Future()
        done = threading.Event()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            done.set()

        def undone(late: Future[T]) -> None:
            if not late.exception():
                # Never in the caller's thread: undoing may take long, too.
                threading.Thread(target=undo, args=(late.result(),), name="adk-gke-sandbox-undo", daemon=True).start()

        threading.Thread(target=work, name="adk-gke-sandbox-call", daemon=True).start()
        try:
            while not self.clock.wait(done, TICK_SECONDS):
                self.check()
        except BaseException:
            future.add_done_callback(undone)
            raise
        return future.result()


def transient(error: ClusterError) -> bool:
    """Return whether the same call may succeed later."""
    # The storage's own bound is told as a 500.
    passing = error.status == 429 or ((error.status or 0) >= 500 and not error.too_large)
    return passing or isinstance(error, (Unreachable, Conflict, Gone))


def backoff(error: ClusterError, attempt: int) -> float:
    """Return the seconds to wait before trying again: what the server asks for, else doubling from 0.3 to 10 s."""
    if error.retry_after_seconds is not None:
        return error.retry_after_seconds
    # Executions that failed together do not come back together.
    return min(BACKOFF_SECONDS * 2.0**attempt, BACKOFF_MAX_SECONDS) * _jitter.uniform(0.8, 1.2)
