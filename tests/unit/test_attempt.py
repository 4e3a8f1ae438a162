from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest

from adk_gke_sandbox.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Unauthorized,
    Unreachable,
)
from adk_gke_sandbox.paths.attempt import TICK_SECONDS, Attempt, Interrupted, Stage, backoff, transient
from tests.unit.virtual_clock import VirtualClock


def error(
    kind: type[ClusterError] = ClusterError, status: int | None = None, after: float | None = None
) -> ClusterError:
    return kind("no", verb="get", target="jobs", status=status, retry_after_seconds=after)


def attempt(aborted: Callable[[], bool] = lambda: False, clock: VirtualClock | None = None) -> Attempt:
    return Attempt(schedule_seconds=100, program_seconds=30, aborted=aborted, clock=clock or VirtualClock())


def after(looks: int) -> Callable[[], bool]:
    """Return a caller who gives up at the look after that many."""
    left = iter(range(looks))
    return lambda: next(left, None) is None


@pytest.mark.parametrize(
    ("failure", "passes"),
    [
        (error(Unreachable), True),
        (error(Conflict, 409), True),
        (error(Gone, 410), True),
        (error(status=429), True),
        (error(status=500), True),
        (error(status=503), True),
        (error(status=400), False),
        (error(status=422), False),
        (error(Unauthorized, 401), False),
        (error(Forbidden, 403), False),
        (error(NotFound, 404), False),
        (error(AlreadyExists, 409), False),
    ],
    ids=lambda value: f"{type(value).__name__} {value.status}" if isinstance(value, ClusterError) else "",
)
def test_only_what_may_pass_is_worth_another_try(failure: ClusterError, passes: bool) -> None:
    assert transient(failure) is passes


def test_the_wait_before_another_try_doubles_to_ten_seconds_and_is_never_the_same_for_two() -> None:
    for attempt, middle in enumerate((0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 10, 10)):
        waits = {backoff(error(status=503), attempt) for _ in range(50)}
        assert min(waits) >= middle * 0.8
        assert max(waits) <= middle * 1.2
        assert len(waits) > 1


def test_the_wait_is_the_servers_where_it_asks_for_one() -> None:
    assert backoff(error(status=429, after=7.5), 5) == 7.5


def test_a_pause_ends_at_the_next_look_when_the_caller_gives_up() -> None:
    clock = VirtualClock()
    begin = clock.now()
    with pytest.raises(Interrupted) as found:
        attempt(after(3), clock).pause(50)
    assert found.value.aborted
    assert clock.now() - begin == pytest.approx(3 * TICK_SECONDS)


def test_a_pause_looks_before_it_waits() -> None:
    clock = VirtualClock()
    begin = clock.now()
    with pytest.raises(Interrupted):
        attempt(after(0), clock).pause(50)
    assert clock.now() == begin


def test_a_call_in_time_gives_its_answer_from_a_thread_of_its_own() -> None:
    threads: list[str] = []
    assert attempt().call(lambda: threads.append(threading.current_thread().name) or 7) == 7
    assert threads == ["adk-gke-sandbox-call"]


@pytest.mark.parametrize("raised", [error(Forbidden, 403), TimeoutError("of the call itself"), KeyboardInterrupt()])
def test_what_a_call_raises_is_raised(raised: BaseException) -> None:
    def call() -> None:
        raise raised

    with pytest.raises(type(raised)) as found:
        attempt().call(call)
    assert found.value is raised


def test_a_call_that_hangs_is_given_up_and_its_late_answer_is_undone() -> None:
    answer, undone = threading.Event(), threading.Event()
    answers: list[str] = []

    def call() -> str:
        answer.wait(10)
        return "late"

    def undo(found: str) -> None:
        answers.append(found)
        undone.set()

    with pytest.raises(Interrupted):
        attempt(after(2)).call(call, undo)
    assert answers == []
    answer.set()
    assert undone.wait(10)
    assert answers == ["late"]


def test_a_call_that_fails_after_it_was_given_up_has_nothing_to_undo() -> None:
    answer = threading.Event()
    threads: list[threading.Thread] = []
    undone: list[object] = []

    def call() -> None:
        threads.append(threading.current_thread())
        answer.wait(10)
        raise error(Forbidden, 403)

    with pytest.raises(Interrupted):
        attempt(after(2)).call(call, undone.append)
    answer.set()
    threads[0].join(10)
    assert undone == []


def test_a_call_that_fails_for_a_while_is_made_again_until_the_deadline() -> None:
    clock, calls = VirtualClock(), []

    def call() -> None:
        calls.append(clock.now())
        raise error(status=503)

    begin = clock.now()
    with pytest.raises(ClusterError, match="no"):
        attempt(clock=clock).call(call)
    assert 80 < calls[-1] - begin <= 100
    assert min(b - a for a, b in pairwise(calls)) > 0.2


def reached(*stages: Stage, clock: VirtualClock) -> Attempt:
    found = attempt(clock=clock)
    for stage in stages:
        found.reach(stage)
    return found


@pytest.mark.parametrize(
    ("stages", "seconds"),
    [
        ((Stage.SUBMITTED,), 100),
        ((Stage.RUNNING,), 102),
        ((Stage.RUNNING, Stage.STARTED), 30 + 5),
        ((Stage.RUNNING, Stage.STARTED, Stage.EXITED), 30 + 5),
    ],
    ids=["before it runs", "runs", "started", "exited"],
)
def test_the_deadline_follows_from_how_far_the_attempt_has_come(stages: tuple[Stage, ...], seconds: float) -> None:
    clock = VirtualClock()
    found = reached(*stages, clock=clock)
    assert found.deadline - clock.now() == seconds
    clock.sleep(seconds)
    found.check()
    clock.sleep(0.1)
    with pytest.raises(Interrupted) as ended:
        found.check()
    assert not ended.value.aborted


def test_a_reply_that_arrives_is_read_beyond_the_programs_time_but_not_beyond_the_calls() -> None:
    clock = VirtualClock()
    begin = clock.now()
    found = reached(Stage.RUNNING, Stage.STARTED, clock=clock)

    def read_on() -> None:
        while True:
            clock.sleep(3)
            found.check()
            found.progress()

    with pytest.raises(Interrupted):
        read_on()
    assert 100 + 30 + 5.5 < clock.now() - begin <= 100 + 30 + 5.5 + 3
    assert found.arriving


def test_a_stage_counts_the_first_time_and_includes_those_before_it() -> None:
    clock = VirtualClock()
    found = reached(Stage.STARTED, clock=clock)
    clock.sleep(5)
    found.reach(Stage.STARTED)
    assert found.seconds_since(Stage.STARTED) == 5
    assert found.has(Stage.RUNNING)
    assert not found.has(Stage.EXITED)
    found.reach(Stage.DELETED)
    assert not found.has(Stage.EXITED)


def test_the_next_attempt_knows_that_the_server_has_answered_before() -> None:
    first = attempt()
    first.call(lambda: None)
    tries = iter([error(Unreachable), None])

    def call() -> None:
        if (failure := next(tries)) is not None:
            raise failure

    second = first.again()
    second.clock.sleep(50)
    second.call(call)


def test_waits_leave_the_random_numbers_of_the_application_alone() -> None:
    before = random.getstate()
    backoff(error(status=503), 0)
    assert random.getstate() == before
