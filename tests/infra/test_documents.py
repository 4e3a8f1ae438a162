"""What the documents say of settings and components is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra import settings_reference
from infra.configuration import key, settings_of
from infra.settings import GROUPS
from tests.infra.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_page_of_settings_is_made_from_the_code() -> None:
    assert settings_reference.PAGE.read_text(encoding="utf-8") == settings_reference.page(), settings_reference.COMMAND


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_in_a_document_exist(document: Path) -> None:
    known = {key(entry.name) for group in GROUPS for entry in settings_of(group)}
    text = document.read_text(encoding="utf-8")
    named = re.findall(
        r"pulumi config (?:set|rm|get)(?: --(?:path|plaintext|secret|stack \S+))* '?([A-Za-z][\w:]*)", text
    )
    assert [name for name in named if name not in known | {"NAME"}] == []


@pytest.mark.parametrize("stack", ["local", "staging"])
def test_names_and_types_of_resources_are_those_of_the_document(run: Run, stack: str) -> None:
    """A new name without an alias makes Pulumi delete the resource and create another one."""
    page = (ROOT / "docs" / "components.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", page, flags=re.MULTILINE))
    made = {(resource.type, resource.name) for resource in run(stack=stack, gcp__project="a-project").resources} - {
        ("pulumi:providers:kubernetes", "cluster")
    }
    assert made - listed == set()
