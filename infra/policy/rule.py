"""What a rule is: data, and small functions that read a resource's inputs and say what is wrong with them. Pure.

Which rules there are is in ``rules`` and the modules that it names; how Pulumi runs them is in ``pack``. Inputs
are read as the engine hands them over, with the provider's own names (``enableShieldedNodes``). What a preview
cannot know raises `UnknownValueError`: not known is never taken for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pulumi_policy import Severity
from pulumi_policy.proxy import UnknownValueError

BENCHMARK: Final = "CIS Google Kubernetes Engine (GKE) Benchmark"
BENCHMARK_VERSION: Final = "1.9.0"

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource of a stack.

    Attributes:
        type: Type token, such as ``gcp:container/cluster:Cluster``.
        name: Logical name in the program.
        urn: Its URN; the stack's name is a part of it.
        inputs: What the program asks for, with the provider's defaults.
        uses: By input, the URNs of the resources that its value comes from; only a `StackRule` is told.
    """

    type: str
    name: str
    urn: str
    inputs: Inputs
    uses: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The last part of the type; for Kubernetes it is the object's kind, or that of what is patched."""
        kind = self.type.rsplit(":", 1)[-1]
        return kind.removesuffix("Patch") if self.type.startswith("kubernetes:") else kind

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.urn.split("::", 1)[0].rsplit(":", 1)[-1]


Check = Callable[[Resource], Iterator[str]]
"""Yields what is wrong with a resource: sentences without their full stops."""


class Finding(NamedTuple):
    """What is wrong with a stack.

    Attributes:
        message: A sentence without its full stop.
        resource: The resource to blame; ``None`` is the stack.
    """

    message: str
    resource: Resource | None = None


Survey = Callable[[Sequence[Resource]], Iterator[Finding]]
"""Yields what is wrong with all resources of a stack together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that must hold.

    Attributes:
        name: Short name in the engine's output, in exceptions and in the documentation.
        title: What must hold; a sentence without its full stop.
        cis: Ids in the CIS GKE Benchmark; none for a rule from elsewhere.
        severity: How bad a violation is.
        remedy: What to do; a sentence without its full stop.
        url: Where to read more.
        advisory: Whether a violation is told and stops nothing.
    """

    name: str
    title: str
    cis: tuple[str, ...] = ()
    severity: Severity = Severity.HIGH
    remedy: str
    url: str
    advisory: bool = False

    @property
    def description(self) -> str:
        """The title with the ids; the first line of every violation."""
        return f"{self.title} (CIS GKE {BENCHMARK_VERSION}: {', '.join(self.cis)})" if self.cis else self.title

    def text(self, wrong: str) -> str:
        """Return the second line of a violation."""
        return f"{wrong}. {self.remedy}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule(Rule):
    """A rule that one resource alone can break.

    Attributes:
        types: Types that are held to it; ``kubernetes:KIND`` is that kind in any version of its API. None is all.
        checks: What is looked at, each by itself.
        applies: Whether a resource of these types is held to it.
    """

    types: tuple[str, ...] = ()
    checks: tuple[Check, ...]
    applies: Callable[[Resource], bool] = lambda _: True

    def concerns(self, resource: Resource) -> bool:
        """Whether a resource is held to the rule."""
        token = f"kubernetes:{resource.kind}" if resource.type.startswith("kubernetes:") else resource.type
        return (not self.types or token in self.types) and self.applies(resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRule(Rule):
    """A rule that takes more than one resource to judge.

    Attributes:
        survey: Looks at all resources.
    """

    survey: Survey


def violations(rule: ResourceRule, resource: Resource) -> Iterator[str]:
    """Yield the text of each violation of a rule.

    Raises:
        UnknownValueError: last of all, where something could not be told.
    """
    unknown: UnknownValueError | None = None
    if not rule.concerns(resource):
        return
    for check in rule.checks:
        try:
            yield from map(rule.text, check(resource))
        except UnknownValueError as error:
            unknown = unknown or error
    if unknown:
        raise unknown


def at(inputs: Inputs, path: str) -> Any:
    """Return the input at a path such as ``nodePools.0.nodeConfig``; ``None`` where there is none.

    Raises:
        UnknownValueError: a preview cannot know it.
    """
    value: Any = inputs
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and key.isdigit():
            value = value[int(key)]
        else:
            return None
    return value


def present(inputs: Inputs, path: str) -> bool:
    """Whether there is an input at a path, known or not."""
    try:
        return at(inputs, path) not in (None, "")
    except UnknownValueError:
        return True


def items(inputs: Inputs, path: str) -> list[Any]:
    """Return the list at a path; empty where there is none."""
    return list(at(inputs, path) or ())


def shown(value: Any) -> str:
    """Return a value as a person would write it."""
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(shown, value)) or "empty"
    return str(value)


def wants(path: str, *values: object, absent: bool = False) -> Check:
    """Return the check that an input has one of some values.

    Args:
        path: Where the input is.
        values: What it may be.
        absent: Whether it may be left out, because GKE then does the same.
    """

    def check(resource: Resource) -> Iterator[str]:
        found = at(resource.inputs, path)
        if found not in values and not (absent and found is None):
            yield f"{path} is {shown(found)}, not {' or '.join(map(shown, values))}"

    return check


def wants_all(path: str, *values: str) -> Check:
    """Return the check that a list has some values, and maybe others."""

    def check(resource: Resource) -> Iterator[str]:
        if missing := [value for value in values if value not in items(resource.inputs, path)]:
            yield f"{path} is without {', '.join(missing)}"

    return check


def wants_some(path: str) -> Check:
    """Return the check that an input is set, to whatever."""

    def check(resource: Resource) -> Iterator[str]:
        if not present(resource.inputs, path):
            yield f"{path} is not set"

    return check


def refuses(path: str, *values: object) -> Check:
    """Return the check that an input has none of some values."""

    def check(resource: Resource) -> Iterator[str]:
        found = at(resource.inputs, path)
        if found in values:
            yield f"{path} is {shown(found)}"

    return check
