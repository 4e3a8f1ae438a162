"""The command line: ``adk-gke-sandbox run``, ``sweep``, ``preflight`` and ``contract``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from adk_gke_sandbox.cli import contract, preflight, run, sweep
from adk_gke_sandbox.cli.exit_codes import EXIT_OUTPUT, EXIT_USAGE
from adk_gke_sandbox.cli.output import close, fail
from adk_gke_sandbox.errors import SandboxError


class _Commands(TyperGroup):
    """Says what is wrong with what was given in one line; every command raises it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SandboxError as error:
            fail(error)
            raise typer.Exit(EXIT_USAGE) from error
        except OSError as error:
            # Of standard input or output: files have messages of their own. A reader that has left wants none.
            close(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                fail(f"input or output failed: {error}")
            raise typer.Exit(EXIT_OUTPUT) from error


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for command in (run.run, sweep.sweep, preflight.preflight):
    app.command()(command)
app.add_typer(contract.app, name="contract", help="The contract between a stack and this package.")


@app.callback()
def _root() -> None:
    """Run Python in gVisor sandboxes on Kubernetes."""


def main() -> None:
    """Entry point of the command."""
    # What went wrong with an execution is printed anyway.
    logging.getLogger("adk_gke_sandbox").setLevel(logging.ERROR)
    app()
