"""What runs inside the pod: a supervisor, and the worker that becomes the user's program.

Standard library only, any CPython from 3.8 on; it travels with the request, so that any image works and
versions cannot differ. The supervisor alone writes to the container's stdout: one JSON frame per line, marked
with the request's nonce. The program's own output reaches it through pipes.

The worker is the interpreter itself, started as ``python main.py`` before the request is read. The last part of
this file is its ``sitecustomize``: it waits there for the request, sets the limits, removes its traces and
returns; only then does the interpreter open ``main.py``. So the program has no frame of ours below it.

    python3 -I -S -B runner.py [REQUEST_FOLDER]      in the working directory of the program

It imports little on purpose: under gVisor each module costs ten times what it costs elsewhere.
"""

# pathlib and contextlib would be imports to pay for; the names and the data are our own.
# ruff: noqa: PTH102, PTH103, PTH106, PTH107, PTH116, PTH118, PTH123, PTH208, S108, S302, UP031

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
    from collections.abc import Iterator
    from typing import Any, Dict

    Json = Dict[str, Any]
    SETTING: Json = {}
else:
    # Without the enums of ``signal``, which take as long as all the rest.
    import _signal as signal

REQUEST_FOLDER = "/etc/sandbox/request"
GO = b"!"
PROGRAM = "main.py"
OUTPUT_CHUNK = 8 * 1024
FILE_CHUNK = 11 * 1024
"""Bytes in one frame: encoded, it stays below the 16 KiB at which the runtime splits log lines."""

RECENT_BYTES = 512
"""Bytes at the end of standard error in which a MemoryError is looked for."""

DRAIN_SECONDS = 2.0
"""How long output that is still in the pipes is read after the program has ended."""

WORKER_PART = "# --- worker" + " ---"

START_SECONDS = 120
"""How long the worker's interpreter and its preloaded imports may take to come up."""

FRAME_GAP_SECONDS = 0.02
"""How long small writes are gathered into one frame; grows with time, so that frames stay countable."""

MESSAGE_CHARACTERS = 300
"""What is kept of a name or a cause in the ``end`` frame, which must not become too long a line."""

LEFT_OUT_MAX = 50
"""Files that are named as left out."""

ENTRIES_MAX = 20000
"""Entries of the working directory that are looked at."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SYSLOG_ACTION_READ_ALL = 3


class BadRequest(Exception):
    """The request cannot be run; the message says why."""


# --- supervisor ------------------------------------------------------------------------------------


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
        end.update(reason="SandboxLost", message="the runner could not run the request: %s" % cause)
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
            raise BadRequest("no request.json in %s" % folder)
        text = []
        for name in names:
            with open(os.path.join(folder, name), encoding="ascii") as part:
                text.append(part.read())
        request = parse_json("".join(text))
    except (OSError, ValueError) as error:
        raise BadRequest("cannot read the request: %s" % error) from error
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


def to_json(value: Any) -> str:
    """Return a value as JSON text: a string, number, boolean, list, dict or ``None``."""
    if isinstance(value, str):
        return quote(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join(map(to_json, value))
    if isinstance(value, dict):
        return "{%s}" % ",".join("%s:%s" % (quote(key), to_json(item)) for key, item in value.items())
    return repr(value)


def quote(text: str) -> str:
    """Return a JSON string literal that is not escaped where it need not be."""
    try:
        from _json import encode_basestring
    except ImportError:
        from json.encoder import encode_basestring
    return encode_basestring(text)


def write_files(request: Json) -> dict[str, tuple[int, ...]]:
    """Write the input files; return what they look like, to find changed ones later."""
    known = {}
    for file in request["files"]:
        name = file["name"]
        parts = name.split("/")
        if "\0" in name or "" in parts or "." in parts or ".." in parts or name == PROGRAM:
            raise BadRequest("%r is no name for an input file: give a relative path without '..'" % name)
        if len(parts) > 1:
            os.makedirs(os.path.join(*parts[:-1]), exist_ok=True)
        with open(name, "wb") as target:
            target.write(binascii.a2b_base64(file["content"]))
        known[name] = fingerprint(os.stat(name))
    return known


def fingerprint(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is written."""
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def source_bytes(code: str) -> bytes:
    """Return the program as a file; bytes that an editor could not decode come back as they were."""
    try:
        return code.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return code.encode("utf-8", "surrogatepass")


class Frames:
    """Writes frames to the container's stdout."""

    def __init__(self) -> None:
        self.nonce = ""

    def send(self, kind: str, **fields: Any) -> None:
        """Write one frame."""
        line = to_json(dict({"n": self.nonce, "t": kind}, **fields))
        write_all(1, line.encode("utf-8", "replace") + b"\n")

    def send_data(self, kind: str, data: bytes, **fields: Any) -> None:
        """Send bytes as text where they are text and stay short, else as base64."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or len(quote(text).encode("utf-8")) > 1.4 * len(data) + 64:
            fields["b"] = binascii.b2a_base64(data, newline=False).decode("ascii")
        else:
            fields["d"] = text
        self.send(kind, **fields)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; blocks while the reader is busy."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Capture:
    """One output stream: its beginning is sent as it comes, its end when it is over, the middle is counted."""

    def __init__(self, frames: Frames, kind: str, cap: int) -> None:
        self.frames = frames
        self.kind = kind
        self.room = cap - cap // 2
        self.tail_cap = cap // 2
        self.head = bytearray()
        self.tail = bytearray()
        self.recent = b""
        self.total = 0
        self.dropped = 0
        self.due = 0.0

    def feed(self, data: bytes) -> None:
        """Take in what the program has written."""
        self.total += len(data)
        self.recent = (self.recent + data)[-RECENT_BYTES:]
        self.head += data[: self.room]
        self.tail += data[self.room :]
        self.room = max(self.room - len(data), 0)
        surplus = len(self.tail) - self.tail_cap
        if surplus > 0:
            del self.tail[:surplus]
            self.dropped += surplus

    def flush(self, now: float, elapsed: float) -> None:
        """Send the beginning as far as it has come, unless that was done a moment ago."""
        if self.head and (now >= self.due or len(self.head) >= OUTPUT_CHUNK):
            self.due = now + max(FRAME_GAP_SECONDS, elapsed / 1000)
            data, rest = cut_between_characters(bytes(self.head))
            self.head = bytearray(rest)
            self.send(data)

    def send(self, data: bytes, skipped: int = 0) -> None:
        """Send data in frames; the first says how many bytes are missing before it."""
        at = 0
        while at < len(data):
            part, rest = cut_between_characters(data[at : at + OUTPUT_CHUNK])
            part = part or rest
            self.frames.send_data(self.kind, part, **({"skipped": skipped} if skipped else {}))
            at += len(part)
            skipped = 0

    def finish(self) -> None:
        """Send the rest."""
        if not self.dropped:
            self.head, self.tail = self.head + self.tail, bytearray()
        self.send(bytes(self.head))
        self.send(bytes(self.tail), self.dropped)


def cut_between_characters(data: bytes) -> tuple[bytes, bytes]:
    """Return the data without the beginning of a UTF-8 character at its end, and that beginning."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if need > back else (data, b"")
        if byte & 0xC0 != 0x80:
            break
    return data, b""


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
        folder = os.path.join(env["TMPDIR"], ".worker-%s" % binascii.b2a_hex(os.urandom(8)).decode())
        os.mkdir(folder, 0o700)
        with open(__file__, encoding="utf-8") as own, open(os.path.join(folder, "sitecustomize.py"), "w") as hook:
            setting = {"go": go, "status": status, "folder": folder, "path": env.get("PYTHONPATH")}
            hook.write(
                "from __future__ import annotations\n\nSETTING = %r\n# %s"
                % (setting, own.read().rpartition(WORKER_PART)[2])
            )
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
            raise BadRequest("python did not come up: %s" % (words.rpartition("\n")[2] or self.verdict or "no message"))

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
    memory_error = ends_with_memory_error(streams[worker.err].recent)
    return verdict_of(status, worker.verdict, memory_error, limits, worker.usage["peak_memory_bytes"])


def read_some(descriptor: int) -> bytes | None:
    """Return bytes from a pipe, none at its end, or ``None`` when there is nothing to read now."""
    try:
        return os.read(descriptor, 64 * 1024)
    except BlockingIOError:
        return None


def ends_with_memory_error(text: bytes) -> bool:
    """Return whether the program's last words were a MemoryError."""
    last = text.rstrip().rpartition(b"\n")[2]
    return last.split(b":")[0].endswith(b"MemoryError")


def verdict_of(status: int, verdict: str, memory_error: bool, limits: Json, peak_memory_bytes: int) -> Json:
    """Return the fields of the ``end`` frame that say how the program ended."""
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + killed_by if killed_by else os.WEXITSTATUS(status)
    end = {"exit_code": code, "signal": signal_name(killed_by), "reason": "Error"}
    if verdict == "DeadlineExceeded":
        end.update(reason=verdict, message="the program was killed after %g s" % limits["timeout_seconds"])
    elif verdict == "OutputLimit":
        end.update(reason=verdict, message="the program was killed after %d bytes of output" % limits["flood_bytes"])
    elif code == 0:
        end["reason"] = "Completed"
    elif memory_error:
        bound = limits["memory_bytes"]
        amount = "the %d MiB it may use" % (bound // 2**20) if bound else "there is"
        end.update(
            reason="MemoryLimit",
            message="the program needed more memory than %s. Use less, or raise mem_limit" % amount,
        )
    elif killed_by == signal.SIGKILL and peak_memory_bytes > limits["memory_bytes"] // 2 > 0:
        end.update(
            reason="MemoryLimit",
            message="the program was killed while it used %d MiB, probably at its memory limit. Use less, or raise "
            "mem_limit" % (peak_memory_bytes // 2**20),
        )
    return end


def signal_name(number: int) -> str:
    """Return the name of a signal, or nothing for none."""
    names = (name for name in dir(signal) if name.startswith("SIG") and name[3] != "_")
    known = {getattr(signal, name): name for name in names if name not in ("SIGCLD", "SIGIOT", "SIGPOLL")}
    return known.get(number, "signal %d" % number) if number else ""


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
                with open("/proc/%s/stat" % name, "rb") as stat:
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


def send_files(frames: Frames, known: dict[str, tuple[int, ...]], limits: Json) -> list[str]:
    """Send new and changed regular files of the working directory; return what was left out, and why."""
    left_out = []
    count = 0
    room = limits["file_bytes"]
    for path in sorted(walk(".")):
        name = path[2:]
        shown = printable(name)
        label = shown if len(shown) <= MESSAGE_CHARACTERS else "..." + shown[-MESSAGE_CHARACTERS:]
        try:
            status = os.stat(path, follow_symlinks=False)
            if name == PROGRAM or known.get(name) == fingerprint(status):
                continue
            if shown != name:
                left_out.append("%s: the name is not printable" % label)
            elif count >= limits["file_count"]:
                left_out.append("%s: more than %d files" % (label, limits["file_count"]))
            elif status.st_size > room:
                left_out.append("%s: %d bytes, %d were left" % (label, status.st_size, room))
            else:
                with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
                    room -= send_file(frames, name, source, status.st_size)
                count += 1
        except OSError as error:
            left_out.append("%s: %s" % (label, error.strerror))
    if len(left_out) > LEFT_OUT_MAX:
        left_out[LEFT_OUT_MAX:] = ["and %d more" % (len(left_out) - LEFT_OUT_MAX)]
    return left_out


def send_file(frames: Frames, name: str, source: Any, size: int) -> int:
    """Send at most ``size`` bytes of a file; return how many."""
    sent = 0
    while True:
        data = source.read(min(FILE_CHUNK, size - sent))
        sent += len(data)
        last = sent >= size or not data
        encoded = binascii.b2a_base64(data, newline=False).decode("ascii")
        frames.send("file", name=name, b=encoded, last=last)
        if last:
            return sent


def walk(top: str) -> Iterator[str]:
    """Yield regular files below a folder, without following links; bounded."""
    folders = [top]
    seen = 0
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > ENTRIES_MAX:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != "__pycache__":
                            folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError:
            continue


def printable(name: str) -> str:
    """Return a name with everything replaced that could not be shown or sent."""
    return "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode("utf-8"))


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1] if len(sys.argv) > 1 else REQUEST_FOLDER))


# --- worker --- what follows runs in the worker alone, as its sitecustomize -----------------------------


def prepare(setting: Json) -> None:
    """Wait for the request, then make this process what ``python main.py`` would be at this point."""
    import marshal
    import os
    import sys

    os.setsid()
    for name in ("sitecustomize.py", ""):
        path = os.path.join(setting["folder"], name)
        os.remove(path) if name else os.rmdir(path)
    orders = os.fdopen(setting["go"], "rb")
    try:
        spec = marshal.load(orders)
    except EOFError:
        os._exit(1)
    sys.path.remove(setting["folder"])
    sys.path_importer_cache.pop(setting["folder"], None)
    if setting["path"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = setting["path"]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(spec["limits"]["cpu_count"])
    os.environ.update(spec["env"])
    for name in spec["preload"]:
        try:
            __import__(name)
        except ImportError:
            continue
    sys.argv[1:] = spec["argv"]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[2:] = spec["argv"]
    save_figures_at_end()
    use_own_sitecustomize()
    set_limits(spec["limits"])
    os.write(setting["status"], b".")
    os.close(setting["status"])
    if not orders.read(1):
        os._exit(1)
    orders.close()


def set_limits(limits: Json) -> None:
    """Bound what the program may take."""
    import resource

    bounds = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, limits["open_files"])]
    if limits["processes"]:
        bounds.append((resource.RLIMIT_NPROC, limits["processes"]))
    if limits["memory_bytes"]:
        bounds.append((resource.RLIMIT_AS, limits["memory_bytes"]))
    for bound, value in bounds:
        hard = resource.getrlimit(bound)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(bound, (value, value))


def save_figures_at_end() -> None:
    """Save the figures that the program leaves open, as a notebook would show them.

    The interpreter calls ``threading._shutdown`` when the program has ended; at exit, Matplotlib's own handler
    would be earlier than one of ours.
    """
    import os
    import sys
    import threading

    shutdown, own = threading._shutdown, os.getpid()  # type: ignore[attr-defined]

    def save() -> None:
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None and os.getpid() == own:
            try:
                for number in pyplot.get_fignums():
                    index = number
                    while os.path.lexists("figure_%d.png" % index):
                        index += 1
                    pyplot.figure(number).savefig("figure_%d.png" % index)
            except Exception as error:
                print("open figures could not be saved: %s" % error, file=sys.stderr)

    def end(*arguments: Any) -> None:
        shutdown(*arguments)
        save()

    threading._shutdown = end  # type: ignore[attr-defined]


def use_own_sitecustomize() -> None:
    """Import the ``sitecustomize`` of the image, if it has one, in place of this one."""
    import sys

    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        sys.modules["sitecustomize"] = ours


if __name__ == "sitecustomize":
    try:
        # The setting is written in front of this part.
        prepare(SETTING)
    except BaseException as error:
        # The interpreter would go on to the program, without its limits.
        import os

        os.write(2, ("%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace"))
        os._exit(1)
