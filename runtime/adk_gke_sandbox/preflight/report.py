"""What came of all checks, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Column, Table
from rich.text import Text

from adk_gke_sandbox.preflight.checks import Result, Status

_STYLES: Final = {Status.PASS: "green", Status.FAIL: "bold red", Status.UNKNOWN: "yellow", Status.SKIPPED: "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of all checks, in their order; ``identity`` is the caller's user name, empty where it is not known."""

    stack: str
    server: str
    identity: str
    results: tuple[Result, ...]

    @property
    def exit_code(self) -> int:
        """0 if everything passed, 1 if something failed, 3 if something could only not be looked at.

        2 is for bad usage, before there is a report.
        """
        statuses = {result.status for result in self.results}
        if Status.FAIL in statuses:
            return 1
        return 0 if statuses == {Status.PASS} else 3


def table(found: Report) -> Table:
    """Return one line for each check."""
    columns = (Column("check", no_wrap=True), Column("status", no_wrap=True), Column("what there is", overflow="fold"))
    made = Table(*columns, title=Text(f"stack {found.stack} at {found.server}, seen by {found.identity or 'nobody'}"))
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
    counts = Counter(result.status for result in found.results)
    return ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])


def document(found: Report) -> dict[str, Any]:
    """Return everything as JSON takes it."""
    fields = asdict(found)
    return {"exit_code": found.exit_code, "checks": fields.pop("results"), **fields}
