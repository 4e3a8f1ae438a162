"""The rule for admission policies: those of ``infra.admission``, unchanged, refuse in each namespace of sandboxes.

A policy can be there and refuse nothing: by an expression that is always true, a condition that never is, a variable
that means something else. So what it says is compared with what this repository writes; only values that a stack's
settings decide, such as a ceiling or a registry, are the program's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from pulumi_policy import Severity

from adk_gke_sandbox.contract import Ceilings, Contract, Toleration
from infra.admission.cel import VARIABLES
from infra.admission.rules import CONDITIONS, OBJECTS, rules
from infra.policy import objects
from infra.policy.rule import Finding, Resource, Rule, StackRule, at, items, shown

_DIGEST: Final = f"@sha256:{'0' * 64}"
_STACKS: Final = (
    Contract(stack="one", image=f"a/b/c{_DIGEST}"),
    Contract(
        stack="other",
        image=f"python{_DIGEST}",
        sandbox_service_account="other",
        ceilings=Ceilings(cpu="7", memory="7Gi", timeout_seconds=7),
        node_selector={"other": "7"},
        tolerations=(Toleration(key="other"),),
        egress="internet",
        secret_env=True,
    ),
)
"""Two stacks with nothing in common: where their policies differ, settings decide."""

_VALUE: Final = r'(?:"(?:[^"\\]|\\.)+"|\d+)'
_VALUES: Final = rf"\[{_VALUE}(?:, {_VALUE})*\]"
_LITERALS: Final = re.compile(rf'({_VALUES}|"(?:[^"\\]|\\.)*"|\b\d+\b)')
_TOLD: Final = 5
"""How many missing rules a message names."""

_AND_MORE: Final = r"(?: && [^|:]*)?"
"""Further terms, of which each refuses more: neither an alternative nor a choice."""


@cache
def _required() -> Mapping[str, Mapping[str, re.Pattern[str]]]:
    """Return, by kind of object and rule, what the expression of the rule looks like."""
    one, other = ({rule.id: rule for rule in rules(stack)} for stack in _STACKS)
    return MappingProxyType(
        {
            kind: {name: _pattern(rule.holds, other[name].holds) for name, rule in one.items() if kind in rule.on}
            for kind in OBJECTS
        }
    )


def _pattern(one: str, other: str) -> re.Pattern[str]:
    """Return what an expression looks like with values that differ between two stacks left open."""
    here, there = _LITERALS.split(one), _LITERALS.split(other)
    if here[::2] == there[::2]:
        return re.compile("".join(map(_open, here, there)))
    # The stacks' expressions have other terms: each is right, and with other lists in it.
    return re.compile("|".join("".join(_open(part, None) for part in each) + _AND_MORE for each in (here, there)))


def _open(part: str, other: str | None) -> str:
    if part == other or not _LITERALS.fullmatch(part):
        return re.escape(part)
    if part.startswith("["):
        return _VALUES
    return _VALUE if other is not None else re.escape(part)


def _is_not_admission_controlled(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    bindings = list(objects.of(resources, "ValidatingAdmissionPolicyBinding"))
    bound = [
        policy
        for policy in objects.of(resources, "ValidatingAdmissionPolicy")
        if any(_binds(binding, policy, namespace) for binding in bindings)
    ]
    free: list[str] = []
    for kind, (group, names) in OBJECTS.items():
        looking = [policy for policy in bound if _looks_at(policy, kind, group, names)]
        held = {each["expression"] for policy in looking for each in items(policy.inputs, "spec.validations")}
        missing = [rule for rule, pattern in _required()[kind].items() if not any(map(pattern.fullmatch, held))]
        if not looking:
            free += names
        elif missing:
            more = f" and {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
            yield Finding(
                f"the policy of namespace {namespace} for {kind} is without the rules {shown(missing[:_TOLD])}{more}"
            )
    if free:
        yield Finding(f"no policy that fails closed and denies is bound to namespace {namespace} for {shown(free)}")


def _binds(binding: Resource, policy: Resource, namespace: str) -> bool:
    """Whether a binding makes the API server refuse what a policy refuses, for every object of a namespace."""
    spec = at(binding.inputs, "spec") or {}
    selector = at(spec, "matchResources.namespaceSelector") or {}
    labels = {"kubernetes.io/metadata.name": namespace}
    return (
        at(spec, "policyName") == objects.name(policy)
        and "Deny" in items(spec, "validationActions")
        and at(spec, "paramRef") is None
        and all(labels.get(key) == value for key, value in (at(selector, "matchLabels") or {}).items())
        and not items(selector, "matchExpressions")
        and _narrows_nothing(at(spec, "matchResources") or {})
        and not items(spec, "matchResources.resourceRules")
    )


def _narrows_nothing(match: Mapping[str, Any]) -> bool:
    return not (at(match, "objectSelector") or items(match, "excludeResourceRules"))


def _looks_at(policy: Resource, kind: str, group: str, names: Sequence[str]) -> bool:
    """Whether a policy is asked about every creation and change of a kind of objects, and decides as ours does."""
    spec = at(policy.inputs, "spec") or {}
    match = at(spec, "matchConstraints") or {}
    given = {each["name"]: each["expression"] for each in items(spec, "variables")}
    return (
        # Left out, Kubernetes fails closed.
        at(spec, "failurePolicy") in (None, "Fail")
        and at(spec, "paramKind") is None
        and _narrows_nothing(match)
        and not at(match, "namespaceSelector")
        and all(any(_covers(rule, group, name) for rule in items(match, "resourceRules")) for name in names)
        and all(each["expression"] in CONDITIONS[kind].values() for each in items(spec, "matchConditions"))
        and all(given.get(name) == expression for name, expression in VARIABLES[kind].items())
    )


def _covers(rule: Mapping[str, Any], group: str, name: str) -> bool:
    wanted = {"apiGroups": {group}, "apiVersions": {"v1"}, "operations": {"CREATE", "UPDATE"}, "resources": {name}}
    return (
        all("*" in items(rule, field) or want <= set(items(rule, field)) for field, want in wanted.items())
        and not items(rule, "resourceNames")
        and at(rule, "scope") in (None, "*", "Namespaced")
    )


RULES: Final[tuple[Rule, ...]] = (
    StackRule(
        name="sandbox-admission",
        title="The API server refuses sandboxes that the contract does not describe",
        cis=("4.5.1", "4.6.2", "4.6.3", "5.1.4", "5.10.3"),
        severity=Severity.CRITICAL,
        remedy="Bind the policies of infra/admission, with their rules, conditions and variables as they are, to the "
        "namespace, with validationActions Deny and failurePolicy Fail",
        url="https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/",
        survey=objects.of_each_sandbox_namespace(_is_not_admission_controlled),
    ),
)
