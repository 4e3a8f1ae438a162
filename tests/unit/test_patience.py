from __future__ import annotations

import random
import threading
from collections.abc import Callable

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
from adk_gke_sandbox.paths import patience


class Enough(Exception):
    """What a check raises to end a wait."""


def error(
    kind: type[ClusterError] = ClusterError, status: int | None = None, after: float | None = None
) -> ClusterError:
    return kind("no", verb="get", target="jobs", status=status, retry_after_seconds=after)


def ends_after(looks: int) -> Callable[[], None]:
    """Return a check that lets that many looks pass."""
    left = iter(range(looks))

    def check() -> None:
        if next(left, None) is None:
            raise Enough

    return check


def never() -> None:
    """Look, and see no reason to end."""


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
    assert patience.transient(failure) is passes


def test_the_wait_before_another_try_doubles_to_ten_seconds_and_is_never_the_same_for_two() -> None:
    for attempt, middle in enumerate((0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 10, 10)):
        waits = {patience.backoff(error(status=503), attempt) for _ in range(50)}
        assert min(waits) >= middle * 0.8
        assert max(waits) <= middle * 1.2
        assert len(waits) > 1


def test_the_wait_is_the_servers_where_it_asks_for_one() -> None:
    assert patience.backoff(error(status=429, after=7.5), 5) == 7.5


def test_a_pause_ends_at_the_next_look_when_its_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.01)
    with pytest.raises(Enough):
        patience.pause(3600, ends_after(3))


def test_a_pause_looks_before_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(Enough):
        patience.pause(3600, ends_after(0))


def test_a_call_in_time_gives_its_answer_in_the_callers_thread() -> None:
    threads: list[str] = []
    assert patience.interruptible(lambda: threads.append(threading.current_thread().name) or 7, never) == 7
    assert threads == ["adk-gke-sandbox-call"]


@pytest.mark.parametrize("raised", [error(Forbidden, 403), TimeoutError("of the call itself"), KeyboardInterrupt()])
def test_what_a_call_raises_is_raised(raised: BaseException) -> None:
    def call() -> None:
        raise raised

    with pytest.raises(type(raised)) as found:
        patience.interruptible(call, never)
    assert found.value is raised


def test_a_call_that_hangs_is_given_up_and_its_late_answer_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.01)
    answer, undone = threading.Event(), threading.Event()
    answers: list[str] = []

    def call() -> str:
        answer.wait(10)
        return "late"

    def undo(found: str) -> None:
        answers.append(found)
        undone.set()

    with pytest.raises(Enough):
        patience.interruptible(call, ends_after(2), undo)
    assert answers == []
    answer.set()
    assert undone.wait(10)
    assert answers == ["late"]


def test_a_call_that_fails_after_it_was_given_up_has_nothing_to_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.01)
    answer = threading.Event()
    threads: list[threading.Thread] = []
    undone: list[object] = []

    def call() -> None:
        threads.append(threading.current_thread())
        answer.wait(10)
        raise error(Forbidden, 403)

    with pytest.raises(Enough):
        patience.interruptible(call, ends_after(2), undone.append)
    answer.set()
    threads[0].join(10)
    assert undone == []


def test_waits_leave_the_random_numbers_of_the_application_alone() -> None:
    before = random.getstate()
    patience.backoff(error(status=503), 0)
    assert random.getstate() == before
