"""What runs inside the pod: a supervisor, and the worker that becomes the user's program.

Standard library only, any Python from 3.8 on; it travels with the request, so that any image works and
versions cannot differ. The supervisor alone writes to the container's stdout: one JSON frame per line, marked
with the request's nonce. The program's own output reaches it through pipes.

    python3 -I -S -B runner.py [REQUEST_FOLDER]      in the working directory of the program
"""

import binascii
import ctypes
import json
import os
import select
import signal
import sys
import time

REQUEST_FOLDER = "/etc/sandbox/request"
PROGRAM = "main.py"
OUTPUT_CHUNK = 8 * 1024
FILE_CHUNK = 11 * 1024
"""Bytes in one frame: encoded, it stays below the 16 KiB at which the runtime splits log lines."""

RECENT_BYTES = 512
"""Bytes at the end of standard error in which a MemoryError is looked for."""

DRAIN_SECONDS = 2.0
"""How long output that is still in the pipes is read after the program has ended."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SYSLOG_ACTION_READ_ALL = 3


class BadRequest(Exception):
    """The request cannot be run; the message says why."""


# --- supervisor ------------------------------------------------------------------------------------


def supervise(folder):
    """Run the request in ``folder`` and report it as frames; return the exit code of the container."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Before there is a child: otherwise the program could write into this process' stdout through /proc.
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    frames = Frames()
    worker = Worker()
    gvisor = runs_under_gvisor(libc)
    begin = None
    try:
        request = read_request(folder)
        frames.nonce = request["nonce"]
        frames.send("ready", python=sys.version.split()[0], gvisor=gvisor)
        known = write_files(request)
        limits = request["limits"]
        end = {"exit_code": None, "signal": "", "reason": "SandboxLost", "message": "", "left_out": []}
        worker.start(request, gvisor)
        begin = time.monotonic()
        end.update(follow(worker, frames, limits))
        end["wall_seconds"] = round(time.monotonic() - begin, 6)
        end["left_out"] = send_files(frames, known, limits)
    except (BadRequest, OSError) as error:
        kill_all()
        end = {"exit_code": None, "signal": "", "reason": "SandboxLost", "message": "runner: %s" % error}
    frames.send("end", started=begin is not None, **dict(end, **usage()))
    return 0


def runs_under_gvisor(libc):
    """Return whether the kernel is gVisor's, by the first line of its log; needs no capability."""
    buffer = ctypes.create_string_buffer(256)
    length = libc.klogctl(_SYSLOG_ACTION_READ_ALL, buffer, len(buffer))
    return length > 0 and b"Starting gVisor" in buffer.raw


def read_request(folder):
    """Return the request document, put together from its parts."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith("request.json"))
        text = []
        for name in names:
            with open(os.path.join(folder, name), encoding="ascii") as part:
                text.append(part.read())
        request = json.loads("".join(text))
    except (OSError, ValueError) as error:
        raise BadRequest("cannot read the request: %s" % error) from error
    if not isinstance(request, dict) or request.get("version") != 1:
        raise BadRequest("this runner reads requests of version 1")
    return request


def write_files(request):
    """Write the program and its input files; return what they look like, to find changed ones later."""
    known = {}
    for file in request["files"]:
        name = file["name"]
        parts = name.split("/")
        if not name or "\0" in name or "" in parts or "." in parts or ".." in parts or name == PROGRAM:
            raise BadRequest("%r is no name for an input file: give a relative path without '..'" % name)
        if len(parts) > 1:
            os.makedirs(os.path.join(*parts[:-1]), exist_ok=True)
        with open(name, "wb") as target:
            target.write(binascii.a2b_base64(file["content"]))
        known[name] = fingerprint(os.stat(name))
    with open(PROGRAM, "wb") as target:
        target.write(request["code"].encode("utf-8", "surrogatepass"))
    return known


def fingerprint(status):
    """Return what changes when a file is written."""
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def usage():
    """Return what the program and its children have used."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime, 6), "peak_memory_bytes": used.ru_maxrss * 1024}


class Frames:
    """Writes frames to the container's stdout."""

    def __init__(self):
        self.nonce = ""

    def send(self, kind, **fields):
        line = json.dumps(dict({"n": self.nonce, "t": kind}, **fields), ensure_ascii=False, separators=(",", ":"))
        data = line.encode("utf-8", "replace") + b"\n"
        while data:
            data = data[os.write(1, data) :]

    def send_data(self, kind, data, **fields):
        """Send bytes as text where they are text and stay short, else as base64."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or len(json.dumps(text, ensure_ascii=False).encode("utf-8")) > 1.5 * len(data) + 64:
            fields["b"] = binascii.b2a_base64(data, newline=False).decode("ascii")
        else:
            fields["d"] = text
        self.send(kind, **fields)


class Capture:
    """One output stream: its beginning is sent at once, its end when it is over, the middle is counted."""

    def __init__(self, frames, kind, cap):
        self.frames = frames
        self.kind = kind
        self.head = cap - cap // 2
        self.tail_cap = cap // 2
        self.tail = bytearray()
        self.held = b""
        self.recent = b""
        self.total = 0
        self.dropped = 0

    def feed(self, data):
        self.total += len(data)
        self.recent = (self.recent + data)[-RECENT_BYTES:]
        data = self.held + data
        self.held = b""
        now, rest = data[: self.head], data[self.head :]
        if now:
            if not rest:
                now, self.held = cut_between_characters(now)
            self.head -= len(now)
            self.send(now)
        self.tail += rest
        surplus = len(self.tail) - self.tail_cap
        if surplus > 0:
            del self.tail[:surplus]
            self.dropped += surplus

    def send(self, data, skipped=0):
        for at in range(0, len(data), OUTPUT_CHUNK):
            fields = {"skipped": skipped} if skipped and at == 0 else {}
            self.frames.send_data(self.kind, bytes(data[at : at + OUTPUT_CHUNK]), **fields)

    def finish(self):
        self.send(self.held)
        self.send(self.tail, self.dropped)


def cut_between_characters(data):
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

    def __init__(self):
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        go, self.go = os.pipe()
        self.status, status = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
        for descriptor in (go, status):
            os.set_inheritable(descriptor, True)
        command = [sys.executable, "-B", os.path.abspath(__file__), "--worker", str(go), str(status)]
        self.pid = os.posix_spawn(sys.executable, command, environment(), file_actions=actions)
        for descriptor in (out, err, go, status, null):
            os.close(descriptor)

    def start(self, request, gvisor):
        """Let the program begin; return once it does."""
        limits = dict(request["limits"])
        if not gvisor:
            # Elsewhere the kernel counts the processes of the user on the whole node.
            limits["processes"] = 0
        spec = {"argv": request["argv"], "env": request["env"], "limits": limits, "preload": request["preload"]}
        data = json.dumps(spec).encode("ascii")
        while data:
            data = data[os.write(self.go, data) :]
        os.close(self.go)
        if os.read(self.status, 1) != b".":
            raise BadRequest("the worker ended before the program began")
        os.close(self.status)


def environment():
    """Return the environment of the program: the container's without the cluster's, and writable homes."""
    temporary = os.environ.get("TMPDIR", "/tmp")
    home = os.path.join(temporary, "home")
    os.makedirs(home, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
    kept.update(
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
    return kept


def follow(worker, frames, limits):
    """Pass the program's output on until it has ended or must end; return how it ended."""
    frames.send("started")
    deadline = time.monotonic() + limits["timeout_seconds"]
    streams = {
        worker.out: Capture(frames, "out", limits["stdout_bytes"]),
        worker.err: Capture(frames, "err", limits["stderr_bytes"]),
    }
    errors = streams[worker.err]
    poll = select.poll()
    for descriptor in streams:
        os.set_blocking(descriptor, False)
        poll.register(descriptor, select.POLLIN)
    wake, wake_writer = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll.register(wake, select.POLLIN)
    open_streams = set(streams)
    status = None
    verdict = ""
    while True:
        if status is None:
            status = reap(worker.pid)
            if status is not None:
                kill_all()
                deadline = time.monotonic() + DRAIN_SECONDS
        if not open_streams and status is not None:
            break
        left = deadline - time.monotonic()
        if left <= 0:
            if status is not None:
                break
            verdict = "DeadlineExceeded"
        elif status is None and sum(stream.total for stream in streams.values()) > limits["flood_bytes"]:
            verdict = "OutputLimit"
        if verdict and status is None:
            kill_all()
            status = reap(worker.pid, wait=True)
            deadline = time.monotonic() + DRAIN_SECONDS
            continue
        for descriptor, _ in poll.poll(max(left, 0) * 1000):
            if descriptor == wake:
                os.read(wake, 512)
                continue
            try:
                data = os.read(descriptor, 64 * 1024)
            except BlockingIOError:
                continue
            if data:
                streams[descriptor].feed(data)
            else:
                poll.unregister(descriptor)
                open_streams.discard(descriptor)
    memory_error = ends_with_memory_error(errors.recent)
    for stream in streams.values():
        stream.finish()
    return verdict_of(status, verdict, memory_error, limits)


def ends_with_memory_error(text):
    """Return whether the program's last words were a MemoryError."""
    last = text.rstrip().rpartition(b"\n")[2]
    return last.split(b":")[0].endswith(b"MemoryError")


def verdict_of(status, verdict, memory_error, limits):
    """Return the fields of the ``end`` frame that say how the program ended."""
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + killed_by if killed_by else os.WEXITSTATUS(status)
    end = {"exit_code": code, "signal": signal_name(killed_by), "message": ""}
    if verdict == "DeadlineExceeded":
        end.update(reason=verdict, message="the program was killed after %g s" % limits["timeout_seconds"])
    elif verdict == "OutputLimit":
        end.update(reason=verdict, message="the program was killed after %d bytes of output" % limits["flood_bytes"])
    elif code == 0:
        end["reason"] = "Completed"
    elif memory_error:
        end.update(
            reason="MemoryLimit",
            message="the program needed more than the %d MiB it may use. Use less, or raise mem_limit"
            % (limits["memory_bytes"] // 2**20),
        )
    elif killed_by == signal.SIGKILL:
        end.update(reason="MemoryLimit", message="the program was killed, probably at its memory limit")
    else:
        end["reason"] = "Error"
    return end


def signal_name(number):
    """Return the name of a signal, or nothing for none."""
    try:
        return signal.Signals(number).name if number else ""
    except ValueError:
        return "signal %d" % number


def reap(pid, wait=False):
    """Collect ended children; return the wait status of ``pid`` once it has ended."""
    while True:
        try:
            found, status = os.waitpid(pid if wait else -1, 0 if wait else os.WNOHANG)
        except ChildProcessError:
            return 0 if wait else None
        if found == pid:
            return status
        if found == 0:
            return None


def kill_all():
    """Kill every process but this one, however it was started, and collect those that are ours."""
    if os.getpid() == 1:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return
    while True:
        found = descendants()
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.005)


def descendants():
    """Return the living descendants of this process."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in (b"Z", b"X"):
                parents[int(name)] = int(fields[1])
    found = {os.getpid()}
    size = 0
    while size != len(found):
        size = len(found)
        found.update(pid for pid, parent in parents.items() if parent in found)
    return found - {os.getpid()}


def send_files(frames, known, limits):
    """Send new and changed regular files of the working directory; return what was left out, and why."""
    left_out = []
    count = 0
    room = limits["file_bytes"]
    for path in sorted(walk(".")):
        name = path[2:]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            left_out.append("%s: %s" % (printable(name), error.strerror))
            continue
        with os.fdopen(descriptor, "rb") as source:
            status = os.fstat(source.fileno())
            if name == PROGRAM or known.get(name) == fingerprint(status):
                continue
            if printable(name) != name:
                left_out.append("%s: the name is not printable" % printable(name))
            elif count >= limits["file_count"]:
                left_out.append("%s: more than %d files" % (name, limits["file_count"]))
            elif status.st_size > room:
                left_out.append("%s: %d bytes, %d were left" % (name, status.st_size, room))
            else:
                count += 1
                room -= send_file(frames, name, source, status.st_size)
    if len(left_out) > limits["file_count"]:
        left_out[limits["file_count"] :] = ["and %d more" % (len(left_out) - limits["file_count"])]
    return left_out


def send_file(frames, name, source, size):
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


def walk(folder):
    """Yield the regular files below a folder, without following links."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "__pycache__":
                yield from walk(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path


def printable(name):
    """Return a name with everything replaced that could not be shown or sent."""
    return "".join(c if c.isprintable() else "?" for c in name.encode("utf-8", "replace").decode("utf-8"))


# --- worker ----------------------------------------------------------------------------------------


def work(go, status):
    """Wait for the word, then run the program as ``python main.py`` would; return its exit code."""
    os.setsid()
    with os.fdopen(go, "rb") as source:
        data = source.read()
    if not data:
        return 1
    spec = json.loads(data)
    os.environ.update(thread_pools(spec["limits"]["cpu_count"]))
    os.environ.update(spec["env"])
    for module in spec["preload"]:
        try:
            __import__(module)
        except ImportError:
            continue
    set_limits(spec["limits"])
    path = os.path.join(os.getcwd(), PROGRAM)
    sys.argv = [PROGRAM, *spec["argv"]]
    sys.path[0] = os.getcwd()
    module = type(sys)("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None, __annotations__={})
    sys.modules["__main__"] = module
    with open(PROGRAM, "rb") as source:
        code = source.read()
    os.write(status, b".")
    os.close(status)
    return run(code, path, module.__dict__)


def run(code, path, names):
    """Run the program's code; return its exit code, as the interpreter itself would."""
    try:
        compiled = compile(code, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        sys.excepthook(type(error), error, None)
        return 1
    try:
        exec(compiled, names)
        save_figures()
        return 0
    except SystemExit as error:
        save_figures()
        return exit_code(error.code)
    except KeyboardInterrupt as error:
        sys.excepthook(type(error), error, error.__traceback__.tb_next)
        return 130
    except BaseException as error:
        save_figures()
        # Without the frame of this function, which the program knows nothing of.
        error.__traceback__ = error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        return 1


def exit_code(code):
    """Return the exit code for the argument of ``sys.exit``."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def save_figures():
    """Save the figures that the program has left open, as a notebook would show them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        for number in pyplot.get_fignums():
            pyplot.figure(number).savefig("figure_%d.png" % number)
    except Exception as error:
        print("open figures could not be saved: %s" % error, file=sys.stderr)


def thread_pools(count):
    """Return the variables that size the thread pools of numeric libraries."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {name: str(count) for name in names}


def set_limits(limits):
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(work(int(sys.argv[2]), int(sys.argv[3])))
    sys.exit(supervise(sys.argv[1] if len(sys.argv) > 1 else REQUEST_FOLDER))
