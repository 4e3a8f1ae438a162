"""``adk-gke-sandbox run``: one program in a sandbox, on the path that agents take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from signal import SIGINT, SIGTERM, signal
from typing import Annotated

import typer

from adk_gke_sandbox.cli.exit_codes import EXIT_SIGNAL, EXIT_USAGE, exit_code
from adk_gke_sandbox.cli.options import ContractOption, NoContractOption, TextOption, executor_config
from adk_gke_sandbox.cli.output import ERR, fail, note, phases, show, write
from adk_gke_sandbox.errors import ConfigError, SandboxError
from adk_gke_sandbox.execution import File, Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox, failure_line


def run(
    script: Annotated[Path, typer.Argument(help="Python file to run; - reads standard input.")],
    argv: Annotated[list[str] | None, typer.Argument(help="Arguments of the program, after --.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help="Input file; may be repeated.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files that the program writes; without it they are only listed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist in --output.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write control characters to a terminal as they are; otherwise as escapes.")
    ] = False,
    contract: ContractOption = None,
    no_contract: NoContractOption = False,
    namespace: TextOption = None,
    image: TextOption = None,
    timeout_seconds: Annotated[float | None, typer.Option("--timeout", help="Seconds.")] = None,
    schedule_timeout_seconds: Annotated[float | None, typer.Option("--schedule-timeout", help="Seconds.")] = None,
    cpu_limit: TextOption = None,
    mem_limit: TextOption = None,
    kubeconfig: TextOption = None,
    context: TextOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show phases, usage and kernel.")] = False,
) -> None:
    """Run a Python file in a sandbox, as an agent would."""
    config = executor_config(
        contract,
        no_contract,
        namespace=namespace,
        image=image,
        timeout_seconds=timeout_seconds,
        schedule_timeout_seconds=schedule_timeout_seconds,
        cpu_limit=cpu_limit,
        mem_limit=mem_limit,
        kubeconfig_path=kubeconfig,
        kubeconfig_context=context,
    )
    source = sys.stdin.buffer.read() if str(script) == "-" else _read(script)
    code = source.decode("utf-8-sig", "surrogateescape")
    files = _input_files(file or [])
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is not a folder", "Name a folder by --output")
    with _signals() as received:
        outcome = Sandbox(config).run(code, files=files, argv=tuple(argv or ()), aborted=lambda: bool(received))
    _show(outcome, verbose=verbose, raw=raw)
    written = _keep(outcome.files, output, force=force)
    if outcome.reason is Reason.ABORTED:
        raise typer.Exit(EXIT_SIGNAL + received[0])
    raise typer.Exit(exit_code(outcome) or (0 if written else EXIT_USAGE))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask the command to end, while the block lasts."""
    received: list[int] = []
    before = {number: signal(number, lambda number, _: received.append(number)) for number in (SIGINT, SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal(number, handler)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "Name a file that exists") from error


def _input_files(paths: list[Path]) -> tuple[File, ...]:
    for one, other in pairwise(sorted(paths, key=lambda path: path.name)):
        if one.name == other.name:
            message = f"{one} and {other} would be one file in the working directory"
            raise ConfigError(message, "Rename one, or leave it out")
    return tuple(File(name=path.name, content=_read(path)) for path in paths)


def _keep(files: tuple[File, ...], output: Path | None, *, force: bool) -> bool:
    """Write the output files, or list them; return whether nothing was in the way."""
    kept = True
    for file in files:
        if output is None:
            note(f"file {file.name}: {len(file.content)} bytes")
            continue
        try:
            note(f"wrote {write(output, file, force=force)}")
        except SandboxError as error:
            kept = False
            fail(error)
    if files and output is None:
        note("keep the files with --output DIR")
    return kept


def _show(outcome: Outcome, *, verbose: bool, raw: bool) -> None:
    for stream, data in ((sys.stdout, outcome.stdout), (sys.stderr, outcome.stderr)):
        show(data, stream.buffer, raw=raw)
    for warning in (*(f"left out {left}" for left in outcome.files_left_out), *outcome.warnings):
        note(warning, style="yellow")
    if outcome.reason is not Reason.COMPLETED and (verbose or outcome.reason is not Reason.ERROR):
        fail(failure_line(outcome))
    if verbose:
        title = f"{outcome.name}: {outcome.reason.value} ({outcome.launch})"
        ERR.print(phases(title, outcome.timings, outcome.cpu_seconds, outcome.peak_memory_bytes))
        note(f"kernel: {outcome.kernel or 'not reported'}")
