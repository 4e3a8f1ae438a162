from __future__ import annotations

import os
import shutil
import sys

import pytest

from adk_gke_sandbox.errors import SandboxError
from infra.local import prerequisites


def test_another_system_is_refused_with_the_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError) as raised:
        prerequisites.check_platform()
    assert "the local cluster needs Linux; this is darwin. Use any other cluster instead" in str(raised.value)


def test_a_missing_command_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, path=None: None if name == "conntrack" else which(name, path=path) or "/x"
    )
    assert prerequisites.missing_packages() == ["conntrack"]


def test_packages_are_installed_by_apt() -> None:
    commands = prerequisites.install_commands(["conntrack", "ipset"])
    assert commands[-1][-2:] == ["conntrack", "ipset"]
    assert all(command[0] == "apt-get" for command in commands)


def test_without_apt_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SandboxError) as raised:
        prerequisites.install_commands(["conntrack"])
    assert "these are missing and there is no apt-get to install them: conntrack. Install them by hand" in str(
        raised.value
    )


def test_without_root_the_command_for_sudo_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from infra.local.__main__ import main

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["up"]) == 1
    shown = capsys.readouterr().err
    assert "need root: sudo --preserve-env=" in shown
    assert "there is no sudo. Run the command above as root" in shown
