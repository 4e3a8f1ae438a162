"""`make demo`: from nothing to an ADK agent that runs code in a gVisor pod, and back to nothing left.

Brings up the local cluster and the stack on it, acts as the agents' ServiceAccount, and shows every
program, its result, its files and the time of each phase.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from adk_gke_sandbox import contract as contracts

ROOT = Path(__file__).resolve().parent.parent
LOCAL = [sys.executable, str(ROOT / "infra" / "local")]
NEXT = """\
  source .venv/bin/activate        the command on your PATH
  adk-gke-sandbox run script.py    a program of yours, as the agent's ran
  make down                        stops the cluster"""
console = Console(highlight=False)


def main() -> int:
    """Run the demo; return the exit code of the first step that failed."""
    begin = time.monotonic()
    for number, title, command in (
        (1, "local Kubernetes with gVisor", [*LOCAL, "up"]),
        (2, "pulumi up", [*LOCAL, "stack", "up"]),
    ):
        stage(number, title)
        code = subprocess.run(command, check=False).returncode
        if code:
            console.print(f"[red]{title} failed[/]; `python infra/local status` shows the state of each part")
            return code
    contract = contracts.load(contracts.local_stack() / contracts.CONTRACT_KEY)
    # Others may work in the namespace: what the demo leaves is told by a label of its own.
    labels = {"demo": secrets.token_hex(4)}
    stage(3, "an agent that runs code")
    failed = asyncio.run(_converse(contract, labels))
    stage(4, "what is left of it in the cluster")
    left = _left(contract.namespace, labels)
    console.print("\n".join(left) or "nothing")
    console.print(f"\n[dim]finished in {time.monotonic() - begin:.1f} s; what to do next:[/]")
    console.print(NEXT)
    return 1 if failed or left else 0


def stage(number: int, title: str) -> None:
    """Show what begins now."""
    console.print()
    console.rule(f"[bold]{number}/4  {title}", align="left")


async def _converse(contract: contracts.Contract, labels: dict[str, str]) -> bool:
    """Let the agent work; return whether it ended without an answer."""
    # ADK takes over a second to import: not before the steps above have shown what they do.
    sys.path.insert(0, str(Path(__file__).parent))
    from analyst import DATA, QUESTION, ask

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
    executor = GkeCodeExecutor.from_contract(contract, labels=labels, optimize_data_file=True)
    console.print(Panel(f"{QUESTION}\n[dim]file: {DATA.name}", title="user", title_align="left"))
    answer = ""
    async for event in ask(executor):
        for part in event.content.parts or [] if event.content else []:
            if part.executable_code and part.executable_code.code:
                code = Syntax(_shortened(part.executable_code.code.strip()), "python", word_wrap=True)
                console.print(Panel(code, title="the agent's code", title_align="left"))
            elif part.code_execution_result:
                result = part.code_execution_result
                title = f"what the agent sees: {result.outcome.name if result.outcome else ''}"
                # Text, because a program's output is no markup; a table of it would be torn by wrapping.
                shown = Text(
                    re.sub(r"\n{3,}", "\n\n", (result.output or "").strip()), no_wrap=True, overflow="ellipsis"
                )
                console.print(Panel(shown, title=title, title_align="left"))
            elif part.text and event.author != "user":
                answer = part.text.strip()
        for name, version in event.actions.artifact_delta.items():
            console.print(f"file {name}: kept as an artifact of the session, version {version}", markup=False)
    console.print(Panel(Text(answer or "no answer"), title="agent", title_align="left"))
    return not answer


def _shortened(code: str, most: int = 16) -> str:
    """Return code with its middle left out: ADK explores a data file with a page of it."""
    lines = code.splitlines()
    return code if len(lines) <= most else "\n".join([*lines[: most - 5], "# ...", *lines[-4:]])


def _left(namespace: str, labels: dict[str, str]) -> list[str]:
    """Return the Jobs, Pods and ConfigMaps with the labels once deletion is through, as the administrator sees them."""
    from kubernetes import client, config

    loader: Any = config
    api = loader.new_client_from_config(str(contracts.local_stack() / "kubeconfig"))
    core: Any = client.CoreV1Api(api)
    batch: Any = client.BatchV1Api(api)
    listings = (batch.list_namespaced_job, core.list_namespaced_pod, core.list_namespaced_config_map)
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    until = time.monotonic() + 60
    while True:
        left = [
            f"{type(item).__name__} {item.metadata.name}"
            for listing in listings
            for item in listing(namespace, label_selector=selector).items
        ]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
