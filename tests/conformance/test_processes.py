"""Processes, threads and signals of a program are its own; none of them outlives it or speaks for it."""

from __future__ import annotations

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.programs import contents, program

pytestmark = pytest.mark.cluster


@program("import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'exit(5)']).returncode)")
def test_a_child_has_its_exit_code(outcome: Outcome) -> None:
    assert outcome.stdout == b"5\n"


@program("import subprocess\nprint(subprocess.run('echo $((6 * 7)) | cat', shell=True, capture_output=True).stdout)")
def test_a_shell_and_its_pipes_work(outcome: Outcome) -> None:
    assert outcome.stdout == b"b'42\\n'\n"


@program("import subprocess\nsubprocess.run(['no-such-command'])")
def test_a_command_that_is_not_there_is_named(outcome: Outcome) -> None:
    *_, error, hint = outcome.stderr.decode().splitlines()
    assert error == "FileNotFoundError: [Errno 2] No such file or directory: 'no-such-command'"
    assert hint == "hint: the command no-such-command is not in this image: use a module of Python in its place"


TREE = """
import subprocess, sys
depth = int(sys.argv[1]) if len(sys.argv) > 1 else 0
print("depth", depth, flush=True)
if depth < 5:
    subprocess.run([sys.executable, __file__, str(depth + 1)], check=True)
print("back", depth, flush=True)
"""


@program(TREE)
def test_children_of_children_work(outcome: Outcome) -> None:
    assert outcome.stdout.decode().split("\n")[:-1] == [
        *(f"depth {depth}" for depth in range(6)),
        *(f"back {depth}" for depth in reversed(range(6))),
    ]


@program(
    "import os\npid = os.fork()\nif pid == 0:\n    os._exit(3)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
)
def test_fork_works(outcome: Outcome) -> None:
    assert outcome.stdout == b"3\n"


POOL = """
import multiprocessing

def square(x):
    return x * x

if __name__ == "__main__":
    with multiprocessing.get_context(KIND).Pool(2) as pool:
        print(pool.map(square, range(4)))
"""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=program(POOL.replace("KIND", repr(kind))), id=kind)
        for kind in ("fork", "spawn", "forkserver")
    ],
)
def test_multiprocessing_works(kind: str, outcome: Outcome) -> None:
    assert outcome.stdout == b"[0, 1, 4, 9]\n", outcome.stderr


@program(
    "from concurrent.futures import ProcessPoolExecutor\ndef double(x):\n    return 2 * x\n"
    "if __name__ == '__main__':\n    with ProcessPoolExecutor(2) as pool:\n"
    "        print(list(pool.map(double, [1, 2])))"
)
def test_a_process_pool_works(outcome: Outcome) -> None:
    assert outcome.stdout == b"[2, 4]\n", outcome.stderr


@program(
    "import queue, threading\nq = queue.Queue()\n"
    "threads = [threading.Thread(target=q.put, args=(n,)) for n in range(20)]\n"
    "[t.start() for t in threads]\n[t.join() for t in threads]\n"
    "print(sorted(q.get() for _ in threads) == list(range(20)))"
)
def test_threads_work(outcome: Outcome) -> None:
    assert outcome.stdout == b"True\n", outcome.stderr


@program(
    "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.5), print('late'))).start()\nprint('end')"
)
def test_the_program_lasts_as_long_as_its_threads(outcome: Outcome) -> None:
    assert outcome.stdout == b"end\nlate\n"


@program("import threading, time\nthreading.Thread(target=time.sleep, args=(50,), daemon=True).start()\nprint('end')")
def test_a_daemon_thread_does_not_hold_it(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"end\n")
    assert outcome.wall_seconds < 30


@program(
    "import threading\ndef f():\n    1 / 0\n"
    "t = threading.Thread(target=f, name='mine')\nt.start()\nt.join()\nprint('on')"
)
def test_an_exception_in_a_thread_is_shown_and_the_program_goes_on(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"on\n")
    assert b"Exception in thread mine:" in outcome.stderr
    assert b"ZeroDivisionError" in outcome.stderr


SIGNALS = {
    "SIGSEGV": ("import ctypes\nctypes.string_at(0)", 139),
    "SIGABRT": ("import os\nos.abort()", 134),
    "SIGTERM": ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", 143),
    "SIGKILL": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", 137),
    "SIGUSR1": ("import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)", 138),
    "SIGALRM": ("import signal, time\nsignal.alarm(1)\ntime.sleep(30)", 142),
}


@pytest.mark.parametrize(
    ("signal", "exit_code"),
    [
        pytest.param(name, code, marks=program("print('before')\n" + text), id=name)
        for name, (text, code) in SIGNALS.items()
    ],
)
def test_a_program_that_a_signal_ends_is_said_to_be(signal: str, exit_code: int, outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal, outcome.exit_code) == (Reason.ERROR, signal, exit_code)
    assert (outcome.stdout, outcome.message) == (b"before\n", "")


@program("raise SystemExit(137)")
def test_an_exit_code_that_looks_like_a_signal_is_an_exit_code(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal, outcome.exit_code) == (Reason.ERROR, "", 137)


@program(
    "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('term'))\n"
    "signal.signal(signal.SIGALRM, lambda *_: print('ring'))\nos.kill(os.getpid(), signal.SIGTERM)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(0.5)\nprint('on')"
)
def test_signal_handlers_and_timers_work(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"term\nring\non\n")


@program(
    "import signal\nprint([s.name for s in signal.valid_signals() if isinstance(s, signal.Signals)\n"
    "       and signal.getsignal(s) not in (signal.SIG_DFL, signal.default_int_handler)],\n"
    "      signal.pthread_sigmask(signal.SIG_BLOCK, []))"
)
def test_signals_have_the_dispositions_of_any_python(outcome: Outcome) -> None:
    assert outcome.stdout == b"['SIGPIPE', 'SIGXFSZ'] set()\n"


@program("import os\nprint(os.getsid(0) == os.getpgrp() == os.getpid())")
def test_it_leads_a_session_of_its_own(outcome: Outcome) -> None:
    assert outcome.stdout == b"True\n"


@program(
    "import os, signal, time\nfor name in ('INT', 'TERM', 'HUP', 'QUIT', 'ALRM', 'USR1', 'USR2', 'CHLD'):\n"
    "    os.kill(os.getppid(), getattr(signal, 'SIG' + name))\ntime.sleep(0.3)\nprint('still here')"
)
def test_signals_to_the_supervisor_change_nothing(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"still here\n")


@program("import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(0, signal.SIGTERM)\nprint('alone')")
def test_a_signal_to_its_group_reaches_nobody_else(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"alone\n")


OUTLIVES = """
import os, signal, sys, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.setsid()
    if os.fork():
        os._exit(0)
    parent = os.getppid()
    open("begun", "w").close()
    while not os.path.exists("over"):
        time.sleep(0.01)
    time.sleep(1.5)
    open("alive", "w").close()
    time.sleep(50)
while not os.path.exists("begun"):
    time.sleep(0.01)
open("over", "w").close()
"""


@program(OUTLIVES + "print('end')")
def test_a_background_process_ends_with_the_program(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stdout) == (Reason.COMPLETED, 0, b"end\n")
    assert set(contents(outcome)) == {"begun", "over"}


@program("import subprocess\nfor _ in range(40):\n    subprocess.Popen(['true'])\nprint('end')")
def test_children_that_nobody_waits_for_are_no_trouble(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"end\n")


@program("import os\nif os.fork() == 0:\n    os.setsid()\n    os._exit(9)\nos.wait()\nprint('end')")
def test_the_exit_code_of_a_child_is_not_the_programs(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stdout) == (Reason.COMPLETED, 0, b"end\n")


@program(
    "import os, sys, time\nif os.fork():\n    os._exit(4)\nos.setsid()\ntime.sleep(50)\nprint('from the other side')"
)
def test_the_program_ends_with_its_first_process(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stdout) == (Reason.ERROR, 4, b"")
    assert outcome.wall_seconds < 30


@program("import os\nos.execvp('echo', ['echo', 'replaced'])")
def test_a_program_may_replace_itself(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stdout) == (Reason.COMPLETED, 0, b"replaced\n")


@program("import os, signal\nprint('before', end='', flush=True)\nos.kill(-1, signal.SIGKILL)\nprint('after')")
def test_a_program_that_kills_everything_it_can_see_does_not_complete(outcome: Outcome) -> None:
    assert outcome.reason is not Reason.COMPLETED
    assert (outcome.started, outcome.stdout) == (True, b"before")


@program(
    "import os, time\nif os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(0.2)\n    os._exit(0)\n"
    "os.wait()\ntime.sleep(1)\nprint('on')"
)
def test_an_orphan_that_ends_does_not_end_the_program(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"on\n")
