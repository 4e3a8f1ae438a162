"""What to do about an exception that ended the program, in one line: where it comes from what a sandbox is not.

Executed inside of the program by ``worker``, when its traceback has been written. An exception is known by its type and
its data; words are looked at where there is nothing else. What the traceback says itself is not said again.

Standard library only, any CPython from 3.8 on.
"""

# pathlib would be an import to pay for.
# ruff: noqa: PTH100, PTH109, PTH112, PTH119, PTH120, PTH208

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CHARACTERS = 900
"""The longest hint."""

LISTED_CHARACTERS = 600
"""What names in it may take."""

LATER = f"this is Python {sys.version.split()[0]}: syntax that came with a later version does not work"
NOTEBOOK = "this is plain Python, no notebook: leave out lines with % or !, get_ipython and display; print the results"
NO_NETWORK = (
    "this sandbox could not reach the network, nor will it at a second try: work with the files in the working "
    "directory, or ask for the data as an input file; of servers there are those that the program starts itself"
)
NO_INSTALL = "nothing can be installed here (no pip, no network)"
NO_DISPLAY = "there is no display: draw with Matplotlib and its default backend (Agg), and save figures to files"
NO_FFMPEG = "ffmpeg is not in this image: save the animation as .gif, with writer='pillow'"
FRESH = "each run starts in a fresh folder with its input files only, files of earlier runs are gone"
INSTALLERS = {"pip", "pip3", "conda", "apt", "apt-get"}
NETWORK_ERRORS = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETDOWN, errno.EADDRNOTAVAIL}
NETWORK_MODULES = {"socket", "ssl", "http", "urllib", "urllib3", "httpcore", "httpx", "aiohttp", "requests"}
OWN_MODULES = {"util", "helper", "config", "common", "module", "model", "function", "tool", "solution"}

BINARY = {
    b"PK": "a ZIP archive or an Office file: use pandas.read_excel or zipfile",
    b"\x1f\x8b": "compressed: use gzip, or compression='gzip'",
    b"\xff\xfe": "UTF-16: give encoding='utf-16'",
}
"""What a file is that is no UTF-8, by its first two bytes."""

SYNTAX = (
    (r"text: ([%!?]|(pip3?|conda|apt|apt-get) install\b)", NOTEBOOK),
    (r"text: ```", "the program has Markdown around it: leave out the lines with ```"),
    (r".*'unicodeescape' codec", "a backslash begins an escape: write r'...' around a path with backslashes"),
    (r".*('utf-8' codec|Non-UTF-8)", "the program is not valid UTF-8, as with half a character (a lone surrogate)"),
    (r".*(await|async).* outside", "put await into async def main(), and end with asyncio.run(main())"),
    (r"text: (type \w+.*=|(def|class) \w+\[|except(\*| \w+,)|(match|case) .*:|t['\"])", LATER),
    # Until 3.12 an f-string could not have its own quotes inside, nor a backslash.
    (r"message: f-string(: unmatched|: expecting| expression part)", LATER if sys.version_info < (3, 12) else ""),
)
"""Hints on a syntax error, by its line or its message."""


def hint_for(error: Any) -> str:
    """Return what to do about an exception, or about what it comes from; nothing where there is no more to say."""
    for _ in range(20):
        for kind in type(error).__mro__:
            name = f"{kind.__module__}.{kind.__qualname__}".replace("builtins.", "", 1)
            for line in (what if isinstance(what, str) else what(error) for known, what in RULES if known == name):
                if line:
                    return " ".join(line.split())[:CHARACTERS]
        group = getattr(error, "exceptions", None)
        error = group[0] if group else error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if error is None:
            break
    return ""


def frames(error: Any) -> list[Any]:
    """Return the frames of a traceback, the innermost first."""
    found: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        found.insert(0, trace.tb_frame)
        trace = trace.tb_next
    return found


def raised_in(error: Any) -> str:
    """Return the module and the function that raised an exception."""
    return "".join(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}" for frame in frames(error)[:1])


def listed(names: Iterable[str]) -> str:
    """Return names in a row, as many as there is room for."""
    from textwrap import shorten

    return shorten(", ".join(names) or "none", LISTED_CHARACTERS, placeholder=" and more")


def packages() -> str:
    """Return which packages are installed; importing ``importlib.metadata`` would take longer."""
    entries = [entry for folder in filter(os.path.isdir, sys.path) for entry in os.listdir(folder)]
    names = {entry.partition("-")[0] for entry in entries if entry.endswith((".dist-info", ".egg-info"))}
    return f"The packages installed are: {listed(sorted(names, key=str.lower))}"


def version_of(module: Any, missing: str) -> str:
    """Return that a package is there, in a version without what the program wants of it."""
    package = str(module).partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", None)
    return f"this is {package} {version}, which has no {missing}" if version else ""


def missing_module(error: Any) -> str:
    """The package is not there, or not this part of it; or it was a file of an earlier run."""
    top = (error.name or "").partition(".")[0]
    if top in ("IPython", "ipywidgets"):
        return NOTEBOOK
    if top in ("tkinter", "_tkinter", "turtle"):
        return NO_DISPLAY
    if top in sys.modules:
        return hidden(sys.modules[top]) or version_of(top, error.name)
    if top.rstrip("s") in OWN_MODULES:
        return f"there is no {top}.py: {FRESH}. Put its code into this program. {packages()}"
    return f"{top} is not in this image, and {NO_INSTALL}. {packages()}" if top else ""


def hidden(module: Any) -> str:
    """Return that a module is a file of the program, whose name may be that of another one."""
    path = str(getattr(module, "__file__", ""))
    own = path.startswith(os.getcwd()) and module is not sys.modules["__main__"]
    return f"{module.__name__} is the file {path} here: if another module is meant, rename the file" if own else ""


def failed_import(error: Any) -> str:
    """The module is there and does not work, or has no such name."""
    if "'headless' is currently running" in str(error):
        return NO_DISPLAY
    if "pip" in str(error):
        return f"{NO_INSTALL}. {packages()}"
    return hidden(sys.modules.get(error.name)) or version_of(error.name, f"such name: {error}")


def missing_attribute(error: Any) -> str:
    """A column that a table does not have, or a name of another version of the package."""
    thing = getattr(error, "obj", None)
    if thing is None:
        return version_of(raised_in(error), "such attribute")
    if is_table(thing):
        return columns_of(thing)
    return version_of(thing.__name__ if isinstance(thing, type(sys)) else type(thing).__module__, error.name)


def syntax(error: Any) -> str:
    """The program is a notebook's, a shell's, or for a later Python."""
    import re

    said = (f"text: {(error.text or '').strip()}", f"message: {error.msg}")
    return next((hint for pattern, hint in SYNTAX if any(re.match(pattern, words) for words in said)), "")


def unknown_name(error: Any) -> str:
    """Something of a notebook, of JSON or of an earlier run."""
    name, main = str(error).split("'")[1], vars(sys.modules["__main__"])
    if name in ("get_ipython", "display"):
        return NOTEBOOK
    if name in ("true", "false", "null"):
        return "true, false and null are JSON: Python's are True, False and None; json.loads reads a text"
    if any(frames(error)[end].f_globals is not main for end in (0, -1)):
        return ""
    return f"there is no {name} at this point: variables, functions and imports of earlier runs are gone"


def missing_file(error: Any) -> str:
    """A command that is not in the image, or a file that is not there."""
    name = os.fsdecode(error.filename)
    if raised_in(error) in ("subprocess._execute_child", "os._execvpe"):
        return missing_command(name)
    shown = getattr(sys, "last_value", error)
    if error is not shown and not raised_in(shown).startswith("__main__."):
        # The library that has looked for it says what is wrong.
        return ""
    folder, here = os.path.dirname(os.path.abspath(name)), os.getcwd()
    first = "" if os.path.isdir(folder) else f"there is no folder {folder}: make one below {here} with os.makedirs; "
    return f"{first}{FRESH}. In {here} there are: {listed(sorted(set(os.listdir()) - {'main.py'}))}"


def missing_command(name: str) -> str:
    """Return that a command is not in the image."""
    name = os.path.basename(name)
    why = NO_INSTALL if name in INSTALLERS else "use a module of Python in its place"
    return NO_FFMPEG if name == "ffmpeg" else f"the command {name} is not in this image: {why}"


def failed_command(error: Any) -> str:
    """A command that the program wanted to succeed."""
    words = error.cmd.split() if isinstance(error.cmd, str) else [str(word) for word in error.cmd]
    if INSTALLERS & {os.path.basename(word) for word in words}:
        return f"{NO_INSTALL}. {packages()}"
    # The shell's code for a command that it does not find.
    return missing_command(words[0]) if error.returncode == 127 else ""


def not_writable(_: Any) -> str:
    """A place that is read-only, or belongs to somebody else."""
    places = f"{os.getcwd()} and {os.environ.get('TMPDIR')}"
    return f"only {places} can be written, and files of the system not all read: what is saved in the first comes back"


def not_utf_8(error: Any) -> str:
    """A file in another encoding, or of another kind."""
    kind = BINARY.get(bytes(error.object[:2]), "perhaps of Windows or Excel: try encoding='cp1252'")
    return f"what is read is not {error.encoding}, it is {kind}"


def missing_column(error: Any) -> str:
    """A column that a table does not have; rows are looked up by an indexer."""
    used = [frame.f_locals.get("self") for frame in frames(error)]
    table = next(filter(is_table, used), None)
    return "" if table is None or any(type(it).__name__.endswith("Indexer") for it in used) else columns_of(table)


def is_table(thing: Any) -> bool:
    """Return whether something is a table of pandas."""
    return type(thing).__name__ == "DataFrame" and type(thing).__module__.startswith("pandas")


def columns_of(table: Any) -> str:
    """Return the names of a table's columns."""
    return f"the columns are: {listed(map(repr, table.columns[:200]))}"


def missing_argument(error: Any) -> str:
    """The program has looked for an argument of the command line."""
    from traceback import extract_tb

    line = extract_tb(error.__traceback__)[-1].line or ""
    return "there are no arguments: give values instead" if "argv" in line and len(sys.argv) == 1 else ""


RULES: tuple[tuple[str, Any], ...] = (
    ("ModuleNotFoundError", missing_module),
    ("ImportError", lambda e: type(e) is ImportError and failed_import(e)),
    ("AttributeError", missing_attribute),
    ("SyntaxError", lambda e: not str(e.filename).startswith("<") and syntax(e)),
    ("NameError", lambda e: type(e) is NameError and unknown_name(e)),
    ("FileNotFoundError", lambda e: isinstance(e.filename, (str, bytes)) and missing_file(e)),
    ("subprocess.CalledProcessError", failed_command),
    ("KeyError", lambda e: raised_in(e) == "os.__getitem__" and "a sandbox has no environment variables of its caller"),
    ("KeyError", missing_column),
    ("OSError", lambda e: e.errno == errno.EROFS and not_writable(e)),
    ("OSError", lambda e: e.errno in NETWORK_ERRORS and NO_NETWORK),
    ("PermissionError", lambda e: e.filename and not_writable(e)),
    ("PermissionError", "there are no special rights here: ports below 1024 and devices are out of reach"),
    ("sqlite3.OperationalError", lambda e: ("unable to open" in str(e) or "readonly" in str(e)) and not_writable(e)),
    ("socket.gaierror", NO_NETWORK),
    ("socket.timeout", NO_NETWORK),
    ("TimeoutError", lambda e: raised_in(e).partition(".")[0] in NETWORK_MODULES and NO_NETWORK),
    ("ConnectionRefusedError", NO_NETWORK),
    ("EOFError", lambda e: "reading a line" in str(e) and "standard input is empty: put the values into the program"),
    ("IndexError", missing_argument),
    ("UnicodeDecodeError", not_utf_8),
    ("UnicodeEncodeError", lambda e: "surrogates" in e.reason and "the text has half a character (a lone surrogate)"),
    ("RecursionError", "calls are nested too deep: use a loop"),
    ("concurrent.futures.process.BrokenProcessPool", "a process was killed, often for memory: use fewer"),
    ("_tkinter.TclError", NO_DISPLAY),
    ("ValueError", lambda e: "matplotlib.animation" in sys.modules and raised_in(e)[:4] == "PIL." and NO_FFMPEG),
    ("locale.Error", "this image has no such locale, C.UTF-8 is there: format numbers and dates by hand"),
    ("zoneinfo._common.ZoneInfoNotFoundError", "there is no such time zone; names are like Europe/Berlin"),
)
"""The type of an exception or of one above it, and the hint or what returns it; the first one is given."""
