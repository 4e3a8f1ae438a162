"""``adk-gke-sandbox run`` is told to end while a program runs: it says so, and leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from adk_gke_sandbox.contract import EXECUTOR_RULES
from infra.local.layout import Layout
from tests.cluster.identities import kubeconfig, namespace, wait_for

PROGRAM = """
import time
print("begun", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.cluster


@pytest.fixture
def place(admin: client.ApiClient) -> Iterator[str]:
    with namespace(admin, "interrupt") as name:
        yield name


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_deletes_what_runs_and_keeps_its_output(
    layout: Layout, admin: client.ApiClient, place: str, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    core, batch = client.CoreV1Api(admin), client.BatchV1Api(admin)
    identity = kubeconfig(layout, admin, place, "agent", EXECUTOR_RULES, tmp_path)
    (tmp_path / "script.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "adk-gke-sandbox"),
            *("run", "script.py", "--no-contract", "--namespace", place, "--kubeconfig", identity),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    assert process.stdout
    # What the command has shown cannot be lost by what follows; what only the pod's log has could be.
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == exit_code
    assert out == b""
    (line,) = err.decode().splitlines()
    assert line.endswith("Aborted: the caller aborted the execution")
    assert all(job.metadata.deletion_timestamp for job in batch.list_namespaced_job(place).items)
    wait_for(lambda: not core.list_namespaced_pod(place).items)
    assert batch.list_namespaced_job(place).items == []
    owned = [item for item in core.list_namespaced_config_map(place).items if item.metadata.owner_references]
    assert owned == []
