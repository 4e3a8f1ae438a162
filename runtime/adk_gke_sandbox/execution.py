"""One execution as data: what is asked for, what came of it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal, Self

from adk_gke_sandbox.errors import ConfigError, SandboxError


class Reason(StrEnum):
    """Why an execution ended. Only ``COMPLETED`` and ``ERROR`` are verdicts of the program itself."""

    COMPLETED = "Completed"
    """The program ended with exit code 0."""
    ERROR = "Error"
    """The program ended with another exit code or by a signal of its own."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The program ran longer than its timeout and was killed."""
    MEMORY_LIMIT = "MemoryLimit"
    """The program needed more memory than its limit."""
    OUTPUT_LIMIT = "OutputLimit"
    """The program wrote more than its output cap and was killed."""
    ABORTED = "Aborted"
    """The caller gave up."""
    EVICTED = "Evicted"
    """The node pushed the pod out: preempted, drained or under pressure."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """The node cannot get the image."""
    UNSCHEDULABLE = "Unschedulable"
    """No node took the pod before the schedule deadline."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's ResourceQuota has no room."""
    ADMISSION_DENIED = "AdmissionDenied"
    """An admission rule refused the Job or its pod."""
    INVALID_REQUEST = "InvalidRequest"
    """The caller's files, or settings of this one call, cannot work; nothing was sent to the cluster."""
    REQUEST_TOO_LARGE = "RequestTooLarge"
    """Code and input files together are more than this path, or the API server, takes; the program was not started."""
    FORBIDDEN = "Forbidden"
    """The executor's identity may not do what it must."""
    SANDBOX_LOST = "SandboxLost"
    """The sandbox ended without telling what came of the program."""
    REPLY_INCOMPLETE = "ReplyIncomplete"
    """The program ended, but a part of its output or files did not arrive."""
    ISOLATION_MISSING = "IsolationMissing"
    """The sandbox does not run under gVisor, where the settings ask for it; the program was not started."""
    API_UNAVAILABLE = "ApiUnavailable"
    """The Kubernetes API does not answer, or refuses the credentials or the namespace."""


CODE_REASONS = frozenset(
    {Reason.COMPLETED, Reason.ERROR, Reason.DEADLINE_EXCEEDED, Reason.MEMORY_LIMIT, Reason.OUTPUT_LIMIT}
)
"""Reasons that tell something about the program; all others tell about the infrastructure or the caller."""

CALLER_REASONS = frozenset({Reason.ABORTED, Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE})
"""Reasons that are the caller's: what it wanted, or its mistake. Nobody is to be called for them."""

MARKERS: Final[Mapping[bool, str]] = {True: "your code failed", False: "the sandbox could not run your code"}
"""How a failure begins, by whether it tells something about the program."""


JOB_REPLY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of a reply in a container's log: the kubelet rotates it at 10 MiB, and only its newest part can be read."""


OUTPUT_BYTES_MAX: Final = 5 * 1024 * 1024
"""The most of both streams together: encoded it is up to 1.4 times as long, and a reply has room for 8 MiB."""


def _bounded(default: int, least: int, most: int) -> int:
    found: int = field(default=default, metadata={"least": least, "most": most})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that the runner enforces from inside. Sizes in bytes.

    Raises:
        ConfigError: a number that cannot work.
    """

    stdout_bytes: int = _bounded(1024 * 1024, 0, OUTPUT_BYTES_MAX)
    """Bytes of standard output kept, head and tail together."""
    stderr_bytes: int = _bounded(256 * 1024, 0, OUTPUT_BYTES_MAX)
    """The same for standard error."""
    flood_bytes: int = _bounded(512 * 1024 * 1024, 1, 2**40)
    """Bytes over both streams after which the program is killed."""
    file_count: int = _bounded(50, 0, 10_000)
    """Output files returned at the most."""
    # Above what a reply can carry it would promise what never arrives.
    file_bytes: int = _bounded(5 * 1024 * 1024, 0, JOB_REPLY_BYTES)
    """Bytes of all returned output files together. A reply has room for 8 MiB in all, and files take 4/3 of their
    size in it: some 5.5 MiB come back if the program prints little."""
    processes: int = _bounded(64, 0, 2**20)
    """Processes and threads of the program, its first one included; 0 sets no limit. Applied under gVisor only."""
    # The interpreter's own are some ten; above 2**20 no kernel goes unless it is told to.
    open_files: int = _bounded(1024, 16, 2**20)
    """RLIMIT_NOFILE."""
    written_file_bytes: int = _bounded(0, 0, 2**40)
    """RLIMIT_FSIZE, the largest file that the program may write; 0 leaves it unset."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, least, most = getattr(self, limit.name), limit.metadata["least"], limit.metadata["most"]
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"limits.{limit.name}={value!r} is out of range", f"Give {least} to {most}")
        if (kept := self.stdout_bytes + self.stderr_bytes) > OUTPUT_BYTES_MAX:
            remedy = f"Keep them below {OUTPUT_BYTES_MAX}: a reply has 8 MiB. Let programs write large results to files"
            raise ConfigError(f"limits.stdout_bytes and limits.stderr_bytes together are {kept}", remedy)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class File:
    """A file that goes into an execution or comes out of it.

    Attributes:
        name: Relative path below the working directory, with ``/``.
        content: The bytes.
        mime_type: Guessed from the name where the file is an output.
    """

    name: str
    content: bytes
    mime_type: str = "application/octet-stream"

    def __repr__(self) -> str:
        return f"<File {self.name!r}: {len(self.content)} bytes, {self.mime_type}>"


Files = Iterable[File] | Mapping[str, bytes | str]
"""Input files: ``File`` values, or names with bytes or text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to run. The same document on every path.

    Attributes:
        code: The program, run as ``python main.py``.
        files: Written to the working directory first.
        argv: Arguments of the program.
        env: Environment variables of the program.
        limits: What the user may set.
        timeout_seconds: Wall-clock time of the program, counted from its start.
        memory_bytes: RLIMIT_AS of the program; 0 leaves it unset.
        cpu_count: Size of numeric thread pools.
        reply_bytes: Bytes of all frames of the reply at the most.
        first_figure: Number of the first figure that is saved because the program left it open.
        gvisor: Whether the program may run under gVisor only.
    """

    code: str
    files: tuple[File, ...] = ()
    argv: tuple[str, ...] = ()
    # Values may be secrets.
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    limits: Limits = Limits()
    timeout_seconds: float = 300.0
    memory_bytes: int = 0
    cpu_count: int = 1
    reply_bytes: int = JOB_REPLY_BYTES
    first_figure: int = 1
    gvisor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds spent in each phase, on the client's clock."""

    submit: float = 0.0
    """Create calls, until the last object exists."""
    schedule: float = 0.0
    """From there until the container runs."""
    start: float = 0.0
    """From there until the program starts."""
    run: float = 0.0
    """The program."""
    collect: float = 0.0
    """From its end until all of the reply has arrived."""
    delete: float = 0.0
    """Until the API server has accepted the deletion."""

    @property
    def total(self) -> float:
        """Seconds from the call to its return."""
        return self.submit + self.schedule + self.start + self.run + self.collect + self.delete


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outcome:
    """What came of an execution.

    Attributes:
        name: Name of the execution and of its Job.
        reason: Why it ended.
        message: One sentence of cause and cure; empty when completed.
        exit_code: Exit code of the program; ``None`` if it never started or nobody knows.
        signal: Name of the signal that ended the program, for example ``SIGSEGV``.
        started: Whether the program may have run. Such an execution is never repeated.
        stdout: Standard output kept.
        stderr: Standard error kept.
        stdout_dropped: Bytes cut out of the middle of standard output.
        stderr_dropped: The same for standard error.
        files: Output files.
        files_left_out: Names of output files not returned, with the reason.
        wall_seconds: Wall-clock time of the program, measured inside.
        cpu_seconds: CPU time of the program and its children.
        peak_memory_bytes: Largest resident set of one process.
        kernel: Kernel that the program ran under, for example ``gVisor 4.19.0-gvisor``; empty if it never said so.
        warnings: What the configuration gives up, for example that it expects no gVisor.
        launch: ``cold`` or ``warm``.
        timings: Phases, on the client's clock.
    """

    name: str
    reason: Reason
    message: str = ""
    exit_code: int | None = None
    signal: str = ""
    started: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    files: tuple[File, ...] = ()
    files_left_out: tuple[str, ...] = ()
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    kernel: str = ""
    warnings: tuple[str, ...] = ()
    launch: str = "cold"
    timings: Timings = Timings()

    @property
    def ok(self) -> bool:
        """Whether the program ended with exit code 0, and all of its reply has arrived."""
        return self.reason is Reason.COMPLETED

    @property
    def text(self) -> str:
        """Standard output as text; what is no UTF-8 is replaced by U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> Self:
        """Return this outcome if it is a success.

        Raises:
            ExecutionFailed: it is none.
        """
        if not self.ok:
            raise ExecutionFailed(self)
        return self

    def __repr__(self) -> str:
        ended = self.reason.value if self.ok else failure_line(self)
        first = self.stdout[:80].decode("utf-8", "replace").partition("\n")[0]
        sizes = f"stdout {len(self.stdout)} bytes {first!r}, stderr {len(self.stderr)} bytes, {len(self.files)} files"
        return f"<Outcome {self.name}: {ended}; {sizes}>"


class ExecutionFailed(SandboxError):
    """An outcome that is no success; raised by ``Outcome.check`` alone.

    Attributes:
        outcome: The outcome, with whatever output there is.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(failure_line(outcome))
        # What copies and pickles are made of.
        self.args = (outcome,)
        self.outcome = outcome


def failure_line(outcome: Outcome) -> str:
    """Return the line that says why an execution did not complete, for a model or a person to act on."""
    marker = MARKERS[outcome.reason in CODE_REASONS]
    if outcome.reason is Reason.ERROR:
        cause = f"killed by {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"
        cause += f": {outcome.message}" if outcome.message else ""
    else:
        cause = outcome.message or "no detail"
    return f"{marker}: {outcome.reason.value}: {cause}"


# What is told of an execution while it goes on.


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The program has begun; told once, before any output, unless the sandbox never said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the program has written to one of its streams.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        data: The bytes. The runner cuts UTF-8 between characters wherever it can.
        skipped: Bytes before them that were cut out of the middle.
    """

    stream: Literal["stdout", "stderr"]
    data: bytes
    skipped: int = 0

    @property
    def text(self) -> str:
        """The bytes as text; what is no UTF-8 is replaced by U+FFFD."""
        return self.data.decode("utf-8", "replace")


def gap_line(skipped_bytes: int) -> bytes:
    """Return the line that stands in output for what was cut out of its middle; nothing for 0 bytes."""
    return f"\n[... {skipped_bytes} bytes left out ...]\n".encode() if skipped_bytes else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The execution is over and cleaned up; always the last event.

    Attributes:
        outcome: What came of it, with all output and files.
    """

    outcome: Outcome


Event = Started | Output | Ended
"""What ``Sandbox.stream`` tells of an execution."""
