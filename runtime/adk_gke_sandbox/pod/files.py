"""What the program leaves: every file that it made comes back, or is named with the reason why it does not.

A file in the working directory that is new, or not as it was given, comes back; so does ``main.py`` once the program
has changed it. The program's visible files go first, then ``figure_N.png`` (``figures`` saves them), then what is
hidden or a tool's, so that a cache takes no result's place. Links are not followed: what they lead to comes back under
its own name if it lies in the working directory. Folders come with their files, empty ones do not. Files that were made
in other places are counted, and the first ones named.

Not named is what tools and this package leave: ``__pycache__``, and in other places all that is hidden or a cache.
Standard library only, any CPython from 3.8 on; imported by ``supervisor`` once the program has ended and every other
process is dead.
"""

# pathlib would be an import to pay for.
# ruff: noqa: PTH109, PTH116

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Dict

    from adk_gke_sandbox.pod.frames import LINE_BYTES, MESSAGE_CHARACTERS, Frames, base64, to_json

    Json = Dict[str, Any]
else:
    from frames import LINE_BYTES, MESSAGE_CHARACTERS, base64, to_json

FILE_HEAD_BYTES = 200
"""The most that a frame of a file takes beside its name and its data."""

LEFT_OUT_MAX = 50
LEFT_OUT_BYTES = 8 * 1024
"""Files that are named as left out, and the bytes of their names and reasons, which must fit into the ``end`` frame."""

ELSEWHERE_MAX = 5
ELSEWHERE_BYTES = 2 * 1024
"""The same for files outside of the working directory."""

ENTRIES_MAX = 20000
"""Entries of a folder and those below it that are looked at."""

TOOLS = frozenset({"node_modules", "site-packages", "venv"})
"""Folders that are a tool's though they are visible."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the path inside the sandbox
"""Writable in every container, beside the working and the temporary directory."""

KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def send_files(frames: Frames, known: dict[str, os.stat_result], limits: Json, reply_bytes: int) -> list[str]:
    """Send the files that are not as they are known; return what was left out, and why."""
    left_out: list[str] = []
    names = [entry.path[2:] for entry in walk(".", left_out)]
    allowed = limits["file_bytes"]
    for name in sorted(names, key=lambda name: (turn(name), name)):
        try:
            status = os.stat(name, follow_symlinks=False)
            if name in known and fingerprint(known[name]) == fingerprint(status):
                continue
            # Behind it comes the ``end`` frame.
            chunk, room = file_room(name, reply_bytes - frames.sent_bytes - LINE_BYTES)
            fault = fault_of(name, status)
            if not fault and frames.counts["files"] >= limits["file_count"]:
                fault = f"more than {limits['file_count']} files"
            if not fault and status.st_size > (room := min(allowed, room)):
                fault = f"{status.st_size} bytes, {max(room, 0)} were left"
            if not fault:
                with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
                    allowed -= send_file(frames, name, source, status.st_size, chunk)
        except OSError as error:
            fault = error.strerror or str(error)
        if fault:
            left_out.append(f"{shown(name)}: {fault}")
    return [*bounded(left_out, LEFT_OUT_MAX, LEFT_OUT_BYTES), *elsewhere()]


def turn(name: str) -> int:
    """Return when a file's turn is: the program's, a figure that was saved for it, what is hidden or a tool's."""
    if any(part.startswith(".") or part in TOOLS for part in name.split("/")):
        return 2
    return int(name.startswith("figure_") and name.endswith(".png") and name[len("figure_") : -len(".png")].isdigit())


def fingerprint(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes when a file is written."""
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def fault_of(name: str, status: os.stat_result) -> str:
    """Return why something cannot come back whatever its size; nothing for a file with a good name."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        return f"{kind} to {shown(os.readlink(name), 100)}" if stat.S_ISLNK(status.st_mode) else kind
    return "the name has control characters or is not UTF-8" if any(map(unprintable, name)) else ""


def unprintable(character: str) -> bool:
    """Return whether a character is a control, a separator of lines or half of a surrogate pair.

    The client decides the same by Unicode's categories; they never change for these.
    """
    code = ord(character)
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


def shown(name: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """Return a name, or the end of a long one, with escapes in place of what could not be shown or sent."""
    text = "".join(ascii(character)[1:-1] if unprintable(character) else character for character in name)
    return text if len(text) <= characters else "..." + text[-characters:]


def file_room(name: str, reply_bytes: int) -> tuple[int, int]:
    """Return how many bytes of a file one frame takes, and a part of the reply; -1 if not even an empty file."""
    head = FILE_HEAD_BYTES + len(to_json(name).encode("utf-8", "replace"))
    # Base64 makes four bytes of three.
    chunk = (LINE_BYTES - head) // 4 * 3
    frames, rest = divmod(reply_bytes, LINE_BYTES)
    return chunk, max(frames * chunk + (rest - head) // 4 * 3, -1 if reply_bytes < head else 0)


def send_file(frames: Frames, name: str, source: Any, size: int, chunk: int) -> int:
    """Send at most ``size`` bytes of a file; return how many."""
    sent = 0
    while True:
        data = source.read(min(chunk, size - sent))
        last = sent + len(data) >= size or not data
        frames.send("file", name=name, at=sent, b=base64(data), last=last)
        sent += len(data)
        frames.counts["file_bytes"] += len(data)
        if last:
            frames.counts["files"] += 1
            return sent


def elsewhere() -> list[str]:
    """Return the first files that were made outside of the working directory, and the number of the others."""
    here = os.getcwd()
    temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - as in the environment of the program
    own = (here, f"{temporary}/home/cache", f"{temporary}/home/matplotlib")
    # Outside of a container of its own, the shared memory is everybody's.
    tops = [temporary, SHARED_MEMORY] if os.getpid() == 1 else [temporary]
    found = [
        entry.path
        for top in tops
        for entry in walk(top, [], own)
        # ``sem.`` and ``psm_`` are the names that Python gives to semaphores and shared memory.
        if entry.is_file(follow_symlinks=False)
        and turn(entry.path[len(top) + 1 :]) < 2
        and not entry.path.startswith((f"{SHARED_MEMORY}/sem.", f"{SHARED_MEMORY}/psm_"))
    ]
    reason = f"only files in the working directory ({shown(here)}) come back"
    named = [f"{shown(path)}: {reason}" for path in sorted(found)]
    return bounded(named, ELSEWHERE_MAX, ELSEWHERE_BYTES, " outside of the working directory")


def bounded(entries: list[str], count: int, size_bytes: int, where: str = "") -> list[str]:
    """Return the first entries, as many as there is room for, and the number of the others."""
    for kept, entry in enumerate(entries):
        size_bytes -= len(to_json(entry).encode("utf-8", "replace"))
        if kept == count or size_bytes < 0:
            return [*entries[:kept], f"and {len(entries) - kept} more{where}"]
    return entries


def walk(top: str, left_out: list[str], skipped: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """Yield what lies below a folder but folders, hidden ones and tools' last; follows no links; bounded.

    What is not seen is added to ``left_out``; folders in ``skipped`` are passed over.
    """
    folders = [top]
    later: list[str] = []
    seen = 0
    while folders or later:
        folder = folders.pop() if folders else later.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    if seen > ENTRIES_MAX:
                        left_out.insert(0, f"more than {ENTRIES_MAX} files and folders: the rest was not looked at")
                        return
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                    elif entry.name != "__pycache__" and entry.path not in skipped:
                        (later if turn(entry.name) == 2 else folders).append(entry.path)
        except OSError as error:
            left_out.append(f"{shown(folder[2:] or folder)}: {error.strerror}")
