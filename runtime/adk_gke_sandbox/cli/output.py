"""What the command line prints of its own, and what it does with a program's text and files.

The text and the files come from a program that nobody has read: the text cannot steer the terminal, and the files
replace nothing.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from rich.console import Console
from rich.table import Column, Table

from adk_gke_sandbox import telemetry
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
    """Return a table of the phases and the usage of an execution."""
    seconds = {phase: getattr(timings, phase) for phase in (*telemetry.PHASES, "total")} | {"cpu": cpu_seconds}
    shown = {name: f"{value:.2f} s" for name, value in seconds.items()}
    shown["peak memory"] = f"{peak_memory_bytes / 2**20:.0f} MiB"
    table = Table(*(Column(name, justify="right") for name in shown), title=title)
    table.add_row(*shown.values())
    return table


def show(data: bytes, target: BinaryIO, *, raw: bool) -> None:
    """Write a program's output to a stream of ours.

    Args:
        data: What the program wrote.
        target: For example ``sys.stdout.buffer``.
        raw: Write the bytes as they are. Otherwise they are raw only where the stream is no terminal; on a terminal
            control characters are written as escapes.
    """
    if not raw and target.isatty():
        data = without_control(data.decode("utf-8", "replace")).encode()
    target.write(data)
    target.flush()


def without_control(text: str) -> str:
    """Return text in which everything that steers a terminal is written as an escape, the bell as ``x07``."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _STEERING and character not in _PLAIN
        else character
        for character in text.replace("\r\n", "\n")
    )


def write(folder: Path, file: File, *, force: bool) -> Path:
    """Write an output file below a folder, through no link and over no file; return its path.

    Args:
        folder: Where files go; made if it is not there.
        file: The file. Its name is a relative path, which the decoder of the reply has checked.
        force: Replace a file that exists.

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
        if force and (target.is_symlink() or target.is_file()):
            # What is replaced is the entry of the folder, whatever a link there points to.
            target.unlink()
        # The mode x follows no link at the last part of the path.
        with target.open("xb") as stream:
            stream.write(file.content)
    except FileExistsError as error:
        message = f"{error.filename} exists: {file.name} is not written"
        raise SandboxError(message, f"{elsewhere}, or add --force") from error
    except OSError as error:
        raise SandboxError(f"cannot write {target}: {error.strerror}", elsewhere) from error
    return target
