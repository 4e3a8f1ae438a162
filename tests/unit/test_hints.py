"""The hints that the package is installed with, seen by mypy from a project of somebody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# What the package itself builds on takes mypy minutes to read, and shows in no hint of its own but pydantic.
CONFIG = """
[mypy]
strict = True
[mypy-google.*,kubernetes.*,opentelemetry.*,rich.*,typer.*,urllib3.*]
follow_imports = skip
"""


@pytest.mark.timeout(180)
def test_a_program_that_uses_the_package_by_its_hints_is_checked(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(CONFIG)
    (tmp_path / "consumer.py").write_text((HERE / "consumer.py").read_text())
    # The first run reads for some ten seconds, later ones less than one.
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "consumer"), "consumer.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
