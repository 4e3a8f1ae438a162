"""What the command line prints of its own, and what it does with a program's text and files.

The text and the files come from a program that nobody has read: the text cannot steer the terminal, and the files
replace nothing.
"""

from __future__ import annotations

import codecs
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, TextIO

from rich.console import Console
from rich.table import Column, Table

from adk_gke_sandbox import telemetry
from adk_gke_sandbox.decoder import visible
from adk_gke_sandbox.errors import SandboxError
from adk_gke_sandbox.execution import File, Timings

OUT: Final = Console(soft_wrap=True, highlight=False)
ERR: Final = Console(stderr=True, soft_wrap=True, highlight=False)

_STEERING: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of what moves the cursor, changes the terminal, or turns the direction of text."""

_PLAIN: Final = frozenset("\n\t\u200d")
"""Of these what text needs; the last one joins emoji."""


def fail(what: SandboxError | str) -> None:
    """Say what went wrong."""
    ERR.print(f"adk-gke-sandbox: {what}", style="red", markup=False)


def note(text: str, *, style: str = "dim") -> None:
    """Say what is good to know; yellow is for what the user should know of a result."""
    ERR.print(text, style=style, markup=False)


def phases(title: str, timings: Timings, cpu_seconds: float, peak_memory_bytes: int) -> Table:
    """Return a table of the phases and the usage of an execution; a terminal of 80 columns has room for it."""
    seconds = {phase: getattr(timings, phase) for phase in (*telemetry.PHASES, "total")} | {"cpu": cpu_seconds}
    shown = {name: f"{value:.2f} s" if value < 100 else f"{value:.0f} s" for name, value in seconds.items()}
    shown["memory"] = f"{peak_memory_bytes / 2**20:.0f} MiB"
    columns = (Column(name, justify="right", no_wrap=True) for name in shown)
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_row(*shown.values())
    return table


class Stream:
    """A stream of ours, to which a program's output is written as it comes.

    Attributes:
        fault: Why something could not be written; empty as well if the reader has left, as ``head`` does.
    """

    def __init__(self, text: TextIO | None, *, raw: bool) -> None:
        """Make one.

        Args:
            text: For example ``sys.stdout``, which is ``None`` if it was closed when the process began.
            raw: Write the bytes as they are. Otherwise they are raw only where the stream is no terminal; on a
                terminal control characters are written as escapes.
        """
        self.fault = ""
        self._target = text.buffer if text else None
        escaped = text and not raw and text.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if escaped else None
        self._held = ""

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Write bytes; ``last`` is for those after which nothing comes."""
        if self._target is None:
            return
        if self._decoder:
            text = self._held + self._decoder.decode(data, last)
            # It may be the first half of a line's end.
            self._held = "\r" if text.endswith("\r") and not last else ""
            data = visible(text.removesuffix(self._held).replace("\r\n", "\n"), _STEERING, _PLAIN).encode()
        try:
            self._target.write(data)
            self._target.flush()
        except OSError as error:
            self.fault = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
            close(self._target)
            self._target = None


def close(stream: IO[Any]) -> None:
    """Lead a stream that cannot be written to nowhere: its buffer is written again when the process ends."""
    # https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def prepare(folder: Path) -> None:
    """Make the folder of output files, and see that a file can be made in it.

    Raises:
        SandboxError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise SandboxError(f"{error.filename} is not a folder", "Name a folder by --output") from error
    except OSError as error:
        raise SandboxError(f"cannot write to {folder}: {error.strerror}", "Name another folder by --output") from error


def write(folder: Path, file: File, *, force: bool) -> Path:
    """Write an output file below a folder, through no link and over no file; return its path.

    Args:
        folder: Where files go; made if it is not there.
        file: The file. Its name is a relative path, which the decoder of the reply has checked.
        force: Replace a file that exists, once the new one is whole.

    Raises:
        SandboxError: something is in the way.
    """
    target = folder
    *parents, name = PurePosixPath(file.name).parts
    elsewhere = "Choose another folder"
    # On Windows a name of Linux can be several parts of a path, or name a drive.
    if os.name == "nt" and any(mark in file.name for mark in ":\\"):
        raise SandboxError(f"{file.name!r} is no file name on this system", "Run it on Linux or macOS")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in parents:
            target /= part
            if target.is_symlink():
                raise SandboxError(f"{target} is a link: {file.name} is not written", elsewhere)
            target.mkdir(exist_ok=True)
        target /= name
        # What is replaced is the entry of the folder, whatever a link there points to.
        replaced = force and (target.is_symlink() or target.is_file())
        _create(target.with_name(f".adk-gke-sandbox-{secrets.token_hex(8)}") if replaced else target, target, file)
    except FileExistsError as error:
        message = f"{target} exists: {file.name} is not written"
        raise SandboxError(message, elsewhere if force else f"{elsewhere}, or add --force") from error
    # The second one: a name that the file system's encoding does not have.
    except (OSError, UnicodeError) as error:
        message = f"cannot write {target}: {getattr(error, 'strerror', '') or error}"
        raise SandboxError(message, elsewhere) from error
    return target


def _create(path: Path, target: Path, file: File) -> None:
    """Write a file to a path that must be new, and move it to its target; leave nothing of it if that fails."""
    # The mode x follows no link at the last part of the path.
    stream = path.open("xb")
    try:
        with stream:
            stream.write(file.content)
        path.replace(target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
