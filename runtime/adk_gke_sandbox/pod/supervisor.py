"""What runs inside the pod: the supervisor of the user's program, which starts as the worker (``worker``).

Standard library only, any CPython from 3.8 on; it travels with the request, so that any image works and
versions cannot differ. The supervisor alone writes to the container's stdout: one JSON frame per line, marked
with the request's nonce. The program's own output reaches it through pipes.

    python3 -I -S -B supervisor.py [REQUEST_FOLDER]      in the working directory of the program

It imports little on purpose: under gVisor each module costs ten times what it costs elsewhere.
"""

# pathlib and contextlib would be imports to pay for; the names and the data are our own.
# ruff: noqa: PTH100, PTH102, PTH103, PTH116, PTH118, PTH120, PTH123, PTH208, S108

from __future__ import annotations

import binascii
import ctypes
import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, Dict

    from adk_gke_sandbox.pod.frames import (
        MESSAGE_CHARACTERS,
        PROGRAM,
        Capture,
        Frames,
        fingerprint,
        send_files,
        write_all,
    )

    Json = Dict[str, Any]
else:
    # Without the enums of ``signal``, which take as long as all the rest.
    import _signal as signal

    # ``python -I`` does not look into the folder of its script.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from frames import MESSAGE_CHARACTERS, PROGRAM, Capture, Frames, fingerprint, send_files, write_all

    del sys.path[0]

REQUEST_FOLDER = "/etc/sandbox/request"
GO = b"!"
DRAIN_SECONDS = 2.0
"""How long output that is still in the pipes is read after the program has ended."""

WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")

NO_MEMORY = (
    b"Cannot allocate memory",
    b"std::bad_alloc",
    b"failed to map segment from shared object",
    b"Memory allocation still failed",
)
"""What the C library, C++, the dynamic linker and OpenBLAS say when RLIMIT_AS leaves them no memory."""

START_SECONDS = 120
"""How long the worker's interpreter and its preloaded imports may take to come up."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SYSLOG_ACTION_READ_ALL = 3


class BadRequest(Exception):
    """The request cannot be run; the message says why."""


def supervise(folder: str) -> int:
    """Run the request in ``folder`` and report it as frames; return the exit code of the container."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Before there is a child: otherwise the program could write into this process' stdout through /proc.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        # The program can send them; the kubelet ends a pod by SIGKILL in the end. A handler, unlike SIG_IGN, is not
        # inherited.
        signal.signal(number, lambda *_: None)
    frames = Frames()
    begin = None
    end: Json = {"exit_code": None, "signal": "", "reason": "SandboxLost", "message": "", "left_out": []}
    usage = {"cpu_seconds": 0.0, "peak_memory_bytes": 0}
    try:
        worker = Worker({}, usage)
        gvisor = runs_under_gvisor(libc)
        request = read_request(folder)
        frames.nonce = request["nonce"]
        frames.send("ready", pid=os.getpid(), python=sys.version.split()[0], gvisor=gvisor)
        if any(name.startswith(("PYTHON", "LD_")) for name in request["env"]):
            # These are read when an interpreter starts, so this one has come too early.
            worker.end()
            worker = Worker(request["env"], usage)
        known = write_files(request)
        limits = request["limits"]
        worker.prepare(request, gvisor)
        # Written so late that a worker that does not reach its hook finds nothing to run.
        with open(PROGRAM, "wb") as target:
            target.write(source_bytes(request["code"]))
        frames.send("started")
        begin = time.monotonic()
        worker.go()
        end.update(follow(worker, frames, limits))
        end["wall_seconds"] = round(worker.ended - begin, 6)
        end["left_out"] = send_files(frames, known, limits)
    except (BadRequest, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kill_all(usage)
        cause = (str(error) or repr(error))[:MESSAGE_CHARACTERS]
        end.update(reason="SandboxLost", message=f"the runner could not run the request: {cause}")
    frames.send("end", started=begin is not None, **dict(end, **usage))
    return 0


def runs_under_gvisor(libc: Any) -> bool:
    """Return whether the kernel is gVisor's, by the first line of its log; needs no capability."""
    buffer = ctypes.create_string_buffer(16 * 1024)
    length = libc.klogctl(_SYSLOG_ACTION_READ_ALL, buffer, len(buffer))
    return length > 0 and b"Starting gVisor" in buffer.raw


def read_request(folder: str) -> Json:
    """Return the request document, put together from its parts."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith("request.json"))
        if not names:
            raise BadRequest(f"no request.json in {folder}")
        text = []
        for name in names:
            with open(os.path.join(folder, name), encoding="ascii") as part:
                text.append(part.read())
        request = parse_json("".join(text))
    except (OSError, ValueError) as error:
        raise BadRequest(f"cannot read the request: {error}") from error
    if not isinstance(request, dict) or request.get("version") != 1:
        raise BadRequest("this runner reads requests of version 1")
    return request


def parse_json(text: str) -> Any:
    """Return the value of a JSON document, without the regular expressions that ``json`` imports."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)

    class Context:
        strict = True
        object_hook = object_pairs_hook = None
        parse_float, parse_int, parse_constant = float, int, float

    try:
        return make_scanner(Context())(text, 0)[0]  # type: ignore[arg-type]
    except (StopIteration, SystemError):
        # The second when the scanner misses the module ``json``, which would bring the error to raise.
        raise ValueError("it is not JSON") from None


def write_files(request: Json) -> dict[str, tuple[int, ...]]:
    """Write the input files; return what they look like, to find changed ones later."""
    known = {}
    for file in request["files"]:
        name = file["name"]
        parts = name.split("/")
        if "\0" in name or "" in parts or "." in parts or ".." in parts or name == PROGRAM:
            raise BadRequest(f"{name!r} is no name for an input file: give a relative path without '..'")
        if len(parts) > 1:
            os.makedirs(os.path.join(*parts[:-1]), exist_ok=True)
        with open(name, "wb") as target:
            target.write(binascii.a2b_base64(file["content"]))
        known[name] = fingerprint(os.stat(name))
    return known


def source_bytes(code: str) -> bytes:
    """Return the program as a file; bytes that an editor could not decode come back as they were."""
    try:
        return code.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return code.encode("utf-8", "surrogatepass")


class Worker:
    """The process that becomes the program; started before the request is read, to hide its start-up."""

    def __init__(self, env: dict[str, str], usage: Json) -> None:
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
            setting.write(marshal.dumps((go, status, env.get("PYTHONPATH"))))
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
        spec = {"argv": request["argv"], "env": request["env"], "limits": limits, "preload": request["preload"]}
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


def follow(worker: Worker, frames: Frames, limits: Json) -> Json:
    """Pass the program's output on until it has ended or must end; return how it ended."""
    streams = {
        worker.out: Capture(frames, "out", limits["stdout_bytes"]),
        worker.err: Capture(frames, "err", limits["stderr_bytes"]),
    }
    poll = select.poll()
    for descriptor in streams:
        os.set_blocking(descriptor, False)
        poll.register(descriptor, select.POLLIN)
    wake, wake_writer = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_writer, False)
    poll.register(wake, select.POLLIN)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    worker.limit_time("DeadlineExceeded", limits["timeout_seconds"])
    begin = time.monotonic()
    open_streams = set(streams)
    status = None
    drain_until = 0.0
    while open_streams or status is None:
        now = time.monotonic()
        if status is None:
            status = reap(worker.usage, worker.pid)
            if status is not None:
                worker.ended = now
                signal.setitimer(signal.ITIMER_REAL, 0)
                kill_all(worker.usage)
                drain_until = now + DRAIN_SECONDS
        if status is not None and (not open_streams or now > drain_until):
            break
        if sum(stream.total for stream in streams.values()) > limits["flood_bytes"]:
            if status is not None:
                break
            worker.end("OutputLimit")
        for stream in streams.values():
            stream.flush(now, now - begin)
        due = [stream.due for stream in streams.values() if stream.head]
        # The program's end and its deadline wake the poll through ``wake``.
        wait = min([*due, now + 60 if status is None else drain_until]) - now
        for descriptor, _ in poll.poll(max(wait, 0) * 1000 + 1):
            data = read_some(descriptor)
            if descriptor == wake:
                continue
            if data:
                streams[descriptor].feed(data)
            elif data is not None:
                poll.unregister(descriptor)
                open_streams.discard(descriptor)
    for stream in streams.values():
        stream.finish()
    words = bytes(streams[worker.err].recent.rstrip())
    return verdict_of(status, worker.verdict, words, limits, worker.usage["peak_memory_bytes"])


def read_some(descriptor: int) -> bytes | None:
    """Return bytes from a pipe, none at its end, or ``None`` when there is nothing to read now."""
    try:
        return os.read(descriptor, 64 * 1024)
    except BlockingIOError:
        return None


def verdict_of(status: int, verdict: str, last_words: bytes, limits: Json, peak_memory_bytes: int) -> Json:
    """Return the fields of the ``end`` frame that say how the program ended."""
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + killed_by if killed_by else os.WEXITSTATUS(status)
    end = {"exit_code": code, "signal": signal_name(killed_by), "reason": "Error"}
    if verdict == "DeadlineExceeded":
        end.update(reason=verdict, message=f"the program was killed after {limits['timeout_seconds']:g} s")
    elif verdict == "OutputLimit":
        end.update(reason=verdict, message=f"the program was killed after {limits['flood_bytes']} bytes of output")
    elif code == 0:
        end["reason"] = "Completed"
    elif out_of_memory(last_words.rpartition(b"\n")[2]):
        bound = limits["memory_bytes"]
        amount = f"the {bound // 2**20} MiB it may use" if bound else "there is"
        end.update(
            reason="MemoryLimit",
            message=f"the program needed more memory than {amount}. Use less, or raise mem_limit",
        )
    elif killed_by == signal.SIGKILL and peak_memory_bytes > limits["memory_bytes"] // 2 > 0:
        end.update(
            reason="MemoryLimit",
            message=f"the program was killed while it used {peak_memory_bytes // 2**20} MiB, probably at its memory "
            "limit. Use less, or raise mem_limit",
        )
    else:
        end["message"] = limit_in(last_words, killed_by, limits)
    return end


def out_of_memory(last_line: bytes) -> bool:
    """Return whether a program's last line says that it got no memory, in the words of Python or of native code."""
    return last_line.split(b":")[0].endswith(b"MemoryError") or any(sign in last_line for sign in NO_MEMORY)


def limit_in(last_words: bytes, killed_by: int, limits: Json) -> str:
    """Return which limit a program ran into, as far as its last words tell, and what to do about it."""
    last_line = last_words.rpartition(b"\n")[2]
    if b"No space left on device" in last_line:
        return "no space was left in the working or the temporary directory. Write less, or raise scratch_limit"
    if b"Too many open files" in last_line:
        return f"more than {limits['open_files']} files were open. Close some, or raise limits.open_files"
    if b"File too large" in last_line or killed_by == signal.SIGXFSZ:
        return (
            f"a file grew beyond {limits['written_file_bytes']} bytes. Write less, or raise limits.written_file_bytes"
        )
    if b"can't start new thread" in last_line:
        # The kernel gives one error for both.
        return (
            f"no further thread could be started: limits.processes is {limits['processes']}, and every thread's stack "
            "takes memory. Use fewer threads, or raise limits.processes or mem_limit"
        )
    # A read that would block has the same text; a traceback has the line of the call, too.
    if b"Resource temporarily unavailable" in last_line and b"fork" in last_words:
        return f"no further process could be started: limits.processes is {limits['processes']}. Use fewer, or raise it"
    return ""


def signal_name(number: int) -> str:
    """Return the name of a signal, or nothing for none."""
    names = (name for name in dir(signal) if name.startswith("SIG") and name[3] != "_")
    known = {getattr(signal, name): name for name in names if name not in ("SIGCLD", "SIGIOT", "SIGPOLL")}
    return known.get(number, f"signal {number}") if number else ""


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


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1] if len(sys.argv) > 1 else REQUEST_FOLDER))
