"""`make demo`, as a newcomer runs it: once everything is built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def shown() -> str:
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, str(DEMO)], check=False, capture_output=True, text=True, env=wide)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_agent_recovers_from_its_error_and_answers(shown: str) -> None:
    assert "OUTCOME_FAILED" in shown
    assert "KeyError" in shown
    assert shown.index("OUTCOME_FAILED") < shown.rindex("OUTCOME_OK") < shown.index("what is left by our label")


def test_every_execution_shows_its_phases(shown: str) -> None:
    executions = shown.count("Outcome.OUTCOME_")
    assert executions >= 2
    assert shown.count("peak memory") >= executions


def test_nothing_is_left(shown: str) -> None:
    assert "nothing" in shown.rpartition("what is left by our label")[2]
