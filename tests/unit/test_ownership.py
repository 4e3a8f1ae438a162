"""Who owns what root has made in a home; only root can tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.local.layout import Layout, cache_root
from infra.local.ownership import hand_over

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

USER = 65534
SUDO = {"SUDO_UID": str(USER), "SUDO_GID": str(USER)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home in which root has brought a cluster up."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    layout = Layout()
    for folder in (layout.state / "etcd", cache_root() / "bin"):
        folder.mkdir(parents=True)
    layout.kubeconfig.write_text("{}")
    (cache_root() / "bin" / "runsc").symlink_to("/nonexistent")
    os.chown(tmp_path, USER, USER)
    return tmp_path


def owners(home: Path) -> set[str]:
    """Return which of the files below a home are not root's."""
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.lstat().st_uid == USER}


def test_the_user_who_called_sudo_gets_what_the_package_and_pulumi_use(home: Path) -> None:
    hand_over(Layout(), SUDO)
    state = {".local/state/adk-gke-sandbox/local", ".local/state/adk-gke-sandbox/local/kubeconfig"}
    cache = {".cache/adk-gke-sandbox/bin", ".cache/adk-gke-sandbox/bin/runsc"}
    folders = {".local", ".local/state", ".local/state/adk-gke-sandbox", ".cache", ".cache/adk-gke-sandbox"}
    assert owners(home) == {*folders, *state, *cache}


def test_without_sudo_or_in_roots_own_home_everything_stays_as_it_is(home: Path) -> None:
    hand_over(Layout(), {})
    assert owners(home) == set()
    os.chown(home, 0, 0)
    hand_over(Layout(), SUDO)
    assert owners(home) == set()
