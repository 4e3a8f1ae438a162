"""A caller that gives up: the deletion is sent within 0.5 s, the call returns within 2 s, whatever it waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.execution import File, Reason
from adk_gke_sandbox.paths.attempt import Clock
from adk_gke_sandbox.sandbox import Sandbox
from tests.unit.fake_api import STARTED, FakeApi, Fault, eventually, run

pytestmark = pytest.mark.alone

DELETE_SECONDS = 0.5
RETURN_SECONDS = 2.0
HANG = Fault(hang_seconds=15)


class Caller:
    """Gives up as soon as the server has come so far, and remembers when."""

    def __init__(self, when: Callable[[], bool]) -> None:
        self.aborted_at = 0.0
        self._aborted = threading.Event()
        self._when = when
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        until = time.monotonic() + 50
        while not self._when() and time.monotonic() < until:
            time.sleep(0.005)
        self.aborted_at = time.monotonic()
        self._aborted.set()

    def __call__(self) -> bool:
        return self._aborted.is_set()


@pytest.fixture(autouse=True)
def real_time(api: FakeApi) -> None:
    api.clock = Clock()


def deleted_at(api: FakeApi) -> list[float]:
    return [at for at, call in zip(api.times, api.calls, strict=True) if call == ("batch", "jobs", "delete")]


def creating(api: FakeApi) -> tuple[str, str]:
    api.faults["create", "jobs", 0] = HANG
    return "create", "jobs"


def told_to_wait(api: FakeApi) -> tuple[str, str]:
    api.faults["create", "configmaps", 0] = Fault(status=429, headers={"Retry-After": "30"})
    return "create", "configmaps"


def creating_the_config_map(api: FakeApi) -> tuple[str, str]:
    api.faults["create", "configmaps", 0] = HANG
    return "create", "configmaps"


def opening_the_watch(api: FakeApi) -> tuple[str, str]:
    api.faults["watch", "pods", 0] = HANG
    return "watch", "pods"


def scheduling(api: FakeApi) -> tuple[str, str]:
    api.watches = {"pods": [[]], "events": [[]]}
    return "watch", "events"


def reopening_the_watch(api: FakeApi) -> tuple[str, str]:
    api.watches["pods"] = [[]] * 100
    return "list", "pods"


def opening_the_log(api: FakeApi) -> tuple[str, str]:
    api.faults["get", "pods/log", 0] = HANG
    return "get", "pods/log"


def running(api: FakeApi) -> tuple[str, str]:
    def sent() -> None:
        time.sleep(0.1)
        api.count["sent", "log"] += 1

    api.logs, api.hold_log, api.on_log = [STARTED], True, sent
    return "sent", "log"


PHASES = (
    creating,
    told_to_wait,
    creating_the_config_map,
    opening_the_watch,
    scheduling,
    reopening_the_watch,
    opening_the_log,
    running,
)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__.replace("_", " "))
def test_the_deletion_is_sent_and_the_call_returns_in_time(
    api: FakeApi, phase: Callable[[FakeApi], tuple[str, str]]
) -> None:
    reached = phase(api)
    caller = Caller(lambda: api.count[reached] > 0)
    outcome = run(api, aborted=caller, schedule_timeout_seconds=300)
    returned = time.monotonic()
    assert outcome.reason is Reason.ABORTED
    (deleted,) = deleted_at(api)
    assert deleted - caller.aborted_at < DELETE_SECONDS
    assert returned - caller.aborted_at < RETURN_SECONDS
    assert api.jobs == {}


def test_a_large_request_is_given_up_between_its_config_maps(api: FakeApi) -> None:
    class Slow(list[Any]):
        def append(self, found: Any) -> None:
            time.sleep(0.15)
            super().append(found)

    api.config_maps = Slow()
    caller = Caller(lambda: len(api.config_maps) >= 2)
    sandbox = Sandbox(ExecutorConfig(namespace="box", kubeconfig_path=api.kubeconfig))
    outcome = sandbox.run("pass", files=(File(name="big", content=bytes(12 * 1024**2)),), aborted=caller)
    assert outcome.reason is Reason.ABORTED
    assert deleted_at(api)[0] - caller.aborted_at < DELETE_SECONDS
    assert api.count["create", "configmaps"] < 10
    sandbox.close()


@pytest.mark.parametrize(
    "fault",
    [HANG, Fault(status=503), Fault(status=429, headers={"Retry-After": "60"}), Fault(reset=True)],
    ids=["does not answer", "503", "429", "reset"],
)
def test_a_deletion_that_takes_long_does_not_keep_the_caller(api: FakeApi, fault: Fault) -> None:
    reached = running(api)
    api.faults["delete", "jobs", 0] = fault
    caller = Caller(lambda: api.count[reached] > 0)
    outcome = run(api, aborted=caller)
    returned = time.monotonic()
    assert (outcome.reason, outcome.started, outcome.stdout) == (Reason.ABORTED, True, b"hello\n")
    assert deleted_at(api)[0] - caller.aborted_at < DELETE_SECONDS
    assert returned - caller.aborted_at < RETURN_SECONDS


def test_a_deletion_that_was_refused_for_a_while_goes_on_after_the_return(api: FakeApi) -> None:
    reached = running(api)
    api.faults["delete", "jobs", 1] = Fault(status=429, headers={"Retry-After": "2"})
    assert run(api, aborted=Caller(lambda: api.count[reached] > 0)).reason is Reason.ABORTED
    assert len(api.jobs) == 1
    assert eventually(lambda: api.jobs == {})


def test_who_gives_up_before_the_beginning_makes_no_call(api: FakeApi) -> None:
    outcome = run(api, aborted=lambda: True)
    assert (outcome.reason, outcome.started) == (Reason.ABORTED, False)
    assert api.calls == []


def test_the_question_whether_the_job_is_suspended_keeps_nobody(api: FakeApi) -> None:
    api.watches = {"pods": [[]], "events": [[]]}
    api.faults["get", "jobs", 0] = HANG
    caller = Caller(lambda: api.count["get", "jobs"] > 0)
    outcome = run(api, aborted=caller, schedule_timeout_seconds=0.3)
    assert outcome.reason is Reason.ABORTED
    assert deleted_at(api)[0] - caller.aborted_at < DELETE_SECONDS


def test_the_schedule_deadline_is_kept_though_nobody_tells_whether_the_job_is_suspended(api: FakeApi) -> None:
    api.watches = {"pods": [[]], "events": [[]]}
    api.faults["get", "jobs", 0] = HANG
    begin = time.monotonic()
    outcome = run(api, schedule_timeout_seconds=0.3)
    assert outcome.reason is Reason.UNSCHEDULABLE
    assert "no pod appeared within schedule_timeout_seconds=0.3" in outcome.message
    assert time.monotonic() - begin < 0.3 + 10


class TestCommandLine:
    """``adk-gke-sandbox run`` as a process of its own."""

    def start(self, api: FakeApi, folder: Path) -> subprocess.Popen[bytes]:
        (folder / "script.py").write_text("print('hello')")
        command = str(Path(sys.executable).parent / "adk-gke-sandbox")
        given = ["run", "script.py", "--no-contract", "--namespace", "box", "--kubeconfig", api.kubeconfig]
        return subprocess.Popen([command, *given], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @pytest.mark.parametrize(
        ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
    )
    @pytest.mark.parametrize("phase", [creating, scheduling, running], ids=lambda phase: phase.__name__)
    def test_a_signal_ends_the_execution_and_nothing_is_left(
        self,
        api: FakeApi,
        tmp_path: Path,
        phase: Callable[[FakeApi], tuple[str, str]],
        number: signal.Signals,
        exit_code: int,
    ) -> None:
        reached = phase(api)
        process = self.start(api, tmp_path)
        caller = Caller(lambda: api.count[reached] > 0)
        while not caller():
            time.sleep(0.01)
        process.send_signal(number)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == exit_code
        assert out == (b"hello\n" if phase is running else b"")
        (line,) = err.decode().splitlines()
        assert "Aborted: the caller aborted the execution" in line
        assert deleted_at(api)
        assert api.jobs == {}

    def test_handlers_are_restored(self, api: FakeApi, tmp_path: Path) -> None:
        from typer.testing import CliRunner

        from adk_gke_sandbox.cli.main import app

        (tmp_path / "script.py").write_text("pass")
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        given = ["run", str(tmp_path / "script.py"), "--no-contract", "--namespace", "box"]
        result = CliRunner().invoke(app, [*given, "--kubeconfig", api.kubeconfig])
        assert result.exit_code == 0, result.output
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
