"""Reads the reply of a sandbox to its end, whatever carries it: a followed log, or an attached stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from adk_gke_sandbox.paths.attempt import Attempt, Stage
from adk_gke_sandbox.protocol import Transcript


class Source(Protocol):
    """Where a reply comes from. It wakes the attempt when there is something to read."""

    def read(self) -> bytes | None:
        """Return what has arrived, ``b""`` if nothing has, ``None`` at the end."""

    def close(self) -> None:
        """Stop reading."""


def pump(source: Source, transcript: Transcript, attempt: Attempt, enough: Callable[[bool], bool]) -> None:
    """Feed a transcript until its reply has ended, or its source has, or nothing more is expected.

    Args:
        source: Closed on return, on every way out.
        transcript: Takes the bytes in.
        attempt: Is told of each frame, of the stages that the reply shows, and of its progress.
        enough: Asked at each turn, with whether bytes have just arrived; true ends the reading.

    Raises:
        Interrupted: the caller gave up, or the deadline has passed.
    """
    try:
        while (chunk := source.read()) is not None:
            if chunk:
                for number, output in transcript.feed(chunk):
                    attempt.tell(number, output)
                note(transcript, attempt)
            if transcript.ended or enough(bool(chunk)):
                return
            if not chunk:
                attempt.wait()
            else:
                attempt.check()
    finally:
        source.close()


def note(transcript: Transcript, attempt: Attempt) -> None:
    """Tell an attempt how far the program has come by its reply."""
    if transcript.started:
        attempt.reach(Stage.STARTED)
    if transcript.exited:
        attempt.reach(Stage.EXITED)
