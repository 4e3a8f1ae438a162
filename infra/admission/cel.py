"""One rule of an admission policy, and the CEL it is written in. Pure; the rules themselves are elsewhere.

CEL in Kubernetes: https://kubernetes.io/docs/reference/using-api/cel/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from adk_gke_sandbox.contract import CONFIG_MAPS, JOBS, PODS

OWNER_NAME: Final = 'object.metadata.?ownerReferences[?0].?name.orValue("")'
"""Name of the object that a ConfigMap belongs to; a rule says that it is one, and a Job."""

VARIABLES: Final[Mapping[str, Mapping[str, str]]] = {
    PODS: {
        "metadata": "[object.metadata]",
        "spec": "object.spec",
        "container": "object.spec.containers[0]",
    },
    JOBS: {
        "execution": "object.metadata.name",
        "metadata": "[object.metadata, object.spec.template.metadata]",
        "spec": "object.spec.template.spec",
        "container": "object.spec.template.spec.containers[0]",
    },
    CONFIG_MAPS: {
        "execution": OWNER_NAME,
        "metadata": "[object.metadata]",
    },
}
"""What rules can name as ``variables.NAME``, by kind of object.

``spec`` is the pod's, or that of a Job's template: a pod is held to the very expressions that its template is.
``container`` is the only one: a rule refuses others. ``metadata`` is all metadata of the object, ``execution`` the
name of the execution that it says it is of.
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


def literal(value: Any) -> str:
    """Return a string, number, boolean or a tuple of them in CEL; JSON's escapes are CEL's, too."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def told(field: str) -> str:
    """Return the expression of a string that tells the value of an optional field such as ``a.?b``."""
    return f'{field}.optMap(v, string(v)).orValue("none")'


def listed(named: Mapping[str, str]) -> str:
    """Return the expression of a string that lists the names whose expression is true."""
    names = ", ".join(f"{test} ? {literal(name)} : {literal('')}" for name, test in named.items())
    return f'[{names}].filter(f, f != "").join(", ")'


def broken(items: str, holds: str, named: str) -> tuple[str, str]:
    """Return that something holds for each ``i`` of a list, and the names of those for which it does not."""
    return f"{items}.all(i, {holds})", f'{items}.filter(i, !({holds})).map(i, {named}).join(", ")'
