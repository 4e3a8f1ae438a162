"""The errors that the package exports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import adk_gke_sandbox

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path.read_text(encoding="utf-8") for path in (ROOT / "runtime").rglob("*.py")]
EXPORTED = [
    name
    for name in adk_gke_sandbox.__all__
    if isinstance(found := getattr(adk_gke_sandbox, name), type) and issubclass(found, Exception)
]
RAISED = {
    ast.unparse(node.exc.func).rpartition(".")[2]
    for source in SOURCES
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
}


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_error_is_raised_and_its_page_says_by_what(name: str) -> None:
    assert name in RAISED
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}` \| \S.* \|$", page, re.MULTILINE)
