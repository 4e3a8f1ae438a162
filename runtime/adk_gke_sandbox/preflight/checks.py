"""What a check is, what came of it, and how checks that build on each other are made in their order.

A check that cannot be made is ``unknown``, never ``pass``. One that builds on a check that failed is ``skipped``, so
that what fails is what to repair. What is checked is in the other modules of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ClusterError, Forbidden

Q = TypeVar("Q")
A = TypeVar("A")


class Status(StrEnum):
    """What came of a check."""

    PASS = "pass"  # noqa: S105 - not a password
    """The cluster is as it should be."""
    FAIL = "fail"
    """It is not; there is a problem with its fix."""
    UNKNOWN = "unknown"
    """It could not be looked at, most often because a permission is missing."""
    SKIPPED = "skipped"
    """A check that this one builds on failed; repair that first."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be: kind and name, what should be, what is, and what to do.

    Where nothing was ``found``, there is no problem.
    """

    object: str
    expected: str
    found: str
    fix: str


Findings = tuple[str, list[Problem]]
"""What there is, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; the docstring of ``look`` says what a pass shows.

    Attributes:
        id: Short name.
        look: Looks at a cluster. A ``ClusterError`` means that it could not.
        permission: What the caller must be allowed.
        needs: Checks that must not have failed.
    """

    id: str
    look: Callable[[Any], Findings]
    permission: str
    needs: tuple[str, ...]


def check(*needs: str, permission: str) -> Callable[[Callable[[Any], Findings]], Check]:
    """Make a check of the function that looks."""
    return lambda look: Check(look.__name__.replace("_", "-"), look, permission, needs)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check: what there is, and what is wrong or stood in the way."""

    check: str
    status: Status
    summary: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of all checks, in their order; ``identity`` is the caller's user name, empty where it is not known."""

    stack: str
    server: str
    identity: str
    checks: tuple[Result, ...]

    @property
    def exit_code(self) -> int:
        """0 if everything passed, 1 if something failed, 3 if something could only not be looked at.

        2 is for bad usage, before there is a report.
        """
        statuses = {result.status for result in self.checks}
        return 1 if Status.FAIL in statuses else 0 if statuses == {Status.PASS} else 3


def make_checks(checks: Iterable[Check], cluster: object, report: Callable[[str], None]) -> list[Result]:
    """Make checks of a cluster in their order and return their results; ``report`` is told of each."""
    results: list[Result] = []
    for each in checks:
        bad = {result.check for result in results if result.status in (Status.FAIL, Status.SKIPPED)}
        if need := next((need for need in each.needs if need in bad), ""):
            results.append(Result(each.id, Status.SKIPPED, f"{need} comes first"))
        else:
            report(f"checking {each.id}")
            results.append(_result(each, cluster))
    return results


def _result(made: Check, cluster: object) -> Result:
    try:
        summary, findings = made.look(cluster)
    except ClusterError as error:
        allow = f"Run preflight as the platform team, or allow this identity to {made.permission}"
        fix = allow if isinstance(error, Forbidden) else "Run preflight again"
        problem = Problem("this check", f"to {made.permission}", error.message, fix)
        return Result(made.id, Status.UNKNOWN, f"cannot {made.permission}", (problem,))
    problems = tuple(problem for problem in findings if problem.found)
    if not problems:
        return Result(made.id, Status.PASS, summary)
    more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
    return Result(made.id, Status.FAIL, f"{problems[0].object}: {problems[0].found}{more}", problems)


def at_once(ask: Callable[[Q], A], questions: Iterable[Q]) -> dict[Q, A]:
    """Return the answer to each question, from eight threads."""
    asked = tuple(questions)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(asked, pool.map(ask, asked), strict=True))


def stack_up(contract: Contract) -> str:
    """Return the command that makes what is missing; without a refresh Pulumi does not look at the cluster."""
    return f"`pulumi up --refresh --stack {contract.stack}`"


def delete_object(kind: str, name: str, namespace: str = "") -> str:
    """Return the command that deletes what somebody made, or changed so that ``pulumi up`` has to make it anew.

    Pulumi does not see what was added to a list, and stops with a conflict where somebody else wrote a field
    (https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/).
    """
    where = f" -n {namespace}" if namespace else ""
    return f"`kubectl delete --ignore-not-found {kind.lower()} {name}{where}`"
