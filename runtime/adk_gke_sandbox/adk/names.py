"""Names under which output files become artifacts, and texts that go into a session. Pure.

ADK takes both as they are, and a store that refuses one ends the whole agent run. So what leaves here is what every
store takes: a name that one of them refuses becomes one close to it, and no two files get the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from adk_gke_sandbox.decoder import UNPRINTABLE

PART_BYTES: Final = 200
"""The longest name of a file or folder: file systems take 255 bytes, and a store may append something."""

PATH_BYTES: Final = 500
"""The longest name in all: Cloud Storage takes 1024 bytes with the names of application, user, session and version
(https://cloud.google.com/storage/docs/objects#naming)."""

_KEPT_CHARACTERS: Final = 30
_SUFFIX_CHARACTERS: Final = 8
"""What a name that is too long keeps of its stem and its suffix; a character has up to four bytes."""

_UNSAFE: Final = frozenset('<>:"\\|?*')
"""A colon makes ADK's prefix ``user:`` or a drive, a backslash a folder; Windows refuses the others
(https://learn.microsoft.com/windows/win32/fileio/naming-a-file#naming-conventions)."""

_BLANK_ENDS: Final = re.compile(r"^\s+|[\s.]+\Z")
"""ADK's file service strips blanks, and Windows blanks and dots at the end."""

_RESERVED: Final = re.compile(
    r"metadata\.json|versions|(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?"
)
"""Names that ADK's file service keeps for itself, in any case, and devices of Windows
(https://github.com/google/adk-python/blob/main/src/google/adk/artifacts/file_artifact_service.py)."""

_FIELD_OF_FIRESTORE: Final = re.compile(r"^__+(?=.*__\Z)")
"""Names become fields of an event, which in Firestore cannot be ``__X__``
(https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields)."""

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL refuses NUL in text and JSON (https://www.postgresql.org/docs/current/datatype-json.html), and JSON half
of a surrogate pair."""

_JSON_ESCAPE: Final = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u0000|u[dD][89a-fA-F]..)|.)")
"""An escape of a JSON text; the group is NUL or half of a surrogate pair."""


def storable(text: str) -> str:
    """Return a text that every session service stores."""
    return _UNSTORABLE.sub("\ufffd", text)


def storable_json(line: str) -> str:
    """Return a line with JSON whose strings, once decoded, every session service stores."""
    return _JSON_ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], line)


def artifact_names(names: Sequence[str]) -> list[str]:
    """Return the artifact's name for each file, in their order; a file's own name where every store takes that."""
    safe = [_safe(name) for name in names]
    # By what file systems compare: the last number that was given to a name.
    numbers: Counter[str] = Counter()
    found: dict[int, str] = {}
    # Files that can keep their names have them before others are given one.
    for at in sorted(range(len(names)), key=lambda at: safe[at] != names[at]):
        name, path = safe[at], PurePosixPath(safe[at])
        first = key = _key(name)
        while key in numbers:
            numbers[first] += 1
            name = str(path.with_name(f"{path.stem}_{numbers[first]}{path.suffix}"))
            key = _key(name)
        numbers[key] = 1
        found[at] = name
    return [found[at] for at in range(len(names))]


def _key(name: str) -> str:
    """Return what two names have in common that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _safe(name: str) -> str:
    parts = [_safe_part(part) for part in name.split("/")]
    safe = "/".join(parts)
    if len(safe.encode()) > PATH_BYTES or any(len(part.encode()) > PART_BYTES for part in parts):
        path = PurePosixPath(parts[-1])
        suffix = path.suffix if len(path.suffix) <= _SUFFIX_CHARACTERS else ""
        safe = f"{path.stem[:_KEPT_CHARACTERS]}-{hashlib.sha256(safe.encode()).hexdigest()[:8]}{suffix}"
    return _FIELD_OF_FIRESTORE.sub("_", safe)


def _safe_part(part: str) -> str:
    part = "".join("_" if c in _UNSAFE or unicodedata.category(c) in UNPRINTABLE else c for c in part)
    part = _BLANK_ENDS.sub(lambda found: "_" * len(found[0]), part) or "_"
    if _RESERVED.fullmatch(part.casefold()):
        stem, dot, rest = part.partition(".")
        part = f"{stem}_{dot}{rest}"
    return part
