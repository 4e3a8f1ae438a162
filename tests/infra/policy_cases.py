"""How each rule of the policy pack is broken, and what it says then: reads ``policy_cases.yaml``.

* ``types``: short names of types of resources. A resource is named by its type, short or a token, and its logical name;
  without a name it is the first of its type.
* ``guests``: good resources of kinds that the program does not have and somebody may add.
* ``cases``: of each rule, changes of one resource (``of``) that break it. A change sets inputs by their paths, adds the
  resource where there is none, or removes it (``(gone)``; of an input, leaves it out); ``changes`` are as many cases.
  ``says`` is what is wrong, in the words of the rule, and ``also`` which other rules are broken.
* ``programs``: changes of several resources, and what the rules say that refuse them.
* ``NODES``: the account of the program's nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

GONE: Final = "(gone)"
"""Instead of a value: the input is left out."""

NODES: Final = "NODES"

_DOCUMENT: Final = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def token(type_: str) -> str:
    """Return the token of a type."""
    return str(_DOCUMENT["types"].get(type_, type_))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one resource.

    Attributes:
        type: Type token.
        name: Logical name; empty is the first one of the type.
        inputs: Path -> value; ``GONE`` removes the resource.
    """

    type: str
    name: str = ""
    inputs: Mapping[str, Any] | str

    @classmethod
    def of(cls, resource: str, inputs: Mapping[str, Any] | str) -> Change:
        """Return the change of a resource such as ``POOL sandbox-gvisor-pool``."""
        type_, _, name = resource.partition(" ")
        return cls(type=token(type_), name=name, inputs=inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One broken program.

    Attributes:
        title: What it is.
        changes: What is changed.
        refused: By the rules that it breaks, what they say at the least.
    """

    title: str
    changes: tuple[Change, ...]
    refused: Mapping[str, str]


def _cases() -> Iterator[Case]:
    for rule, cases in _DOCUMENT["cases"].items():
        for number, case in enumerate(cases):
            refused = {rule: case["says"], **dict.fromkeys(case.get("also", ()), "")}
            for part, inputs in enumerate(case.get("changes") or [case["change"]]):
                change = Change.of(case["of"], inputs)
                yield Case(title=f"{rule}-{number}-{part}", changes=(change,), refused=refused)
    for title, program in _DOCUMENT["programs"].items():
        changes = tuple(Change.of(resource, inputs) for resource, inputs in program["changes"].items())
        yield Case(title=title, changes=changes, refused=program["refused"])


CASES: Final = tuple(_cases())
GUESTS: Final = tuple(Change.of(resource, inputs) for resource, inputs in _DOCUMENT["guests"].items())
