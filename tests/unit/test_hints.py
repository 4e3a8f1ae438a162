"""The hints that the package is installed with, seen by mypy from a project of somebody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# ADK, which this program does not use, takes mypy a minute to read.
CONFIG = "[mypy]\nstrict = True\n[mypy-google.*]\nfollow_imports = skip\n"


@pytest.mark.timeout(120)
def test_a_program_that_uses_the_package_by_its_hints_is_checked(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(CONFIG)
    (tmp_path / "consumer.py").write_text((HERE / "consumer.py").read_text())
    # With a cache the second run takes a second.
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "consumer"), "consumer.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
