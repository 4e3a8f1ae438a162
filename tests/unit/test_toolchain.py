from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adk_gke_sandbox.errors import SandboxError
from infra.local import toolchain
from infra.local.components import ACCEPTED, COMPONENTS, PULUMI, PULUMI_KUBERNETES, Component

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "local-tools.md"
ETCD = next(component for component in COMPONENTS if component.name == "etcd")
GVISOR = next(component for component in COMPONENTS if component.name == "gvisor")


def fake(folder: Path, name: str, text: str, ending: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '%b\\n' '{text}'\n{ending}\n")
    path.chmod(0o755)
    return path


def cached(cache: Path, component: Component) -> Path:
    folder = cache / "bin" / f"{component.name}-{toolchain.key(component)}"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's that comes first on PATH; there is no home with plugins."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "pulumi"))
    return tmp_path / "path"


def unused(name: str, folder: Path) -> str:
    """Return why a binary is not used."""
    component = next(component for component in COMPONENTS if name in component.packages)
    found, refusals = toolchain._own(component)
    assert found == {}
    (refusal,) = refusals
    return refusal.removeprefix(f"{folder / name} is not used: ")


@pytest.fixture
def only_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "COMPONENTS", (ETCD,))


@pytest.mark.parametrize(
    ("name", "printed", "version"),
    [
        ("etcd", "etcd Version: 3.6.14\nGit SHA: e5ff1d2\nGo Version: go1.24.5\nGo OS/Arch: linux/amd64", "3.6.14"),
        ("runsc", "runsc version release-20260817.0\nspec: 1.2.1", "20260817.0"),
        ("runsc", "runsc version release-20260706.0-12-gd44b5a1c2b3e\nspec: 1.2.1", "20260706.0-12-gd44b5a1c2b3e"),
        ("runsc", "runsc version release-20260701", "20260701"),
        ("pulumi", f"v{PULUMI}", PULUMI),
        ("pulumi", "3.301.2", "3.301.2"),
    ],
)
def test_a_users_own_binary_is_used_however_it_writes_its_version(
    path: Path, name: str, printed: str, version: str
) -> None:
    binary = fake(path, name, printed)
    for companion in ACCEPTED[name].beside:
        fake(path, companion, "")
    component = next(component for component in COMPONENTS if name in component.packages)
    found, refusals = toolchain._own(component)
    assert (found[name].path, found[name].version, found[name].source) == (binary, version, "PATH")
    assert refusals == []


@pytest.mark.parametrize(
    ("name", "printed", "reason"),
    [
        (
            "etcd",
            "etcd Version: 3.5.21\nGo Version: go1.23.7",
            "it is 3.5.21; needed is a release from 3.6.0 on, below",
        ),
        ("runsc", "runsc version release-20230801.0\nspec: 1.1.0-rc.1", "it is 20230801.0; needed is a release from"),
        ("runsc", "runsc version 0.0.0\nspec: 1.1.0-rc.1", "it is 0.0.0; needed"),
        ("runsc", "runsc version VERSION_MISSING", "it does not say which version it is"),
        ("pulumi", "v3.100.0", f"it is 3.100.0; needed is a release from {PULUMI} on, below 4.0.0"),
        ("pulumi", "v3.301.0-alpha.1790000000+1a2b3c4", "it is 3.301.0-alpha.1790000000+1a2b3c4; needed is a release"),
        ("pulumi", "v4.0.0", "it is 4.0.0; needed"),
        ("pulumi", "v3.301.0", "there is no pulumi-language-python beside it"),
    ],
)
def test_one_that_does_not_fit_is_not_used(path: Path, name: str, printed: str, reason: str) -> None:
    fake(path, name, printed)
    assert unused(name, path).startswith(reason)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("exit 126", "`etcd --version` ends with 126"), ("kill -9 $$", "`etcd --version` ends with -9")],
)
def test_one_that_fails_is_not_used(path: Path, ending: str, reason: str) -> None:
    fake(path, "etcd", "etcd Version: 3.6.14", ending)
    assert unused("etcd", path) == reason


def test_one_for_another_machine_is_not_used(path: Path) -> None:
    fake(path, "etcd", "").write_bytes(b"\x7fELF of another machine")
    assert unused("etcd", path) == "it does not run (OSError)"


def test_a_newer_version_that_pulumi_speaks_of_is_not_its_own(path: Path) -> None:
    fake(path, "pulumi", "v3.100.0", f"echo 'warning: {PULUMI} is available, this is 3.100.0' >&2")
    assert unused("pulumi", path).startswith("it is 3.100.0;")


def test_the_language_host_is_the_one_that_came_with_pulumi(path: Path, tmp_path: Path) -> None:
    """A link to the engine on PATH, as its installer and Homebrew make it."""
    home = tmp_path / "installed"
    names = ("pulumi", *ACCEPTED["pulumi"].beside)
    for name in names:
        fake(home, name, f"v{PULUMI}")
    path.mkdir()
    (path / "pulumi").symlink_to(home / "pulumi")
    found: dict[str, toolchain.Binary] = {}
    for component in COMPONENTS:
        if set(toolchain._names(component)) & set(names):
            found |= toolchain._own(component)[0]
    assert {name: binary.path for name, binary in found.items()} == {name: home / name for name in names}


def test_a_link_to_a_version_manager_is_left_as_it_is(path: Path, tmp_path: Path) -> None:
    """It goes by the name under which it is started."""
    manager = fake(tmp_path / "manager", "manager", "etcd Version: 3.6.14")
    path.mkdir()
    (path / "etcd").symlink_to(manager)
    assert toolchain._own(ETCD)[0]["etcd"].path == path / "etcd"


def test_the_provider_is_the_newest_plugin_that_fits(path: Path, tmp_path: Path) -> None:
    name = "pulumi-resource-kubernetes"
    for version in ("3.30.2", PULUMI_KUBERNETES, "4.103.0", "5.0.0"):
        # It must not be started: it would serve for ever.
        fake(tmp_path / "pulumi" / "plugins" / f"resource-kubernetes-v{version}", name, "", "exit 1")
    component = next(component for component in COMPONENTS if name in component.packages)
    found, _ = toolchain._own(component)
    assert found[name].path.parent.name == "resource-kubernetes-v4.103.0"


@pytest.mark.usefixtures("only_etcd")
def test_why_a_binary_is_not_used_is_said_before_the_build(path: Path, tmp_path: Path) -> None:
    binary = fake(path, "etcd", "etcd Version: 3.5.21")
    fake(path, "go", "go1.27.0", "exit 1")
    said: list[str] = []
    with pytest.raises(SandboxError):
        toolchain.ensure(["cluster"], tmp_path / "cache", said.append)
    assert said[0].startswith(f"{binary} is not used: it is 3.5.21")
    assert said[1].startswith("building etcd")


@pytest.mark.usefixtures("only_etcd")
def test_what_was_built_before_is_used_first(path: Path, tmp_path: Path) -> None:
    fake(path, "etcd", "etcd Version: 3.6.14")
    built = cached(tmp_path, ETCD) / "etcd"
    assert toolchain.ensure(["cluster"], tmp_path, print)["etcd"].path == built


def test_gvisors_shim_is_ours_beside_a_users_runsc_and_comes_first(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "COMPONENTS", (GVISOR,))
    fake(path, "runsc", "runsc version release-20260817.0\nspec: 1.2.1")
    fake(path, "containerd-shim-runsc-v1", "")
    shim = "containerd-shim-runsc-v1"
    built = cached(tmp_path, replace(GVISOR, packages={shim: GVISOR.packages[shim]}))
    found = toolchain.ensure(["cluster"], tmp_path, print)
    assert [(name, binary.path.parent) for name, binary in found.items()] == [(shim, built), ("runsc", path)]


def test_components_that_must_fit_each_other_come_from_one_place(path: Path) -> None:
    kubernetes = next(component for component in COMPONENTS if component.name == "kubernetes")
    for name in list(kubernetes.packages)[:-1]:
        fake(path, name, "Kubernetes v1.36.5+k3s1")
    assert toolchain._own(kubernetes) == ({}, [])
    fake(path, "kubelet", "Kubernetes v1.36.5")
    assert set(toolchain._own(kubernetes)[0]) == set(kubernetes.packages)


def test_the_page_says_which_versions_are_taken() -> None:
    said = re.findall(r"^\| (`.+`) \| from (\S+) on, below (\S+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    table = {name: (since, before) for names, since, before in said for name in re.findall("`(.+?)`", names)}
    assert table == {name: (accepted.since, accepted.before) for name, accepted in ACCEPTED.items()}


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


def test_a_file_of_a_module_is_replaced_only_where_it_is_as_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pod.go"
    monkeypatch.setattr(toolchain, "_module_file", lambda *_: file)
    (tmp_path / "replace.json").write_text(json.dumps({"module": "any", "path": "any", "old": "a", "new": "b"}))
    given: Any = (ETCD, Path("go"), tmp_path, {}, tmp_path / "log")
    file.write_text("an a")
    with pytest.raises(SandboxError, match=r"pod.go is not as the replace.json of etcd expects it. Look at both"):
        toolchain._replace(*given)
    file.write_text("no others: a")
    toolchain._replace(*given)
    assert file.read_text() == "no others: b"
