"""The frames of a reply, and the decoder that reads them from bytes cut anywhere. No I/O.

A reply is newline-delimited JSON; ``pod.frames`` lists the kinds of frames and their fields. Each frame carries the
request's nonce; a line without it is no frame, whatever it looks like. What protects the stream is that the runner
alone can write to it: the nonce makes an accident or a forgery evident, it is no secret from the program.

Should the runner ever be broken, what it could send is bounded here: a frame with a value that the runner never gives
is refused, so that its number is missing from the reply; texts are cut, and their control characters written as
escapes. Nothing that arrives makes this module raise.
"""

from __future__ import annotations

import base64
import unicodedata
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from adk_gke_sandbox.execution import CODE_REASONS, Reason

LINE_BYTES: Final = 64 * 1024
"""The longest line that can be a frame; the runner's stay below 16 KiB."""

NUMBER_MAX: Final = 2**53
"""The largest number in a frame: what every JSON reader takes as it is."""

LEFT_OUT_MAX: Final = 60
"""Files that a frame names as left out; the runner names 50, the number of the others, and what it did not look at."""

_REFUSALS: Final = frozenset({Reason.SANDBOX_LOST, Reason.ISOLATION_MISSING})
"""The reasons that the runner gives beside those of a program; what the cluster or the caller did is not its to say."""

UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, surrogates, and separators of lines and paragraphs."""


def visible(text: str, escaped: frozenset[str] = UNPRINTABLE, plain: frozenset[str] = frozenset()) -> str:
    """Return text in which the characters of some categories are written as escapes, the bell as ``x07``.

    Args:
        text: Of one line, unless line ends are plain.
        escaped: Unicode categories.
        plain: Characters of them that stay.
    """
    hidden = {c: c.encode("unicode_escape").decode() for c in {*text} - plain if unicodedata.category(c) in escaped}
    return text.translate(str.maketrans(hidden))


def _line(characters: int) -> AfterValidator:
    """Make a text one line, cut to so many characters."""
    return AfterValidator(lambda text: visible(text[:characters])[:characters])


Whole = Annotated[int, Field(ge=0, le=NUMBER_MAX)]
Seconds = Annotated[float, Field(ge=0, le=NUMBER_MAX, allow_inf_nan=False)]
LeftOut = Annotated[tuple[Annotated[str, _line(500)], ...], AfterValidator(lambda entries: entries[:LEFT_OUT_MAX])]
Base64 = Annotated[bytes, BeforeValidator(lambda text: base64.b64decode(text, validate=True))]


class _Frame(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    nonce: str = Field(alias="n")
    number: Whole = Field(alias="i")


class _Data(_Frame):
    """A frame that carries bytes, as text or as base64."""

    text: str = Field("", alias="d")
    coded: Base64 = Field(b"", alias="b")

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self.coded or self.text.encode()


class _Verdict(_Frame):
    """What became of the program."""

    reason: Reason
    message: Annotated[str, _line(1000)] = ""
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: Annotated[str, _line(20)] = ""
    wall_seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _is_the_runners(self) -> Self:
        of_program = self.reason in CODE_REASONS
        if not (of_program or self.reason in _REFUSALS) or of_program == (self.exit_code is None):
            raise ValueError("no verdict of the runner")
        if self.reason is Reason.COMPLETED and (self.exit_code or self.signal):
            raise ValueError("no success")
        return self


class Ready(_Frame):
    """The runner has read its request."""

    kind: Literal["ready"] = Field(alias="t")
    kernel: Annotated[str, _line(100)] = ""


class Started(_Frame):
    """From here on the program may have run."""

    kind: Literal["started"] = Field(alias="t")


class Output(_Data):
    """Bytes of one stream; ``skipped`` bytes before them were cut out."""

    kind: Literal["out", "err"] = Field(alias="t")
    skipped: Whole = 0


class FilePart(_Data):
    """The bytes of an output file from ``at`` on."""

    kind: Literal["file"] = Field(alias="t")
    name: str
    at: Whole = 0
    last: bool = False


class Exit(_Verdict):
    """What became of the program; its output and its files may follow."""

    kind: Literal["exit"] = Field(alias="t")


class End(_Verdict):
    """What became of the program, and what was sent; nothing follows."""

    kind: Literal["end"] = Field(alias="t")
    started: bool = False
    cpu_seconds: Seconds = 0.0
    peak_memory_bytes: Whole = 0
    left_out: LeftOut = ()
    out: Whole = 0
    err: Whole = 0
    files: Whole = 0
    file_bytes: Whole = 0


Frame = Ready | Started | Output | FilePart | Exit | End
_FRAME: Final[TypeAdapter[Frame]] = TypeAdapter(Annotated[Frame, Field(discriminator="kind")])


class Decoder:
    """Turns chunks of a reply, cut anywhere, into frames."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that this chunk completes."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        if lines and self._skipping:
            self._skipping = False
            del lines[0]
        # A line that is too long is dropped as it arrives, so that it cannot fill the memory.
        self._skipping = self._skipping or len(rest) > LINE_BYTES
        self._rest = b"" if self._skipping else rest
        return [frame for line in lines if (frame := self._frame(line))]

    def _frame(self, line: bytes) -> Frame | None:
        if len(line) > LINE_BYTES or not line.startswith(b"{"):
            return None
        try:
            frame = _FRAME.validate_json(line)
        except (ValueError, TypeError):
            return None
        return frame if frame.nonce == self._nonce else None
