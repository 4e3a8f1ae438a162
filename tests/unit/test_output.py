from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from adk_gke_sandbox.cli import output
from adk_gke_sandbox.cli.output import show, write
from adk_gke_sandbox.errors import SandboxError
from adk_gke_sandbox.execution import File


class Terminal(io.BytesIO):
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


def test_a_terminal_is_shown_control_characters_as_escapes() -> None:
    target = Terminal()
    show("a\x1b[2Jb\rc\x07\u202e\x9b1mñ 👩\u200d💻\tx\r\n\n".encode() + b"\xff", target, raw=False)
    assert target.getvalue().decode() == "a\\x1b[2Jb\\rc\\x07\\u202e\\x9b1mñ 👩\u200d💻\tx\n\n\ufffd"


@pytest.mark.parametrize(("target", "raw"), [(io.BytesIO(), False), (Terminal(), True)])
def test_a_pipe_or_raw_gets_the_bytes(target: io.BytesIO, raw: bool) -> None:
    show(b"\x1b[2J\xff\r\n", target, raw=raw)
    assert target.getvalue() == b"\x1b[2J\xff\r\n"
