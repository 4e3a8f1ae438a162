"""The request document and the reply frames: encode, decode, add up. No I/O.

A reply is newline-delimited JSON. Each frame carries the request's nonce, which the program never sees; a
line without it is not a frame, whatever it looks like. Nothing that arrives makes this module raise.
"""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from adk_gke_sandbox.execution import File, Outcome, Reason, Request

VERSION: Final = 1
LINE_BYTES: Final = 64 * 1024
"""The longest line that can be a frame; the runner's are a quarter of it."""

REPLY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a reply that a transcript keeps; the runner's own caps are far below."""


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
        "limits": asdict(request.limits),
        "preload": list(request.preload),
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


class Decoder:
    """Turns chunks of a reply, cut anywhere, into frames."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Mapping[str, Any]]:
        """Yield the frames that this chunk completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            frame = self._frame(line)
            if frame is not None:
                yield frame
        # A line that is too long is dropped as it arrives, so that it cannot fill the memory.
        self._skipping = self._skipping or len(rest) > LINE_BYTES
        self._rest = b"" if self._skipping else rest

    def _frame(self, line: bytes) -> Mapping[str, Any] | None:
        if len(line) > LINE_BYTES or not line.startswith(b"{"):
            return None
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("n") != self._nonce or not isinstance(found.get("t"), str):
            return None
        return found


class Transcript:
    """What a reply has told so far; complete once ``ended``, usable at any time."""

    def __init__(self, nonce: str) -> None:
        self._decoder = Decoder(nonce)
        self._streams = {"out": bytearray(), "err": bytearray()}
        self._dropped = {"out": 0, "err": 0}
        self._open: dict[str, bytearray] = {}
        self._files: list[File] = []
        self._kept = 0
        self._end: Mapping[str, Any] | None = None
        self.started = False

    @property
    def ended(self) -> bool:
        """Whether the ``end`` frame has arrived."""
        return self._end is not None

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the reply; what follows the ``end`` frame is ignored."""
        for frame in self._decoder.feed(chunk):
            if self._end is None:
                self._take(frame)

    def _take(self, frame: Mapping[str, Any]) -> None:
        kind = frame["t"]
        if kind == "started":
            self.started = True
        elif kind in self._streams:
            self._take_output(kind, frame)
        elif kind == "file":
            self._take_file(frame)
        elif kind == "end":
            self._end = frame
            self.started = self.started or frame.get("started") is True

    def _take_output(self, kind: str, frame: Mapping[str, Any]) -> None:
        skipped = _whole(frame.get("skipped"))
        if skipped:
            self._dropped[kind] += skipped
            self._streams[kind] += f"\n[... {skipped} bytes left out ...]\n".encode()
        self._streams[kind] += self._kept_data(frame)

    def _take_file(self, frame: Mapping[str, Any]) -> None:
        name = frame.get("name")
        if not isinstance(name, str) or not name:
            return
        content = self._open.setdefault(name, bytearray())
        content += self._kept_data(frame)
        if frame.get("last") is True:
            del self._open[name]
            mime_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            self._files.append(File(name=name, content=bytes(content), mime_type=mime_type))

    def _kept_data(self, frame: Mapping[str, Any]) -> bytes:
        data = _data(frame)[: REPLY_BYTES - self._kept]
        self._kept += len(data)
        return data

    def outcome(self, name: str) -> Outcome:
        """Return what is known of the execution ``name``; without an ``end`` frame its sandbox is lost."""
        end = self._end or {}
        try:
            reason = Reason(end.get("reason", Reason.SANDBOX_LOST))
        except ValueError:
            reason = Reason.SANDBOX_LOST
        exit_code = end.get("exit_code")
        left_out = end.get("left_out")
        return Outcome(
            name=name,
            reason=reason,
            message=_text(end.get("message")),
            exit_code=exit_code if type(exit_code) is int else None,
            signal=_text(end.get("signal")),
            started=self.started,
            stdout=bytes(self._streams["out"]),
            stderr=bytes(self._streams["err"]),
            stdout_dropped=self._dropped["out"],
            stderr_dropped=self._dropped["err"],
            files=tuple(self._files),
            files_left_out=tuple(_text(item) for item in left_out) if isinstance(left_out, list) else (),
            wall_seconds=_number(end.get("wall_seconds")),
            cpu_seconds=_number(end.get("cpu_seconds")),
            peak_memory_bytes=_whole(end.get("peak_memory_bytes")),
        )


def _data(frame: Mapping[str, Any]) -> bytes:
    text, encoded = frame.get("d"), frame.get("b")
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return b""
    return b""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
