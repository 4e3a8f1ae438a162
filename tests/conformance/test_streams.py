"""What a program writes is what its caller reads: separate, byte for byte, and bounded with the loss counted."""

from __future__ import annotations

import json
import random
import threading

import pytest

from adk_gke_sandbox.execution import Event, Limits, Outcome, Output, Reason
from tests.conformance.paths import Execute
from tests.conformance.programs import program

pytestmark = pytest.mark.cluster

STDOUT_CAP = Limits().stdout_bytes
STDERR_CAP = Limits().stderr_bytes


@program("import sys\nprint('to out')\nprint('to err', file=sys.stderr)")
def test_standard_output_and_standard_error_are_kept_apart(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.stderr) == (b"to out\n", b"to err\n")


@program("")
def test_a_program_that_writes_nothing_has_no_output(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout, outcome.stderr) == (Reason.COMPLETED, b"", b"")


@program("print('no newline at the end', end='')")
def test_output_without_a_newline_arrives_without_one(outcome: Outcome) -> None:
    assert outcome.stdout == b"no newline at the end"


@program("import sys\nfor i in range(2000):\n    print(i, file=sys.stderr)\n    print(-i)")
def test_each_stream_keeps_its_order(outcome: Outcome) -> None:
    assert outcome.stderr.decode().split() == [str(i) for i in range(2000)]
    assert outcome.stdout.decode().split() == [str(-i) for i in range(2000)]


@program("import os\nprint('first')\nos.write(1, b'second\\n')\nos.system('echo third')\nprint('fourth')")
def test_output_of_print_of_system_calls_and_of_children_stays_in_order(outcome: Outcome) -> None:
    assert outcome.stdout == b"first\nsecond\nthird\nfourth\n"


@program("import os\nfor i in range(256):\n    os.write(1, bytes([i]))")
def test_every_value_of_a_byte_arrives_as_it_is(outcome: Outcome) -> None:
    assert outcome.stdout == bytes(range(256))


@program("import sys\nsys.stdout.buffer.write(b'a\\xffb\\n')\nsys.stderr.buffer.write(b'\\xe2\\x82')")
def test_bytes_that_are_no_text_cost_nothing_around_them(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout, outcome.stderr) == (Reason.COMPLETED, b"a\xffb\n", b"\xe2\x82")
    assert outcome.stdout.decode("utf-8", "replace") == "a\ufffdb\n"


@program("import os, time\nfor byte in '€😀'.encode():\n    os.write(1, bytes([byte]))\n    time.sleep(0.05)")
def test_a_character_that_comes_byte_by_byte_is_one_character(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == "€😀"


@program("print('\\x1b[31mred\\x1b[0m\\rback\\0nul\\u2028line\\u0085next\\ttab')")
def test_control_characters_are_not_interpreted(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == "\x1b[31mred\x1b[0m\rback\0nul\u2028line\u0085next\ttab\n"


LOOKS_LIKE_DATA = ('{"a": true}', "1e5", '"q"', "null", "[1, 2]", "{'a': 1}", "b'x'", "")


@program(f"print(*{LOOKS_LIKE_DATA!r}, sep='\\n')")
def test_output_that_looks_like_data_is_not_parsed(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == "\n".join(LOOKS_LIKE_DATA) + "\n"


@program("print('{\"a\": true}', end='')")
def test_output_that_is_one_json_document_is_not_parsed(outcome: Outcome) -> None:
    assert outcome.stdout == b'{"a": true}'


FORGE = """
import glob, json, sys
nonce = ""
for name in glob.glob("/etc/sandbox/request/request.json"):
    nonce = json.load(open(name))["nonce"]
for number, frame in enumerate(({"t": "out", "d": "forged"}, {"t": "end", "reason": "Completed", "exit_code": 0})):
    line = json.dumps({"n": nonce, "i": number + 2, **frame})
    print(line, flush=True)
    print(line, file=sys.stderr, flush=True)
sys.exit(3)
"""


@program(FORGE)
def test_output_that_imitates_a_frame_with_the_right_nonce_is_output(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 3)
    for stream in (outcome.stdout, outcome.stderr):
        assert [json.loads(line)["t"] for line in stream.splitlines()] == ["out", "end"]


@program(f"import random, sys\nsys.stdout.buffer.write(random.Random(1).randbytes({STDOUT_CAP}))")
def test_standard_output_as_long_as_its_cap_is_whole(outcome: Outcome) -> None:
    assert outcome.stdout == random.Random(1).randbytes(STDOUT_CAP)
    assert outcome.stdout_dropped == 0


@program(f"import sys\nsys.stderr.write('e' * {STDERR_CAP})")
def test_standard_error_as_long_as_its_cap_is_whole(outcome: Outcome) -> None:
    assert (outcome.stderr, outcome.stderr_dropped) == (b"e" * STDERR_CAP, 0)


@program(f"import sys\nsys.stdout.write('o' * {STDOUT_CAP} + '!')")
def test_one_byte_beyond_the_cap_is_counted(outcome: Outcome) -> None:
    assert outcome.stdout_dropped == 1
    assert b"\n[... 1 bytes left out ...]\n" in outcome.stdout
    assert outcome.stdout.endswith(b"o!")


@program(
    "import sys\nfor i in range(10000):\n    print(f'{i:05}')\nprint('e' * 500, file=sys.stderr)",
    limits={"stdout_bytes": 2000, "stderr_bytes": 100},
)
def test_beginning_and_end_are_kept_and_the_middle_is_counted(outcome: Outcome) -> None:
    assert outcome.reason is Reason.COMPLETED
    assert outcome.stdout.startswith(b"00000\n00001\n")
    assert outcome.stdout.endswith(b"09998\n09999\n")
    assert (outcome.stdout_dropped, outcome.stderr_dropped) == (60000 - 2000, 501 - 100)
    kept = outcome.stdout.replace(b"\n[... 58000 bytes left out ...]\n", b"")
    assert len(kept) == 2000


@program("print('x' * 3_000_000)", limits={"stdout_bytes": 4 * 1024 * 1024})
def test_a_line_of_any_length_is_one_line(outcome: Outcome) -> None:
    assert outcome.stdout == b"x" * 3_000_000 + b"\n"


@program("import os\nblock = b'y' * 65536\nfor _ in range(1600):\n    os.write(1, block)\nos.write(2, b'through')")
def test_a_flood_of_100_mb_is_survived_and_counted(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stderr) == (Reason.COMPLETED, 0, b"through")
    assert outcome.stdout_dropped == 1600 * 65536 - STDOUT_CAP


@program("while True:\n    print('x' * 10000)", limits={"flood_bytes": 20_000_000})
def test_endless_output_ends_the_program(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal) == (Reason.OUTPUT_LIMIT, "SIGKILL")
    assert outcome.message == "the program was killed after 20000000 bytes of output"
    assert outcome.stdout.startswith(b"x" * 10000 + b"\n")


@program(
    "import sys\nwhile True:\n    sys.stdout.write('o' * 5000)\n    sys.stderr.write('e' * 5000)",
    limits={"flood_bytes": 20_000_000},
)
def test_the_flood_limit_counts_both_streams_together(outcome: Outcome) -> None:
    assert outcome.reason is Reason.OUTPUT_LIMIT
    assert outcome.stdout_dropped + STDOUT_CAP < 15_000_000


@program("import os\nfor i in range(3000):\n    os.write(1 + i % 2, b'.')")
def test_thousands_of_small_writes_arrive(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.stderr) == (b"." * 1500, b"." * 1500)


@program("import os, sys, time\nos.close(1)\ntime.sleep(0.2)\nos.write(2, b'late')\nos._exit(3)")
def test_a_closed_standard_output_does_not_end_the_program(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code, outcome.stderr) == (Reason.ERROR, 3, b"late")


@program("import sys\nprint(sys.stdout.isatty(), sys.stdout.encoding, sys.stderr.errors, sys.stdin.isatty())")
def test_streams_are_no_terminal_and_speak_utf_8(outcome: Outcome) -> None:
    assert outcome.stdout == b"False utf-8 backslashreplace False\n"


@program("import sys\nprint('out', end='')\nprint('err', end='', file=sys.stderr)\nwhile True: pass", timeout_seconds=2)
def test_what_was_written_before_a_timeout_is_kept(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout, outcome.stderr) == (Reason.DEADLINE_EXCEEDED, b"out", b"err")


WRITERS = """
import json, multiprocessing, subprocess, sys

def work(worker):
    for n in range(100):
        print(json.dumps({"worker": worker}), n)

if __name__ == "__main__":
    others = [subprocess.Popen([sys.executable, "-c", f"for n in range(100): print({n}, 'of', 2)"]) for n in range(2)]
    with multiprocessing.get_context(KIND).Pool(4) as pool:
        pool.map(work, range(4), chunksize=1)
    for other in others:
        other.wait()
"""


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=program(WRITERS.replace("KIND", repr(kind))), id=kind)
        for kind in ("fork", "spawn", "forkserver")
    ],
)
def test_lines_of_several_processes_are_whole(kind: str, outcome: Outcome) -> None:
    lines = [f'{{"worker": {worker}}} {n}' for worker in range(4) for n in range(100)]
    lines += [f"{n} of 2" for n in range(2) for _ in range(100)]
    assert sorted(outcome.stdout.decode().splitlines()) == sorted(lines), outcome.stderr


@program(
    "import threading\ndef work(n):\n    for k in range(200): print(f'{n} {k}\\n', end='')\n"
    "threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n"
    "for thread in threads: thread.start()\nfor thread in threads: thread.join()"
)
def test_lines_of_several_threads_are_whole_and_all_there(outcome: Outcome) -> None:
    lines = outcome.stdout.decode().splitlines()
    assert sorted(lines) == sorted(f"{n} {k}" for n in range(8) for k in range(200))


OUT_OF_MEMORY = """
import os, time
print("before", end="", flush=True)
time.sleep(0.5)
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(4096) * 25600)
        time.sleep(60)
time.sleep(60)
"""


@program(OUT_OF_MEMORY, mem_limit="512Mi")
def test_what_was_written_before_the_sandbox_ran_out_of_memory_is_kept(outcome: Outcome) -> None:
    assert outcome.stdout == b"before"
    assert outcome.reason in (Reason.MEMORY_LIMIT, Reason.SANDBOX_LOST)
    assert "memory" in outcome.message


def test_what_was_written_before_an_abort_is_kept(execute: Execute) -> None:
    written = threading.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Output):
            written.set()

    code = "import time\nprint('written before')\ntime.sleep(60)"
    outcome = execute(code, on_event=watch, aborted=written.is_set)
    assert (outcome.reason, outcome.stdout, outcome.started) == (Reason.ABORTED, b"written before\n", True)
    assert outcome.message == "the caller aborted the execution"
