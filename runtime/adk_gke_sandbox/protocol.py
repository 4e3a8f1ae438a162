"""The request document and the reply frames: encode, decode, add up. No I/O.

A reply is newline-delimited JSON. Each frame carries the request's nonce; a line without it is not a frame,
whatever it looks like. What protects the stream is that the runner alone can write to it: the nonce makes an
accident or a forgery evident, it is no secret from the program. Nothing that arrives makes this module raise.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import mimetypes
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from adk_gke_sandbox.execution import File, Outcome, Reason, Request

VERSION: Final = 1
LINE_BYTES: Final = 64 * 1024
"""The longest line that can be a frame; the runner's stay below 16 KiB, but for the names of files left out."""

REPLY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of output and files that a transcript keeps; the runner's own caps are far below."""

NAME_BYTES: Final = 255
"""The longest name of a file or folder on Linux (NAME_MAX)."""

MESSAGE_CHARACTERS: Final = 300
"""What is kept of a refused name."""

_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, surrogates, and separators of lines and paragraphs."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The runner has read its request."""

    pid: int
    python: str
    gvisor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """From here on the program may have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes of one stream; ``skipped`` bytes before them were cut out."""

    stream: Literal["out", "err"]
    data: bytes
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """The next bytes of an output file."""

    name: str
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What came of the program; nothing follows."""

    reason: Reason = Reason.SANDBOX_LOST
    message: str = ""
    started: bool = False
    exit_code: int | None = None
    signal: str = ""
    left_out: tuple[str, ...] = ()
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


Frame = Ready | Started | Output | FilePart | End


def new_nonce() -> str:
    """Return a number that nobody can guess."""
    return secrets.token_hex(16)


def encode_request(request: Request, nonce: str) -> bytes:
    """Return the request document: JSON in ASCII, so that it can be cut anywhere."""
    document = {
        "version": VERSION,
        "nonce": nonce,
        "code": request.code,
        "files": [
            {"name": file.name, "content": base64.b64encode(file.content).decode("ascii")} for file in request.files
        ],
        "argv": list(request.argv),
        "env": dict(request.env),
        "limits": {
            **asdict(request.limits),
            "timeout_seconds": request.timeout_seconds,
            "memory_bytes": request.memory_bytes,
            "cpu_count": request.cpu_count,
        },
        "preload": [],
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


class Decoder:
    """Turns chunks of a reply, cut anywhere, into frames.

    Attributes:
        ignored: Lines so far that were no frame of this reply.
    """

    def __init__(self, nonce: str) -> None:
        self.ignored = 0
        self._nonce = nonce
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that this chunk completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        frames = []
        for line in lines:
            frame = None if self._skipping else self._frame(line)
            self._skipping = False
            if frame is not None:
                frames.append(frame)
            else:
                self.ignored += 1
        # A line that is too long is dropped as it arrives, so that it cannot fill the memory.
        self._skipping = self._skipping or len(rest) > LINE_BYTES
        self._rest = b"" if self._skipping else rest
        return frames

    def _frame(self, line: bytes) -> Frame | None:
        if len(line) > LINE_BYTES or not line.startswith(b"{"):
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("n") != self._nonce:
            return None
        return _frame(found)


class Transcript:
    """What a reply has told so far; complete once ``ended``, usable at any time."""

    def __init__(self, nonce: str, *, file_count: int = 50) -> None:
        self._decoder = Decoder(nonce)
        self._streams = {"out": bytearray(), "err": bytearray()}
        self._dropped = {"out": 0, "err": 0}
        self._open: dict[str, bytearray] = {}
        self._files: list[File] = []
        self._refused: dict[str, str] = {}
        self._kept = 0
        self._end: End | None = None
        self.started = False

    @property
    def ended(self) -> bool:
        """Whether the ``end`` frame has arrived."""
        return self._end is not None

    @property
    def exited(self) -> bool:
        """Whether the program has ended."""
        return self.ended

    @property
    def gap(self) -> str:
        """What is missing."""
        return ""

    @property
    def kept_bytes(self) -> int:
        """Bytes of output and files so far."""
        return self._kept

    @property
    def ignored(self) -> int:
        """Lines so far that were no frame of this reply."""
        return self._decoder.ignored

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the reply; what follows the ``end`` frame is ignored."""
        for frame in self._decoder.feed(chunk):
            if self._end is None:
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        match frame:
            case Started():
                self.started = True
            case Output():
                if frame.skipped:
                    self._dropped[frame.stream] += frame.skipped
                    self._streams[frame.stream] += f"\n[... {frame.skipped} bytes left out ...]\n".encode()
                self._streams[frame.stream] += self._kept_data(frame.data)
            case FilePart() if fault := name_fault(frame.name):
                self._refused[visible(frame.name)[-MESSAGE_CHARACTERS:]] = fault
            case FilePart():
                content = self._open.setdefault(frame.name, bytearray())
                content += self._kept_data(frame.data)
                if frame.last:
                    self._files.append(_file(frame.name, bytes(self._open.pop(frame.name))))
            case End():
                self._end = frame
                self.started = self.started or frame.started

    def _kept_data(self, data: bytes) -> bytes:
        data = data[: REPLY_BYTES - self._kept]
        self._kept += len(data)
        return data

    def outcome(self, name: str) -> Outcome:
        """Return what is known of the execution ``name``; without an ``end`` frame its sandbox is lost."""
        end = self._end or End()
        return Outcome(
            name=name,
            reason=end.reason,
            message=end.message,
            exit_code=end.exit_code,
            signal=end.signal,
            started=self.started,
            stdout=bytes(self._streams["out"]),
            stderr=bytes(self._streams["err"]),
            stdout_dropped=self._dropped["out"],
            stderr_dropped=self._dropped["err"],
            files=tuple(self._files),
            files_left_out=(
                *end.left_out,
                *(f"{name}: {fault}" for name, fault in self._refused.items()),
            ),
            wall_seconds=end.wall_seconds,
            cpu_seconds=end.cpu_seconds,
            peak_memory_bytes=end.peak_memory_bytes,
        )


def name_fault(name: str) -> str:
    """Return why an output file of this name is refused; nothing if it is one that every consumer may use as a path.

    A name is a relative POSIX path that stays in the folder that it is joined to, and can be shown as one line.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "the name is not a relative path inside the working directory"
    if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        return "the name has control characters"
    if max(len(part.encode()) for part in name.split("/")) > NAME_BYTES:
        return "the name is too long"
    return ""


def visible(text: str) -> str:
    """Return one line of text in which control characters and line separators are written as escapes."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNPRINTABLE else character
        for character in text
    )


def _file(name: str, content: bytes) -> File:
    return File(name=name, content=content, mime_type=mimetypes.guess_type(name)[0] or "application/octet-stream")


def _frame(found: Json) -> Frame | None:
    """Return the frame that a JSON object is; a field of a wrong type counts as missing."""
    kind = found.get("t")
    if kind == "ready":
        return Ready(
            pid=_whole(found.get("pid")), python=_text(found.get("python")), gvisor=found.get("gvisor") is True
        )
    if kind == "started":
        return Started()
    if kind == "out" or kind == "err":
        return Output(stream=kind, data=_data(found), skipped=_whole(found.get("skipped")))
    if kind == "file" and _text(found.get("name")):
        return FilePart(name=_text(found.get("name")), data=_data(found), last=found.get("last") is True)
    return _end(found) if kind == "end" else None


def _end(found: Json) -> End:
    try:
        reason = Reason(_text(found.get("reason")))
    except ValueError:
        reason = Reason.SANDBOX_LOST
    code, left_out = found.get("exit_code"), found.get("left_out")
    return End(
        reason=reason,
        message=_text(found.get("message")),
        started=found.get("started") is True,
        exit_code=code if type(code) is int else None,
        signal=_text(found.get("signal")),
        left_out=tuple(map(_text, left_out)) if isinstance(left_out, list) else (),
        wall_seconds=_seconds(found.get("wall_seconds")),
        cpu_seconds=_seconds(found.get("cpu_seconds")),
        peak_memory_bytes=_whole(found.get("peak_memory_bytes")),
    )


def _data(found: Json) -> bytes:
    text, encoded = found.get("d"), found.get("b")
    if isinstance(text, str):
        return text.encode("utf-8", "replace")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return b""
    return b""


def _text(value: object) -> str:
    # A lone surrogate could not be written anywhere later.
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _seconds(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
