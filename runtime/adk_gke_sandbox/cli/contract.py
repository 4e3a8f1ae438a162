"""``adk-gke-sandbox contract``: shows the contract in use, and writes the one that a Pulumi stack exports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox.cli.options import CONTRACT_HELP
from adk_gke_sandbox.cli.output import ERR
from adk_gke_sandbox.errors import ContractError

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(path: Annotated[Path | None, typer.Argument(help=CONTRACT_HELP)] = None) -> None:
    """Print the contract in use."""
    typer.echo(contracts.load(path).to_json(), nl=False)


@app.command()
def pull(
    stack: Annotated[str, typer.Argument(help="Pulumi stack, for example staging.")],
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("contract.json"),
    project: Annotated[Path, typer.Option(help="Folder with Pulumi.yaml.")] = Path(),
) -> None:
    """Write the contract that a Pulumi stack exports to a file."""
    command = ["pulumi", "stack", "output", "sandbox", "--json", "--non-interactive", "--stack", stack]
    try:
        done = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    except OSError as error:
        remedy = "Install the Pulumi CLI and name the folder with Pulumi.yaml by --project"
        raise ContractError(f"cannot run pulumi in {project}: {error.strerror}", remedy) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"pulumi has no contract for stack {stack}: {last}"
        raise ContractError(message, f"Run `pulumi up --stack {stack}` first") from error
    found = contracts.parse(done.stdout, source=f"the output `sandbox` of stack {stack}")
    output.write_text(found.to_json(), encoding="utf-8")
    ERR.print(f"wrote {output}; use it with export {contracts.CONTRACT_ENV}={output.resolve()}", markup=False)
