"""The processes of the sandbox, seen from the supervisor: start the worker, hand the request over, kill, collect.

Standard library only, any CPython from 3.8 on; imported by ``supervisor``, beside which it lies in the pod.
"""

# pathlib would be an import to pay for; the names and the data are our own.
# ruff: noqa: PTH100, PTH102, PTH103, PTH118, PTH120, PTH123, PTH208, S108

from __future__ import annotations

import binascii
import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, Dict

    from adk_gke_sandbox.pod.frames import PROGRAM, write_all

    Json = Dict[str, Any]
else:
    # Without the enums of ``signal``, which take as long as all the rest.
    import _signal as signal

    from frames import PROGRAM, write_all

GO = b"!"
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")

START_SECONDS = 120
"""How long the worker's interpreter and its preloaded imports may take to come up."""

DRAIN_SECONDS = 2.0
"""How long output that is still in the pipes is read after the program has ended."""


class BadRequest(Exception):
    """The request cannot be run; the message says why."""


class Worker:
    """The process that becomes the program; started before the request is read, to hide its start-up.

    Attributes:
        verdict: Why the program was killed; empty while it was not.
        ended: When it ended.
    """

    def __init__(self, env: dict[str, str], preload: tuple[str, ...], usage: Json) -> None:
        self.usage = usage
        self.ended = 0.0
        self.verdict = ""
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        go, self.orders = os.pipe()
        self.status, status = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
        for descriptor in (go, status):
            os.set_inheritable(descriptor, True)
        env = dict(environment(), **env)
        folder = os.path.join(env["TMPDIR"], f".worker-{binascii.b2a_hex(os.urandom(8)).decode()}")
        os.mkdir(folder, 0o700)
        with open(WORKER, "rb") as own, open(os.path.join(folder, "sitecustomize.py"), "wb") as hook:
            hook.write(own.read())
        with open(os.path.join(folder, "setting"), "wb") as setting:
            setting.write(marshal.dumps((go, status, env.get("PYTHONPATH"), preload)))
        env["PYTHONPATH"] = os.pathsep.join([folder] + ([env["PYTHONPATH"]] if env.get("PYTHONPATH") else []))
        self.pid = os.posix_spawn(sys.executable, [sys.executable, PROGRAM], env, file_actions=actions)
        for descriptor in (out, err, go, status, null):
            os.close(descriptor)

    def prepare(self, request: Json, gvisor: bool) -> None:
        """Hand the request over and wait until the program is about to begin."""
        limits = dict(request["limits"])
        if not gvisor:
            # Elsewhere the kernel counts the processes of the user on the whole node.
            limits["processes"] = 0
        spec = {"argv": request["argv"], "env": request["env"], "limits": limits}
        self.limit_time("not up in time", START_SECONDS)
        try:
            write_all(self.orders, marshal.dumps(spec))
            ready = os.read(self.status, 1)
        except BrokenPipeError:
            ready = b""
        os.close(self.status)
        if ready != b".":
            kill_all(self.usage)
            os.set_blocking(self.err, False)
            try:
                words = os.read(self.err, 64 * 1024).decode("utf-8", "replace").strip()
            except BlockingIOError:
                words = ""
            words = words.rpartition("\n")[2] or self.verdict or "no message"
            raise BadRequest(f"python did not come up: {words}")

    def go(self) -> None:
        """Let the program begin."""
        write_all(self.orders, GO)
        os.close(self.orders)

    def limit_time(self, verdict: str, seconds: float) -> None:
        """Kill the program when the time is over, even while this process waits for its reader."""
        due = time.monotonic() + seconds
        # The program can send this signal, too.
        signal.signal(signal.SIGALRM, lambda *_: self.end(verdict) if time.monotonic() > due - 0.01 else None)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(self, verdict: str = "") -> None:
        """Kill the program and remember why, unless it is known already."""
        self.verdict = self.verdict or verdict
        kill_all(self.usage, collect=False)


def environment() -> dict[str, str]:
    """Return the environment of the program: the container's without the cluster's, and writable homes."""
    temporary = os.environ.get("TMPDIR") or "/tmp"
    home = os.path.join(temporary, "home")
    for folder in ("matplotlib", "cache"):
        os.makedirs(os.path.join(home, folder), exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
    kept.update(
        TMPDIR=temporary,
        HOME=home,
        USER="sandbox",
        LOGNAME="sandbox",
        MPLBACKEND="Agg",
        MPLCONFIGDIR=os.path.join(home, "matplotlib"),
        XDG_CACHE_HOME=os.path.join(home, "cache"),
        MALLOC_ARENA_MAX="2",
        PYTHONUNBUFFERED="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    kept.setdefault("LANG", "C.UTF-8")
    return kept


def reap(usage: Json, pid: int | None = None) -> int | None:
    """Collect ended children and what they used; return the wait status of ``pid`` once it has ended."""
    while True:
        try:
            found, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if found == 0:
            return None
        usage["cpu_seconds"] = round(usage["cpu_seconds"] + used.ru_utime + used.ru_stime, 6)
        usage["peak_memory_bytes"] = max(usage["peak_memory_bytes"], used.ru_maxrss * 1024)
        if found == pid:
            return status


def kill_all(usage: Json, collect: bool = True) -> None:
    """Kill every process but this one, however it was started, and collect them unless told otherwise."""
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until:
        found = [-1] if os.getpid() == 1 else descendants()
        killed = [pid for pid in found if kill(pid)]
        if collect:
            reap(usage)
        if not found or (found == [-1] and not killed) or not collect:
            break
        time.sleep(0.001)


def kill(pid: int) -> bool:
    """Kill a process, or with -1 all others; return whether there was one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def descendants() -> set[int]:
    """Return the descendants of this process that still run."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue
            parents[int(name)] = (int(fields[1]), fields[0])
    found = {os.getpid()}
    size = 0
    while size != len(found):
        size = len(found)
        found.update(pid for pid, (parent, _) in parents.items() if parent in found)
    return {pid for pid in found if pid in parents and parents[pid][1] not in (b"Z", b"X")} - {os.getpid()}
