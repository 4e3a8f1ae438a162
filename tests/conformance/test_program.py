"""A program behaves as under `python main.py` in a directory of its own."""

from __future__ import annotations

import re

import pytest

from adk_gke_sandbox.execution import Outcome, Reason
from tests.conformance.programs import program

pytestmark = pytest.mark.cluster


@program(
    "import sys\nprint(__name__, __file__, sys.argv, sys.path[0], __spec__, __package__, __doc__)",
    argv=("one", "two words", "--flag=ü"),
)
def test_it_is_main_with_its_file_and_arguments(outcome: Outcome) -> None:
    assert outcome.stdout.decode() == (
        "__main__ /workspace/main.py ['main.py', 'one', 'two words', '--flag=ü'] /workspace None None None\n"
    )


@program("'''What it does.'''\nif __name__ == '__main__':\n    print(__doc__)")
def test_the_main_guard_lets_it_through_and_its_docstring_is_its_own(outcome: Outcome) -> None:
    assert outcome.stdout == b"What it does.\n"


@program("print(sorted(name for name in globals() if not name.startswith('__')), len(open(__file__).readlines()))")
def test_its_names_and_its_file_are_its_own(outcome: Outcome) -> None:
    assert outcome.stdout == b"[] 1\n"


@program("import main\nprint(main.__name__ if __name__ == '__main__' else 'imported')")
def test_it_can_import_itself_as_a_module(outcome: Outcome) -> None:
    assert outcome.stdout == b"imported\nmain\n"


@program("import sys\nprint(repr(sys.stdin.read()))\ntry:\n    input()\nexcept EOFError:\n    print('at its end')")
def test_standard_input_is_at_its_end(outcome: Outcome) -> None:
    assert outcome.stdout == b"''\nat its end\n"


EXITS = {
    "without a value": ("import sys\nsys.exit()", 0, ""),
    "with None": ("raise SystemExit(None)", 0, ""),
    "with a number": ("import sys\nsys.exit(7)", 7, ""),
    "with a negative number": ("import sys\nsys.exit(-1)", 255, ""),
    "with a number above 255": ("import sys\nsys.exit(259)", 3, ""),
    "with True": ("import sys\nsys.exit(True)", 1, ""),
    "with a text": ("import sys\nsys.exit('no luck')", 1, "no luck\n"),
    "with an object": ("import sys\nsys.exit([1, 2])", 1, "[1, 2]\n"),
    "by the builtin": ("exit(4)", 4, ""),
    "by os._exit": ("import os\nos._exit(9)", 9, ""),
    "in a thread": ("import sys, threading\nthreading.Thread(target=sys.exit, args=(3,)).start()", 0, ""),
    "after an exception": ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise SystemExit(5)", 5, ""),
    "in a function below try and finally": (
        "import sys\ntry:\n    sys.exit(6)\nexcept Exception:\n    print('no')\nfinally:\n    sys.stderr.write('f')",
        6,
        "f",
    ),
}


@pytest.mark.parametrize(
    ("exit_code", "stderr"),
    [pytest.param(code, stderr, marks=program(text), id=name) for name, (text, code, stderr) in EXITS.items()],
)
def test_an_exit_has_the_exit_code_that_it_asks_for(exit_code: int, stderr: str, outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.signal, outcome.stdout, outcome.stderr.decode()) == (exit_code, "", b"", stderr)
    assert outcome.reason is (Reason.COMPLETED if exit_code == 0 else Reason.ERROR)


@program("def divide(n):\n    return 1 / n\n\n\ndivide(0)\n")
def test_an_exception_has_its_line_numbers_and_source_lines_and_no_frame_of_ours(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 1)
    lines = outcome.stderr.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert [line for line in lines if line.startswith("  File")] == [
        '  File "/workspace/main.py", line 5, in <module>',
        '  File "/workspace/main.py", line 2, in divide',
    ]
    assert [line for line in lines if line.startswith("    ") and not set(line) & {"^", "~"}] == [
        "    divide(0)",
        "    return 1 / n",
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"


@program("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('two') from error")
def test_a_chained_exception_shows_both(outcome: Outcome) -> None:
    text = outcome.stderr.decode()
    assert text.index("ZeroDivisionError: division by zero") < text.index("The above exception was the direct cause")
    assert text.endswith("ValueError: two\n")


@program("import helper", files={"helper.py": b"def broken():\n    raise KeyError('k')\n\n\nbroken()\n"})
def test_an_exception_in_an_input_module_names_its_file_and_line(outcome: Outcome) -> None:
    text = outcome.stderr.decode()
    assert '  File "/workspace/main.py", line 1, in <module>\n    import helper\n' in text
    assert "  File \"/workspace/helper.py\", line 2, in broken\n    raise KeyError('k')\n" in text


@program("import no_such_package")
def test_a_missing_package_is_named(outcome: Outcome) -> None:
    *_, error, hint = outcome.stderr.decode().splitlines()
    assert error == "ModuleNotFoundError: No module named 'no_such_package'"
    assert re.fullmatch(
        "hint: no_such_package is not in this image, .* The packages installed are: .*matplotlib, numpy.*, pandas.*",
        hint,
    )


@program("import pandas\npandas.DataFrame({'total': [1]})['sum']")
def test_a_column_that_is_not_there_is_answered_with_those_that_are(outcome: Outcome) -> None:
    assert outcome.stderr.endswith(b"\nhint: the columns are: 'total'\n")


@program("import pandas\npandas.read_csv('https://data.example.invalid/iris.csv')")
def test_an_address_of_the_network_is_answered_with_the_absence_of_it(outcome: Outcome) -> None:
    assert outcome.wall_seconds < 15
    assert b"\nhint: this sandbox could not reach the network" in outcome.stderr


@program("open('/data.csv', 'w')")
def test_a_place_that_cannot_be_written_is_answered_with_those_that_can(outcome: Outcome) -> None:
    assert b"\nhint: only /workspace and /tmp can be written" in outcome.stderr


@program("print('before')\nx = = 1\n")
def test_a_syntax_error_shows_the_place_and_nothing_runs(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.stdout) == (1, b"")
    assert outcome.stderr.decode() == (
        '  File "/workspace/main.py", line 2\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'
    )


@program("if True:\nprint(1)")
def test_an_indentation_error_is_named(outcome: Outcome) -> None:
    assert b'main.py", line 2\n    print(1)\n' in outcome.stderr
    assert b"IndentationError: expected an indented block" in outcome.stderr


@program("raise KeyboardInterrupt")
def test_a_keyboard_interrupt_ends_as_one(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.signal, outcome.exit_code) == (Reason.ERROR, "SIGINT", 130)
    assert outcome.stderr.endswith(b"KeyboardInterrupt\n")


@program("import sys\nsys.excepthook = lambda kind, *_: print('hook', kind.__name__)\n1 / 0")
def test_its_own_excepthook_is_called(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == (b"hook ZeroDivisionError\n", b"", 1)


@program("import warnings\n\nwarnings.warn('careful')\nprint('on')")
def test_a_warning_is_shown_and_is_no_failure(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.stdout) == (Reason.COMPLETED, b"on\n")
    assert outcome.stderr.decode() == "/workspace/main.py:3: UserWarning: careful\n  warnings.warn('careful')\n"


@program("import logging\nlogging.warning('logged')\nlogging.info('not shown')")
def test_logging_goes_to_standard_error(outcome: Outcome) -> None:
    assert outcome.stderr == b"WARNING:root:logged\n"


@program("import atexit\natexit.register(print, 'bye')\nprint('hi')\nraise SystemExit(2)")
def test_exit_handlers_run(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.exit_code) == (b"hi\nbye\n", 2)


@program("class A:\n    def __del__(self):\n        print('gone')\n\n\na = A()")
def test_objects_are_finalised_at_the_end(outcome: Outcome) -> None:
    assert outcome.stdout == b"gone\n"


@program("def f(n):\n    return f(n + 1)\n\n\nf(0)")
def test_endless_recursion_is_a_recursion_error(outcome: Outcome) -> None:
    assert b"[Previous line repeated " in outcome.stderr
    assert b"RecursionError: maximum recursion depth exceeded" in outcome.stderr
    assert len(outcome.stderr) < 1000


@program(
    "import sys\nprint(sys.getrecursionlimit())\ndef f(n):\n    return n and f(n - 1)\nprint(f(990))\n"
    "sys.setrecursionlimit(6000)\nprint(f(5000))"
)
def test_recursion_may_be_as_deep_as_in_any_python(outcome: Outcome) -> None:
    assert outcome.stdout == b"1000\n0\n0\n", outcome.stderr


@program("import inspect\nprint(len(inspect.stack()))\ndef f():\n    return 1\nprint(inspect.getsource(f))")
def test_nothing_stands_below_it_on_the_stack_and_its_source_is_readable(outcome: Outcome) -> None:
    assert outcome.stdout == b"1\ndef f():\n    return 1\n\n"


@program("import pickle\nclass A: ...\nprint(type(pickle.loads(pickle.dumps(A()))).__module__)")
def test_its_classes_can_be_pickled(outcome: Outcome) -> None:
    assert outcome.stdout == b"__main__\n"


@program("from __future__ import annotations\ndef f(a: no_such_name): ...\nprint(f.__annotations__)\nx: int = 1")
def test_a_future_import_works_on_its_first_line(outcome: Outcome) -> None:
    assert outcome.stdout == b"{'a': 'no_such_name'}\n"


@program("import asyncio\nasync def f(n):\n    await asyncio.sleep(0)\n    return n\nprint(asyncio.run(f(5)))")
def test_asyncio_runs(outcome: Outcome) -> None:
    assert (outcome.stdout, outcome.stderr) == (b"5\n", b"")


@program(
    "import asyncio, sys\nasync def f():\n"
    "    p = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(6)', stdout=-1)\n"
    "    print((await p.communicate())[0], p.returncode)\n"
    "    print(await asyncio.to_thread(lambda: 7))\nasyncio.run(f())"
)
def test_asyncio_starts_processes_and_threads(outcome: Outcome) -> None:
    assert outcome.stdout == b"b'6\\n' 0\n7\n", outcome.stderr


SOURCES = {
    "unicode of every kind": (
        "naïve = 'ä€😀\u200b\u0301\U0010ffff'\nprint(naïve, len(naïve), ascii('\u2028\u202e'))",
        "ä€😀\u200b\u0301\U0010ffff 6 '\\u2028\\u202e'\n",
    ),
    "a line separator in a string": ("print(ascii('a\u2028b'))\nprint(1)", "'a\\u2028b'\n1\n"),
    "CRLF": ("x = '''a\r\nb'''\r\nprint(repr(x))\r\n", "'a\\nb'\n"),
    "CR alone": ("print(1)\rprint(2)\r", "1\n2\n"),
    "a byte order mark": ("\ufeffprint('marked')", "marked\n"),
    "a declared encoding": ("# -*- coding: latin-1 -*-\nprint(ascii('é'))", "'\\xc3\\xa9'\n"),
    "a shebang and a declared encoding": ("#!/usr/bin/python3\n# coding: utf-8\nprint('é')", "é\n"),
    "tabs and form feeds": ("if True:\n\tprint(1)\n\x0c\nprint(2)", "1\n2\n"),
    "no newline at its end": ("if True:\n    print(1)", "1\n"),
    "quotes and backslashes of shells": ("print('$HOME `x` \\\\ \"\\' %s {x} $(y)')", "$HOME `x` \\ \"' %s {x} $(y)\n"),
    "only a comment": ("# nothing", ""),
    "a megabyte of text": ("x = '" + "y" * 1024 * 1024 + "'\nprint(len(x))", "1048576\n"),
}


@pytest.mark.parametrize(
    "stdout", [pytest.param(expected, marks=program(code), id=name) for name, (code, expected) in SOURCES.items()]
)
def test_source_text_is_read_as_python_reads_a_file(stdout: str, outcome: Outcome) -> None:
    assert (outcome.stdout.decode(), outcome.stderr) == (stdout, b"")


@program("print('\udcff')")
def test_a_byte_that_is_no_text_is_a_syntax_error_as_in_a_file(outcome: Outcome) -> None:
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 1)
    assert b"SyntaxError: Non-UTF-8 code starting with '\\xff' in file /workspace/main.py on line 1" in outcome.stderr


@program(
    "import csv, decimal, hashlib, json, lzma, sqlite3, ssl, statistics, tempfile, unicodedata, uuid, zlib\n"
    "db = sqlite3.connect('x.db')\ndb.execute('create table t(a)')\n"
    "db.execute('insert into t values (5)')\ndb.commit()\n"
    "print(db.execute('select a from t').fetchone(), len(uuid.uuid4().hex), ssl.OPENSSL_VERSION[:7])"
)
def test_the_standard_library_works(outcome: Outcome) -> None:
    assert outcome.stdout == b"(5,) 32 OpenSSL\n", outcome.stderr
    assert [file.name for file in outcome.files] == ["x.db"]


@program(
    "import pandas as pd\nframe = pd.read_csv('in.csv')\nprint(frame.groupby('k').v.sum().to_dict())\n"
    "frame.to_excel('out.xlsx')",
    files={"in.csv": b"k,v\na,1\nb,2\na,3\n"},
    mem_limit="1Gi",
)
def test_pandas_reads_and_writes(outcome: Outcome) -> None:
    assert outcome.stdout == b"{'a': 4, 'b': 2}\n", outcome.stderr
    assert [file.name for file in outcome.files] == ["out.xlsx"]
