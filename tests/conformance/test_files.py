"""Files go into the working directory and come back when they are new or changed; what stays out is named."""

from __future__ import annotations

import hashlib
import random

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.programs import contents, program

pytestmark = pytest.mark.cluster

MIB = 1024 * 1024

ELSEWHERE = "only files in the working directory (/workspace) come back"


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that no encoding makes shorter; the same in a program and in its test."""
    return random.Random(seed).randbytes(size)


@program("print(open('in.csv').read(), open('raw.bin', 'rb').read())", files={"in.csv": b"1,2", "raw.bin": b"\xff\0"})
def test_inputs_lie_in_the_working_directory_byte_for_byte(outcome: Outcome) -> None:
    assert outcome.stdout == b"1,2 b'\\xff\\x00'\n"


@program(
    "import pathlib\nfor path in sorted(pathlib.Path('a').rglob('*')):\n"
    "    print(path, path.is_file() and path.read_text())",
    files={"a/b/c/deep.txt": b"deep", "a/other.txt": b"other"},
)
def test_inputs_may_lie_in_folders(outcome: Outcome) -> None:
    assert outcome.stdout.decode().splitlines() == [
        "a/b False",
        "a/b/c False",
        "a/b/c/deep.txt deep",
        "a/other.txt other",
    ]


@program(
    "import os\nprint(*sorted(os.listdir()), sep='|')",
    files={"with space": b"", "ünï-€.txt": b"", "-rf": b"", "a'\"b;$(x)": b"", "...": b""},
)
def test_names_of_inputs_are_not_interpreted(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == "-rf|...|a'\"b;$(x)|main.py|with space|ünï-€.txt\n"


@program("import helper\nprint(helper.answer())", files={"helper.py": b"def answer():\n    return 42\n"})
def test_an_input_can_be_imported(outcome: Outcome) -> None:
    assert (outcome.stdout, contents(outcome)) == (b"42\n", {})


@program(
    "open('a.txt', 'a').write('+')\nopen('new.bin', 'wb').write(bytes(range(256)))\nopen('b.txt').read()",
    files={"a.txt": b"1", "b.txt": b"2", "c/d.txt": b"3"},
)
def test_new_and_changed_files_come_back_and_unchanged_ones_do_not(outcome: Outcome) -> None:
    assert contents(outcome) == {"a.txt": b"1+", "new.bin": bytes(range(256))}


@program("open('data.txt', 'r+').write('B')", files={"data.txt": b"A"})
def test_a_change_of_the_same_length_comes_back(outcome: Outcome) -> None:
    assert contents(outcome) == {"data.txt": b"B"}


@program("import os\nos.remove('a.txt')\nos.rename('b.txt', 'c.txt')", files={"a.txt": b"1", "b.txt": b"2"})
def test_a_deleted_input_is_no_error_and_a_renamed_one_is_new(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.COMPLETED, {"c.txt": b"2"})


@program("import os\nos.makedirs('ü/b')\nopen('ü/b/c.txt', 'w').write('deep')\nos.chdir('/tmp')\nopen('x', 'w')")
def test_files_in_folders_come_back_wherever_the_program_ends(outcome: Outcome) -> None:
    assert contents(outcome) == {"ü/b/c.txt": b"deep"}
    assert outcome.files_left_out == (f"/tmp/x: {ELSEWHERE}",)


@program("open('empty', 'w')\nopen('.hidden', 'w').write('h')")
def test_empty_and_hidden_files_come_back(outcome: Outcome) -> None:
    assert contents(outcome) == {"empty": b"", ".hidden": b"h"}


@program("import shutil\nshutil.copy('main.py', 'copy.py')")
def test_the_program_itself_does_not_come_back(outcome: Outcome) -> None:
    assert set(contents(outcome)) == {"copy.py"}


@program("open('main.py', 'w').write('print(1)')\nopen('helper.py', 'w')")
def test_a_program_that_was_changed_comes_back_under_its_name(outcome: Outcome) -> None:
    assert contents(outcome) == {"helper.py": b"", "main.py": b"print(1)"}


@program(
    "import pathlib, py_compile, multiprocessing.shared_memory\npy_compile.compile('main.py')\n"
    "(pathlib.Path.home() / '.x').write_text('x')\n(pathlib.Path.home() / 'cache/y').write_text('y')\n"
    "import matplotlib.pyplot as plt\nplt.figure()\nplt.close()\n"
    "block = multiprocessing.shared_memory.SharedMemory(create=True, size=1)\nimport os, time\nos.kill(os.getpid(), 9)",
    mem_limit="1Gi",
)
def test_caches_and_what_tools_leave_is_not_named(outcome: Outcome) -> None:
    assert (outcome.signal, contents(outcome), outcome.files_left_out) == ("SIGKILL", {}, ())


@program(
    "import pathlib\n(pathlib.Path.home() / 'summary.csv').write_text('a')\nopen('/tmp/chart.svg', 'w')\n"
    "open('/dev/shm/shared.bin', 'w')"
)
def test_files_in_other_places_are_named(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.COMPLETED, {})
    assert outcome.files_left_out == (
        f"/dev/shm/shared.bin: {ELSEWHERE}",
        f"/tmp/chart.svg: {ELSEWHERE}",
        f"/tmp/home/summary.csv: {ELSEWHERE}",
    )


@program("import os\nfor i in range(21_000):\n    os.close(os.open(f'/tmp/{i:05}', os.O_CREAT))\nopen('kept', 'w')")
def test_so_many_files_in_another_place_that_not_all_are_looked_at_hide_nothing(outcome: Outcome) -> None:
    assert contents(outcome) == {"kept": b""}
    assert len(outcome.files_left_out) == 6
    assert outcome.files_left_out[-1].startswith("and 199")


@program(
    "import atexit, subprocess, sys\natexit.register(lambda: open('atexit.txt', 'w').write('a'))\n"
    "f = open('unclosed.txt', 'w')\nf.write('u')\n"
    'subprocess.run([sys.executable, \'-c\', \'open("child.txt", "w").write("c")\'])'
)
def test_files_of_exit_handlers_of_children_and_unclosed_ones_come_back_whole(outcome: Outcome) -> None:
    assert contents(outcome) == {"atexit.txt": b"a", "unclosed.txt": b"u", "child.txt": b"c"}


@program("open('result.txt', 'w').write('so far')\nraise SystemExit(4)")
def test_files_of_a_program_that_fails_come_back(outcome: Outcome) -> None:
    assert (outcome.exit_code, contents(outcome)) == (4, {"result.txt": b"so far"})


@program("import time\nopen('result.txt', 'w').write('so far')\ntime.sleep(60)", timeout_seconds=2)
def test_files_of_a_program_that_was_killed_at_its_deadline_come_back(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.DEADLINE_EXCEEDED, {"result.txt": b"so far"})


@program(
    "for name in ('t.csv', 't.png', 't.json', 't.html', 't.txt', 't.pdf', 't.svg', 't.unknown-kind', 't'):\n"
    "    open(name, 'w')"
)
def test_files_carry_their_mime_types(outcome: Outcome) -> None:
    assert {file.name: file.mime_type for file in outcome.files} == {
        "t.csv": "text/csv",
        "t.png": "image/png",
        "t.json": "application/json",
        "t.html": "text/html",
        "t.txt": "text/plain",
        "t.pdf": "application/pdf",
        "t.svg": "image/svg+xml",
        "t.unknown-kind": "application/octet-stream",
        "t": "application/octet-stream",
    }


@program(
    "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/etc', 'folder')\n"
    "os.symlink('/proc/1/environ', 'environ')\nos.symlink('/dev/zero', 'zero')\nos.mkdir('d')\nos.symlink('..', 'd/up')"
)
def test_links_are_not_followed_but_named(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.COMPLETED, {})
    assert outcome.files_left_out == (
        "d/up: a symbolic link to ..",
        "environ: a symbolic link to /proc/1/environ",
        "folder: a symbolic link to /etc",
        "link: a symbolic link to /etc/passwd",
        "zero: a symbolic link to /dev/zero",
    )


@program("import os\nos.symlink('loop', 'loop')\nopen('kept', 'w').close()")
def test_a_link_to_itself_hides_nothing(outcome: Outcome) -> None:
    assert (contents(outcome), outcome.files_left_out) == ({"kept": b""}, ("loop: a symbolic link to loop",))


@program("import os\nos.remove('in.txt')\nos.symlink('/etc/passwd', 'in.txt')", files={"in.txt": b"1"})
def test_an_input_that_was_replaced_by_a_link_does_not_come_back(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.COMPLETED, {})


@program(
    "import os, socket, stat\nos.mkfifo('fifo')\nsocket.socket(socket.AF_UNIX).bind('socket')\n"
    "for kind in (stat.S_IFCHR, stat.S_IFBLK):\n"
    "    try:\n        os.mknod('device', 0o666 | kind, os.makedev(1, 5))\n"
    "    except OSError as error:\n        print(error.strerror)\n"
)
def test_fifos_and_sockets_stay_and_devices_cannot_be_made(outcome: Outcome) -> None:
    assert (outcome.reason, contents(outcome)) == (Reason.COMPLETED, {})
    assert outcome.files_left_out == ("fifo: a named pipe", "socket: a socket")
    assert outcome.stdout == b"Operation not permitted\n" * 2


@program("open('huge', 'wb').truncate(1 << 40)\nopen('small', 'w').write('s')")
def test_a_huge_sparse_file_is_named_and_not_read(outcome: Outcome) -> None:
    assert contents(outcome) == {"small": b"s"}
    assert outcome.files_left_out == (f"huge: {1 << 40} bytes, {5 * MIB} were left",)


@program("for i in range(5):\n    open(f'f{i}', 'w')", limits={"file_count": 3})
def test_files_beyond_the_count_are_named(outcome: Outcome) -> None:
    assert set(contents(outcome)) == {"f0", "f1", "f2"}
    assert outcome.files_left_out == ("f3: more than 3 files", "f4: more than 3 files")


@program("for name in 'abc':\n    open(name, 'w').write(name * 400)", limits={"file_bytes": 1000})
def test_files_beyond_the_bytes_are_named(outcome: Outcome) -> None:
    assert contents(outcome) == {"a": b"a" * 400, "b": b"b" * 400}
    assert outcome.files_left_out == ("c: 400 bytes, 200 were left",)


@program("for i in range(300):\n    open(f'{i:03}' + 'ü' * 20, 'w')", limits={"file_count": 2})
def test_of_many_files_left_out_the_first_are_named_and_the_rest_is_counted(outcome: Outcome) -> None:
    assert len(outcome.files) == 2
    assert (len(outcome.files_left_out), outcome.files_left_out[-1]) == (51, "and 248 more")


@program(
    r"for name in (b'a\nb', b'\xff', 'Bild\u202f1\u3000(1): \U0001f469\u200d\U0001f4bb.txt'.encode()): open(name, 'w')"
)
def test_names_come_back_as_they_are_and_those_that_cannot_be_shown_are_described(outcome: Outcome) -> None:
    assert set(contents(outcome)) == {"Bild\u202f1\u3000(1): \U0001f469\u200d\U0001f4bb.txt"}
    reason = "the name has control characters or is not UTF-8"
    assert outcome.files_left_out == (rf"a\nb: {reason}", rf"\udcff: {reason}")


@program(
    "import os\nopen('locked', 'w').write('x')\nos.chmod('locked', 0)\n"
    "os.mkdir('shut')\nopen('shut/in', 'w').write('y')\nos.chmod('shut', 0)"
)
def test_what_cannot_be_read_is_named(outcome: Outcome) -> None:
    assert contents(outcome) == {}
    assert sorted(outcome.files_left_out) == ["locked: Permission denied", "shut: Permission denied"]


@program(
    "import os\nfor folder in range(21):\n    os.mkdir(f'd{folder:02}')\n"
    "    for i in range(1000):\n        open(f'd{folder:02}/{i}', 'w').close()",
    timeout_seconds=100,
    limits={"file_count": 1},
)
def test_so_many_files_that_not_all_are_looked_at_are_said_to_be(outcome: Outcome) -> None:
    assert outcome.reason is Reason.COMPLETED
    assert len(outcome.files) == 1
    assert outcome.files_left_out[0] == "more than 20000 files and folders: the rest was not looked at"


FIGURES = """
import matplotlib.pyplot as plt, sys
open("figure_1.png", "w").write("own")
plt.plot([1, 2]); plt.figure(); plt.figure(); plt.close()
sys.exit(3)
"""


@program(FIGURES, mem_limit="1Gi")
def test_open_figures_come_back_as_png_beside_the_programs_own_files(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.stderr) == (3, b"")
    found = contents(outcome)
    assert set(found) == {"figure_1.png", "figure_2.png", "figure_3.png"}
    assert found["figure_1.png"] == b"own"
    assert found["figure_2.png"].startswith(b"\x89PNG")
    assert {file.mime_type for file in outcome.files} == {"image/png"}


@program(
    "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.savefig('mine.png')\nplt.figure()\nplt.close()\n"
    "plt.figure()\nplt.plot([2])\nplt.show()\nraise ValueError('after')",
    mem_limit="1Gi",
)
def test_figures_that_were_saved_or_closed_do_not_come_back_again_and_those_of_a_failure_do(outcome: Outcome) -> None:
    assert b"ValueError: after" in outcome.stderr
    assert set(contents(outcome)) == {"mine.png", "figure_1.png"}


@program(
    "import hashlib\nprint(hashlib.sha256(open('big', 'rb').read()).hexdigest())",
    files={"big": noise(16 * MIB)},
    mem_limit="1Gi",
)
def test_16_mib_of_input_arrive_whole(outcome: Outcome) -> None:
    assert outcome.stdout.decode().strip() == hashlib.sha256(noise(16 * MIB)).hexdigest()


@program("print(1)", files={"big": bytes(24 * MIB)}, mem_limit="1Gi")
def test_a_request_that_is_too_large_is_refused_with_its_size(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.started) == (Reason.REQUEST_TOO_LARGE, False)
    assert "make a request of 32.0 MiB (files count 4/3 of their size) and 27.2 MiB is the most" in outcome.message


NOISE = "import random\nnoise = lambda size, seed=1: random.Random(seed).randbytes(size)\n"


@program(NOISE + f"open('big', 'wb').write(noise({5 * MIB}))")
def test_5_mib_of_output_files_arrive_whole(outcome: Outcome) -> None:
    assert contents(outcome)["big"] == noise(5 * MIB)
    assert outcome.files_left_out == ()


@program(
    NOISE + f"open('a', 'wb').write(noise({3 * MIB}))\nopen('b', 'wb').write(noise({3 * MIB}, 2))\nopen('c', 'w')",
    limits={"file_bytes": 8 * MIB},
)
def test_a_file_beyond_the_reply_is_left_out_whole_and_named(outcome: Outcome) -> None:
    assert outcome.reason is Reason.COMPLETED
    assert contents(outcome) == {"a": noise(3 * MIB), "c": b""}
    (left_out,) = outcome.files_left_out
    assert left_out.startswith(f"b: {3 * MIB} bytes, ")


@program(
    NOISE + f"import sys\nsys.stdout.buffer.write(noise({4 * MIB}))\n"
    f"open('a', 'wb').write(noise({MIB}))\nopen('b', 'wb').write(noise({4 * MIB}))",
    limits={"stdout_bytes": 4 * MIB},
)
def test_output_and_files_share_the_reply_and_neither_is_cut(outcome: Outcome) -> None:
    assert outcome.stdout == noise(4 * MIB)
    assert contents(outcome) == {"a": noise(MIB)}
    (left_out,) = outcome.files_left_out
    assert left_out.startswith(f"b: {4 * MIB} bytes, ")
