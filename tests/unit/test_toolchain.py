from __future__ import annotations

from pathlib import Path

import pytest

from adk_gke_sandbox.errors import SandboxError
from infra.local import toolchain
from infra.local.components import COMPONENTS

ETCD = next(component for component in COMPONENTS if component.name == "etcd")


def fake(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def only_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "COMPONENTS", (ETCD,))


@pytest.mark.usefixtures("only_etcd")
def test_a_binary_on_path_of_the_pinned_version_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(tmp_path / "bin", "etcd", f"etcd Version: {ETCD.version}")
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    found = toolchain.ensure(["cluster"], tmp_path / "cache", print)
    assert (found["etcd"].path, found["etcd"].source) == (path, "PATH")


@pytest.mark.usefixtures("only_etcd")
def test_a_binary_on_path_of_another_version_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(tmp_path / "bin", "etcd", "etcd Version: 3.6.1")
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    cached = fake(tmp_path / "cache" / "bin" / f"etcd-{toolchain.key(ETCD)}", "etcd", "")
    found = toolchain.ensure(["cluster"], tmp_path / "cache", print)
    assert (found["etcd"].path, found["etcd"].source) == (cached, "cache")


def test_a_changed_lock_is_another_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "SOURCES", tmp_path)
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "go.sum").write_text("one")
    before = toolchain.key(ETCD)
    (tmp_path / "etcd" / "go.sum").write_text("two")
    assert toolchain.key(ETCD) != before


@pytest.mark.usefixtures("only_etcd")
def test_a_full_disk_is_found_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "_DISK_BYTES", 2**60)
    with pytest.raises(SandboxError, match="Free some room, or set XDG_CACHE_HOME"):
        toolchain.ensure(["cluster"], tmp_path, print)
    assert not list(tmp_path.glob("bin/*"))


@pytest.mark.usefixtures("only_etcd")
def test_a_failed_build_names_the_component_and_its_log_and_leaves_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = fake(tmp_path / "bin", "go", "go1.27.0")
    broken.write_text('#!/bin/sh\nif [ "$1" = env ]; then echo go1.27.0; else echo no network >&2; exit 1; fi\n')
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    cache = tmp_path / "cache"
    with pytest.raises(SandboxError) as raised:
        toolchain.ensure(["cluster"], cache, print)
    assert str(raised.value) == f"building etcd failed: no network. The whole log is {cache}/log/etcd.log"
    assert not (cache / "build").exists()
