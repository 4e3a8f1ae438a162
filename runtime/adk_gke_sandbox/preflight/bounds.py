"""Checks of what holds a sandbox in: quota, LimitRange, NetworkPolicies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from adk_gke_sandbox.cluster.manifests import CONFIG_MAPS_MAX
from adk_gke_sandbox.config import EPHEMERAL_STORAGE, quantity
from adk_gke_sandbox.contract import DENY_ALL_POLICY, Contract
from adk_gke_sandbox.preflight.verdicts import Problem, Seen, Verdict, made_anew, stack_up

_ALIASES: Final = {"cpu": "requests.cpu", "memory": "requests.memory", "configmaps": "count/configmaps"}
"""Two names of one thing (https://kubernetes.io/docs/concepts/policy/resource-quotas/#compute-resource-quota)."""

_BOUNDED: Final = ("pods", "count/jobs.batch", "limits.cpu", "limits.memory")
"""Without a bound on these one agent can use up the pool."""

_NONE: Final = ("count/secrets", "count/services", "count/persistentvolumeclaims")
"""Nothing of the kind has a place beside programs that nobody trusts."""


def quota(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the namespace is bounded, and that one execution at its ceilings fits in."""
    hard = _hard(seen["quotas"])
    problems = [
        Problem(
            object=f"ResourceQuota of {contract.namespace}",
            expected=f"a bound on {key}",
            found=f"none on {key}",
            fix=f"Run {stack_up(contract)}",
        )
        for key in (*_BOUNDED, *_NONE)
        if key not in hard
    ]
    for key, (text, name) in sorted(hard.items()):
        least = _demand(contract).get(key, "0")
        expected = ""
        if _amount(text) < _amount(least):
            expected = f"{key} of {least} or more, for one execution at its ceilings"
        elif key in _NONE and text != "0":
            expected = f"{key} of 0"
        if expected:
            fix = made_anew(contract, "resourcequota", name, contract.namespace)
            if setting := _SETTINGS.get(key):
                fix += f"; if it stays so, raise it with `pulumi config set {setting} ... --stack {contract.stack}`"
            problems.append(
                Problem(
                    object=f"ResourceQuota {contract.namespace}/{name}",
                    expected=expected,
                    found=f"{key} {text}",
                    fix=fix,
                )
            )
    bounds = {key: text for key, (text, _) in hard.items()}
    return Verdict(
        summary=f"{bounds.get('pods')} pods, {bounds.get('limits.cpu')} CPU, {bounds.get('limits.memory')}",
        problems=tuple(problems),
    )


def limit_range(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the API server holds a container to the contract's ceilings."""
    ceilings = {"cpu": contract.ceilings.cpu, "memory": contract.ceilings.memory}
    most: dict[str, tuple[str, str]] = {}
    for found in seen["limit_ranges"]:
        for item in (found.get("spec") or {}).get("limits") or []:
            if item.get("type") in ("Container", "Pod"):
                _tighten(most, item.get("max") or {}, found["metadata"]["name"])
    problems = []
    for resource, ceiling in ceilings.items():
        text, name = most.get(resource, ("", ""))
        if not text or _amount(text) != _amount(ceiling):
            problems.append(
                Problem(
                    object=f"LimitRange {contract.namespace}/{name}" if name else f"LimitRange of {contract.namespace}",
                    expected=f"max {resource} {ceiling}, the contract's ceiling",
                    found=f"max {resource} {text}" if text else f"no max {resource}",
                    fix=made_anew(contract, "limitrange", name, contract.namespace)
                    if name
                    else f"Run {stack_up(contract)}",
                )
            )
    return Verdict(summary=f"at most {ceilings['cpu']} CPU, {ceilings['memory']}", problems=tuple(problems))


def network_policies(contract: Contract, seen: Seen) -> Verdict:
    """Judge that nothing goes into or out of a sandbox, and that agents' traffic is closed by default."""
    problems = []
    for namespace, found in (
        (contract.namespace, seen["network_policies"]),
        (contract.agents_namespace, seen["agents_network_policies"]),
    ):
        if not any(_denies_all(policy) for policy in found):
            names = sorted(policy["metadata"]["name"] for policy in found)
            problems.append(
                Problem(
                    object=f"NetworkPolicy of {namespace}",
                    expected="one that selects every pod and allows nothing, in or out",
                    found=f"none of {', '.join(names)}" if names else "no NetworkPolicy",
                    fix=made_anew(contract, "networkpolicy", DENY_ALL_POLICY, namespace)
                    if DENY_ALL_POLICY in names
                    else f"Run {stack_up(contract)}",
                )
            )
    for policy in seen["network_policies"]:
        spec = policy.get("spec") or {}
        opened = [way for way in ("ingress", "egress") if spec.get(way)]
        # Which names or networks are allowed is the stack's to say; no mode lets anybody in.
        if opened and (contract.egress == "none" or "ingress" in opened):
            name = policy["metadata"]["name"]
            problems.append(
                Problem(
                    object=f"NetworkPolicy {contract.namespace}/{name}",
                    expected=f"nothing that opens what is closed: the contract's egress is {contract.egress}",
                    found=f"allows {' and '.join(opened)}; policies add up",
                    fix=made_anew(contract, "networkpolicy", name, contract.namespace),
                )
            )
    return Verdict(summary="everything is denied by default", problems=tuple(problems))


_SETTINGS: Final = {
    "pods": "quotaPods",
    "count/jobs.batch": "quotaJobs",
    "count/configmaps": "quotaJobs",
    "count/pods": "quotaPods",
    "requests.cpu": "quotaCpu",
    "limits.cpu": "quotaCpu",
    "requests.memory": "quotaMemory",
    "limits.memory": "quotaMemory",
    "requests.ephemeral-storage": "quotaPods",
    "limits.ephemeral-storage": "quotaPods",
}
"""The stack's setting behind each bound."""


def _demand(contract: Contract) -> dict[str, str]:
    """Return what one execution at its ceilings counts for; `kube-root-ca.crt` is in every namespace."""
    resources, ceilings = contract.resources, contract.ceilings
    return {
        "pods": "1",
        "count/pods": "1",
        "count/jobs.batch": "1",
        "count/configmaps": str(CONFIG_MAPS_MAX + 1),
        "requests.cpu": resources.cpu_requested,
        "requests.memory": resources.mem_requested,
        "requests.ephemeral-storage": EPHEMERAL_STORAGE,
        "limits.cpu": ceilings.cpu,
        "limits.memory": ceilings.memory,
        "limits.ephemeral-storage": EPHEMERAL_STORAGE,
    }


def _hard(quotas: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return the tightest bound on each resource, and whose it is; a quota with a scope is for some pods only."""
    hard: dict[str, tuple[str, str]] = {}
    for found in quotas:
        spec = found.get("spec") or {}
        if not (spec.get("scopes") or spec.get("scopeSelector")):
            named = {_ALIASES.get(key, key): text for key, text in (spec.get("hard") or {}).items()}
            _tighten(hard, named, found["metadata"]["name"])
    return hard


def _tighten(bounds: dict[str, tuple[str, str]], more: Mapping[str, str], name: str) -> None:
    """Take over what is tighter in the object of a name."""
    for key, text in more.items():
        if key not in bounds or _amount(text) < _amount(bounds[key][0]):
            bounds[key] = (text, name)


def _amount(text: str) -> Decimal:
    return Decimal(0) if text == "0" else quantity(text, setting="the cluster's bound")


def _denies_all(policy: Mapping[str, Any]) -> bool:
    spec = policy.get("spec") or {}
    return (
        not any((spec.get("podSelector") or {}).values())
        and set(spec.get("policyTypes") or []) == {"Ingress", "Egress"}
        and not spec.get("ingress")
        and not spec.get("egress")
    )
