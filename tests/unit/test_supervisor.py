"""The real supervisor as a process of this machine, through the protocol; what needs gVisor is a cluster test."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from adk_gke_sandbox.execution import File, Limits, Outcome, Reason, Request
from adk_gke_sandbox.protocol import Transcript, encode_request, name_fault

SUPERVISOR = Path(__file__).parents[2] / "runtime/adk_gke_sandbox/pod/supervisor.py"
PROGRAMS = sorted(SUPERVISOR.parent.glob("*.py"))
NONCE = "0123456789abcdef"
WITH_USER_SITE = str(getattr(sys, "_base_executable", sys.executable))
"""The interpreter outside of the virtual environment, in which there is no user's folder of packages."""

Run = Callable[..., Outcome]


class Place:
    """The folders of one execution, and the commands that work on them."""

    def __init__(self, base: Path) -> None:
        self.request = base / "request"
        self.workspace = base / "workspace"
        self.temporary = base / "tmp"
        for folder in (self.request, self.workspace, self.temporary):
            folder.mkdir()
        self.env = {"TMPDIR": str(self.temporary), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        self.command = [sys.executable, "-I", "-S", "-B", str(SUPERVISOR), str(self.request)]

    def write(self, request: Request) -> None:
        (self.request / "request.json").write_bytes(encode_request(request, NONCE))

    def execute(self) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command, cwd=self.workspace, env=self.env, capture_output=True, timeout=18)

    def reply(self) -> bytes:
        done = self.execute()
        assert done.stderr == b""
        return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def run(place: Place) -> Run:
    def run(code: str, limits: Limits | None = None, **fields: object) -> Outcome:
        given = {"timeout_seconds": 15, **fields}
        place.write(Request(code=code, limits=limits or Limits(), **given))  # type: ignore[arg-type]
        return outcome(place.reply())

    return run


def outcome(reply: bytes) -> Outcome:
    transcript = Transcript(NONCE)
    transcript.feed(reply)
    assert transcript.ended, reply[-2000:]
    return transcript.outcome("test")


def plain(place: Place, code: str, *argv: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program without the runner, in a folder with the same path."""
    (place.workspace / "main.py").write_bytes(code.encode("utf-8", "surrogatepass"))
    env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run(
        [sys.executable, "main.py", *argv], cwd=place.workspace, env=env, stdin=subprocess.DEVNULL, capture_output=True
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_what_runs_in_the_pod_is_python_3_8_and_imports_the_standard_library_alone(program: Path) -> None:
    tree = ast.parse(program.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {
        module.split(".")[0]
        for node in ast.walk(tree)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    # The last is for type checkers alone; a worker gives way to the image's own sitecustomize.
    own = {"frames", "processes", "sitecustomize", "adk_gke_sandbox"}
    assert names - set(sys.stdlib_module_names) <= own


SAME_AS_PLAIN: Mapping[str, str] = {
    "both streams": "import sys; print('a'); print('b', file=sys.stderr)",
    "argv": "import sys; print(sys.argv, sys.path[0], __name__, __file__)",
    "module attributes": "print(sorted(globals()), __spec__, __package__, type(__loader__).__name__, __doc__)",
    "exit number": "import sys; sys.exit(7)",
    "exit text": "import sys; sys.exit('no luck')",
    "traceback": "def f(n):\n    return 1 / n\n\n\nf(0)\n",
    "syntax error": "print('a'\nx = = 1\n",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "own excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0])\n1 / 0",
    "print_stack": "import traceback\ndef f():\n    traceback.print_stack()\nf()",
    "warning at top": "import warnings; warnings.warn('careful', stacklevel=2)",
    "recursion error": "def f(n):\n    return f(n + 1)\nf(0)",
    "depth": (
        "import sys\ndef f(n):\n    return n and f(n - 1)\n"
        "print(f(sys.getrecursionlimit() - 10), sys.getrecursionlimit())"
    ),
    "frames": "import inspect; print(len(inspect.stack()))",
    "atexit": "import atexit; atexit.register(print, 'bye'); print('hi'); raise SystemExit(2)",
    "finalizer": "class A:\n    def __del__(self):\n        print('gone')\na = A()",
    "stdin": "import sys; print(repr(sys.stdin.read()))",
    "future": "from __future__ import annotations\ndef f(a: nonsense): ...\nprint(f.__annotations__)",
    "annotations": "x: int = 1\nprint(__annotations__)",
    "segfault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "pickle": "import pickle\nclass A: ...\nprint(type(pickle.loads(pickle.dumps(A()))).__module__)",
    "inspect source": "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f))",
    "open descriptors": "import os; print([fd for fd in os.listdir('/proc/self/fd') if int(fd) < 250])",
    "inherited descriptors": "import os; os.execvp('ls', ['ls', '/proc/self/fd'])",
}


@pytest.mark.parametrize("name", SAME_AS_PLAIN)
def test_program_does_what_python_main_py_does(name: str, run: Run, place: Place) -> None:
    code = SAME_AS_PLAIN[name]
    expected = plain(place, code, "one", "two words")
    found = run(code, argv=("one", "two words"))
    assert found.stdout.decode() == expected.stdout.decode()
    assert re.sub("hint: .*\n$", "", found.stderr.decode()) == expected.stderr.decode()
    returned = expected.returncode
    assert (found.exit_code, found.signal) == (
        (returned, "") if returned >= 0 else (128 - returned, signal.Signals(-returned).name)
    )
    assert found.reason is (Reason.COMPLETED if returned == 0 else Reason.ERROR)


def test_code_with_half_a_character_fails_as_a_file_with_it_would(run: Run) -> None:
    found = run("print('\ud83d')")
    assert (found.reason, b"SyntaxError" in found.stderr) == (Reason.ERROR, True)


def test_timeout_keeps_what_was_written_even_without_a_newline(run: Run) -> None:
    begin = time.monotonic()
    found = run("import time\nprint('partial', end='')\ntime.sleep(60)", timeout_seconds=0.5)
    assert (found.reason, found.signal, found.stdout) == (Reason.DEADLINE_EXCEEDED, "SIGKILL", b"partial")
    assert found.message == "the program was killed after 0.5 s"
    assert 0.5 <= found.wall_seconds < 2
    assert time.monotonic() - begin < 3


def test_timeout_holds_while_nobody_reads_the_reply(place: Place) -> None:
    place.write(Request(code="while True: print('x' * 1000)", timeout_seconds=0.5))
    process = subprocess.Popen(place.command, cwd=place.workspace, env=place.env, stdout=subprocess.PIPE)
    time.sleep(1.5)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
    reply, _ = process.communicate(timeout=10)
    assert set(states) <= {"Z"}
    assert outcome(reply).reason is Reason.DEADLINE_EXCEEDED


def test_process_that_ignores_sigterm_and_has_left_the_session_is_killed_at_the_deadline(
    run: Run, place: Place
) -> None:
    found = run(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
        "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
        "time.sleep(60)",
        timeout_seconds=1,
    )
    assert found.reason is Reason.DEADLINE_EXCEEDED
    assert_gone(int((place.workspace / "pid").read_text()))


def test_a_program_that_has_replaced_itself_is_killed_at_the_deadline(run: Run) -> None:
    found = run("import os\nos.execvp('sleep', ['sleep', '60'])", timeout_seconds=0.5)
    assert (found.reason, found.signal, found.exit_code) == (Reason.DEADLINE_EXCEEDED, "SIGKILL", 137)


class TestLines:
    def test_a_line_is_one_write_however_many_parts_it_is_printed_from(self, run: Run) -> None:
        found = run(
            "import os, sys\nread, write = os.pipe2(os.O_DIRECT)\n"
            "for stream in (sys.stdout, sys.stderr):\n    kept = os.dup(stream.fileno())\n"
            "    os.dup2(write, stream.fileno())\n    print('a', 'b', sep=', ', file=stream)\n"
            "    os.dup2(kept, stream.fileno())\n    print(os.read(read, 99))"
        )
        assert found.stdout == b"b'a, b\\n'\nb'a, b\\n'\n"

    @pytest.mark.parametrize(
        ("start", "arrives"),
        [
            ("work()", True),
            ("os.fork() or work(); os.wait()", True),
            ("subprocess.run([sys.executable, '-c', text])", True),
            ("subprocess.run([sys.executable, '-I', '-c', text])", False),
        ],
        ids=["program", "fork", "interpreter", "isolated interpreter"],
    )
    def test_a_line_is_written_when_it_is_printed(self, start: str, arrives: bool, run: Run, place: Place) -> None:
        place.command[0] = WITH_USER_SITE
        text = "import os; print('whole'); os._exit(0)"
        found = run(f"import os, subprocess, sys\ntext = {text!r}\ndef work(): exec(text)\n{start}")
        assert found.stdout == b"whole\n" * arrives

    def test_unbuffered_output_can_be_asked_for(self, run: Run) -> None:
        code = "import os; print('part', end=''); os._exit(0)"
        assert run(code, env={"PYTHONUNBUFFERED": "1"}).stdout == b"part"

    def test_the_images_wish_for_unbuffered_output_is_not_the_programs(self, run: Run, place: Place) -> None:
        place.env["PYTHONUNBUFFERED"] = "1"
        assert run("import os, sys; print(sys.stdout.write_through, 'PYTHONUNBUFFERED' in os.environ)").stdout == (
            b"False False\n"
        )


def test_threads_have_small_stacks_also_in_interpreters_that_the_program_starts(run: Run, place: Place) -> None:
    place.command[0] = WITH_USER_SITE
    code = "import threading; print(threading.stack_size())"
    found = run(f"{code}\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}])")
    assert found.stdout == b"2621440\n2621440\n"


@pytest.mark.parametrize(
    "nesting",
    [
        "class A:\n    def __repr__(self): return repr(A())\ndeep = lambda: repr(A())",
        "def deep(n=0): return sorted([n], key=lambda n: deep(n + 1))",
        "class A(dict):\n    def __missing__(self, key): return self[key + 1]\ndeep = lambda: A()[0]",
        "import functools\ndef deep(): return functools.partial(functools.reduce, lambda *_: deep())([1, 2])",
        "import json\na = []\nfor _ in range(100_000): a = [a]\ndeep = lambda: json.dumps(a)",
        "import copy\na = []\nfor _ in range(100_000): a = [a]\ndeep = lambda: copy.deepcopy(a)",
    ],
    ids=["repr", "sorted", "missing", "reduce", "json", "copy"],
)
def test_recursion_in_a_thread_ends_in_its_error_and_not_in_a_crash(nesting: str, run: Run) -> None:
    found = run(
        f"{nesting}\nimport threading\ndef work():\n    try: deep()\n    except RecursionError: print('ended')\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()"
    )
    assert (found.exit_code, found.stdout) == (0, b"ended\n")


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_processes_outside_are_left_alone(run: Run) -> None:
    bystander = subprocess.Popen(["sleep", "30"])
    try:
        run("import time; time.sleep(60)", timeout_seconds=0.3)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_head_and_tail_are_kept_and_the_middle_is_counted(run: Run) -> None:
    limits = Limits(stdout_bytes=2000, stderr_bytes=0)
    found = run("import sys\nfor i in range(10000): print(f'{i:05}')\nprint('e' * 500, file=sys.stderr)", limits)
    assert found.stdout.startswith(b"00000\n00001\n")
    assert found.stdout.endswith(b"09998\n09999\n")
    assert found.stdout_dropped == 60000 - 2000
    assert found.stderr_dropped == 501
    assert found.reason is Reason.COMPLETED


def test_flood_of_100_mb_is_survived_in_bounded_memory(place: Place) -> None:
    code = "import os\nb = b'y' * 65536\nfor _ in range(1600): os.write(1, b)"
    place.write(Request(code=code))
    wrapper = (
        "import resource, subprocess, sys\nprint(subprocess.run(sys.argv[1:], capture_output=True).stdout.decode())"
    )
    wrapper += "\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *place.command], cwd=place.workspace, env=place.env, capture_output=True
    )
    *reply, peak = done.stdout.strip().splitlines()
    found = outcome(b"\n".join(reply) + b"\n")
    assert found.reason is Reason.COMPLETED
    assert len(found.stdout) - 1024 * 1024 < 100
    assert found.stdout_dropped == 1600 * 65536 - 1024 * 1024
    assert int(peak) < 40 * 1024


def test_many_small_writes_become_few_frames(place: Place) -> None:
    place.write(Request(code="import os, time\nfor i in range(300): os.write(1, b'.'); time.sleep(0.002)"))
    reply = place.reply()
    assert outcome(reply).stdout == b"." * 300
    assert reply.count(b'"t":"out"') < 100


class TestFiles:
    def test_new_and_changed_files_come_back(self, run: Run) -> None:
        found = run(
            "import os\nopen('a.txt', 'a').write('+')\nos.makedirs('d/e')\n"
            "open('d/e/ü.bin', 'wb').write(bytes(256) * 99)",
            files=(File(name="a.txt", content=b"1"), File(name="b.txt", content=b"2")),
        )
        assert {file.name: file.content for file in found.files} == {"a.txt": b"1+", "d/e/ü.bin": bytes(256) * 99}
        assert found.files[0].mime_type == "text/plain"

    def test_long_names_do_not_make_a_frame_too_long(self, place: Place) -> None:
        place.write(
            Request(
                code="import os\nfor _ in range(12): os.mkdir('\"' * 240); os.chdir('\"' * 240)\n"
                "for i in range(200): open(f'{i:03}' + '\u00e9' * 100, 'wb').write(bytes(12000))",
                limits=Limits(file_count=2),
            )
        )
        reply = place.reply()
        assert max(map(len, reply.splitlines())) < 16 * 1024
        found = outcome(reply)
        assert [len(file.content) for file in found.files] == [12000, 12000]
        assert found.files_left_out[0].endswith("\u00e9: more than 2 files")
        assert found.files_left_out[-1] == f"and {198 + 1 - len(found.files_left_out)} more"

    def test_all_frames_together_stay_within_the_reply_that_is_asked_for(self, place: Place) -> None:
        code = "open('a', 'wb').write(bytes(20000))\nopen('b', 'wb').write(bytes(40000))\n"
        code += "for i in range(999): open(f'c{i}', 'w')"
        place.write(Request(code=code, limits=Limits(file_count=2000), reply_bytes=80_000))
        reply = place.reply()
        found = outcome(reply)
        assert 60_000 < len(reply) <= 80_000
        assert (found.reason, found.files[0].name) == (Reason.COMPLETED, "a")
        assert re.fullmatch(r"b: 40000 bytes, \d+ were left", found.files_left_out[0])
        assert found.files_left_out[1].endswith(": 0 bytes, 0 were left")

    def test_a_name_comes_back_unless_the_client_would_refuse_it(self, run: Run) -> None:
        edges = [0x01, 0x1F, 0x20, 0x7E, 0x7F, 0x9F, 0xA0, 0xAD, 0x200D, 0x2027, 0x2028, 0x2029, 0x202A, 0x202F, 0x3000]
        names = [f"{chr(code)}x" for code in (*edges, 0xD7FF, 0xE000, 0xFEFF, 0xFFFE, 0x1F469, 0x10FFFF)]
        found = run(f"for name in {names!a}: open(name, 'w')")
        assert {file.name for file in found.files} == {name for name in names if not name_fault(name)}
        assert len(found.files) + len(found.files_left_out) == len(names)
        assert all(entry.endswith("or is not UTF-8") for entry in found.files_left_out)

    def test_a_name_that_is_refused_is_named_with_escapes(self, run: Run) -> None:
        found = run(r"for name in (b'a\nb', b'\xffc', '\u2028d'.encode()): open(name, 'w')")
        reason = "the name has control characters or is not UTF-8"
        assert found.files_left_out == (rf"a\nb: {reason}", rf"\u2028d: {reason}", rf"\udcffc: {reason}")

    def test_a_program_that_was_changed_comes_back_under_its_name(self, run: Run) -> None:
        found = run("open('main.py', 'w').write('print(2)')\nopen('helper.py', 'w')")
        assert {file.name: file.content for file in found.files} == {"helper.py": b"", "main.py": b"print(2)"}

    def test_what_is_no_file_is_named_with_what_it_is(self, run: Run) -> None:
        found = run(
            "import os, socket\nos.mkfifo('fifo')\nsocket.socket(socket.AF_UNIX).bind('socket')\n"
            "os.symlink('data.csv', 'link')\nopen('data.csv', 'w')\nos.mkdir('empty')\nos.symlink('/etc', 'folder')"
        )
        assert [file.name for file in found.files] == ["data.csv"]
        assert found.files_left_out == (
            "fifo: a named pipe",
            "folder: a symbolic link to /etc",
            "link: a symbolic link to data.csv",
            "socket: a socket",
        )

    def test_results_come_first_then_figures_then_what_is_hidden_or_a_tools(self, run: Run) -> None:
        found = run(
            "import os\nfor name in ('.cache/a', '.b', 'node_modules/c/d', 'figure_1.png', 'x/.e', 'x/y', 'z'):\n"
            "    os.makedirs(os.path.dirname(name) or '.', exist_ok=True)\n    open(name, 'w')",
            Limits(file_count=4),
        )
        assert [file.name for file in found.files] == ["x/y", "z", "figure_1.png", ".b"]
        assert [entry.partition(":")[0] for entry in found.files_left_out] == [".cache/a", "node_modules/c/d", "x/.e"]

    def test_of_files_in_other_places_the_first_are_named_and_those_of_tools_are_not(
        self, run: Run, place: Place
    ) -> None:
        found = run(
            "import pathlib, tempfile\nhome, temporary = pathlib.Path.home(), pathlib.Path(tempfile.gettempdir())\n"
            "paths = [home / 'summary.csv', *(temporary / f'charts/{n}.svg' for n in range(7))]\n"
            "for path in [*paths, home / '.local/x', home / 'cache/x', home / 'matplotlib/x', temporary / '.x']:\n"
            "    path.parent.mkdir(exist_ok=True)\n    path.write_text('x')"
        )
        *named, rest = found.files_left_out
        reason = f"only files in the working directory ({place.workspace}) come back"
        assert named == [f"{place.temporary}/charts/{n}.svg: {reason}" for n in range(5)]
        assert rest == "and 3 more outside of the working directory"

    @pytest.mark.parametrize("end", ["raise SystemExit(3)", "import time; time.sleep(60)", "os.kill(os.getpid(), 9)"])
    def test_files_and_what_is_left_out_are_told_however_the_program_ends(self, end: str, run: Run) -> None:
        found = run(f"import os\nopen('good', 'w')\nopen('large', 'w').truncate(1 << 40)\n{end}", timeout_seconds=1)
        assert (found.reason is Reason.COMPLETED, [file.name for file in found.files]) == (False, ["good"])
        assert found.files_left_out == (f"large: {1 << 40} bytes, {5 * 1024 * 1024} were left",)


FIGURES = """
import io, os, sys
import matplotlib.pyplot as plt
from matplotlib.backends.backend_pdf import PdfPages
def figure(name):
    plt.figure(figsize=(1, 1))
    plt.text(0, 0, name)
    return plt.gcf()
"""

STUB = {
    "__init__.py": "",
    "backend_bases.py": "class FigureCanvasBase:\n    def print_figure(self, filename):\n        1 / 0\n",
    "figure.py": (
        "from matplotlib.backend_bases import FigureCanvasBase\nclass Figure:\n    canvas = FigureCanvasBase()\n"
        "    def savefig(self, fname):\n        self.canvas.print_figure(fname)\n"
    ),
    "text.py": "",
}


@pytest.fixture
def draw(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program with Matplotlib, whose list of fonts is made once for all tests."""
    env = {"MPLCONFIGDIR": str(tmp_path_factory.getbasetemp() / "matplotlib")}
    return lambda code, **fields: run(FIGURES + code, env=env, **fields)


class TestFigures:
    def test_those_that_the_program_has_not_saved_come_back_numbered_from_the_first(self, draw: Run) -> None:
        found = draw(
            """
figure("saved").savefig("a.png")
figure("saved without its extension").savefig("b")
figure("saved to a buffer").savefig(io.BytesIO())
with PdfPages("c.pdf") as pages:
    pages.savefig(figure("saved as a page"))
os.chdir(os.environ["TMPDIR"])
open(sys.path[0] + "/figure_8.png", "w").write("own")
figure("open")                                          # 7
figure("saved elsewhere").savefig("d.png")              # 9
figure("saved over").savefig(sys.path[0] + "/e.png")    # 10
figure("saved over it").savefig(sys.path[0] + "/e.png")
try:
    figure("cannot be saved yet: $$").savefig("f.png")
except ValueError:
    plt.gca().texts[0].set_text("now it can")           # 11
figure("closed")
plt.close()
figure("saved and drawn anew").savefig(sys.path[0] + "/g.png")
plt.clf()
plt.plot([1, 2])                                        # 12
sys.exit(3)
""",
            first_figure=7,
        )
        assert (found.exit_code, found.stderr) == (3, b"")
        contents = {file.name: file.content for file in found.files}
        own = {"a.png", "b.png", "c.pdf", "e.png", "figure_8.png", "g.png"}
        saved = {f"figure_{number}.png" for number in (7, 9, 10, 11, 12)}
        assert set(contents) == own | saved
        assert {contents[name][:4] for name in saved} == {b"\x89PNG"}

    def test_one_that_cannot_be_saved_is_named_with_its_cause_and_costs_no_other(self, draw: Run) -> None:
        found = draw("figure('$$ is cheap')\nfigure('good')")
        assert [file.name for file in found.files] == ["figure_2.png"]
        (line,) = found.stderr.decode().splitlines()
        begin = r"figure_1.png could not be saved (a dollar sign in a text is written \$): ValueError: "
        assert (line.startswith(begin), "ParseException" in line) == (True, True)

    def test_warnings_about_them_are_one_line_and_stop_none(self, draw: Run) -> None:
        found = draw(
            "import warnings\nwarnings.simplefilter('error')\n"
            "figure('a \U0001f9ff\U0001fae8')\nfigure('b \U0001f9ff')\nplt.rcParams['font.family'] = 'No Such Font'"
        )
        assert [file.name for file in found.files] == ["figure_1.png", "figure_2.png"]
        assert found.stderr.decode() == (
            "figures show boxes in place of characters that no font here has: \U0001f9ff\U0001fae8\n"
        )

    def test_a_traceback_of_saving_one_is_that_of_plain_python(self, run: Run, place: Place) -> None:
        code = "import matplotlib.figure, matplotlib.text\nmatplotlib.figure.Figure().savefig('x.png')"
        files = tuple(File(name=f"matplotlib/{name}", content=text.encode()) for name, text in STUB.items())
        assert run(code, files=files).stderr == plain(place, code).stderr

    def test_a_child_saves_none(self, draw: Run) -> None:
        found = draw("figure('open')\nif os.fork() == 0:\n    figure('of the child')\n    sys.exit()\nos.wait()")
        assert [file.name for file in found.files] == ["figure_1.png"]


def test_python_path_of_the_image_and_its_sitecustomize_hold(run: Run, place: Place, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/sitecustomize.py").write_text("seen = True")
    place.env["PYTHONPATH"] = str(tmp_path / "lib")
    found = run("import os, sys, sitecustomize\nprint(sitecustomize.seen, os.environ['PYTHONPATH'], sys.path[1])")
    assert found.stdout.decode() == f"True {tmp_path}/lib {tmp_path}/lib\n"


MEMORY = "the program needed more memory than the 512 MiB it may use; what is reserved and never touched counts, too."
FILES = "more than 40 files were open. Close some, or raise limits.open_files"
POOL = """
import concurrent.futures
def work(n): raise MemoryError
if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        list(pool.map(work, [1]))
"""
NUMPY = "import numpy\nnumpy.ones(10**10)"
LINKER = "raise ImportError('libx.so: failed to map segment from shared object')"
GROUP = "try: bytearray(10**12)\nexcept MemoryError as e: error = e\nraise ExceptionGroup('all', [error])"
NATIVE = 'import os\nos.write(2, b"terminate called\\n  what():  std::bad_alloc\\n")\n'
WORDS = "import sys\nsys.stderr.write('std::bad_alloc')\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("bytearray(10**12)", MEMORY),
        ("import mmap\nmmap.mmap(-1, 10**12)", MEMORY),
        pytest.param(NUMPY, MEMORY, id="NumPy"),
        pytest.param(POOL, MEMORY, id="in a child of a pool"),
        pytest.param(GROUP, MEMORY, id="in a group"),
        pytest.param(LINKER, MEMORY, id="dynamic linker"),
        pytest.param(NATIVE + "os.abort()", MEMORY, id="C++"),
        pytest.param(NATIVE + "os._exit(1)", MEMORY, id="native code that exits"),
        ("import sys\nsys.excepthook = print\nbytearray(10**12)", MEMORY),
        ("class GameMemoryError(Exception): ...\nraise GameMemoryError", ""),
        ("class OwnMemoryError(MemoryError): ...\nraise OwnMemoryError", ""),
        ("try: bytearray(10**12)\nexcept MemoryError: exit('MemoryError')", ""),
        pytest.param(WORDS + "sys.exit(1)", "", id="words alone"),
        ("held = [open('main.py') for _ in range(99)]", FILES),
        ("raise RuntimeError('OSError: [Errno 24] Too many open files')", ""),
        ("import os\nread, _ = os.pipe()\nos.set_blocking(read, False)\nos.read(read, 1)", ""),
        ('raise RuntimeError("can\'t start new thread")', ""),
        ("import os\nos.closerange(3, 999)\nraise MemoryError", ""),
    ],
)
def test_a_limit_is_told_by_the_type_of_the_exception_and_never_by_words(code: str, message: str, run: Run) -> None:
    found = run(code, Limits(open_files=40), memory_bytes=512 * 2**20)
    assert found.message.startswith(message)
    assert bool(found.message) == bool(message)
    assert found.reason is (Reason.MEMORY_LIMIT if message == MEMORY else Reason.ERROR)


def test_nothing_is_written_into_a_file_that_the_program_has_opened_in_place_of_the_report(run: Run) -> None:
    found = run(
        "import os\nos.closerange(3, 999)\nmine = [open(f'f{n}', 'w') for n in range(255)]\nraise MemoryError",
        Limits(file_count=300),
    )
    assert {file.content for file in found.files} == {b""}


HINTS: Mapping[str, tuple[str, str]] = {
    "package": ("import seaborn", "seaborn is not in this image, and nothing can be installed"),
    "packages that there are": ("import seaborn", "The packages installed are: "),
    "part of a package": ("import numpy\nimport numpy.no_such", "which has no numpy.no_such"),
    "file of an earlier run": ("import helpers", "there is no helpers.py: each run starts in a fresh folder"),
    "hidden package": ("import os\nopen('json.py', 'w')\nfrom json import dumps", "json is the file "),
    "other version": ("import numpy\nnumpy.float", "which has no such attribute"),
    "name of another version": ("from numpy import no_such", "which has no such name: cannot import name 'no_such'"),
    "pip": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', 'no-such'], check=True)",
        "nothing can be installed",
    ),
    "magic": ("!pip install pandas", "no notebook"),
    "display": ("display(1)", "no notebook"),
    "Markdown": ("```python\nprint(1)\n```", "Markdown"),
    "await": ("import asyncio\nawait asyncio.sleep(0)", "asyncio.run(main())"),
    "Windows path": ("open('C:\\Users\\me')", "write r'...'"),
    "half a character": ("print('\ud83d')", "lone surrogate"),
    "half a character printed": ("print('\\ud83d')", "lone surrogate"),
    "later syntax": ("type Row = = list", f"this is Python {sys.version.split()[0]}"),
    "variable of an earlier run": ("print(frame)", "variables, functions and imports of earlier runs are gone"),
    "JSON": ("a = {'a': true}", "Python's are True, False and None"),
    "input": ("input('name? ')", "standard input is empty"),
    "file": ("open('data.csv')", "input files only, files of earlier runs are gone. In "),
    "files that there are": ("open('data.csv')", "there are: other.csv"),
    "folder": ("open('out/data.csv', 'w')", "there is no folder "),
    "command": ("import subprocess\nsubprocess.run(['no-such'])", "the command no-such is not in this image"),
    "command in a shell": ("import subprocess\nsubprocess.run('no-such', shell=True, check=True)", "command no-such"),
    "ffmpeg": ("import subprocess\nsubprocess.run('/no/such/ffmpeg')", "save the animation as .gif"),
    "host": ("import socket\nsocket.getaddrinfo('127.0.0.1', 'no-such')", "could not reach the network"),
    "host behind a library": (
        "import socket\ntry: socket.getaddrinfo('127.0.0.1', 'no-such')\nexcept OSError: raise ValueError('library')",
        "could not reach the network",
    ),
    "server": ("import socket\nsocket.create_connection(('127.0.0.1', 1))", "servers there are those"),
    "encoding": ("open('f', 'wb').write(b'\\xfcber')\nopen('f').read()", "encoding='cp1252'"),
    "Excel": ("open('f', 'wb').write(b'PK\\x03\\x04\\xff')\nopen('f').read()", "pandas.read_excel"),
    "environment": ("import os\nos.environ['API_KEY']", "no environment variables of its caller"),
    "argument": ("import sys\nprint(sys.argv[1])", "there are no arguments"),
    "recursion": ("def f(): f()\nf()", "use a loop"),
    "locale": ("import locale\nlocale.setlocale(locale.LC_ALL, 'xx_XX')", "C.UTF-8 is there"),
    "time zone": ("import zoneinfo\nzoneinfo.ZoneInfo('Europe/Berlino')", "names are like Europe/Berlin"),
    "pool": (
        "import concurrent.futures, os\nif __name__ == '__main__':\n"
        "    with concurrent.futures.ProcessPoolExecutor(1) as pool: pool.submit(os._exit, 1).result()",
        "a process was killed",
    ),
    "behind another exception": (
        "try: open('x')\nexcept OSError as e: raise ValueError('no data') from e",
        "fresh folder",
    ),
}


@pytest.mark.parametrize("name", HINTS)
def test_a_failure_ends_with_one_line_that_says_what_to_do(name: str, run: Run) -> None:
    code, words = HINTS[name]
    found = run(code, files=(File(name="other.csv", content=b""),))
    *_, last = found.stderr.decode().splitlines()
    assert last.startswith("hint: "), found.stderr.decode()
    assert words in last


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('of its own')",
        "try: import seaborn\nexcept ImportError: exit(1)",
        "import sys\nsys.excepthook = lambda *_: None\nimport seaborn",
        "import os\nif os.fork() == 0: import seaborn\nos.wait()\nexit(1)",
        "error = ValueError()\nerror.__cause__ = error\nraise error",
        "bytearray(10**12)",
    ],
)
def test_there_is_no_hint_where_there_is_nothing_to_say(code: str, run: Run) -> None:
    found = run(code, memory_bytes=512 * 2**20)
    assert found.exit_code == 1
    assert b"hint: " not in found.stderr


def test_kill_near_the_limit_is_the_memory_limit(run: Run) -> None:
    code = "import os\nx = bytearray(80 * 2**20)\nos.kill(os.getpid(), 9)"
    found = run(code, memory_bytes=128 * 1024 * 1024)
    assert found.reason is Reason.MEMORY_LIMIT
    assert "probably at its memory limit" in found.message


class TestRequest:
    def test_parts_are_put_together(self, place: Place) -> None:
        document = encode_request(Request(code="print('whole')"), NONCE)
        for index in range(12):
            size = len(document) // 11
            (place.request / f"request.json.{index:03d}").write_bytes(document[index * size : (index + 1) * size])
        assert outcome(place.reply()).stdout == b"whole\n"

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version":1}', '{"version":9,"nonce":"x"}'])
    def test_bad_document_ends_with_a_reason(self, text: str, place: Place) -> None:
        (place.request / "request.json").write_text(text)
        end = json.loads(place.reply().splitlines()[-1])
        assert (end["t"], end["reason"], end["started"]) == ("end", "SandboxLost", False)
        assert end["message"].startswith("the runner could not run the request: ")

    def test_missing_document_ends_with_a_reason(self, place: Place) -> None:
        end = json.loads(place.reply().splitlines()[-1])
        assert re.fullmatch(r"the runner could not run the request: no request.json in .*", end["message"])


def test_the_verdict_goes_before_the_rest_of_the_output_and_the_files(place: Place) -> None:
    place.write(Request(code="print('x' * 99)\nopen('f', 'w')", limits=Limits(stdout_bytes=10)))
    frames = [json.loads(line) for line in place.reply().splitlines()]
    kinds = [frame["t"] for frame in frames]
    assert kinds[:2] == ["ready", "started"]
    assert kinds[kinds.index("exit") :][-3:] == ["out", "file", "end"]
    assert [frame["i"] for frame in frames] == list(range(len(frames)))


@pytest.mark.parametrize(
    ("code", "exit_code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 11)", 139), (None, 70)]
)
def test_the_exit_code_is_the_programs_or_says_that_there_was_none(
    code: str | None, exit_code: int, place: Place
) -> None:
    if code:
        place.write(Request(code=code))
    assert place.execute().returncode == exit_code


def test_a_fault_while_the_reply_is_sent_leaves_it_without_its_end(place: Place) -> None:
    document = json.loads(encode_request(Request(code="raise SystemExit(7)"), NONCE))
    del document["reply_bytes"]
    (place.request / "request.json").write_text(json.dumps(document))
    done = place.execute()
    assert (done.returncode, done.stderr) == (7, b"the reply could not be sent: 'reply_bytes'\n")
    transcript = Transcript(NONCE)
    transcript.feed(done.stdout)
    assert (transcript.exited, transcript.ended) == (True, False)


def test_without_gvisor_nothing_of_a_request_that_asks_for_it_is_written_or_run(run: Run, place: Place) -> None:
    trace = File(name="sitecustomize.py", content=b"open('trace', 'w')")
    found = run("print(1)", files=(trace,), env={"PYTHONPATH": str(place.workspace)}, gvisor=True)
    kernel = f"Linux {os.uname().release}"
    assert (found.reason, found.started, found.kernel) == (Reason.ISOLATION_MISSING, False, kernel)
    assert list(place.workspace.iterdir()) == []
    for words in (
        kernel,
        "must be gVisor's: runsc, on GKE gvisor",
        "runtime_class=None",
    ):
        assert words in found.message
