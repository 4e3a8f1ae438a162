"""The command line: ``adk-gke-sandbox run``, ``sweep``, ``preflight`` and ``contract``."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox import preflight, telemetry
from adk_gke_sandbox.cli.output import FileRefused, same_names, show, write
from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.cluster import sweep
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.errors import ConfigError, ContractError, SandboxError
from adk_gke_sandbox.execution import CODE_REASONS, File, Outcome, Reason, Timings
from adk_gke_sandbox.preflight import rendering
from adk_gke_sandbox.sandbox import Sandbox, failure_line

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
contract_app = typer.Typer(no_args_is_help=True)
app.add_typer(contract_app, name="contract", help="The contract between a stack and this package.")

EXIT_USAGE = 2
EXIT_INFRASTRUCTURE = 125
"""The program did not run; as of docker-run(1)."""

EXIT_TIMEOUT = 124
EXIT_SIGNAL = 128
"""Plus the number of the signal that ended the command, as of bash(1): 130 for SIGINT, 143 for SIGTERM."""

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)


@app.callback()
def _root() -> None:
    """Run Python in gVisor sandboxes on Kubernetes."""


@app.command()
def run(
    script: Annotated[Path, typer.Argument(help="Python file to run; - reads standard input.")],
    argv: Annotated[list[str] | None, typer.Argument(help="Arguments of the program, after --.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="Input file; may be repeated.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for the files that the program writes; without it they are only listed."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist in --output.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write control characters to a terminal as they are; otherwise as escapes.")
    ] = False,
    contract: Annotated[
        Path | None,
        typer.Option(help=f"Contract; default: ${contracts.CONTRACT_ENV}, then the agents' mount."),
    ] = None,
    no_contract: Annotated[bool, typer.Option("--no-contract", help="Use the options alone.")] = False,
    namespace: Annotated[str | None, typer.Option()] = None,
    image: Annotated[str | None, typer.Option()] = None,
    timeout_seconds: Annotated[float | None, typer.Option("--timeout", help="Seconds.")] = None,
    schedule_timeout_seconds: Annotated[float | None, typer.Option("--schedule-timeout", help="Seconds.")] = None,
    cpu_limit: Annotated[str | None, typer.Option()] = None,
    mem_limit: Annotated[str | None, typer.Option()] = None,
    kubeconfig: Annotated[str | None, typer.Option()] = None,
    context: Annotated[str | None, typer.Option()] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show phases and usage.")] = False,
) -> None:
    """Run a Python file in a sandbox, as an agent would."""
    given = {
        "namespace": namespace,
        "image": image,
        "timeout_seconds": timeout_seconds,
        "schedule_timeout_seconds": schedule_timeout_seconds,
        "cpu_limit": cpu_limit,
        "mem_limit": mem_limit,
        "kubeconfig_path": kubeconfig,
        "kubeconfig_context": context,
    }
    overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        config = _config(contract, no_contract, overrides)
        code = sys.stdin.read() if str(script) == "-" else _read(script).decode("utf-8-sig", "surrogateescape")
        files = _input_files(file or [])
        if output is not None and output.exists() and not output.is_dir():
            raise ConfigError(f"{output} is not a folder", "Name a folder by --output")
    except SandboxError as error:
        _fail(error)
    with _signals() as received:
        outcome = Sandbox(config).run(code, files=files, argv=tuple(argv or ()), aborted=lambda: bool(received))
    _show(outcome, verbose=verbose, raw=raw)
    written = _keep(outcome.files, output, force=force)
    if outcome.reason is Reason.ABORTED:
        raise typer.Exit(EXIT_SIGNAL + received[0])
    raise typer.Exit(_exit_code(outcome) or (0 if written else EXIT_USAGE))


@app.command("sweep")
def sweep_(
    contract: Annotated[Path | None, typer.Option(help="Contract; default as for run.")] = None,
    no_contract: Annotated[bool, typer.Option("--no-contract", help="Use the options alone.")] = False,
    namespace: Annotated[str | None, typer.Option()] = None,
    kubeconfig: Annotated[str | None, typer.Option()] = None,
    context: Annotated[str | None, typer.Option()] = None,
    older_than: Annotated[
        float | None,
        typer.Option(help="Seconds; counts every Job of this age, running or not. Default: past deadline and TTL."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is found; otherwise it is only shown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show, or delete, what executions have left behind in the sandbox namespace."""
    given = {"namespace": namespace, "kubeconfig_path": kubeconfig, "kubeconfig_context": context}
    try:
        config = _config(contract, no_contract, {name: value for name, value in given.items() if value is not None})
        cluster = kube.connect(config.kubeconfig_path, config.kubeconfig_context)
        found = sweep.find(cluster, config.namespace, older_than_seconds=older_than)
    except SandboxError as error:
        _fail(error)
    refused: dict[sweep.Leftover, SandboxError] = {}
    for leftover in found if delete else ():
        try:
            sweep.remove(cluster, leftover)
        except SandboxError as error:
            refused[leftover] = error
    gone = [leftover for leftover in found if delete and leftover not in refused]
    if as_json:
        typer.echo(json.dumps([{**asdict(leftover), "deleted": leftover in gone} for leftover in found], indent=2))
    else:
        for leftover in found:
            done, age = "deleted " if leftover in gone else "", f"{leftover.age_seconds:.0f} s old"
            _out.print(f"{done}{leftover.kind} {leftover.name}: {age}, {leftover.cause}", markup=False)
        if not found:
            _out.print(f"nothing is left behind in {config.namespace}", markup=False)
        elif not delete:
            _out.print("delete them with --delete", markup=False)
    for failure in refused.values():
        _err.print(f"adk-gke-sandbox: {failure}", style="red", markup=False)
    if refused:
        raise typer.Exit(EXIT_USAGE)


@app.command("preflight")
def preflight_(
    contract: Annotated[Path | None, typer.Option(help="Contract; default as for run.")] = None,
    kubeconfig: Annotated[str | None, typer.Option()] = None,
    context: Annotated[str | None, typer.Option(help="Default: the contract's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the live cluster against the contract, and one sandbox from inside.

    Exit code: 0 all is well, 1 something is wrong, 2 bad usage, 3 something could not be looked at.
    """
    try:
        with _err.status("") as status:
            found = preflight.run(
                contracts.load(contract), kubeconfig_path=kubeconfig, kubeconfig_context=context, report=status.update
            )
    except SandboxError as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps(rendering.document(found), indent=2))
    else:
        Console(highlight=False).print(rendering.table(found))
        for paragraph in rendering.problems(found):
            _out.print(f"\n{paragraph}", markup=False)
        _out.print(f"\n{rendering.conclusion(found)}", markup=False)
    raise typer.Exit(rendering.exit_code(found))


@contract_app.command("show")
def contract_show(
    path: Annotated[Path | None, typer.Argument(help="Contract; default as for run.")] = None,
) -> None:
    """Print the contract in use."""
    try:
        typer.echo(contracts.load(path).to_json(), nl=False)
    except SandboxError as error:
        _fail(error)


@contract_app.command("pull")
def contract_pull(
    stack: Annotated[str, typer.Argument(help="Pulumi stack, for example staging.")],
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("contract.json"),
    project: Annotated[Path, typer.Option(help="Folder with Pulumi.yaml.")] = Path(),
) -> None:
    """Write the contract that a Pulumi stack exports to a file."""
    try:
        found = contracts.parse(_stack_output(stack, project), source=f"the output `sandbox` of stack {stack}")
    except SandboxError as error:
        _fail(error)
    output.write_text(found.to_json(), encoding="utf-8")
    _err.print(f"wrote {output}; use it with export {contracts.CONTRACT_ENV}={output.resolve()}", markup=False)


def _stack_output(stack: str, project: Path) -> str:
    command = ["pulumi", "stack", "output", "sandbox", "--json", "--non-interactive", "--stack", stack]
    try:
        done = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
    except OSError as error:
        raise ContractError(
            f"cannot run pulumi in {project}: {error.strerror}",
            "Install the Pulumi CLI and name the folder with Pulumi.yaml by --project",
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ContractError(
            f"pulumi has no contract for stack {stack}: {last}", f"Run `pulumi up --stack {stack}` first"
        )
    return done.stdout


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask the command to end, while the block lasts."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point of the command."""
    # What went wrong with an execution is printed anyway.
    logging.getLogger("adk_gke_sandbox").setLevel(logging.ERROR)
    app()


def _config(contract: Path | None, no_contract: bool, overrides: dict[str, Any]) -> ExecutorConfig:
    if no_contract:
        return ExecutorConfig(**overrides)
    found = contracts.load(contract)
    if found.cluster.context and "kubeconfig_context" not in overrides:
        overrides["kubeconfig_context"] = found.cluster.context
    return ExecutorConfig.from_contract(found, **overrides)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "Name a file that exists") from error


def _fail(error: SandboxError) -> None:
    _err.print(f"adk-gke-sandbox: {error}", style="red", markup=False)
    raise typer.Exit(EXIT_USAGE)


def _input_files(paths: list[Path]) -> tuple[File, ...]:
    if same := same_names(paths):
        raise ConfigError(
            f"{same[0]} and {same[1]} would be one file in the working directory", "Rename one, or leave it out"
        )
    return tuple(File(name=path.name, content=_read(path)) for path in paths)


def _keep(files: tuple[File, ...], output: Path | None, *, force: bool) -> bool:
    """Write the output files, or list them; return whether nothing was in the way."""
    if output is None:
        for file in files:
            _err.print(f"file {file.name}: {len(file.content)} bytes", style="dim", markup=False)
        if files:
            _err.print("keep the files with --output DIR", style="dim", markup=False)
        return True
    kept = True
    for file in files:
        try:
            _err.print(f"wrote {write(output, file, force=force)}", style="dim", markup=False)
        except FileRefused as error:
            kept = False
            _err.print(f"adk-gke-sandbox: {error}", style="red", markup=False)
    return kept


def _show(outcome: Outcome, *, verbose: bool, raw: bool) -> None:
    for stream, data in ((sys.stdout, outcome.stdout), (sys.stderr, outcome.stderr)):
        show(data, stream.buffer, raw=raw)
    for left in outcome.files_left_out:
        _err.print(f"left out {left}", style="yellow", markup=False)
    if outcome.reason is not Reason.COMPLETED and (verbose or outcome.reason is not Reason.ERROR):
        _err.print(f"adk-gke-sandbox: {failure_line(outcome)}", style="red", markup=False)
    if verbose:
        title = f"{outcome.name}: {outcome.reason.value} ({outcome.launch})"
        _err.print(phases(title, outcome.timings, outcome.cpu_seconds, outcome.peak_memory_bytes))


def phases(title: str, timings: Timings, cpu_seconds: float, peak_memory_bytes: int) -> Table:
    """Return a table of the phases and the usage of an execution."""
    table = Table(title=title)
    shown = {**{phase: getattr(timings, phase) for phase in telemetry.PHASES}, "total": timings.total}
    for phase in shown:
        table.add_column(phase, justify="right")
    table.add_column("cpu", justify="right")
    table.add_column("peak memory", justify="right")
    table.add_row(
        *(f"{seconds:.2f} s" for seconds in shown.values()),
        f"{cpu_seconds:.2f} s",
        f"{peak_memory_bytes / 1024 / 1024:.0f} MiB",
    )
    return table


def _exit_code(outcome: Outcome) -> int:
    if outcome.reason is Reason.COMPLETED:
        return 0
    if outcome.reason is Reason.DEADLINE_EXCEEDED:
        return EXIT_TIMEOUT
    return outcome.exit_code or 1 if outcome.reason in CODE_REASONS else EXIT_INFRASTRUCTURE
