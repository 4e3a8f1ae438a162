"""The report for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from adk_gke_sandbox.preflight.verdicts import Report, Status

EXIT_PASS: Final = 0
EXIT_FAIL: Final = 1
EXIT_UNKNOWN: Final = 3
"""Nothing is wrong as far as could be seen, but not everything could; 2 is for bad usage."""

_STYLES: Final = {Status.PASS: "green", Status.FAIL: "bold red", Status.UNKNOWN: "yellow", Status.SKIPPED: "dim"}


def table(found: Report) -> Table:
    """Return one line for each check."""
    made = Table(title=Text(f"stack {found.stack} at {found.server}, seen by {found.identity or 'nobody'}"))
    made.add_column("check", no_wrap=True)
    made.add_column("status", no_wrap=True)
    made.add_column("what there is", overflow="fold")
    for result in found.results:
        summary = " ".join(result.summary.split())
        made.add_row(result.check, Text(result.status.value, style=_STYLES[result.status]), Text(summary))
    return made


def problems(found: Report) -> Iterator[str]:
    """Yield a paragraph for each problem: what is wrong, what there should be, what to do."""
    for result in found.results:
        for problem in result.problems:
            yield (
                f"{result.check} {result.status.value}: {problem.object}\n"
                f"  expected: {problem.expected}\n"
                f"  found:    {' '.join(problem.found.split())}\n"
                f"  fix:      {problem.fix}"
            )


def conclusion(found: Report) -> str:
    """Return the number of checks of each status."""
    counts = {status: len(found.of(status)) for status in Status}
    return ", ".join(f"{count} {status.value}" for status, count in counts.items() if count)


def document(found: Report) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    return {
        "stack": found.stack,
        "server": found.server,
        "identity": found.identity,
        "exit_code": exit_code(found),
        "checks": [asdict(result) for result in found.results],
    }


def exit_code(found: Report) -> int:
    """Return 0 if everything passed, 1 if something failed, 3 if something could only not be looked at."""
    if found.of(Status.FAIL):
        return EXIT_FAIL
    return EXIT_PASS if len(found.of(Status.PASS)) == len(found.results) else EXIT_UNKNOWN
