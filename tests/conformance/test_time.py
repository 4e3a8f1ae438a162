"""A program has its whole time, from its own start on, and not more; nothing of it outlives the deadline."""

from __future__ import annotations

import time

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.paths import Execute
from tests.conformance.programs import contents, program

pytestmark = pytest.mark.cluster

HANGS = {
    "sleeps": "import time\ntime.sleep(600)",
    "computes": "while True:\n    pass",
    "computes in C": "x = 3 ** (3 ** 19)\nprint(len(str(x)))",
    "waits for a child": "import subprocess\nsubprocess.run(['sleep', '600'])",
    "waits for a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()",
    "waits for a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "waits in asyncio": "import asyncio\nasyncio.run(asyncio.sleep(600))",
    "is stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "ignores every signal": (
        "import signal, time\nfor number in signal.valid_signals():\n"
        "    try:\n        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True:\n    time.sleep(1)"
    ),
    "catches every exception": (
        "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass"
    ),
    "hangs at its exit": "import atexit, time\natexit.register(time.sleep, 600)",
    "writes without end": "while True:\n    print('x')",
    "has closed its streams": "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(600)",
}


@pytest.mark.parametrize(
    "text", [pytest.param(text, marks=program(text, timeout_seconds=1), id=name) for name, text in HANGS.items()]
)
def test_a_program_that_does_not_end_is_killed_at_its_deadline(text: str, outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal, outcome.exit_code) == (Reason.DEADLINE_EXCEEDED, "SIGKILL", 137)
    assert outcome.message == "the program was killed after 1 s"


@program("import time\ntime.sleep(600)", timeout_seconds=3)
def test_the_deadline_counts_from_the_start_of_the_program(outcome: Outcome) -> None:
    assert outcome.wall_seconds >= 3


@program("import time\ntime.sleep(600)", timeout_seconds=0.5)
def test_the_deadline_may_be_a_fraction_of_a_second(outcome: Outcome) -> None:
    assert outcome.message == "the program was killed after 0.5 s"
    assert outcome.wall_seconds >= 0.5


def test_the_call_returns_by_its_deadlines_and_ten_seconds(execute: Execute) -> None:
    begin = time.monotonic()
    outcome = execute("import time\ntime.sleep(600)", timeout_seconds=3, schedule_timeout_seconds=60)
    assert time.monotonic() - begin < 60 + 3 + 10
    assert outcome.timings.total < 60 + 3 + 10


STUBBORN = """
import os, signal, subprocess, sys, time
watcher = '''
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.setsid()
if os.fork():
    os._exit(0)
os.setsid()
open("begun", "w").close()
while os.path.exists(f"/proc/{sys.argv[1]}") and open(f"/proc/{sys.argv[1]}/stat").read().split()[2] != "Z":
    time.sleep(0.01)
time.sleep(1.5)
open("alive", "w").close()
time.sleep(50)
'''
subprocess.Popen([sys.executable, "-c", watcher, str(os.getpid())])
while not os.path.exists("begun"):
    time.sleep(0.01)
print("begun")
time.sleep(600)
"""


@program(STUBBORN, timeout_seconds=5)
def test_processes_that_ignore_signals_and_left_the_session_are_killed_at_the_deadline(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.DEADLINE_EXCEEDED, b"begun\n")
    assert set(contents(outcome)) == {"begun"}


@program("import time\nt = time.process_time()\nwhile time.process_time() < t + 1: pass\ntime.sleep(1)")
def test_the_time_that_it_took_is_told(outcome: Outcome) -> None:
    assert outcome.wall_seconds >= 2
    assert 0.9 <= outcome.cpu_seconds < outcome.wall_seconds


@program("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(100 * 2**20)'])")
def test_the_memory_of_its_largest_process_is_told(outcome: Outcome) -> None:
    assert outcome.peak_memory_bytes > 100 * 2**20


@program("import time\nprint(time.time(), time.strftime('%Z'))")
def test_its_clock_is_the_right_one_in_utc(outcome: Outcome) -> None:
    seconds, zone = outcome.stdout.split()
    assert abs(float(seconds) - time.time()) < 600
    assert zone == b"UTC"
