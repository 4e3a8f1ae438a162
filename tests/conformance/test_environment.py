"""A program finds a writable home, its own variables and nothing of the cluster or of what started it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.programs import program

pytestmark = pytest.mark.cluster

FACTS = """
import getpass, json, locale, os, pathlib, site, sys, tempfile
print(json.dumps({
    "cwd": os.getcwd(),
    "listing": sorted(os.listdir()),
    "environ": dict(os.environ),
    "home": str(pathlib.Path.home()),
    "user": getpass.getuser(),
    "tmp": os.listdir("/tmp"),
    "tempdir": tempfile.gettempdir(),
    "encodings": [sys.getdefaultencoding(), sys.getfilesystemencoding(), locale.getpreferredencoding(False)],
    "path": sys.path,
    "flags": [sys.flags.isolated, sys.flags.no_site, sys.flags.optimize, sys.flags.no_user_site, sys.flags.safe_path],
    "modules": sorted(sys.modules),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
    "cmdline": pathlib.Path("/proc/self/cmdline").read_bytes().decode().split("\\0")[1:-1],
    "orig_argv": sys.orig_argv[1:],
    "umask": os.umask(0o22),
}))
"""


@pytest.fixture
def facts(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def facts_program(**given: Any) -> pytest.MarkDecorator:
    return program(FACTS, files={"in.txt": b"1"}, env={"MINE": "ü = 1", "HOME": "/workspace"}, argv=("a",), **given)


@facts_program()
def test_the_working_directory_holds_the_program_and_its_inputs_alone(facts: dict[str, Any]) -> None:
    assert (facts["cwd"], facts["listing"]) == ("/workspace", ["in.txt", "main.py"])


@facts_program()
def test_the_temporary_directory_holds_the_homes_alone(facts: dict[str, Any]) -> None:
    assert (facts["tempdir"], facts["tmp"]) == ("/tmp", ["home"])


@facts_program()
def test_the_user_has_a_name(facts: dict[str, Any]) -> None:
    assert [facts["user"], facts["environ"]["USER"], facts["environ"]["LOGNAME"]] == ["sandbox"] * 3


@facts_program()
def test_variables_that_were_asked_for_are_set_and_win(facts: dict[str, Any]) -> None:
    assert (facts["environ"]["MINE"], facts["home"]) == ("ü = 1", "/workspace")


@facts_program()
def test_there_is_no_variable_of_the_cluster(facts: dict[str, Any]) -> None:
    assert [name for name in facts["environ"] if "KUBE" in name or "SERVICE" in name or "_PORT" in name] == []


@facts_program()
def test_there_is_no_variable_that_nobody_asked_for(facts: dict[str, Any]) -> None:
    own = {"HOME", "USER", "LOGNAME", "TMPDIR", "MPLBACKEND", "MPLCONFIGDIR", "XDG_CACHE_HOME", "MINE"}
    own |= {"MALLOC_ARENA_MAX", "PYTHONDONTWRITEBYTECODE"}
    own |= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"}
    container = {"PATH", "LANG", "HOSTNAME", "PWD", "SHLVL", "_"}
    assert set(facts["environ"]) - container == own


@facts_program()
def test_text_is_utf_8_everywhere(facts: dict[str, Any]) -> None:
    assert {name.lower() for name in facts["encodings"]} == {"utf-8"}


@facts_program()
def test_the_interpreter_is_a_plain_one(facts: dict[str, Any]) -> None:
    assert (facts["flags"], facts["path"][0]) == ([0, 0, 0, 0, False], "/workspace")
    assert facts["orig_argv"] == ["main.py", "a"]


@facts_program()
def test_nothing_of_what_started_it_is_left(facts: dict[str, Any]) -> None:
    assert not {"supervisor", "frames", "processes", "worker"} & set(facts["modules"])
    assert [entry for entry in facts["path"] if "worker" in entry or "sandbox" in entry] == []
    assert "PYTHONPATH" not in facts["environ"]
    assert facts["descriptors"] == [0, 1, 2, 3, 255], (
        "3 is that of the listing itself, 255 tells the supervisor of the end"
    )


@facts_program()
def test_the_umask_is_the_usual_one(facts: dict[str, Any]) -> None:
    assert facts["umask"] == 0o22


@program(
    "import os, pathlib, tempfile\n"
    "for name in ('HOME', 'TMPDIR', 'MPLCONFIGDIR', 'XDG_CACHE_HOME'):\n"
    "    path = pathlib.Path(os.environ[name]) / 'a' / 'b'\n    path.mkdir(parents=True)\n"
    "    (path / 'x').write_text('x')\n"
    "    print(name, os.environ[name])\n"
    "with tempfile.NamedTemporaryFile() as file:\n    file.write(b'x')\n"
    "with tempfile.TemporaryDirectory() as folder:\n    open(folder + '/x', 'w').close()"
)
def test_homes_caches_and_temporary_files_are_writable(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == (
        "HOME /tmp/home\nTMPDIR /tmp\nMPLCONFIGDIR /tmp/home/matplotlib\nXDG_CACHE_HOME /tmp/home/cache\n"
    )
    assert (outcome.reason, outcome.files) == (Reason.COMPLETED, ())


@program(
    "import sys, os\nprint(sys.flags.optimize, sys.flags.dev_mode, os.environ['PYTHONOPTIMIZE'])\nassert False",
    env={"PYTHONOPTIMIZE": "1", "PYTHONDEVMODE": "1"},
)
def test_variables_of_the_interpreter_take_effect(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"1 True 1\n")


@program(
    "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import os; print(len(os.environ))'])\n"
    "import os\nprint(len(os.environ))\nsubprocess.run(['python3', '-c', 'print(3)'])"
)
def test_children_find_the_same_environment_and_interpreter(outcome: Outcome) -> None:
    first, second, third = outcome.stdout.split()
    assert (first, third) == (second, b"3")


@program(
    "import os\nprint(open('/dev/null').read() == '', len(os.urandom(8)), len(open('/dev/zero', 'rb').read(9)))\n"
    "open('/dev/null', 'w').write('x')\nopen('/dev/shm/x', 'w').write('x')\nprint(open('/proc/self/comm').read())"
)
def test_the_usual_devices_are_there(outcome: Outcome) -> None:
    assert outcome.stdout.startswith(b"True 8 9\npython"), outcome.stderr


@program(
    "import socket, threading\nserver = socket.create_server(('127.0.0.1', 0))\n"
    "def serve():\n    connection, _ = server.accept()\n    connection.sendall(b'hi')\n    connection.close()\n"
    "threading.Thread(target=serve).start()\nprint(socket.create_connection(server.getsockname()).recv(9))"
)
def test_a_program_can_speak_to_itself_over_loopback(outcome: Outcome) -> None:
    assert outcome.stdout == b"b'hi'\n", outcome.stderr


@program("import matplotlib.pyplot as plt\nprint(plt.get_backend().lower())", mem_limit="1Gi")
def test_figures_need_no_screen(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.stderr) == (b"agg\n", b"")
