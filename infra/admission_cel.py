"""One rule of an admission policy, and the CEL it is written in. Pure; the rules themselves are elsewhere.

CEL in Kubernetes: https://kubernetes.io/docs/reference/using-api/cel/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adk_gke_sandbox.contract import JOBS, PODS

_CONTAINERS: Final = "variables.spec.containers + variables.spec.?initContainers.orValue([])"
VARIABLES: Final[Mapping[str, Mapping[str, str]]] = {
    PODS: {
        "spec": "object.spec",
        "containers": _CONTAINERS,
        "labels": "[object.metadata.?labels.orValue({})]",
    },
    JOBS: {
        "spec": "object.spec.template.spec",
        "containers": _CONTAINERS,
        "labels": "[object.metadata.?labels.orValue({}), object.spec.template.?metadata.?labels.orValue({})]",
    },
}
"""What rules can name as ``variables.NAME``, by kind of object.

``spec`` is the pod's, or that of a Job's template: most rules are the same for both. ``labels`` are all sets
of labels.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that must hold.

    Attributes:
        id: Short name; the first word of the message.
        refuses: What is wrong where the rule does not hold; a sentence without its full stop.
        fix: What to do; a sentence without its full stop.
        holds: CEL expression, true where nothing is wrong.
        found: CEL expression of a string: what the object has instead.
        on: Kinds of objects that are held to it.
    """

    id: str
    refuses: str
    fix: str
    holds: str
    found: str
    on: tuple[str, ...] = (PODS, JOBS)

    @property
    def message(self) -> str:
        """The message where ``found`` cannot be told."""
        return f"{self.id}: {self.refuses}. {self.fix}"

    @property
    def message_expression(self) -> str:
        """CEL expression of the message."""
        return f"{literal(f'{self.id}: {self.refuses}; found: ')} + ({self.found}) + {literal(f'. {self.fix}')}"


def literal(value: str | tuple[str, ...]) -> str:
    """Return a string or a list of strings in CEL; JSON's escapes are CEL's, too."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def each(*, id: str, refuses: str, fix: str, holds: str, found: str = "c.name") -> Rule:  # noqa: A002 - Rule's word
    """Return a rule for every container ``c``; what is found is ``found`` of those that break it."""
    return Rule(
        id=id,
        refuses=refuses,
        fix=fix,
        holds=f"variables.containers.all(c, {holds})",
        found=f'variables.containers.filter(c, !({holds})).map(c, {found}).join(", ")',
    )


def unset(
    *fields: str,
    id: str,  # noqa: A002 - Rule's word
    refuses: str,
    fix: str = "",
    of: str = "variables.spec",
    on: tuple[str, ...] = (PODS, JOBS),
) -> Rule:
    """Return a rule that none of the fields of an object is there; what is found are those that are."""
    return _none({field: f"{of}.?{field}.hasValue()" for field in fields}, id=id, refuses=refuses, fix=fix, on=on)


def untrue(
    *fields: str,
    id: str,  # noqa: A002 - Rule's word
    refuses: str,
    fix: str = "",
    of: str = "variables.spec",
    on: tuple[str, ...] = (PODS, JOBS),
) -> Rule:
    """Return a rule that none of the boolean fields of an object is true; what is found are those that are."""
    return _none({field: f"{of}.?{field}.orValue(false)" for field in fields}, id=id, refuses=refuses, fix=fix, on=on)


def _none(given: Mapping[str, str], *, id: str, refuses: str, fix: str, on: tuple[str, ...]) -> Rule:  # noqa: A002
    names = ", ".join(f'{test} ? "{field}" : ""' for field, test in given.items())
    return Rule(
        id=id,
        refuses=refuses,
        fix=fix or f"Remove {' and '.join(given)}",
        holds=" && ".join(f"!{test}" for test in given.values()),
        found=f'[{names}].filter(f, f != "").join(", ")',
        on=on,
    )
