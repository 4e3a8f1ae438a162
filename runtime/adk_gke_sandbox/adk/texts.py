"""What a model is shown of a program's output: as a terminal would leave it, and not too much of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

_TERMINAL: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\n]*\x1b\\|[ -/]*[0-~])"
)
"""Control sequences of terminals, colours for example
(https://ecma-international.org/publications-and-standards/standards/ecma-48/)."""


def as_shown(text: str) -> str:
    """Return the text without colours, and of each line the last state: a progress bar overwrites the ones before."""
    lines = _TERMINAL.sub("", text).split("\n")
    return "\n".join(_last_state(line) if "\r" in line else line for line in lines)


def _last_state(line: str) -> str:
    # A bar that clears itself leaves blanks; what it showed before says more.
    *earlier, last = [state for state in line.split("\r") if state.strip()] or [""]
    # The text may be no bar, but lines that end as those of old files do.
    return f"{last} [{len(earlier)} earlier states of this line left out]" if earlier else last


def cut(text: str, most: int, advice: str, *, head: float = 0.5) -> str:
    """Return at most so many characters of a text: its beginning, what is left out, the advice, and its end.

    Args:
        text: What may be too long.
        most: Characters of the whole, some hundred at the least.
        advice: How to get at what is left out.
        head: How much of the room the beginning has.
    """
    if len(text) <= most:
        return text
    told = "\n[... {} characters left out here: " + advice + " ...]\n"
    room = most - len(told.format(len(text)))
    first = int(room * head)
    return text[:first] + told.format(len(text) - room) + text[first - room :]


def listed(entries: Sequence[str], most: int) -> str:
    """Return entries in one line of about so many characters, the others as a number."""
    ends = accumulate(len(entry) + 2 for entry in entries)
    told = [entry for entry, end in zip(entries, ends, strict=True) if end <= most]
    more = [f"and {len(entries) - len(told)} more"] if len(told) < len(entries) else []
    return "; ".join([*told, *more])
