"""`make demo`, as a newcomer runs it: once everything is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

COLUMNS = 80
"""The narrowest terminal that it is made for."""

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def shown(contract: Contract, agent_kubeconfig: Path) -> str:
    sandbox = Sandbox(ExecutorConfig.from_contract(contract, kubeconfig_path=str(agent_kubeconfig)))
    over = threading.Event()
    with ThreadPoolExecutor() as pool:
        # Somebody else's execution, which goes on all the time.
        theirs = pool.submit(sandbox.run, "import time; time.sleep(280)", aborted=over.is_set)
        try:
            environment = {**os.environ, "COLUMNS": str(COLUMNS)}
            command = [sys.executable, str(DEMO)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        finally:
            over.set()
        assert theirs.result().started
    sandbox.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= COLUMNS
    return done.stdout


def test_an_agent_recovers_from_its_error_answers_and_leaves_a_file(shown: str) -> None:
    order = ("OUTCOME_FAILED", "KeyError: 'price'", "OUTCOME_OK", "file revenue.csv", "brings in the most", "4/4")
    places = [shown.rindex(words) for words in order]
    assert places == sorted(places)


def test_every_execution_shows_its_phases_whole(shown: str) -> None:
    tables = re.findall(
        r"^sandbox-\w+: \w+ \(cold\) *\n"
        r"submit +schedule +start +run +collect +delete +total +cpu +memory *\n"
        r"(?:[\d.]+ s +){8}\d+ MiB *$",
        shown,
        re.MULTILINE,
    )
    assert len(tables) == shown.count("OUTCOME_") >= 2


def test_nothing_of_its_own_is_left(shown: str) -> None:
    assert "nothing" in shown.rpartition("4/4")[2]
