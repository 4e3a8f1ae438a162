"""Ours and ADK's own executor side by side, interleaved, on the same cluster, at ADK's default limits.

Runs in a namespace of its own without policies (ADK's executor is refused under Pod Security `restricted`), as
the cluster's administrator for both. Writes build/bench/latest.json:
``{"series": [{"name": "adk" | "job", "workload": "hello", "n": n, "p50_ms": x, "p95_ms": x}], "phases": {...}}``.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kubernetes import client, config
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "adk-gke-sandbox-bench"
HELLO = "print('hello')"
OUTPUT = ROOT / "build" / "bench" / "latest.json"
console = Console()


def main() -> int:
    """Measure, print, write; return 0."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=12, help="counted runs of each, after one warm-up")
    arguments.add_argument("--kubeconfig", help="administrator's kubeconfig; default: the local cluster's")
    given = arguments.parse_args()
    kubeconfig = given.kubeconfig or _local_kubeconfig()
    core = client.CoreV1Api(config.new_client_from_config(kubeconfig))
    _make_namespace(core)
    try:
        series, phases = _measure(kubeconfig, given.runs)
    finally:
        core.delete_namespace(NAMESPACE)
    _print(series, phases)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"series": series, "phases": phases}, indent=2) + "\n")
    console.print(f"wrote {OUTPUT.relative_to(ROOT)}")
    return 0


def _local_kubeconfig() -> str:
    sys.path.insert(0, str(ROOT))
    from infra.local.layout import Layout

    return str(Layout(name="local").kubeconfig)


def _make_namespace(core: client.CoreV1Api) -> None:
    for _ in range(600):
        try:
            core.create_namespace({"metadata": {"name": NAMESPACE}})
            break
        except client.ApiException as error:
            if error.status != 409:
                raise
            time.sleep(0.2)  # an earlier run's namespace is still being deleted
    for _ in range(600):
        if core.list_namespaced_service_account(NAMESPACE).items:
            return
        time.sleep(0.05)


def _measure(kubeconfig: str, runs: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    from google.adk.code_executors.code_execution_utils import CodeExecutionInput
    from google.adk.code_executors.gke_code_executor import GkeCodeExecutor as AdkExecutor

    from adk_gke_sandbox import GkeCodeExecutor
    from adk_gke_sandbox.execution import Timings
    from adk_gke_sandbox.telemetry import PHASES

    timings: list[Timings] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            timings.append(Timings(**vars(record)["timings"]))

    log = logging.getLogger("adk_gke_sandbox")
    log.setLevel(logging.INFO)
    log.addHandler(Told())
    executors: dict[str, Any] = {
        "adk": AdkExecutor(kubeconfig_path=kubeconfig, namespace=NAMESPACE),
        "job": GkeCodeExecutor(kubeconfig_path=kubeconfig, namespace=NAMESPACE),
    }
    context: Any = SimpleNamespace(invocation_id="bench", session=SimpleNamespace(id="s", user_id="u"))
    seconds: dict[str, list[float]] = {name: [] for name in executors}
    for turn in range(runs + 1):
        for name, executor in executors.items():
            took, result = _timed(lambda e=executor: e.execute_code(context, CodeExecutionInput(code=HELLO)))
            if result.stdout.strip() != "hello":
                raise SystemExit(f"{name} did not say hello: {result}")
            if turn:
                seconds[name].append(took)
        console.print(f"[dim]run {turn}/{runs}[/]", end="\r")
    series = [
        {
            "name": name,
            "workload": "hello",
            "n": len(taken),
            "p50_ms": round(statistics.median(taken) * 1000),
            "p95_ms": round(statistics.quantiles(taken, n=20, method="inclusive")[18] * 1000),
        }
        for name, taken in seconds.items()
    ]
    phases = {
        phase: round(statistics.median(getattr(found, phase) for found in timings[1:]) * 1000) for phase in PHASES
    }
    return series, phases


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.monotonic()
    result = call()
    return time.monotonic() - begin, result


def _print(series: list[dict[str, Any]], phases: dict[str, float]) -> None:
    table = Table(title="submit to result, ADK's default limits")
    for column in ("executor", "workload", "n", "p50 ms", "p95 ms", "p50 ratio"):
        table.add_column(column)
    base = series[0]["p50_ms"]
    for row in series:
        table.add_row(*(str(value) for value in row.values()), f"{row['p50_ms'] / base:.2f}")
    console.print(table)
    console.print("our phases, median ms: " + ", ".join(f"{phase} {value}" for phase, value in phases.items()))


if __name__ == "__main__":
    sys.exit(main())
