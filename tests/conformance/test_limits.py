"""Every limit can be set, holds inside, cannot be raised by a program, and is named when a program fails at it."""

from __future__ import annotations

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.programs import program

pytestmark = pytest.mark.cluster

MIB = 1024 * 1024

NO_MEMORY = (
    "the program needed more memory than the {} MiB it may use; what is reserved and never touched counts, too. "
    "Use less, or raise mem_limit"
)


@program("x = bytearray(10**10)", mem_limit="512Mi")
def test_memory_beyond_the_limit_is_a_memory_error_and_the_reason(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code) == (Reason.MEMORY_LIMIT, 1)
    assert outcome.message == NO_MEMORY.format(362)
    assert outcome.stderr.endswith(b"MemoryError\n")


@program("held = []\nwhile True:\n    held.append(bytearray(2**20))", mem_limit="256Mi")
def test_memory_that_grows_in_small_steps_ends_in_a_memory_error_too(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code) == (Reason.MEMORY_LIMIT, 1)


@program("try:\n    bytearray(10**10)\nexcept MemoryError:\n    print('caught')\nprint(len(bytearray(100 * 2**20)))")
def test_a_memory_error_that_the_program_handles_is_no_failure(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"caught\n104857600\n")


@program("import numpy\nnumpy.ones((100_000, 100_000))", mem_limit="1Gi")
def test_an_array_that_is_too_large_says_its_size(outcome: Outcome) -> None:
    assert outcome.reason is Reason.MEMORY_LIMIT
    assert b"Unable to allocate 74.5 GiB for an array with shape (100000, 100000)" in outcome.stderr


@program("import mmap\nmmap.mmap(-1, 10**10)")
def test_memory_that_the_kernel_refuses_is_the_memory_limit(outcome: Outcome) -> None:
    assert b"OSError: [Errno 12] Cannot allocate memory" in outcome.stderr
    assert outcome.reason is Reason.MEMORY_LIMIT


@program("import os\nheld = bytearray(os.urandom(4096) * 20000)\nos.kill(os.getpid(), 9)", mem_limit="1Gi")
def test_a_kill_far_from_the_limit_is_not_called_out_of_memory(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal, outcome.message) == (Reason.ERROR, "SIGKILL", "")


CHILDREN = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(4096) * 25600)
        time.sleep(60)
time.sleep(60)
"""


@program(CHILDREN)
def test_processes_that_are_together_above_the_memory_limit_end_the_execution_and_memory_is_named(
    outcome: Outcome,
) -> None:
    assert outcome.reason in (Reason.MEMORY_LIMIT, Reason.SANDBOX_LOST)
    assert "Use less" in outcome.message
    assert "raise mem_limit" in outcome.message


@program(
    "import time\nprint('before', end='', flush=True)\ntime.sleep(0.5)\nblock = bytes(2**20)\n"
    "with open('/tmp/f', 'wb') as f:\n    while True:\n        f.write(block)",
    scratch_limit="512Mi",
)
def test_files_in_memory_count_as_memory_and_what_was_written_before_is_kept(outcome: Outcome) -> None:
    assert outcome.reason in (Reason.MEMORY_LIMIT, Reason.SANDBOX_LOST)
    assert "raise mem_limit" in outcome.message
    assert outcome.stdout == b"before"


FILL = """
import os
written = 0
descriptor = os.open(PATH + "/fill", os.O_WRONLY | os.O_CREAT)
try:
    while True:
        written += os.write(descriptor, bytes(4096))
finally:
    print(os.statvfs(PATH).f_frsize * os.statvfs(PATH).f_blocks, written)
"""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=program(FILL.replace("PATH", repr(path)), scratch_limit="16Mi"), id=path)
        for path in ("/workspace", "/tmp")
    ],
)
def test_a_full_directory_is_no_space_exactly_at_the_limit_and_it_is_named(path: str, outcome: Outcome) -> None:
    total, written = map(int, outcome.stdout.split())
    assert total == 16 * MIB
    assert 16 * MIB - 256 * 1024 <= written <= 16 * MIB
    assert outcome.stderr.endswith(b"OSError: [Errno 28] No space left on device\n")
    assert (outcome.reason, outcome.message) == (
        Reason.ERROR,
        "no space was left in the working or the temporary directory. Write less, or raise scratch_limit",
    )


@program("import os\nprint(os.statvfs('.').f_bavail * os.statvfs('.').f_frsize)", mem_limit="256Mi")
def test_the_directories_have_a_quarter_of_the_memory_unless_they_are_told(outcome: Outcome) -> None:
    assert 63 * MIB < int(outcome.stdout) <= 64 * MIB


@program("held = [open('main.py') for _ in range(200)]", limits={"open_files": 100})
def test_open_files_beyond_the_limit_are_named(outcome: Outcome) -> None:
    assert b"OSError: [Errno 24] Too many open files: 'main.py'" in outcome.stderr
    assert outcome.message == "more than 100 files were open. Close some, or raise limits.open_files"


@program(
    "with open('f', 'wb') as f:\n    for _ in range(100):\n        f.write(bytes(4096))\n        f.flush()",
    limits={"written_file_bytes": 100_000},
)
def test_a_file_beyond_its_limit_is_named(outcome: Outcome) -> None:
    assert b"OSError: [Errno 27] File too large" in outcome.stderr
    assert outcome.message == "a file grew beyond 100000 bytes. Write less, or raise limits.written_file_bytes"
    assert [len(file.content) for file in outcome.files] == [100_000]


@program(
    "import os, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
    "os.execvp('dd', ['dd', 'if=/dev/zero', 'of=f', 'bs=4096', 'count=100', 'status=none'])",
    limits={"written_file_bytes": 100_000},
)
def test_a_program_that_is_killed_for_the_size_of_its_file_is_told_so(outcome: Outcome) -> None:
    assert outcome.signal == "SIGXFSZ"
    assert outcome.message == "a file grew beyond 100000 bytes. Write less, or raise limits.written_file_bytes"


FORKS = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
finally:
    print(count, flush=True)
"""


@program(FORKS, limits={"processes": 40})
def test_processes_beyond_the_limit_are_named(outcome: Outcome) -> None:
    assert int(outcome.stdout) == 40 - 1, "the first is the program itself"
    assert outcome.stderr.endswith(b"BlockingIOError: [Errno 11] Resource temporarily unavailable\n")
    assert outcome.message == ("no further process could be started: limits.processes is 40. Use fewer, or raise it")


THREADS = """
import threading, time
threading.stack_size(64 * 1024)
count = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        count += 1
finally:
    print(count, flush=True)
"""


@program(THREADS, limits={"processes": 40})
def test_threads_beyond_the_limit_are_named(outcome: Outcome) -> None:
    assert int(outcome.stdout) == 40 - 1, "the first is the program itself"
    assert b"RuntimeError: can't start new thread" in outcome.stderr
    assert outcome.message == (
        "no further thread could be started: limits.processes is 40, and every thread's stack takes "
        "memory. Use fewer threads, or raise limits.processes or mem_limit"
    )


BOMB = """
import os
print("bomb", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@program(BOMB, timeout_seconds=3)
def test_a_fork_bomb_is_bounded_and_the_sandbox_survives_it(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.DEADLINE_EXCEEDED, b"bomb\n")


STARTED = """
import threading
gate = threading.Event()
threads = [threading.Thread(target=gate.wait) for _ in range(COUNT)]
for thread in threads:
    thread.start()
gate.set()
print(len(threads))
"""


@program(STARTED.replace("COUNT", "60"), mem_limit="512Mi")
def test_sixty_threads_start_in_a_plain_program(outcome: Outcome) -> None:
    assert outcome.stdout == b"60\n", outcome.stderr


@program("import pandas, matplotlib.pyplot\n" + STARTED.replace("COUNT", "50"), mem_limit="512Mi")
def test_fifty_threads_start_beside_pandas_and_matplotlib(outcome: Outcome) -> None:
    assert outcome.stdout == b"50\n", outcome.stderr


@program("import threading\nthreading.stack_size(256 * 2**20)\n" + STARTED.replace("COUNT", "1"), mem_limit="512Mi")
def test_a_thread_has_the_stack_that_is_asked_for(outcome: Outcome) -> None:
    assert outcome.stdout == b"1\n", outcome.stderr


@program(
    "import threading, time\nthreading.stack_size(64 * 2**20)\nfor _ in range(20):\n"
    "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
)
def test_threads_whose_stacks_do_not_fit_are_not_said_to_be_too_many_alone(outcome: Outcome) -> None:
    assert b"RuntimeError: can't start new thread" in outcome.stderr
    assert "every thread's stack takes memory" in outcome.message


@program("import os\nread, _ = os.pipe()\nos.set_blocking(read, False)\nos.read(read, 1)", limits={"processes": 40})
def test_a_read_that_would_block_is_not_taken_for_a_limit(outcome: Outcome) -> None:
    assert outcome.stderr.endswith(b"BlockingIOError: [Errno 11] Resource temporarily unavailable\n")
    assert (outcome.reason, outcome.message) == (Reason.ERROR, "")


@program(
    "import subprocess\nchildren = []\nwhile True:\n    children.append(subprocess.Popen(['sleep', '60']))",
    limits={"processes": 40},
)
def test_commands_beyond_the_limit_of_processes_are_named(outcome: Outcome) -> None:
    assert "no further process could be started: limits.processes is 40" in outcome.message


@program("import numpy", mem_limit="128Mi", mem_requested="128Mi")
def test_a_library_that_does_not_fit_into_memory_is_the_memory_limit(outcome: Outcome) -> None:
    assert outcome.reason is Reason.MEMORY_LIMIT
    assert outcome.message == NO_MEMORY.format(64)


@program("import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))\nimport os\nos.abort()")
def test_a_crash_leaves_no_core(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.files) == (b"(0, 0)\n", ())


RAISE = """
import resource
for name in ("AS", "NPROC", "NOFILE", "FSIZE", "CORE"):
    kind = getattr(resource, "RLIMIT_" + name)
    soft, hard = resource.getrlimit(kind)
    try:
        resource.setrlimit(kind, (soft + 1, hard + 1))
        print(name, "raised")
    except (ValueError, OSError):
        print(name, soft, hard)
"""


@program(RAISE, mem_limit="512Mi", limits={"processes": 50, "open_files": 60, "written_file_bytes": 70})
def test_limits_are_those_that_were_asked_for_and_cannot_be_raised(outcome: Outcome) -> None:
    limits = outcome.stdout.decode().splitlines()
    # What else runs in the pod counts, and is added.
    _, soft, hard = limits.pop(1).split()
    assert 50 < int(soft) == int(hard) < 65
    assert limits == [
        f"AS {362 * MIB} {362 * MIB}",
        "NOFILE 60 60",
        "FSIZE 70 70",
        "CORE 0 0",
    ]


@program(
    "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-c', 'import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE)[1])'])",
    limits={"open_files": 60},
)
def test_limits_hold_for_children(outcome: Outcome) -> None:
    assert outcome.stdout == b"60\n"


@program(
    "import os\nprint(*(os.environ[n] for n in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')))",
    cpu_limit="2",
)
def test_numeric_libraries_start_as_many_threads_as_there_are_cpus(outcome: Outcome) -> None:
    assert outcome.stdout == b"2 2 2\n"


@program("raise OSError('no device left on space')")
def test_an_error_that_is_no_limit_names_none(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.message) == (Reason.ERROR, 1, "")


@program("try:\n    open('/proc/x', 'w')\nfinally:\n    print('No space left on device')")
def test_words_on_standard_output_are_not_taken_for_a_limit(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.message) == (Reason.ERROR, "")
