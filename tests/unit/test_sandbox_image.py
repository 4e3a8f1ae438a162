"""The Dockerfile of the sandbox image: what must hold of it before anybody builds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adk_gke_sandbox.contract import SANDBOX_UID
from infra.local import images

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "images" / "data" / "Dockerfile"


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Instructions with their arguments, each on one line, without comments."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_image_runs_as_the_sandboxes_user(instructions: list[tuple[str, str]]) -> None:
    """As a number: `runAsNonRoot` cannot tell what a name stands for."""
    assert [rest for name, rest in instructions if name == "USER"] == [f"{SANDBOX_UID}:{SANDBOX_UID}"]
    # Nothing is built after it.
    assert "RUN" not in [name for name, _ in instructions][[name for name, _ in instructions].index("USER") :]


def test_packages_are_the_locked_ones_by_hash(instructions: list[tuple[str, str]]) -> None:
    install = next(rest for name, rest in instructions if name == "RUN" and "pip install" in rest)
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement /tmp/image-data.txt"):
        assert option in install
    assert f"COPY {images._LOCK.relative_to(ROOT)} /tmp/image-data.txt" in FILE.read_text()


def test_pip_is_gone_before_anything_runs(instructions: list[tuple[str, str]]) -> None:
    install = next(rest for name, rest in instructions if name == "RUN" and "pip install" in rest)
    after = install.partition("pip uninstall")[2].partition("&&")[0].split()
    assert {"pip", "setuptools", "wheel"} <= set(after)
    assert "ensurepip" in install.partition("pip uninstall")[2]


def test_base_can_be_given_by_digest(instructions: list[tuple[str, str]]) -> None:
    assert instructions[:2] == [("ARG", "BASE=python:3.11-slim"), ("FROM", "${BASE}")]


def test_build_sees_what_it_copies_and_nothing_else(instructions: list[tuple[str, str]]) -> None:
    ignored, *let_through = [
        line for line in FILE.with_name("Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored == "*"
    copied = [rest.split()[0] for name, rest in instructions if name in ("COPY", "ADD")]
    assert let_through == [f"!{path}" for path in copied]
    for path in copied:
        assert (ROOT / path).is_file()
