"""``adk-gke-sandbox run``: one program in a sandbox, on the path that agents take."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from signal import SIGINT, SIGTERM, signal
from typing import Annotated

import typer

from adk_gke_sandbox.cli.exit_codes import EXIT_OUTPUT, EXIT_SIGNAL, exit_code
from adk_gke_sandbox.cli.options import ContractOption, NoContractOption, TextOption, executor_config
from adk_gke_sandbox.cli.output import ERR, Stream, fail, note, phases, prepare, write
from adk_gke_sandbox.errors import ConfigError, SandboxError
from adk_gke_sandbox.execution import Ended, Event, File, Outcome, Output, Reason, failure_line, gap_line
from adk_gke_sandbox.sandbox import Sandbox


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
    source = _stdin() if str(script) == "-" else _read(script)
    code = source.decode("utf-8-sig", "surrogateescape")
    files = _input_files(file or [])
    if output is not None:
        prepare(output)
    streams = {"stdout": Stream(sys.stdout, raw=raw), "stderr": Stream(sys.stderr, raw=raw)}
    with _signals() as received:
        events = Sandbox(config).stream(code, files=files, argv=tuple(argv or ()), aborted=lambda: bool(received))
        outcome = _follow(events, streams)
    # Before anything is printed: a reader that has left must cost no file.
    written, faults = _keep(outcome.files, output, force=force)
    _tell(outcome, verbose=verbose)
    for line in written:
        note(line)
    faults += [f"cannot write {name}: {stream.fault}" for name, stream in streams.items() if stream.fault]
    for fault in faults:
        fail(fault)
    if outcome.reason is Reason.ABORTED:
        raise typer.Exit(EXIT_SIGNAL + received[0])
    raise typer.Exit(exit_code(outcome) or (EXIT_OUTPUT if faults else 0))


def _follow(events: Iterable[Event], streams: Mapping[str, Stream]) -> Outcome:
    """Write the program's output as it comes; return what came of the execution."""
    told = {name: bytearray() for name in streams}
    for event in events:
        if isinstance(event, Output):
            told[event.stream] += (data := gap_line(event.skipped) + event.data)
            streams[event.stream].write(data)
        elif isinstance(event, Ended):
            outcome = event.outcome
    for name, stream in streams.items():
        # No event tells of what is behind a part of the reply that never arrived.
        whole: bytes = getattr(outcome, name)
        stream.write(whole[len(told[name]) :] if whole.startswith(bytes(told[name])) else b"", last=True)
    return outcome


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


def _stdin() -> bytes:
    if sys.stdin is None:
        raise ConfigError("standard input is closed", "Name a file in place of -")
    return sys.stdin.buffer.read()


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


def _keep(files: tuple[File, ...], output: Path | None, *, force: bool) -> tuple[list[str], list[SandboxError | str]]:
    """Write the output files, or list them; return a line for each, and what was in the way of others."""
    if output is None:
        lines = [f"file {file.name}: {len(file.content)} bytes" for file in files]
        return [*lines, "keep the files with --output DIR"] if files else [], []
    written: list[str] = []
    faults: list[SandboxError | str] = []
    for file in files:
        try:
            written.append(f"wrote {write(output, file, force=force)}")
        except SandboxError as error:
            faults.append(error)
    return written, faults


def _tell(outcome: Outcome, *, verbose: bool) -> None:
    for warning in (*(f"left out {left}" for left in outcome.files_left_out), *outcome.warnings):
        note(warning, style="yellow")
    if outcome.reason is not Reason.COMPLETED and (verbose or outcome.reason is not Reason.ERROR):
        fail(failure_line(outcome))
    if verbose:
        title = f"{outcome.name}: {outcome.reason.value} ({outcome.launch})"
        ERR.print(phases(title, outcome.timings, outcome.cpu_seconds, outcome.peak_memory_bytes))
        note(f"kernel: {outcome.kernel or 'not reported'}")
