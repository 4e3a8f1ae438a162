"""Many executions at once from one process, and the memory that one of them takes in it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kubernetes import client

from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox
from tests.cluster.identities import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MEMORY_BYTES = 40 * 1024**2
"""What one execution may take above an idle client, whatever it sends back."""


@pytest.mark.alone
@pytest.mark.parametrize("number", [8, pytest.param(50, marks=pytest.mark.long)])
def test_many_executions_at_once_from_one_process_complete(
    sandbox: Sandbox, admin: client.ApiClient, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    # By default each asks for 200 millicores: on two cores nine would run, and the others wait for them. Less is asked
    # for, so that all sandboxes are there at once; the quota has room for sixty.
    asked = {"cpu_requested": "10m", "mem_requested": "64Mi", "schedule_timeout_seconds": 300}
    sandbox.config = sandbox.config.model_copy(update={**asked, "labels": {"test": "load"}})

    def execute(which: int) -> tuple[float, Outcome]:
        begin = time.monotonic()
        outcome = sandbox.run(f"print({which}); open('result', 'w').write('{which}')")
        return time.monotonic() - begin, outcome

    begin = time.monotonic()
    with ThreadPoolExecutor(number) as pool:
        done = list(pool.map(execute, range(number)))
    took = time.monotonic() - begin
    # One node takes its time to end many pods; that they are deleted was accepted before the return.
    core = client.CoreV1Api(admin)
    wait_for(lambda: not core.list_namespaced_pod(sandbox.config.namespace, label_selector="test=load").items, 180)
    gone = time.monotonic() - begin - took

    seconds = sorted(seconds for seconds, _ in done)
    with capsys.disabled():
        print(
            f"\n{number} executions at once: all back after {took:.1f} s, the first after {seconds[0]:.1f} s, "
            f"half of them after {seconds[number // 2]:.1f} s; the last pod was gone {gone:.1f} s later"
        )
    failures = [f"{outcome.reason}: {outcome.message}" for _, outcome in done if outcome.reason is not Reason.COMPLETED]
    assert Counter(failures) == Counter()
    for which, (_, outcome) in enumerate(done):
        assert outcome.stdout == f"{which}\n".encode()
        assert [file.content for file in outcome.files] == [str(which).encode()]


MEASURE = """
import ctypes, gc, json, re, sys
from pathlib import Path
from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import load
from adk_gke_sandbox.execution import Limits
from adk_gke_sandbox.sandbox import Sandbox

def status(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

asked = json.loads(sys.argv[1])
config = ExecutorConfig.from_contract(load(asked["contract"]), kubeconfig_path=asked["kubeconfig"], mem_limit="1Gi",
    scratch_limit="64Mi", limits=Limits(**asked["limits"]))
kube.connect(asked["kubeconfig"]).close()  # imports the client's models
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what the imports have freed is no room for the execution
idle = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, see proc(5)
outcome = Sandbox(config).run(asked["code"])
print(json.dumps({
    "idle": idle, "peak": status("VmHWM"), "reason": outcome.reason, "message": outcome.message,
    "stdout": len(outcome.stdout), "dropped": outcome.stdout_dropped + outcome.stderr_dropped,
    "files": sum(len(file.content) for file in outcome.files), "left_out": len(outcome.files_left_out),
}))
"""

FLOOD = "import sys\nfor _ in range(100): sys.stdout.write(('x' * 99 + '\\n') * 10_000)"
BOTH = "import os, sys\nfor n in range(100): (sys.stdout, sys.stderr)[n % 2].buffer.write(os.urandom(1_000_000))"
FILES = "import os\nfor n in range(40): open(f'{n}.bin', 'wb').write(os.urandom(250_000))"


@pytest.mark.parametrize(
    ("code", "limits", "dropped", "files"),
    [
        ("print('hello')", {}, 0, 0),
        (FLOOD, {}, 90_000_000, 0),
        (BOTH, {"stdout_bytes": 4 * 1024**2, "stderr_bytes": 1024**2}, 90_000_000, 0),
        (FILES, {}, 0, 5_000_000),
        (FILES, {"file_bytes": 8 * 1024**2}, 0, 5_750_000),
    ],
    ids=["hello", "100 MB of text", "100 MB of bytes, caps at their highest", "10 MB of files", "files up to 8 MiB"],
)
def test_an_execution_takes_little_memory_whatever_comes_back(
    agent_kubeconfig: Path,
    contract: Contract,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    code: str,
    limits: dict[str, int],
    dropped: int,
    files: int,
) -> None:
    path = tmp_path / "contract.json"
    path.write_text(contract.to_json())
    asked = {"contract": str(path), "kubeconfig": str(agent_kubeconfig), "code": code, "limits": limits}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    more = found["peak"] - found["idle"]
    with capsys.disabled():
        print(f"\n{more / 1024**2:.1f} MiB above the {found['idle'] / 1024**2:.0f} MiB of an idle client: {found}")
    assert found["reason"] == "Completed", found["message"]
    assert found["dropped"] >= dropped
    assert found["files"] >= files
    assert more < MEMORY_BYTES
