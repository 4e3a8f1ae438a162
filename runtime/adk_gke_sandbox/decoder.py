"""The frames of a reply, and the decoder that reads them from bytes cut anywhere. No I/O.

A reply is newline-delimited JSON; ``pod.frames`` lists the kinds of frames. Each frame carries the request's nonce; a
line without it is no frame, whatever it looks like. What protects the stream is that the runner alone can write to it:
the nonce makes an accident or a forgery evident, it is no secret from the program.

Should the runner ever be broken, what it could send is bounded here: a frame with a value that the runner never gives
is refused, so that its number is missing from the reply; texts are cut, and their control characters written as
escapes. Nothing that arrives makes this module raise.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from adk_gke_sandbox.execution import CODE_REASONS, Reason

LINE_BYTES: Final = 64 * 1024
"""The longest line that can be a frame; the runner's stay below 16 KiB."""

NUMBER_MAX: Final = 2**53
"""The largest number in a frame: what every JSON reader takes as it is."""

LEFT_OUT_MAX: Final = 60
"""Files that a frame names as left out; the runner names 50, the number of the others, and what it did not look at."""

LEFT_OUT_CHARACTERS: Final = 500
MESSAGE_CHARACTERS: Final = 1000
SIGNAL_CHARACTERS: Final = 20
KERNEL_CHARACTERS: Final = 100

_REFUSALS: Final = frozenset({Reason.SANDBOX_LOST, Reason.ISOLATION_MISSING})
"""The reasons that the runner gives beside those of a program; what the cluster or the caller did is not its to say."""

UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, surrogates, and separators of lines and paragraphs."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The runner has read its request."""

    kernel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """From here on the program may have run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Bytes of one stream; ``skipped`` bytes before them were cut out."""

    stream: Literal["out", "err"]
    data: bytes = b""
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """The bytes of an output file from ``at`` on."""

    name: str
    at: int = 0
    data: bytes = b""
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """What became of the program; its output and its files may follow."""

    reason: Reason = Reason.SANDBOX_LOST
    message: str = ""
    exit_code: int | None = None
    signal: str = ""
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What became of the program, and what was sent; nothing follows."""

    verdict: Exit = Exit()
    started: bool = False
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    left_out: tuple[str, ...] = ()
    out: int = 0
    err: int = 0
    files: int = 0
    file_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A frame of a kind that this module does not know; its number counts all the same."""


Frame = Ready | Started | Output | FilePart | Exit | End | Unknown


class Decoder:
    """Turns chunks of a reply, cut anywhere, into frames with their numbers."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[tuple[int, Frame]]:
        """Return the frames that this chunk completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        frames = []
        for line in lines:
            frame = None if self._skipping else self._frame(line)
            self._skipping = False
            if frame is not None:
                frames.append(frame)
        # A line that is too long is dropped as it arrives, so that it cannot fill the memory.
        self._skipping = self._skipping or len(rest) > LINE_BYTES
        self._rest = b"" if self._skipping else rest
        return frames

    def _frame(self, line: bytes) -> tuple[int, Frame] | None:
        if len(line) > LINE_BYTES or not line.startswith(b"{"):
            return None
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or found.get("n") != self._nonce:
                return None
            return _whole(found, "i", None), _frame(found)
        except (ValueError, RecursionError):
            return None


def visible(text: str) -> str:
    """Return one line of text in which control characters and line separators are written as escapes."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in UNPRINTABLE else character
        for character in text
    )


def _frame(found: Json) -> Frame:
    """Return the frame that a JSON object is; a field that is missing has its default.

    Raises:
        ValueError: a field has a value that the runner never gives.
    """
    match found.get("t"):
        case "ready":
            return Ready(kernel=_text(found, "kernel", KERNEL_CHARACTERS))
        case "started":
            return Started()
        case "out" | "err" as stream:
            return Output(stream=stream, data=_data(found), skipped=_whole(found, "skipped"))
        case "file":
            return FilePart(
                name=_string(found, "name", None),
                at=_whole(found, "at"),
                data=_data(found),
                last=_flag(found, "last"),
            )
        case "exit":
            return _exit(found)
        case "end":
            return End(
                verdict=_exit(found),
                started=_flag(found, "started"),
                cpu_seconds=_seconds(found, "cpu_seconds"),
                peak_memory_bytes=_whole(found, "peak_memory_bytes"),
                left_out=_left_out(found),
                out=_whole(found, "out"),
                err=_whole(found, "err"),
                files=_whole(found, "files"),
                file_bytes=_whole(found, "file_bytes"),
            )
        case _:
            return Unknown()


def _exit(found: Json) -> Exit:
    reason = Reason(_string(found, "reason"))
    code = None if found.get("exit_code") is None else _whole(found, "exit_code")
    signal = _text(found, "signal", SIGNAL_CHARACTERS)
    of_program = reason in CODE_REASONS
    if not (of_program or reason in _REFUSALS) or of_program == (code is None) or (code or 0) > 255:
        raise ValueError("no verdict of the runner")
    if reason is Reason.COMPLETED and (code != 0 or signal):
        raise ValueError("no success")
    return Exit(
        reason=reason,
        message=_text(found, "message", MESSAGE_CHARACTERS),
        exit_code=code,
        signal=signal,
        wall_seconds=_seconds(found, "wall_seconds"),
    )


def _left_out(found: Json) -> tuple[str, ...]:
    entries = found.get("left_out", [])
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("left_out")
    return tuple(visible(entry)[:LEFT_OUT_CHARACTERS] for entry in entries[:LEFT_OUT_MAX])


def _data(found: Json) -> bytes:
    if "d" in found:
        return _string(found, "d").encode("utf-8", "replace")
    return base64.b64decode(_string(found, "b"), validate=True)


def _string(found: Json, key: str, default: str | None = "") -> str:
    value = found.get(key, default)
    if not isinstance(value, str):
        raise ValueError(key)
    return value


def _text(found: Json, key: str, characters: int) -> str:
    return visible(_string(found, key)[:characters])[:characters]


def _whole(found: Json, key: str, default: int | None = 0) -> int:
    value = found.get(key, default)
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        raise ValueError(key)
    return value


def _seconds(found: Json, key: str) -> float:
    value = found.get(key, 0.0)
    if type(value) not in (int, float) or not 0 <= value <= NUMBER_MAX:
        raise ValueError(key)
    return float(value)


def _flag(found: Json, key: str) -> bool:
    value = found.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(key)
    return value
