"""Names of artifacts and texts of sessions, by the rules of ADK's stores; the stores themselves are in test_stores.py."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adk_gke_sandbox.adk.names import artifact_names, storable, storable_json

NAMES = st.lists(st.text(st.characters(categories=None), max_size=300) | st.text("a.:/ \\A\0", max_size=9), max_size=6)


@pytest.mark.parametrize(
    "name",
    ["-rf.csv", ".hidden", "100%20.txt", "~.txt", "sub/deep/er/x.txt", "x" * 196 + ".txt", "data[1].csv", "null.txt"]
    # As macOS names screenshots, and as tables are named in Japan.
    + ["Screenshot 9.41.00\u202fPM.png", "売上\u3000一月.csv"],
)
def test_a_name_that_every_store_takes_is_kept(name: str) -> None:
    assert artifact_names([name]) == [name]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("report: final.png", "report_ final.png"),
        ("user:notes.txt", "user_notes.txt"),
        ("C:\\x.txt", "C__x.txt"),
        ("metadata.json", "metadata_.json"),
        ("out/Metadata.JSON", "out/Metadata_.JSON"),
        ("versions/1.txt", "versions_/1.txt"),
        ("nul.txt", "nul_.txt"),
        ("../up.txt", "__/up.txt"),
        ("/etc/x", "_/etc/x"),
        ("trailing ", "trailing_"),
        ("dots..", "dots__"),
        ("a\nb\u2028c\0.txt", "a_b_c_.txt"),
        ("half \ud83c.txt", "half _.txt"),
        ("__main__", "_main__"),
        ("", "_"),
    ],
)
def test_another_name_becomes_one_close_to_it(name: str, kept: str) -> None:
    assert artifact_names([name]) == [kept]


def test_a_name_that_is_too_long_keeps_its_beginning_and_its_suffix() -> None:
    for name in ("long" * 60 + ".csv", "folder/" * 90 + "longlonglong.csv"):
        (kept,) = artifact_names([name])
        assert kept.startswith("longlonglong")
        assert kept.endswith(".csv")
        assert artifact_names([f"{name[0]}{name}"]) != [kept]


def test_a_file_that_is_renamed_takes_no_other_files_name() -> None:
    assert artifact_names(["a:b.csv", "a_b.csv", "a?b.csv"]) == ["a_b_2.csv", "a_b.csv", "a_b_3.csv"]


def test_names_that_differ_by_case_or_accents_alone_become_different() -> None:
    assert artifact_names(["x.csv", "X.csv"]) == ["x.csv", "X_2.csv"]
    assert artifact_names(["caf\u00e9", "cafe\u0301"]) == ["caf\u00e9", "cafe\u0301_2"]


def cloud_storage_takes(name: str) -> bool:
    """https://cloud.google.com/storage/docs/objects#naming; ADK puts up to three names of 128 bytes before, and a number."""
    return 0 < len(name.encode()) <= 1024 - 3 * 129 - 20 and not set(name) & set("\r\n") and name not in (".", "..")


def windows_takes(name: str) -> bool:
    """https://learn.microsoft.com/windows/win32/fileio/naming-a-file#naming-conventions."""
    return not any(
        set(part) & set('<>:"\\|?*') or part != part.rstrip(" .") or part.split(".")[0].upper() in ("CON", "NUL")
        for part in name.split("/")
    )


def firestore_takes(name: str) -> bool:
    """https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields, of a name as a field."""
    return re.fullmatch("__.*__", name) is None


def a_folder_takes(name: str) -> bool:
    parts = name.split("/")
    return all(0 < len(part.encode()) <= 255 and part not in (".", "..") and "\0" not in part for part in parts)


@given(NAMES)
@example(["a:", "a_", "A?", "a__2", "a_2"])
@example(["..", "../..", "_____"])
def test_whatever_files_are_called_each_store_takes_them_and_tells_them_apart(names: list[str]) -> None:
    kept = artifact_names(names)
    for name in kept:
        assert cloud_storage_takes(name)
        assert windows_takes(name)
        assert firestore_takes(name)
        assert a_folder_takes(name)
    assert len({unicodedata.normalize("NFC", name.casefold()) for name in kept}) == len(names)
    assert artifact_names(kept) == kept


@given(st.text(st.characters(categories=None)))
def test_a_text_can_be_stored_and_is_changed_no_further(text: str) -> None:
    stored = storable(text)
    assert "\0" not in stored.encode().decode()
    assert len(stored) == len(text)
    assert all(new in (old, "\ufffd") for new, old in zip(stored, text, strict=True))


@given(st.text(st.characters(categories=None)))
@example("\\u0000 \\ud83c \ud83c\udf78 \ud83c")
def test_a_text_in_json_can_be_stored_once_it_is_read(text: str) -> None:
    def read(text: str) -> str:
        found: str = json.loads(text)
        return found

    assert read(storable_json(json.dumps(text))) == storable(read(json.dumps(text)))
