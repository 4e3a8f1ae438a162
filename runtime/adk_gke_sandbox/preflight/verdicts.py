"""What a check is, what it says, and how checks that hang together are judged. Pure.

A check that cannot be made is ``unknown``, never ``pass``; one whose ground is missing is ``skipped``, so that what
fails is what to repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ConfigError

Seen = Mapping[str, Any]
"""What was read of the cluster, by name: a decoded document, ``None`` for one that is not there, or ``Unreadable``."""


class Status(StrEnum):
    """What came of a check."""

    PASS = "pass"  # noqa: S105 - not a password
    """The cluster is as the contract says."""
    FAIL = "fail"
    """It is not; there is a problem with its fix."""
    UNKNOWN = "unknown"
    """It could not be looked at, most often for want of a permission."""
    SKIPPED = "skipped"
    """A check that this one builds on failed; repair that first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be.

    Attributes:
        object: Kind and name of what is wrong.
        expected: What it should be.
        found: What it is.
        fix: What to do.
    """

    object: str
    expected: str
    found: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found: good without problems.

    Attributes:
        summary: What there is, where nothing is wrong.
        problems: What is wrong.
    """

    summary: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Something that could not be read.

    Attributes:
        permission: What the caller must be allowed, as in ``get namespaces agent-sandbox``.
        message: The API server's own words.
        forbidden: Whether the permission is what is missing.
    """

    permission: str
    message: str
    forbidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        id: Short name.
        shows: What a pass shows; a sentence without its full stop.
        judge: Compares the contract with what was read.
        reads: Names in ``Seen`` without which nothing can be said.
        needs: Checks that must not have failed.
    """

    id: str
    shows: str
    judge: Callable[[Contract, Seen], Verdict]
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a check.

    Attributes:
        check: Its name.
        status: Whether it passed.
        summary: What there is.
        problems: What is wrong, or what stood in the way; empty for a pass.
    """

    check: str
    status: Status
    summary: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of all checks.

    Attributes:
        stack: Stack of the contract.
        server: URL of the API server.
        identity: User name of the caller; empty where it is not known.
        results: One for each check, in order.
    """

    stack: str
    server: str
    identity: str
    results: tuple[Result, ...]

    def of(self, status: Status) -> tuple[Result, ...]:
        """Return the results with a status."""
        return tuple(result for result in self.results if result.status is status)


def evaluate(
    checks: Iterable[Check], contract: Contract, seen: Seen, before: tuple[Result, ...] = ()
) -> tuple[Result, ...]:
    """Return the results of checks in their order, behind those that were there before."""
    results = {result.check: result for result in before}
    for check in checks:
        results[check.id] = _result(check, contract, seen, results)
    return tuple(results.values())


def blocked(check: Check, results: Iterable[Result]) -> str:
    """Return the check that keeps another from being made, or nothing."""
    bad = {result.check for result in results if result.status in (Status.FAIL, Status.SKIPPED)}
    return next((need for need in check.needs if need in bad), "")


def stack_up(contract: Contract) -> str:
    """Return the command that makes what is missing; without a refresh the engine does not look."""
    return f"`pulumi up --refresh --stack {contract.stack}`"


def made_anew(contract: Contract, kind: str, name: str, namespace: str = "") -> str:
    """Return how an object that somebody changed gets right again.

    The engine does not see what was added to a list, and yields where somebody else wrote a field
    (https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/managing-resources-with-server-side-apply/).
    """
    where = f" -n {namespace}" if namespace else ""
    return f"`kubectl delete {kind.lower()} {name}{where}`, then {stack_up(contract)}, which makes the stack's own anew"


def _result(check: Check, contract: Contract, seen: Seen, results: Mapping[str, Result]) -> Result:
    if need := blocked(check, results.values()):
        return Result(check=check.id, status=Status.SKIPPED, summary=f"{need} comes first")
    unread = [item for name in check.reads if isinstance(item := seen[name], Unreadable)]
    if unread:
        return Result(
            check=check.id,
            status=Status.UNKNOWN,
            summary=f"cannot {unread[0].permission}",
            problems=tuple(_unknown(item) for item in dict.fromkeys(unread)),
        )
    try:
        verdict = check.judge(contract, seen)
    except ConfigError as error:
        problem = Problem(object="the contract", expected="usable values", found=error.message, fix=error.remedy)
        verdict = Verdict(problems=(problem,))
    if not verdict.problems:
        return Result(check=check.id, status=Status.PASS, summary=verdict.summary)
    first, *others = verdict.problems
    more = f" (and {len(others)} more)" if others else ""
    summary = f"{first.object}: {first.found}{more}"
    return Result(check=check.id, status=Status.FAIL, summary=summary, problems=verdict.problems)


def _unknown(item: Unreadable) -> Problem:
    fix = f"Run preflight as the platform team, or allow this identity to {item.permission}"
    return Problem(
        object="this check",
        expected=f"to {item.permission}",
        found=item.message,
        fix=fix if item.forbidden else "Run preflight again",
    )
