"""``adk-gke-sandbox preflight``: the live cluster, before agents run on it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox import preflight as checks
from adk_gke_sandbox.cli.options import ContractOption, JsonOption, TextOption
from adk_gke_sandbox.cli.output import ERR, OUT
from adk_gke_sandbox.preflight import report


def preflight(
    contract: ContractOption = None,
    kubeconfig: TextOption = None,
    context: Annotated[str | None, typer.Option(help="Default: the contract's; in a pod its own identity.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check what only the live cluster can tell: permissions, admission, and one sandbox from inside.

    Exit code: 0 all is well, 1 something is wrong, 2 bad usage, 3 something could not be looked at.
    """
    connection = {"kubeconfig_path": kubeconfig, "kubeconfig_context": context}
    with ERR.status("") as status:
        found = checks.run(contracts.load(contract), report=status.update, **connection)
    if as_json:
        typer.echo(json.dumps(report.document(found), indent=2))
    else:
        Console(highlight=False).print(report.table(found))
        for paragraph in (*report.problems(found), report.conclusion(found)):
            OUT.print(f"\n{paragraph}", markup=False)
    raise typer.Exit(found.exit_code)
