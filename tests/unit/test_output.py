from __future__ import annotations

import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from adk_gke_sandbox.cli import output
from adk_gke_sandbox.cli.output import Stream, phases, prepare, write
from adk_gke_sandbox.errors import SandboxError
from adk_gke_sandbox.execution import File, Timings


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def file(name: str, content: bytes = b"new") -> File:
    return File(name=name, content=content)


def test_a_file_goes_below_the_folder(tmp_path: Path) -> None:
    assert write(tmp_path / "out", file("plots/a b.png"), force=False).read_bytes() == b"new"
    assert (tmp_path / "out" / "plots" / "a b.png").is_file()


def test_a_file_that_exists_is_replaced_by_force_alone(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("mine")
    with pytest.raises(SandboxError, match=r"Makefile exists: Makefile is not written. Choose another folder, or add"):
        write(tmp_path, file("Makefile"), force=False)
    assert (tmp_path / "Makefile").read_text() == "mine"
    write(tmp_path, file("Makefile"), force=True)
    assert (tmp_path / "Makefile").read_text() == "new"


@contextmanager
def no_file_above(size_bytes: int) -> Iterator[None]:
    """As on a full disk: the first bytes of a file can be written, the rest cannot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("mine")
    for name, force in (("old", True), ("new", False)):
        with no_file_above(10), pytest.raises(SandboxError, match=f"cannot write .*/{name}: File too large"):
            write(tmp_path, file(name, b"x" * 100), force=force)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "mine")]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "plots").mkdir()
    with pytest.raises(SandboxError, match=r"plots exists: plots is not written"):
        write(tmp_path, file("plots"), force=force)
    assert (tmp_path / "plots").is_dir()


def test_the_folder_of_output_files_is_made(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_is_no_folder_of_output_files(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SandboxError, match=r"is not a folder. Name a folder by --output"):
        prepare(tmp_path / "file" / below)


def test_a_folder_that_takes_no_file_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"cannot write to /proc/self: .*. Name another folder by --output"):
        prepare(Path("/proc/self"))


@pytest.mark.parametrize("name", ["C:x", "a\\b"])
def test_on_windows_a_name_of_several_parts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(output, "os", SimpleNamespace(name="nt"))
    with pytest.raises(SandboxError, match="is no file name on this system"):
        write(tmp_path, file(name), force=True)


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_through_a_link(tmp_path: Path, force: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "folder").symlink_to(outside)
    (out / "name").symlink_to(outside / "kept")
    (out / "dangling").symlink_to(outside / "made")
    with pytest.raises(SandboxError, match=r"folder is a link: folder/kept is not written"):
        write(out, file("folder/kept"), force=force)
    for name in ("name", "dangling"):
        if force:
            write(out, file(name), force=True)
        else:
            with pytest.raises(SandboxError, match=f"{name} exists"):
                write(out, file(name), force=False)
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("kept", "mine")]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("mine")
    with pytest.raises(SandboxError, match=r"plots exists: plots/a.png is not written"):
        write(tmp_path, file("plots/a.png"), force=True)


def written(text: io.TextIOWrapper, *parts: bytes, raw: bool = False) -> bytes:
    """Return what is written to a stream of ours when a program's output comes in these parts."""
    stream = Stream(text, raw=raw)
    for part in parts:
        stream.write(part)
    stream.write(b"", last=True)
    assert isinstance(text.buffer, io.BytesIO)
    return text.buffer.getvalue()


def test_a_terminal_is_shown_control_characters_as_escapes() -> None:
    data = "a\x1b[2Jb\rc\x07\u202e\x9b1mñ 👩\u200d💻\tx\r\n\n".encode() + b"\xff"
    expected = "a\\x1b[2Jb\\rc\\x07\\u202e\\x9b1mñ 👩\u200d💻\tx\n\n\ufffd"
    assert written(Terminal(io.BytesIO()), data).decode() == expected
    assert written(Terminal(io.BytesIO()), *(bytes([byte]) for byte in data)).decode() == expected


def test_the_end_of_the_output_is_shown_though_it_is_half_a_line_end_or_half_a_character() -> None:
    assert written(Terminal(io.BytesIO()), b"a\r") == b"a\\r"
    assert written(Terminal(io.BytesIO()), b"a\xc3").decode() == "a\ufffd"


@pytest.mark.parametrize(("kind", "raw"), [(io.TextIOWrapper, False), (Terminal, True)])
def test_a_pipe_or_raw_gets_the_bytes(kind: type[io.TextIOWrapper], raw: bool) -> None:
    assert written(kind(io.BytesIO()), b"\x1b[2J\xff\r\n", raw=raw) == b"\x1b[2J\xff\r\n"


def test_a_stream_that_cannot_be_written_says_so_once_and_takes_the_rest() -> None:
    with Path("/dev/full").open("w") as full:
        stream = Stream(full, raw=False)
        stream.write(b"x")
        stream.write(b"y")
        assert stream.fault == "No space left on device"


def test_a_reader_that_has_left_is_no_fault() -> None:
    read, wrote = os.pipe()
    os.close(read)
    with open(wrote, "w") as pipe:  # noqa: PTH123
        stream = Stream(pipe, raw=False)
        stream.write(b"x")
        stream.write(b"y")
        assert stream.fault == ""


def test_a_stream_that_was_closed_before_takes_everything() -> None:
    Stream(None, raw=False).write(b"x", last=True)


@pytest.mark.parametrize("seconds", [0.04, 86400.0])
def test_the_phases_fit_a_terminal_of_80_columns(seconds: float) -> None:
    timings = Timings(submit=0.05, schedule=99.9, start=0.5, run=seconds, collect=0.01, delete=0.02)
    console = Console(width=80, file=io.StringIO())
    console.print(phases("sandbox-1: Completed (cold)", timings, 86400.0, 8 * 1024**3))
    assert isinstance(console.file, io.StringIO)
    title, names, values = console.file.getvalue().splitlines()
    assert title.startswith("sandbox-1: Completed (cold)")
    assert names.split() == ["submit", "schedule", "start", "run", "collect", "delete", "total", "cpu", "memory"]
    assert "99.90 s" in values
    assert values.endswith(" 86400 s  8192 MiB")
