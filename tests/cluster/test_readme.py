"""The README, typed by somebody who has just run `make demo`: every shell block, in order, in one fresh shell."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adk_gke_sandbox.contract import Contract, local_stack

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^(<!-- not typed by the test: .* -->\n)?```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    """Return the blocks after the one that brings the cluster up; what a mark says cannot be typed here is left out."""
    first, *rest = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert first == ("", "make demo\n")
    return [text for mark, text in rest if not mark]


@pytest.fixture(scope="module")
def typed(contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    assert (local_stack() / "contract.json").exists(), "`make up` leaves it"
    # Of the variables of whoever runs the tests a fresh shell has none but these.
    user = pwd.getpwuid(os.getuid())
    fresh = {"HOME": os.environ.get("HOME", user.pw_dir), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    kept = {name: os.environ[name] for name in ("XDG_STATE_HOME",) if name in os.environ}
    # The folder that the README makes with mktemp goes away with the test's.
    folder = {"TMPDIR": str(tmp_path_factory.mktemp("typed"))}
    script = "\n".join(["set -eu -o pipefail", *(f"{text}\necho '== block {n}'" for n, text in enumerate(blocks()))])
    return subprocess.run(
        ["bash"], input=script, cwd=ROOT, env={**fresh, **kept, **folder}, check=False, capture_output=True, text=True
    )


def test_every_block_works_as_written(typed: subprocess.CompletedProcess[str]) -> None:
    told = typed.stdout + typed.stderr
    assert typed.returncode == 0, told
    assert [f"== block {number}" in told for number in range(len(blocks()))] == [True] * len(blocks())
    assert len(blocks()) > 4
    assert "command not found" not in told


def test_the_results_are_those_that_are_shown(typed: subprocess.CompletedProcess[str]) -> None:
    assert typed.stdout.startswith("8 units\n== block 0\n")
    for line in ("wrote results/total.txt", "FileNotFoundError: ", "your code failed: DeadlineExceeded: "):
        assert line in typed.stderr
    assert re.findall(r"^exit code (\d+)$", typed.stdout, re.MULTILINE) == ["1", "124"]
    assert f"stack local of this machine: {local_stack() / 'contract.json'}" in typed.stderr


def test_nothing_is_left(typed: subprocess.CompletedProcess[str], leftovers: Callable[[], list[str]]) -> None:
    assert leftovers() == []
