"""What runs inside the pod: the supervisor of the user's program, which starts as the worker (``worker``).

    python3 -I -S -B supervisor.py [FOLDER]      in the working directory of the program

It prepares the worker, accepts one request and runs it. The request is read from the files in a folder. The exit code
is the program's (128 and the signal's number after a signal), or 70 when no program came to an end.

Standard library only, any CPython from 3.8 on; it travels with the request, so that any image works and
versions cannot differ. The supervisor alone writes to the container's stdout: one JSON frame per line (``frames``). The
program's own output reaches it through pipes. It imports little on purpose: under gVisor each module costs ten times
what it costs elsewhere.
"""

# pathlib and contextlib would be imports to pay for; the names and the data are our own.
# ruff: noqa: PTH100, PTH103, PTH116, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import binascii
import ctypes
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, Dict

    from adk_gke_sandbox.pod import frames, processes

    Json = Dict[str, Any]
else:
    # Without the enums of ``signal``, which take as long as all the rest.
    import _signal as signal

    # ``python -I`` does not look into the folder of its script.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import frames
    import processes

    del sys.path[0]

VERSION = 2
"""Of the request document and the frames."""

REQUEST_FOLDER = "/etc/sandbox/request"
EXIT_NO_PROGRAM = 70
"""Exit code when the request could not be run (EX_SOFTWARE of sysexits.h)."""

NO_MEMORY = (
    b"Cannot allocate memory",
    b"std::bad_alloc",
    b"failed to map segment from shared object",
    b"Memory allocation still failed",
)
"""What the C library, C++, the dynamic linker and OpenBLAS say last when RLIMIT_AS leaves them no memory."""

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SYSLOG_ACTION_READ_ALL = 3


class IsolationMissing(Exception):
    """The request wants gVisor, and the kernel is another one."""


class Supervisor:
    """One execution.

    Attributes:
        reply: The frames that tell of it.
        verdict: The fields of the frames ``exit`` and ``end`` that say what became of the program.
        started: Whether the program may have run.
    """

    def __init__(self) -> None:
        self.reply = frames.Frames()
        self.verdict: Json = {"exit_code": None, "signal": "", "reason": "", "message": "", "wall_seconds": 0.0}
        self.started = False

    def supervise(self, folder: str) -> int:
        """Run the request that lies in a folder and report it as frames; return the exit code of the container."""
        left_out: list[str] = []
        try:
            self.prepare()
            self.accept(folder)
            left_out = self.run()
        except IsolationMissing as error:
            self.refuse("IsolationMissing", str(error))
        except Exception as error:
            cause = (str(error) or repr(error))[: frames.MESSAGE_CHARACTERS]
            if self.verdict["exit_code"] is not None:
                # Without its ``end`` the reply is told from a whole one; the cause is in the container's log.
                frames.write_all(2, f"the reply could not be sent: {cause}\n".encode("utf-8", "replace"))
                return int(self.verdict["exit_code"])
            self.refuse("SandboxLost", f"the runner could not run the request: {cause}")
        end = {**self.verdict, "started": self.started, "left_out": left_out, **processes.used(), **self.reply.counts}
        self.reply.send("end", **end)
        return EXIT_NO_PROGRAM if self.verdict["exit_code"] is None else int(self.verdict["exit_code"])

    def refuse(self, reason: str, message: str) -> None:
        """End without a program's verdict."""
        processes.kill_all()
        self.verdict.update(reason=reason, message=message)

    def prepare(self) -> None:
        """Do what needs no request: guard this process, and start the worker, whose start-up takes longest."""
        libc = ctypes.CDLL(None, use_errno=True)
        # Before there is a child: otherwise the program could write into this process' stdout through /proc.
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            # The program can send them; the kubelet ends a pod by SIGKILL in the end. A handler, unlike SIG_IGN, is
            # not inherited.
            signal.signal(number, lambda *_: None)
        self.worker = processes.Worker({})
        self.gvisor = runs_under_gvisor(libc)

    def accept(self, folder: str) -> None:
        """Take the request over, up to the moment before the program begins."""
        self.request = request = read_request(folder)
        self.reply.nonce = request["nonce"]
        kernel = ("gVisor " if self.gvisor else "Linux ") + os.uname().release
        self.reply.send("ready", python=sys.version.split()[0], kernel=kernel)
        if request["gvisor"] and not self.gvisor:
            # Before anything of the request is written or reaches the worker.
            raise IsolationMissing(
                f"the program was not started: the sandbox runs under the kernel {kernel}, and the settings ask for "
                "gVisor. The handler of the RuntimeClass must be gVisor's: runsc, on GKE gvisor (`kubectl get "
                "runtimeclass` shows it). Name a RuntimeClass with this handler, or have it corrected; where a cluster "
                "is meant to have no gVisor, say so with runtime_class=None"
            )
        if any(name.startswith(("PYTHON", "LD_")) for name in request["env"]):
            # These are read when an interpreter starts, so this one has come too early.
            self.worker.end()
            self.worker = processes.Worker(request["env"])
        self.known = write_files(request)
        self.worker.prepare(request, self.gvisor)
        # Written so late that a worker that does not reach its hook finds nothing to run.
        with open(frames.PROGRAM, "wb") as target:
            target.write(source_bytes(request["code"]))
        self.known[frames.PROGRAM] = os.stat(frames.PROGRAM)

    def run(self) -> list[str]:
        """Run the program and send what it leaves; return which files were left out, and why."""
        limits = self.request["limits"]
        self.reply.send("started")
        self.started = True
        begin = time.monotonic()
        self.worker.go()
        status, out, err = follow(self.worker, self.reply, limits)
        self.verdict = verdict_of(status, self.worker, err.recent.rstrip(), limits)
        self.verdict["wall_seconds"] = round(self.worker.ended - begin, 6)
        # First of all: a client that loses what follows knows that the program has ended, and how.
        self.reply.send("exit", **self.verdict)
        out.finish()
        err.finish()
        # Not earlier, or the program would have waited for it.
        sys.path.insert(0, processes.POD)
        files: Any = __import__("files")
        left_out: list[str] = files.send_files(self.reply, self.known, limits, self.request["reply_bytes"])
        return left_out


def runs_under_gvisor(libc: Any) -> bool:
    """Return whether the kernel is gVisor's, by the first line of its log; needs no capability."""
    buffer = ctypes.create_string_buffer(16 * 1024)
    length = libc.klogctl(_SYSLOG_ACTION_READ_ALL, buffer, len(buffer))
    return length > 0 and b"Starting gVisor" in buffer.raw


def read_request(folder: str) -> Json:
    """Return the request of the document that lies in a folder, whole or in parts."""
    text = ""
    for name in sorted(name for name in os.listdir(folder) if name.startswith("request.json")):
        with open(os.path.join(folder, name), encoding="ascii") as part:
            text += part.read()
    if not text:
        raise ValueError(f"no request.json in {folder}")
    request: Json = frames.parse_json(text)
    if not isinstance(request, dict) or request.get("version") != VERSION:
        raise ValueError(f"this runner reads requests of version {VERSION}")
    return request


def write_files(request: Json) -> dict[str, os.stat_result]:
    """Write the input files, whose names the client has checked; return how they look, to find changed ones later."""
    known = {}
    for file in request["files"]:
        name = file["name"]
        if "/" in name:
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as target:
            target.write(binascii.a2b_base64(file["content"]))
        known[name] = os.stat(name)
    return known


def source_bytes(code: str) -> bytes:
    """Return the program as a file; bytes that an editor could not decode come back as they were."""
    try:
        return code.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return code.encode("utf-8", "surrogatepass")


def follow(worker: processes.Worker, reply: frames.Frames, limits: Json) -> tuple[int, frames.Capture, frames.Capture]:
    """Pass the program's output on until it has ended or must end; return its wait status and what is not yet sent."""
    out = frames.Capture(reply, "out", limits["stdout_bytes"])
    err = frames.Capture(reply, "err", limits["stderr_bytes"])
    streams = {worker.out: out, worker.err: err}
    wake, wake_writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    for descriptor in (*streams, wake):
        poll.register(descriptor, select.POLLIN)
    worker.limit_time("DeadlineExceeded", limits["timeout_seconds"])
    begin = time.monotonic()
    status = None
    drain_until = 0.0
    while True:
        now = time.monotonic()
        if status is None:
            status = processes.reap(worker.pid)
            if status is not None:
                worker.ended = now
                signal.setitimer(signal.ITIMER_REAL, 0)
                processes.kill_all()
                drain_until = now + processes.DRAIN_SECONDS
        flooded = out.total + err.total > limits["flood_bytes"]
        if status is not None and (not streams or now > drain_until or flooded):
            return status, out, err
        if flooded:
            worker.end("OutputLimit")
        wake_at = drain_until
        if status is None:
            # Once it has ended, the verdict goes first.
            for stream in (out, err):
                stream.flush(now, now - begin)
            # The program's end and its deadline wake the poll through ``wake``.
            wake_at = min([now + 60, *(stream.due for stream in (out, err) if stream.head)])
        for descriptor, _ in poll.poll(max(wake_at - now, 0) * 1000 + 1):
            data = processes.read_some(descriptor)
            if descriptor == wake:
                continue
            if data:
                streams[descriptor].feed(data)
            elif data is not None:
                poll.unregister(descriptor)
                del streams[descriptor]


def verdict_of(status: int, worker: processes.Worker, last_words: bytes, limits: Json) -> Json:
    """Return how the program ended, as fields of the ``exit`` frame."""
    killed_for, told = worker.verdict, worker.told()
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if killed_for and killed_by:
        # A program that has replaced itself does not know the signal that comes before.
        killed_by = signal.SIGKILL
    code = 128 + killed_by if killed_by else os.WEXITSTATUS(status)
    peak = processes.used()["peak_memory_bytes"] if killed_by == signal.SIGKILL else 0
    reason, message = killed_for or ("Error" if code else "Completed"), ""
    if killed_for == "DeadlineExceeded":
        message = f"the program was killed after {limits['timeout_seconds']:g} s"
    elif killed_for == "OutputLimit":
        message = f"the program was killed after {limits['flood_bytes']} bytes of output"
    elif code:
        messages = limit_messages(limits)
        limit = next((word for word in told if word in messages), "")
        if killed_by == signal.SIGXFSZ:
            limit = "size"
        elif killed_by == signal.SIGABRT or not (killed_by or "ended" in told):
            # Native code has given up, past the interpreter.
            last_line = last_words.rpartition(b"\n")[2]
            limit = "memory" if any(sign in last_line for sign in NO_MEMORY) else ""
        elif peak > limits["memory_bytes"] // 2 > 0:
            limit = "memory"
            used = f"the program was killed while it used {peak // 2**20} MiB"
            messages[limit] = f"{used}, probably at its memory limit. Use less, or raise mem_limit"
        reason, message = "MemoryLimit" if limit == "memory" else reason, messages.get(limit, "")
    return {"reason": reason, "message": message, "exit_code": code, "signal": signal_name(killed_by)}


def limit_messages(limits: Json) -> dict[str, str]:
    """Return what to say of each limit, by the name that the worker has for it."""
    memory = f"the {limits['memory_bytes'] // 2**20} MiB it may use" if limits["memory_bytes"] else "there is"
    return {
        "memory": f"the program needed more memory than {memory}; what is reserved and never touched counts, too. "
        "Use less, or raise mem_limit",
        "space": "no space was left in the working or the temporary directory. Write less, or raise scratch_limit",
        "files": f"more than {limits['open_files']} files were open. Close some, or raise limits.open_files",
        "size": f"a file grew beyond {limits['written_file_bytes']} bytes. Write less, or raise "
        "limits.written_file_bytes",
        # The kernel gives one error for both.
        "threads": f"no further thread could be started: limits.processes is {limits['processes']}, and every thread's "
        "stack takes memory. Use fewer threads, or raise limits.processes or mem_limit",
        "processes": f"no further process could be started: limits.processes is {limits['processes']}. Use fewer, "
        "or raise it",
    }


def signal_name(number: int) -> str:
    """Return the name of a signal, or nothing for none."""
    names = (name for name in dir(signal) if name.startswith("SIG") and name[3] != "_")
    known = {getattr(signal, name): name for name in names if name not in ("SIGCLD", "SIGIOT", "SIGPOLL")}
    return known.get(number, f"signal {number}") if number else ""


if __name__ == "__main__":
    sys.exit(Supervisor().supervise(sys.argv[1] if sys.argv[1:] else REQUEST_FOLDER))
