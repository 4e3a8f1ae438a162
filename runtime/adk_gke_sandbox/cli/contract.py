"""``adk-gke-sandbox contract``: shows the contract in use, and writes the one that a stack exports."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox.cli.options import CONTRACT_HELP, contract_in_use
from adk_gke_sandbox.cli.output import ERR, note
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ContractError

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(path: Annotated[Path | None, typer.Argument(help=CONTRACT_HELP)] = None) -> None:
    """Print the contract in use."""
    typer.echo(contract_in_use(path).to_json(), nl=False)


@app.command()
def pull(
    stack: Annotated[str, typer.Argument(help="Pulumi stack, for example staging.")],
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("contract.json"),
    project: Annotated[
        Path | None, typer.Option(help="Folder with Pulumi.yaml; default: this one. The stack local needs none.")
    ] = None,
) -> None:
    """Write the contract that a stack exports to a file."""
    # What `make up` left, from a Pulumi and a backend of its own that nobody has to install or to log in to.
    local = contracts.local_stack() / contracts.CONTRACT_KEY
    if project is None and stack == "local" and os.access(local, os.R_OK):
        note(f"stack local of this machine: {local}")
        found = contracts.load(local)
    else:
        found = _exported(stack, project or Path())
    try:
        output.write_text(found.to_json(), encoding="utf-8")
    except OSError as error:
        raise ContractError(f"cannot write {output}: {error.strerror}", "Name another file by --output") from error
    ERR.print(f"wrote {output}; use it with export {contracts.CONTRACT_ENV}={output.resolve()}", markup=False)


def _exported(stack: str, project: Path) -> Contract:
    """Return the contract among the outputs of a Pulumi stack."""
    command = ["pulumi", "stack", "output", "sandbox", "--json", "--non-interactive", "--stack", stack]
    try:
        done = subprocess.run(command, cwd=project, check=True, capture_output=True, encoding="utf-8", errors="replace")
    except OSError as error:
        remedy = "Install the Pulumi CLI and name the folder with Pulumi.yaml by --project"
        remedy += "; for the local stack, run `make up`" if stack == "local" else ""
        raise ContractError(f"cannot run pulumi in {project}: {error.strerror}", remedy) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"pulumi has no contract for stack {stack}: {last}"
        raise ContractError(message, f"Run `pulumi up --stack {stack}` first") from error
    return contracts.parse(done.stdout, source=f"the output `sandbox` of stack {stack}")
