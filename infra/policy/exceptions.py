"""Exceptions: which resource need not hold to which rule, why, and until when. Reads one file, decides no more.

An exception without a reason or without an end, or past its end, exempts nothing and is itself a violation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from infra.policy.rule import Finding, Resource

FILE: Final = Path(__file__).with_name("exceptions.yaml")
"""The exceptions of this repository."""

VARIABLE: Final = "ADK_GKE_SANDBOX_POLICY_EXCEPTIONS"
"""Environment variable with the path of another file of exceptions."""

WHOLE_STACK: Final = "(stack)"
"""Stands for the resource where a rule blames none."""

LONGEST: Final = timedelta(days=366)
"""An exception for longer is a decision, and belongs into the rules."""

KEYS: Final = ("rule", "stack", "resource", "reason", "expires")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """One exception.

    Attributes:
        rule: Name of the rule.
        stack: Name of the stack.
        resource: Logical name of the resource, or `WHOLE_STACK`.
        reason: Why.
        expires: The last day.
    """

    rule: str
    stack: str
    resource: str
    reason: str
    expires: date

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"The exception from {self.rule} for {self.resource} of stack {self.stack}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemptions:
    """What a file of exceptions says on one day.

    Attributes:
        valid: Exceptions that count.
        problems: What is wrong with the others; sentences without their full stops.
        expired: Exceptions that counted once.
    """

    valid: tuple[Exemption, ...] = ()
    problems: tuple[str, ...] = ()
    expired: tuple[Exemption, ...] = ()

    def covers(self, rule: str, stack: str, resource: Resource | None) -> bool:
        """Whether a violation of a rule is exempt."""
        return any(_is_for(each, rule, stack, resource) for each in self.valid)

    def lapsed(self, rule: str, stack: str, resource: Resource | None) -> str:
        """Return what to add to a violation that was exempt once; empty if it was not."""
        for each in self.expired:
            if _is_for(each, rule, stack, resource):
                return f" {each.title} ended on {each.expires}."
        return ""

    def unused(self, stack: str, resources: Iterable[Resource]) -> Iterator[Finding]:
        """Yield what is wrong with exceptions of a stack that are for nothing."""
        names = {WHOLE_STACK, *(resource.name for resource in resources)}
        for each in self.valid:
            if each.stack == stack and each.resource not in names:
                yield Finding(f"{each.title} is for nothing: the stack has no resource of this name. Remove it")


def _is_for(exemption: Exemption, rule: str, stack: str, resource: Resource | None) -> bool:
    name = resource.name if resource else WHOLE_STACK
    return (exemption.rule, exemption.stack, exemption.resource) == (rule, stack, name)


def load(path: Path, *, today: date, rules: Iterable[str]) -> Exemptions:
    """Return what a file says; what cannot be read of it is a problem, never an error.

    Args:
        path: A YAML file with the key ``exceptions``, a list of mappings with the keys `KEYS`.
        today: The day on which exceptions count or do not.
        rules: Names of all rules.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return Exemptions(problems=(f"{path}: no such file. Name one in {VARIABLE}, or unset it",))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return Exemptions(problems=(f"{path} cannot be read ({type(error).__name__}). Repair it",))
    entries = document.get("exceptions", []) if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or set(document) - {"exceptions"}:
        return Exemptions(problems=(f"{path} is not a list under the key exceptions alone. Write it so",))
    known = tuple(rules)
    valid, problems, expired = [], [], []
    for number, entry in enumerate(entries, start=1):
        wrong = list(_wrong(entry, known))
        if wrong:
            problems += [f"Exception {number} of {path.name}{_about(entry)} {each}" for each in wrong]
            continue
        exemption = Exemption(
            **{key: str(entry[key]).strip() for key in KEYS[:-1]}, expires=_day(entry["expires"]) or today
        )
        if exemption.expires < today:
            expired.append(exemption)
            problems.append(
                f"{exemption.title} ended on {exemption.expires}. Repair the resource and remove the exception, or "
                "give a new date and say why it still holds"
            )
        elif exemption.expires - today > LONGEST:
            problems.append(
                f"{exemption.title} would hold until {exemption.expires}. Give a date within {LONGEST.days} days: "
                "what holds for longer is a change of the rule"
            )
        else:
            valid.append(exemption)
    return Exemptions(valid=tuple(valid), problems=tuple(problems), expired=tuple(expired))


def _about(entry: Any) -> str:
    if not isinstance(entry, Mapping) or not entry.get("rule"):
        return ""
    return f" (from {entry['rule']} for {entry.get('resource') or '?'})"


def _wrong(entry: Any, rules: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        yield f"is not a mapping. Give it the keys {', '.join(KEYS)}"
        return
    for key in sorted(set(map(str, entry)) - set(KEYS)):
        yield f"has the unknown key {key}. There are {', '.join(KEYS)}"
    for key, ask in (
        ("rule", "Name the rule"),
        ("stack", "Name the stack"),
        ("resource", f"Give the logical name of the resource, or {WHOLE_STACK}"),
        ("reason", "Say why the resource need not hold to the rule"),
        ("expires", "Give the last day as YYYY-MM-DD"),
    ):
        if not str(entry.get(key) or "").strip():
            yield f"has no {key}. {ask}"
    if (rule := str(entry.get("rule") or "")) and rule not in rules:
        close = difflib.get_close_matches(rule, rules, n=1)
        yield f"names no rule. Use {f'{close[0]}, or ' if close else ''}a name of docs/cis.md"
    if entry.get("expires") and _day(entry["expires"]) is None:
        yield f"has expires={entry['expires']!r}, which is no day. Give the last day as YYYY-MM-DD"


def _day(value: Any) -> date | None:
    # YAML reads an unquoted day as a date already.
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None
