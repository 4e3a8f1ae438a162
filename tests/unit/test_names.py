"""Names of artifacts and texts of sessions, whatever they are: by the rules of ADK's stores, and in some of them.

What ADK's runner brings to them is in test_stores.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest
from google.adk.artifacts import FileArtifactService, InMemoryArtifactService
from google.adk.code_executors.code_execution_utils import CodeExecutionUtils
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService
from google.genai import types
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adk_gke_sandbox.adk.names import artifact_names, storable, storable_json
from adk_gke_sandbox.adk.results import to_result
from adk_gke_sandbox.execution import File, Outcome, Reason

NAMES = st.lists(st.text(st.characters(categories=None), max_size=300) | st.text("a.:/ \\A\0", max_size=9), max_size=6)


@pytest.mark.parametrize(
    "name",
    [
        *("-rf.csv", ".hidden", "100%20.txt", "~.txt", "sub/deep/er/x.txt", "x" * 196 + ".txt", "data[1].csv", "null"),
        # As macOS names screenshots, and as tables are named in Japan.
        *("Screenshot 9.41.00\u202fPM.png", "売上\u3000一月.csv"),
    ],
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
    """https://cloud.google.com/storage/docs/objects#naming; ADK adds up to three names of 128 bytes and a number."""
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


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def services(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("stores")
    sessions = DatabaseSessionService(f"sqlite+aiosqlite:///{folder / 'sessions.db'}")
    yield sessions, (InMemoryArtifactService(), FileArtifactService(folder))
    loop.run(sessions.close())


@settings(max_examples=40)
@given(names=NAMES, output=st.binary(max_size=99), reason=st.sampled_from([Reason.COMPLETED, Reason.ERROR]))
def test_whatever_a_program_writes_adks_services_keep_it(
    loop: asyncio.Runner, services: Any, names: list[str], output: bytes, reason: Reason
) -> None:
    sessions, artifacts = services
    files = tuple(File(name=name, content=str(at).encode()) for at, name in enumerate(names))
    result = to_result(Outcome(name="x", reason=reason, stdout=output, stderr=output, files=files))
    content = types.Content(parts=[CodeExecutionUtils.build_code_execution_result_part(result)])
    actions = EventActions(artifact_delta={file.name: 0 for file in result.output_files})

    async def keep() -> None:
        owner = {"app_name": "test", "user_id": "ada"}
        session = await sessions.create_session(**owner)
        await sessions.append_event(session, Event(author="coder", content=content, actions=actions))
        found = await sessions.get_session(**owner, session_id=session.id)
        assert found.events[0].content == content
        assert found.events[0].actions.artifact_delta == actions.artifact_delta
        for service in artifacts:
            for file in result.output_files:
                part = types.Part.from_bytes(data=file.content, mime_type=file.mime_type)
                await service.save_artifact(**owner, session_id=session.id, filename=file.name, artifact=part)
            for file in result.output_files:
                part = await service.load_artifact(**owner, session_id=session.id, filename=file.name)
                assert part.inline_data.data == file.content

    loop.run(keep())
