"""The processes of the sandbox, seen from the supervisor: start the worker, hand the request over, kill, collect.

Standard library only, any CPython from 3.8 on; imported by ``supervisor``, beside which it lies in the pod.
"""

# pathlib would be an import to pay for; the names and the data are our own.
# ruff: noqa: PTH100, PTH102, PTH103, PTH118, PTH120, PTH123, PTH208, PTH211, S108

from __future__ import annotations

import binascii
import marshal
import os
import select
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

POD = os.path.dirname(os.path.abspath(__file__))
"""Where the programs of the pod lie."""

START_SECONDS = 120
"""How long the worker's interpreter may take to come up."""

STACK_BYTES = 2560 * 1024
"""Stack of a thread that asks for no size: the usual 8 MiB count as memory, used or not.

Enough for Python's own limit of recursion, also through C.
"""

CUSTOMIZE = f"""\
import _thread, sys
_thread.stack_size({STACK_BYTES})
for _stream in (sys.stdout, sys.stderr):
    if _stream is not None and not _stream.write_through:
        _stream.reconfigure(line_buffering=True)
"""
"""What the program's interpreter and those that it starts do first: each line that is printed is one write.

Unbuffered, a ``print`` is several writes, between which other processes write theirs. In blocks, what is printed would
come late, and lines would be torn where a block ends.
"""

FLUSH = signal.SIGRTMAX - 3
"""Signal by which the program is asked for the line that it has not finished; nothing else is known to use it."""

FLUSH_SECONDS = 0.2
"""How long it may take to do so; native code that runs does not hear of the signal."""

DRAIN_SECONDS = 2.0
"""How long output that is still in the pipes is read after the program has ended."""


class Worker:
    """The process that becomes the program; started before the request is read, to hide its start-up.

    Attributes:
        verdict: Why the program was killed; empty while it was not.
        ended: When it ended.
    """

    def __init__(self, env: dict[str, str]) -> None:
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
        for descriptor in (self.out, self.err):
            os.set_blocking(descriptor, False)
        own_env = environment()
        self.home = own_env["HOME"]
        env = dict(own_env, **env)
        folder = os.path.join(env["TMPDIR"], f".worker-{binascii.b2a_hex(os.urandom(8)).decode()}")
        os.mkdir(folder, 0o700)
        with open(os.path.join(POD, "worker.py"), "rb") as own, open(
            os.path.join(folder, "sitecustomize.py"), "wb"
        ) as hook:
            hook.write(own.read())
        with open(os.path.join(folder, "setting"), "wb") as setting:
            setting.write(marshal.dumps((go, status, env.get("PYTHONPATH"), POD)))
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, env.get("PYTHONPATH"))))
        self.pid = os.posix_spawn(sys.executable, [sys.executable, PROGRAM], env, file_actions=actions)
        for descriptor in (out, err, go, status, null):
            os.close(descriptor)

    def prepare(self, request: Json, gvisor: bool) -> None:
        """Hand the request over and wait until the program is about to begin."""
        limits = dict(request["limits"])
        if not gvisor:
            # Elsewhere the kernel counts the processes of the user on the whole node.
            limits["processes"] = 0
        spec = {name: request[name] for name in ("argv", "env", "first_figure")}
        spec.update(limits=limits, customize=CUSTOMIZE, flush=FLUSH)
        self.limit_time("not up in time", START_SECONDS)
        try:
            write_all(self.orders, marshal.dumps(spec))
            ready = os.read(self.status, 1)
        except BrokenPipeError:
            ready = b""
        os.set_blocking(self.status, False)
        if ready != b".":
            kill_all()
            words = (read_some(self.err) or b"").decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise ValueError(f"python did not come up: {words or self.verdict or 'no message'}")

    def go(self) -> None:
        """Let the program begin."""
        write_all(self.orders, b"!")
        os.close(self.orders)
        # So late that it takes none of the program's time and is not on its path: the interpreters that it starts
        # look for a ``usercustomize`` there, and need longer to come to that.
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}{'t' if 't' in sys.abiflags else ''}"
        folder = os.path.join(self.home, ".local/lib", version, "site-packages")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "usercustomize.py"), "x") as customize:
                customize.write(CUSTOMIZE)
        except OSError:
            # They write in blocks.
            return

    def limit_time(self, verdict: str, seconds: float) -> None:
        """Kill the program when the time is over, even while this process waits for its reader."""
        due = time.monotonic() + seconds
        # The program can send this signal, too.
        signal.signal(signal.SIGALRM, lambda *_: self.end(verdict) if time.monotonic() > due - 0.01 else None)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(self, verdict: str = "") -> None:
        """Kill the program and remember why, unless it is known already."""
        if verdict and not self.verdict:
            self.verdict = verdict
            self.flush()
        kill_others()

    def flush(self) -> None:
        """Have the program write what it holds back of a line."""
        answer = select.poll()
        answer.register(self.status, select.POLLIN)
        try:
            os.kill(self.pid, FLUSH)
        except ProcessLookupError:
            return
        answer.poll(FLUSH_SECONDS * 1000)

    def told(self) -> list[str]:
        """Return the words that the program's interpreter has left (``worker.watch_the_end``).

        They are hints: the program could write them, too.
        """
        return (read_some(self.status) or b"").decode("ascii", "replace").split()


def environment() -> dict[str, str]:
    """Return the environment of the program: the container's without the cluster's, and writable homes."""
    temporary = os.environ.get("TMPDIR") or "/tmp"
    home = os.path.join(temporary, "home")
    for folder in ("matplotlib", "cache"):
        os.makedirs(os.path.join(home, folder), exist_ok=True)
    try:
        # An image may bring Matplotlib's settings and its list of fonts; the program's folder must be writable.
        shipped = os.environ.get("MPLCONFIGDIR", "")
        for name in os.listdir(shipped):
            os.symlink(os.path.join(shipped, name), os.path.join(home, "matplotlib", name))
    except OSError:
        pass
    given = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    # Many images ask for unbuffered output, by which the lines of several processes are torn.
    given.pop("PYTHONUNBUFFERED", None)
    return {
        "LANG": "C.UTF-8",
        **given,
        "TMPDIR": temporary,
        "HOME": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": os.path.join(home, "matplotlib"),
        "XDG_CACHE_HOME": os.path.join(home, "cache"),
        # Each one more reserves 64 MiB, which counts as memory.
        "MALLOC_ARENA_MAX": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def read_some(descriptor: int) -> bytes | None:
    """Return bytes from a pipe, none at its end, or ``None`` when there is nothing to read now."""
    try:
        return os.read(descriptor, 64 * 1024)
    except BlockingIOError:
        return None


def reap(pid: int = 0) -> int | None:
    """Collect the children that have ended; return the wait status of ``pid`` once it is among them."""
    while True:
        try:
            found, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if found in (0, pid):
            return status if found else None


def used() -> dict[str, Any]:
    """Return what the children that were collected have used."""
    # Too late to be an import that a program waits for.
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6), "peak_memory_bytes": usage.ru_maxrss * 1024}


def kill_all() -> None:
    """Kill every process but this one, however it was started, and collect them."""
    until = time.monotonic() + DRAIN_SECONDS
    while kill_others() and time.monotonic() < until:
        reap()
        time.sleep(0.001)
    reap()


def kill_others() -> bool:
    """Kill every process that can be seen; return whether there was one.

    Outside of a container of its own, that is the children: those that they leave behind become children, too.
    """
    targets = [-1]
    if os.getpid() != 1:
        with open("/proc/thread-self/children") as children:
            targets = [int(pid) for pid in children.read().split()]
    try:
        for pid in targets:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return bool(targets)
