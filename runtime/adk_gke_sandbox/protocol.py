"""The request document, and what the frames of a reply add up to. No I/O.

A reply is complete when its last frame has arrived, no number is missing before it, and as many bytes and files have
arrived as it says were sent. Anything less is told as ``ReplyIncomplete``, never as success. Nothing that arrives makes
this module raise.
"""

from __future__ import annotations

import base64
import json
import mimetypes
import secrets
import unicodedata
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Final

from adk_gke_sandbox import execution
from adk_gke_sandbox.decoder import UNPRINTABLE, Decoder, End, Exit, FilePart, Frame, Output, Ready, visible
from adk_gke_sandbox.execution import CODE_REASONS, JOB_REPLY_BYTES, File, Outcome, Reason, Request

VERSION: Final = 2
"""Of the request document and the frames."""

NAME_BYTES: Final = 255
PATH_BYTES: Final = 4095
"""The longest name of a file or folder on Linux (NAME_MAX), and the longest path (PATH_MAX counts its final NUL)."""

REFUSED_MAX: Final = 50
"""Files refused here that are named; the others are counted."""

NAME_CHARACTERS: Final = 300
"""What is kept of the name of a file that is left out."""

_NOTHING: Final = End(n="", i=0, t="end", reason=Reason.SANDBOX_LOST)
"""Stands for the last frame while it has not arrived."""

_INCOMPLETE: Final = "a part of it did not arrive"

_UNITS: Final = {
    "out": "byte{s} of standard output",
    "err": "byte{s} of standard error",
    "files": "file{s}",
    "file_bytes": "byte{s} of files",
}
"""What the ``end`` frame counts."""


def new_nonce() -> str:
    """Return a number that nobody can guess."""
    return secrets.token_hex(16)


def encode_request(request: Request, nonce: str) -> bytes:
    """Return the request document: JSON in ASCII, so that it can be cut anywhere."""
    document = {
        "version": VERSION,
        "nonce": nonce,
        "code": request.code,
        "files": [{"name": file.name, "content": base64.b64encode(file.content).decode()} for file in request.files],
        "argv": request.argv,
        "env": dict(request.env),
        "limits": {
            **asdict(request.limits),
            "timeout_seconds": request.timeout_seconds,
            "memory_bytes": request.memory_bytes,
            "cpu_count": request.cpu_count,
        },
        "reply_bytes": request.reply_bytes,
        "first_figure": request.first_figure,
        "gvisor": request.gvisor,
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


class Transcript:
    """What a reply has told so far; complete once ``ended`` without a ``gap``, usable at any time.

    Args:
        nonce: The request's.
        file_count: Output files that it keeps at the most.
        reply_bytes: Bytes of output and files that it keeps at the most.

    Attributes:
        started: Whether the program may have run.
        kernel: Kernel of the sandbox; empty while it is unknown.
        kept_bytes: Bytes of output and files so far.
    """

    def __init__(self, nonce: str, *, file_count: int = 50, reply_bytes: int = JOB_REPLY_BYTES) -> None:
        self.started = False
        self.kernel = ""
        self.kept_bytes = 0
        self._reply_bytes = reply_bytes
        self._decoder = Decoder(nonce)
        self._next = 0
        self._missing = 0
        self._streams: defaultdict[str, bytearray] = defaultdict(bytearray)
        self._received: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._arriving: str | None = None
        self._content = bytearray()
        self._files = _Files(file_count)
        self._exit: Exit | End | None = None
        self._end: End | None = None

    @property
    def exited(self) -> bool:
        """Whether it is known what became of the program; a part of its output or its files may be to come."""
        return self._exit is not None

    @property
    def ended(self) -> bool:
        """Whether the ``end`` frame has arrived."""
        return self._end is not None

    @property
    def gap(self) -> str:
        """What is missing so far, in words; nothing while all is there."""
        missing = [_count(self._missing, "frame{s}")]
        if self._end is not None:
            missing += [_count(getattr(self._end, kind) - self._received[kind], unit) for kind, unit in _UNITS.items()]
        return ", ".join(filter(None, missing))

    def feed(self, chunk: bytes) -> list[tuple[int, execution.Output | None]]:
        """Take in the next bytes of the reply; what follows the ``end`` frame is ignored, and a frame seen before.

        Returns:
            Frames from a program that may have run: the number, by which a reply that is read again is known, and the
            output that the frame brought. Nothing behind a gap is among them: another reading may bring what lacks.
        """
        told = []
        for frame in self._decoder.feed(chunk):
            if self._end is None and frame.number >= self._next:
                self._missing += frame.number - self._next
                self._next = frame.number + 1
                output = self._take(frame)
                if self.started and not self._missing:
                    told.append((frame.number, output))
        return told

    def _take(self, frame: Frame) -> execution.Output | None:
        output = None
        match frame:
            case Ready():
                self.kernel = frame.kernel
            case Output():
                output = self._take_output(frame)
            case FilePart():
                self._take_file(frame)
            case Exit() | End():
                self._exit = self._exit or frame
        if isinstance(frame, End):
            self._end = frame
            self.started |= frame.started or frame.exit_code is not None
        else:
            self.started |= not isinstance(frame, Ready)
        return output

    def _take_output(self, frame: Output) -> execution.Output:
        stream = self._streams[frame.kind]
        if frame.skipped and not self._dropped[frame.kind]:
            # The runner cuts once.
            self._dropped[frame.kind] = frame.skipped
            stream += execution.gap_line(frame.skipped)
        data = self._kept(frame.data)
        self._received[frame.kind] += len(data)
        stream += data
        return execution.Output(stream="stdout" if frame.kind == "out" else "stderr", data=data, skipped=frame.skipped)

    def _take_file(self, frame: FilePart) -> None:
        """Add to the file that is arriving; the runner sends one after the other."""
        if frame.name != self._arriving or frame.at == 0:
            if self._arriving is not None:
                self._files.refuse(self._arriving, _INCOMPLETE)
            self._arriving, self._content = frame.name, bytearray()
        if frame.at != len(self._content):
            # A part before it is missing, so the file will not become whole.
            return
        data = self._kept(frame.data)
        self._content += data
        if frame.last and len(data) == len(frame.data):
            self._arriving = None
            self._received.update(files=1, file_bytes=len(self._content))
            self._files.add(frame.name, bytes(self._content))

    def _kept(self, data: bytes) -> bytes:
        data = data[: self._reply_bytes - self.kept_bytes]
        self.kept_bytes += len(data)
        return data

    def outcome(self, name: str) -> Outcome:
        """Return what is known of the execution ``name``; without a word on its program its sandbox is lost."""
        exit_, end = self._exit or _NOTHING, self._end or _NOTHING
        reason, message = exit_.reason, exit_.message
        missing = ", ".join(filter(None, (self.gap, "" if self._end else "its end")))
        if missing and reason in CODE_REASONS:
            reason, message = Reason.REPLY_INCOMPLETE, _incomplete(exit_, missing)
        left_out = [*end.left_out, *self._files.left_out]
        if self._arriving is not None:
            left_out.append(_entry(self._arriving, _INCOMPLETE))
        return Outcome(
            name=name,
            reason=reason,
            message=message,
            exit_code=exit_.exit_code,
            signal=exit_.signal,
            started=self.started,
            stdout=bytes(self._streams["out"]),
            stderr=bytes(self._streams["err"]),
            stdout_dropped=self._dropped["out"],
            stderr_dropped=self._dropped["err"],
            files=tuple(self._files.kept.values()),
            files_left_out=tuple(left_out),
            wall_seconds=exit_.wall_seconds,
            cpu_seconds=end.cpu_seconds,
            peak_memory_bytes=end.peak_memory_bytes,
            kernel=self.kernel,
        )


class _Files:
    """The output files that are kept, and the names of those that are not, with the reason."""

    def __init__(self, count_max: int) -> None:
        self.kept: dict[str, File] = {}
        self._count_max = count_max
        self._keys: list[str] = []
        self._refused: list[str] = []
        self._refused_more = 0

    @property
    def left_out(self) -> list[str]:
        return [*self._refused, *([f"and {self._refused_more} more"] if self._refused_more else [])]

    def add(self, name: str, content: bytes) -> None:
        """Keep a file under a name that is good, and that no other file has on any file system."""
        # File systems of macOS and Windows ignore case, and some the way in which an accent is written.
        key = unicodedata.normalize("NFC", name.casefold())
        fault = name_fault(name)
        if not fault and self._clashes(key):
            fault = "another file has this name, or one that some file systems take for the same"
        if not fault and len(self.kept) >= self._count_max:
            fault = f"more than {self._count_max} files"
        if fault:
            self.refuse(name, fault)
            return
        mime_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.kept[key] = File(name=name, content=content, mime_type=mime_type)
        insort(self._keys, key)

    def _clashes(self, key: str) -> bool:
        """Return whether there is a file of this name, in a folder of this name, or with the name of its folder."""
        after = bisect_left(self._keys, f"{key}/")
        return (
            key in self.kept
            or (after < len(self._keys) and self._keys[after].startswith(f"{key}/"))
            or any(key[:at] in self.kept for at, character in enumerate(key) if character == "/")
        )

    def refuse(self, name: str, fault: str) -> None:
        """Name a file that is not kept; count it if there are many."""
        if len(self._refused) < REFUSED_MAX:
            self._refused.append(_entry(name, fault))
        else:
            self._refused_more += 1


def name_fault(name: str) -> str:
    """Return why an output file of this name is refused; nothing if it is one that every consumer may use as a path.

    A name is a relative POSIX path that stays in the folder that it is joined to, and can be shown as one line.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "the name is not a relative path inside the working directory"
    if any(unicodedata.category(character) in UNPRINTABLE for character in name):
        return "the name has control characters"
    if len(name.encode()) > PATH_BYTES or max(len(part.encode()) for part in name.split("/")) > NAME_BYTES:
        return "the name is too long"
    return ""


def _entry(name: str, fault: str) -> str:
    return f"{visible(name)[-NAME_CHARACTERS:]}: {fault}"


def _count(number: int, unit: str) -> str:
    """Return for example ``2 files``; nothing for 0."""
    return f"{number} {unit.format(s='' if number == 1 else 's')}" if number else ""


def _incomplete(verdict: Exit | End, missing: str) -> str:
    """Return the message of a reply that lacks a part: how its program ended, what is missing, what to do."""
    cause = verdict.message or verdict.signal
    return (
        f"the program ended with exit code {verdict.exit_code}{f' ({cause})' if cause else ''}, but a part of its "
        f"reply did not arrive: {missing}. The node may have cut the sandbox's log: let the program write less, or "
        "have containerLogMaxSize of the node's kubelet raised; run it again if it may run twice"
    )
