"""`python infra/local`: up, down, repair; what it leaves behind (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import processes, toolchain
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
SECOND = Layout(name="second")


def local(*arguments: str, layout: Layout = SECOND) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "infra" / "local"), "--name", layout.name, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def traces(layout: Layout) -> dict[str, list[str]]:
    """Return everything on the machine that belongs to a cluster."""

    def lines(*command: str) -> list[str]:
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()

    marks = (str(layout.state), layout.namespace, layout.host_link, layout.host_address)
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").rglob(layout.cgroup)]
    return {
        "processes": [str(pid) for pid in processes.members(layout)],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if marks[0] in line],
        "namespaces": [line for line in lines("ip", "netns") if line.startswith(layout.namespace)],
        "interfaces": [line for line in lines("ip", "-o", "address") if any(mark in line for mark in marks)],
        "routes": [line for line in lines("ip", "route") if layout.host_link in line],
        "iptables": [line for line in lines("iptables-save") if layout.pod_range in line],
        "cgroups": cgroups,
        "files": [str(path) for path in layout.state.parent.glob(f"{layout.name}*")],
    }


NOTHING: dict[str, list[str]] = {kind: [] for kind in traces(SECOND)}


@pytest.fixture(scope="module", autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    local("down")


@pytest.fixture
def second() -> Layout:
    """The second cluster; it is up already if the test before has left it so."""
    done = local("up")
    assert done.returncode == 0, done.stderr
    return SECOND


def test_second_up_on_a_healthy_cluster_restarts_nothing(layout: Layout) -> None:
    before = processes.running(layout)
    done = local("up", layout=layout)
    assert done.returncode == 0, done.stderr
    assert "is up; checked in" in done.stderr
    assert processes.running(layout) == before


def test_status_is_healthy_and_names_every_daemon(layout: Layout) -> None:
    done = local("status", layout=layout)
    assert done.returncode == 0, done.stdout
    for name in ("containerd", "etcd", "kube-apiserver", "kubelet", "kube-router"):
        assert name in done.stdout


def test_nothing_of_ours_listens_on_the_machines_own_addresses(layout: Layout) -> None:
    """The daemons' sockets are in their own network namespace."""
    ours = set(processes.running(layout).values())
    here = Path("/proc/self/ns/net").stat().st_ino
    assert ours
    assert all(Path(f"/proc/{pid}/ns/net").stat().st_ino != here for pid in ours)


def test_two_ups_at_once_do_not_fight() -> None:
    local("down")
    command = [sys.executable, str(ROOT / "infra" / "local"), "--name", SECOND.name, "up"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum("node ready" in text for text in errors) == 1


def test_a_daemon_that_was_killed_is_started_again(second: Layout) -> None:
    os.kill(processes.running(second)["kube-scheduler"], signal.SIGKILL)
    done = local("up")
    assert done.returncode == 0, done.stderr
    assert local("status").returncode == 0


def test_up_starts_a_half_dead_cluster_anew(second: Layout) -> None:
    before = processes.running(second)
    os.kill(before["supervisor"], signal.SIGKILL)
    os.kill(before["etcd"], signal.SIGKILL)
    done = local("up")
    assert done.returncode == 0, done.stderr
    assert "is not healthy: starting it anew" in done.stderr
    assert local("status").returncode == 0


def test_down_leaves_nothing(second: Layout) -> None:
    assert traces(second)["processes"]
    done = local("down")
    assert done.returncode == 0, done.stderr
    assert traces(second) == NOTHING


def test_down_leaves_nothing_after_every_daemon_was_killed(second: Layout) -> None:
    for pid in processes.running(second).values():
        os.kill(pid, signal.SIGKILL)
    assert local("down").returncode == 0
    assert traces(second) == NOTHING


def test_two_clusters_differ_in_every_name() -> None:
    first = Layout(name="local")
    for field in ("state", "context", "namespace", "cgroup", "node", "host_link", "host_address", "pod_range"):
        assert getattr(first, field) != getattr(SECOND, field)


def test_a_bad_name_is_refused_with_what_to_use() -> None:
    command = [sys.executable, str(ROOT / "infra" / "local"), "--name", "Not A Name", "status"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "'Not A Name' is no name for a cluster. Use up to 20 lower-case letters, digits and '-'" in done.stderr


def test_what_is_nowhere_is_built_and_leaves_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = tuple(component for component in toolchain.COMPONENTS if component.name == "pause")
    monkeypatch.setattr(toolchain, "COMPONENTS", pause)
    lines: list[str] = []
    built = toolchain.ensure(["cluster"], tmp_path, lines.append)["pause"]
    assert built.source == "built"
    assert os.access(built.path, os.X_OK)
    assert any("pause 1 built in" in line for line in lines)
    assert not (tmp_path / "build").exists()
    assert toolchain.ensure(["cluster"], tmp_path, print)["pause"].source == "cache"
