"""The cluster's processes and cgroups: found by their marks, ended, removed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from adk_gke_sandbox.errors import SandboxError
from infra.local.layout import Layout

MARK = "ADK_GKE_SANDBOX_CLUSTER"
"""Environment variable of the supervisor, which daemons and shims inherit."""

_CGROUPS = Path("/sys/fs/cgroup")
_END_SECONDS = 20.0


def marks(layout: Layout) -> dict[str, str]:
    """Return the environment variables that mark the cluster's processes."""
    return {MARK: str(layout.state)}


def running(layout: Layout) -> dict[str, int]:
    """Return the ids of the supervisor and the daemons that live."""
    try:
        published: dict[str, int] = json.loads(layout.processes.read_text())
    except (OSError, ValueError):
        return {}
    ours = set(members(layout))
    return {name: pid for name, pid in published.items() if pid in ours}


def members(layout: Layout) -> Iterator[int]:
    """Yield the id of every process of the cluster: daemons, shims, sandboxes, containers."""
    mark = f"{MARK}={layout.state}".encode()
    cgroup = f"/{layout.cgroup}/".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                continue
            if mark in (folder / "environ").read_bytes().split(b"\0") or cgroup in (folder / "cgroup").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


def end(layout: Layout) -> None:
    """Kill every process of the cluster.

    Raises:
        SandboxError: one of them does not end.
    """
    deadline = time.monotonic() + _END_SECONDS
    supervisor = running(layout).get("supervisor")
    if supervisor:
        # First, so that it starts nothing again.
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)
    while found := list(members(layout)):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise SandboxError(f"processes {found} do not end", "Look at them with ps; they hold the cluster's state")
        time.sleep(0.05)


def create_cgroups(layout: Layout) -> None:
    """Make the cgroup under which the kubelet puts its pods, in every hierarchy."""
    for hierarchy in _hierarchies():
        folder = hierarchy / layout.cgroup
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # cgroup v1 starts without any, and refuses processes then.
            source = hierarchy / setting
            if source.exists():
                (folder / setting).write_text(source.read_text())


def remove_cgroups(layout: Layout) -> None:
    """Remove what is left of the cluster's cgroups."""
    deadline = time.monotonic() + _END_SECONDS
    for hierarchy in _hierarchies():
        top = hierarchy / layout.cgroup
        while top.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(top, topdown=False):
                # Busy while the kernel still buries its last process.
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if top.exists():
                time.sleep(0.05)


def _hierarchies() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [folder for folder in _CGROUPS.iterdir() if folder.is_dir() and not folder.is_symlink()]
