"""``adk-gke-sandbox preflight``: the live cluster, before agents run on it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from adk_gke_sandbox import preflight as checks
from adk_gke_sandbox.cli.options import ContractOption, JsonOption, TextOption, contract_in_use
from adk_gke_sandbox.cli.output import ERR, OUT
from adk_gke_sandbox.preflight.checks import Report, Status

_STYLES: Final = {Status.PASS: "green", Status.FAIL: "bold red", Status.UNKNOWN: "yellow", Status.SKIPPED: "dim"}


def preflight(
    contract: ContractOption = None,
    kubeconfig: TextOption = None,
    context: Annotated[str | None, typer.Option(help="Default: the contract's; in a pod its own identity.")] = None,
    model_endpoint: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where the agents' models answer. Default: on GKE Google's own."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check what only the live cluster can tell: permissions, admission, a sandbox from inside, what agents reach.

    Exit code: 0 all is well, 1 something is wrong, 2 bad usage, 3 something could not be looked at.
    """
    if model_endpoint and not re.fullmatch(r"[^:\s]+:[0-9]{1,5}", model_endpoint):
        raise typer.BadParameter(f"{model_endpoint!r} is not HOST:PORT", param_hint="--model-endpoint")
    found = contract_in_use(contract)
    connection = {"kubeconfig_path": kubeconfig, "kubeconfig_context": context}
    with ERR.status("") as status:
        report = checks.run(found, model_endpoint=model_endpoint, report=status.update, **connection)
    if as_json:
        typer.echo(json.dumps({**asdict(report), "exit_code": report.exit_code}, indent=2))
    else:
        _show(report)
    raise typer.Exit(report.exit_code)


def _show(report: Report) -> None:
    """Print one line for each check, a paragraph for each problem, and the number of checks of each status."""
    columns = (Column("check", no_wrap=True), Column("status", no_wrap=True), Column("what there is", overflow="fold"))
    title = Text(f"stack {report.stack} at {report.server}, seen by {report.identity or 'nobody'}")
    table, paragraphs = Table(*columns, title=title), []
    for result in report.checks:
        summary = " ".join(result.summary.split())
        table.add_row(result.check, Text(result.status.value, style=_STYLES[result.status]), Text(summary))
        paragraphs += [
            f"{result.check} {result.status.value}: {problem.object}\n"
            f"  expected: {problem.expected}\n"
            f"  found:    {' '.join(problem.found.split())}\n"
            f"  fix:      {problem.fix}"
            for problem in result.problems
        ]
    counts = Counter(result.status for result in report.checks)
    Console(highlight=False).print(table)
    for text in (*paragraphs, ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])):
        OUT.print(f"\n{text}", markup=False)
