"""`make demo`: from nothing to an ADK agent that runs code in a gVisor pod, and back to nothing left.

Brings up the local cluster and the stack on it, acts as the agents' ServiceAccount, and shows every
program, its result and the time of each phase.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax

ROOT = Path(__file__).resolve().parent.parent
LOCAL = [sys.executable, str(ROOT / "infra" / "local")]
console = Console(highlight=False)


def main() -> int:
    """Run the demo; return the exit code of the first step that failed."""
    begin = time.monotonic()
    for title, command in (
        ("local Kubernetes with gVisor", [*LOCAL, "up"]),
        ("pulumi up", [*LOCAL, "stack", "up"]),
    ):
        console.rule(f"[bold]{title}")
        code = subprocess.run(command, check=False).returncode
        if code:
            console.print(f"[red]{title} failed[/]; `python infra/local status` shows the state of each part")
            return code
    kubeconfig = _printed("kubeconfig", "--service-account", "agents/agent")
    contract = json.loads(_printed("stack", "output"))
    os.environ["KUBECONFIG"] = kubeconfig
    console.rule("[bold]an agent that runs code")
    failed = asyncio.run(_converse(contract))
    console.rule("[bold]what is left by our label")
    left = _left(str(contract["namespace"]))
    console.print("\n".join(left) or "nothing")
    console.print(f"[dim]demo finished in {time.monotonic() - begin:.1f} s; `make down` stops the cluster[/]")
    return 1 if failed or left else 0


def _printed(*verb: str) -> str:
    return subprocess.run([*LOCAL, *verb], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


async def _converse(contract: Mapping[str, object]) -> bool:
    """Let the agent work; return whether it ended without an answer."""
    # ADK takes over a second to import: not before the steps above have shown what they do.
    sys.path.insert(0, str(Path(__file__).parent))
    from analyst import QUESTION, ask

    from adk_gke_sandbox import GkeCodeExecutor
    from adk_gke_sandbox.cli.output import phases
    from adk_gke_sandbox.execution import Timings

    class Phases(logging.Handler):
        """Shows each execution as it is logged."""

        def emit(self, record: logging.LogRecord) -> None:
            told = vars(record)
            if "timings" in told:
                title = f"{told['execution']}: {told['reason']} ({told['launch']})"
                timings = Timings(**told["timings"])
                console.print(phases(title, timings, told["cpu_seconds"], told["peak_memory_bytes"]))

    log = logging.getLogger("adk_gke_sandbox")
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.getLogger("google_adk").setLevel(logging.ERROR)
    log.addHandler(Phases())
    executor = GkeCodeExecutor.from_contract(contract, optimize_data_file=True)
    console.print(Panel(QUESTION, title="user"))
    answer = ""
    async for event in ask(executor):
        for part in event.content.parts or [] if event.content else []:
            if part.executable_code and part.executable_code.code:
                console.print(Syntax(_shortened(part.executable_code.code.strip()), "python"))
            elif part.code_execution_result:
                result = part.code_execution_result
                console.print(Panel((result.output or "").strip(), title=str(result.outcome)), markup=False)
            elif part.text and event.author != "user":
                answer = part.text.strip()
    console.print(Panel(answer or "no answer", title="agent"))
    return not answer


def _shortened(code: str, most: int = 16) -> str:
    """Return code with its middle left out: ADK explores a data file with a page of it."""
    lines = code.splitlines()
    return code if len(lines) <= most else "\n".join([*lines[: most - 5], "# ...", *lines[-4:]])


def _left(namespace: str) -> list[str]:
    """Return the Jobs, Pods and ConfigMaps with our label once deletion is through, as the administrator sees them."""
    from kubernetes import client, config

    from adk_gke_sandbox.contract import APP_LABEL, APP_NAME

    loader: Any = config
    api = loader.new_client_from_config(_printed("kubeconfig"))
    core: Any = client.CoreV1Api(api)
    batch: Any = client.BatchV1Api(api)
    listings = (batch.list_namespaced_job, core.list_namespaced_pod, core.list_namespaced_config_map)
    until = time.monotonic() + 60
    while True:
        left = [
            f"{type(item).__name__} {item.metadata.name}"
            for listing in listings
            for item in listing(namespace, label_selector=f"{APP_LABEL}={APP_NAME}").items
        ]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
