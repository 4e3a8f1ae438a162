"""What goes out of the pod: numbered frames, and the program's output in them.

A frame is one line of JSON: the request's nonce (``n``), its number from 0 (``i``), its kind (``t``) and its fields.
The number, and the counts in the last frame, let the reader notice a part that is missing.

    ready    python, kernel
    started  from here on the program may have run
    out err  bytes of one stream, as text (``d``) or base64 (``b``); ``skipped`` bytes before them were cut out
    exit     how the program ended: reason, message, exit_code, signal, wall_seconds
    file     name, ``at`` which byte of it the data (``b``) begin, whether they are the last
    end      the fields of ``exit``, started, cpu_seconds, peak_memory_bytes, left_out, and what was sent:
             bytes of out and err, files, file_bytes

A program that was not started has no ``exit``: its ``end`` says why. Standard library only, any CPython from 3.8 on;
imported by ``supervisor``, beside which it lies in the pod.
"""

# pathlib would be an import to pay for.

from __future__ import annotations

import binascii
import os
from _codecs import utf_8_decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict

    Json = Dict[str, Any]

try:
    # Without the regular expressions that ``json`` imports.
    from _json import encode_basestring as quote
except ImportError:
    from json.encoder import encode_basestring as quote

PROGRAM = "main.py"

LINE_BYTES = 16 * 1000
"""The longest frame: the container runtime splits log lines at 16 KiB."""

OUTPUT_CHUNK = 8 * 1024
"""Bytes of output in one frame, which take up to 1.4 times as much."""

RECENT_BYTES = 512
"""Bytes at the end of standard error in which a MemoryError is looked for."""

FRAME_GAP_SECONDS = 0.02
"""How long small writes are gathered into one frame; grows with time, so that frames stay countable."""

MESSAGE_CHARACTERS = 300
"""What is kept of a name or a cause in the ``end`` frame, which must not become too long a line."""


def to_json(value: Any) -> str:
    """Return a value as JSON text, not escaped where it need not be."""
    if isinstance(value, str):
        return quote(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{quote(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    return repr(value)


def parse_json(text: str) -> Any:
    """Return the value of a JSON document."""

    class Context:
        strict = True
        object_hook = object_pairs_hook = array_hook = None
        parse_float, parse_int, parse_constant = float, int, float

    try:
        # As ``json`` does, without the regular expressions that it imports.
        from _json import make_scanner

        return make_scanner(Context())(text, 0)[0]  # type: ignore[arg-type]
    except Exception:
        # Not JSON, or an interpreter whose scanner wants more of its context: ``json`` knows.
        import json

        return json.loads(text)


class Frames:
    """Writes frames to the container's stdout, numbers them and counts what they carry."""

    def __init__(self) -> None:
        self.nonce = ""
        self.number = 0
        self.sent_bytes = 0
        self.counts = {"out": 0, "err": 0, "files": 0, "file_bytes": 0}

    def send(self, kind: str, **fields: Any) -> None:
        """Write one frame."""
        line = to_json({"n": self.nonce, "i": self.number, "t": kind, **fields}).encode("utf-8", "replace") + b"\n"
        self.number += 1
        self.sent_bytes += len(line)
        write_all(1, line)

    def send_output(self, stream: str, data: bytes, skipped: int) -> None:
        """Send output as text where it is text and stays short, else as base64."""
        try:
            text = data.decode("utf-8")
            short = len(quote(text).encode("utf-8")) <= 1.4 * len(data) + 64
        except UnicodeDecodeError:
            short = False
        fields = {"d": text} if short else {"b": base64(data)}
        self.counts[stream] += len(data)
        self.send(stream, skipped=skipped, **fields)


def base64(data: bytes) -> str:
    """Return bytes as base64."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


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
        self.cap = cap
        self.head = bytearray()
        self.tail = bytearray()
        self.recent = b""
        self.total = 0
        self.due = 0.0

    def feed(self, data: bytes) -> None:
        """Take in what the program has written."""
        room = max(self.cap - self.cap // 2 - self.total, 0)
        self.total += len(data)
        self.recent = (self.recent + data)[-RECENT_BYTES:]
        self.head += data[:room]
        self.tail += data[room:]
        del self.tail[: max(len(self.tail) - self.cap // 2, 0)]

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
        while at < len(data) or skipped:
            part, rest = cut_between_characters(data[at : at + OUTPUT_CHUNK])
            part = part or rest
            self.frames.send_output(self.kind, part, skipped)
            at += len(part)
            skipped = 0

    def finish(self) -> None:
        """Send the rest."""
        self.send(bytes(self.head))
        self.send(bytes(self.tail), max(self.total - self.cap, 0))


def cut_between_characters(data: bytes) -> tuple[bytes, bytes]:
    """Return the data without the beginning of a UTF-8 character at its end, and that beginning."""
    end = utf_8_decode(data, "replace", False)[1]
    return data[:end], data[end:]
