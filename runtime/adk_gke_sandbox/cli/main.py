"""The command line: ``adk-gke-sandbox run``, ``sweep``, ``preflight`` and ``contract``."""

from __future__ import annotations

import logging

import typer

from adk_gke_sandbox.cli import contract, preflight, run, sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("preflight")(preflight.preflight)
app.add_typer(contract.app, name="contract", help="The contract between a stack and this package.")


@app.callback()
def _root() -> None:
    """Run Python in gVisor sandboxes on Kubernetes."""


def main() -> None:
    """Entry point of the command."""
    # What went wrong with an execution is printed anyway.
    logging.getLogger("adk_gke_sandbox").setLevel(logging.ERROR)
    app()
