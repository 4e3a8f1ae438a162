"""Checks of what a sandbox stands on: API server, contract, RuntimeClass, namespaces, ServiceAccounts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, CONTRACT_KEY, STACK_LABEL, Contract, parse
from adk_gke_sandbox.errors import ContractError
from adk_gke_sandbox.preflight.verdicts import Problem, Seen, Unreadable, Verdict, made_anew, stack_up

MIN_MINOR: Final = 30
"""The first release with ValidatingAdmissionPolicy v1
(https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/)."""

GVISOR_HANDLERS: Final = ("gvisor", "runsc")
"""What the handler of GKE's RuntimeClass is called, and that of gVisor's own documentation."""

_POD_SECURITY: Final = "pod-security.kubernetes.io/enforce"
_PINNED: Final = re.compile(r"v1\.\d+")


def api_server(_: Contract, seen: Seen) -> Verdict:
    """Judge that the API server answers, takes the credentials and is new enough."""
    subject, version, identity = f"API server {seen['server']}", seen["version"], seen["identity"]
    expected = f"answers, Kubernetes 1.{MIN_MINOR} or later"
    if isinstance(version, Unreadable):
        fix = "Check that the cluster runs, and name its kubeconfig and context by --kubeconfig and --context"
        return _one(subject, expected, version.message, fix)
    if (isinstance(identity, Unreadable) and not identity.forbidden) or identity == "system:anonymous":
        said = identity.message if isinstance(identity, Unreadable) else "no credentials reached it"
        return _one(subject, "accepts the credentials", said, "Log in again; for GKE: `gcloud auth login`")
    found = str(version.get("gitVersion") or "no version")
    match = re.match(r"v(\d+)\.(\d+)", found)
    if match is None or (int(match[1]), int(match[2])) < (1, MIN_MINOR):
        return _one(subject, expected, found, f"Upgrade the control plane to Kubernetes 1.{MIN_MINOR} or later")
    return Verdict(summary=f"{found} at {seen['server']}")


def mounted_contract(contract: Contract, seen: Seen) -> Verdict:
    """Judge that agents mount the contract that is checked; where the API server is may be written otherwise."""
    subject = f"ConfigMap {contract.agents_namespace}/{CONTRACT_CONFIG_MAP}"
    expected = "the contract that is checked"
    pull = f"Pull the stack's contract with `adk-gke-sandbox contract pull {contract.stack}`"
    anew = made_anew(contract, "configmap", CONTRACT_CONFIG_MAP, contract.agents_namespace)
    if seen["mounted_contract"] is None:
        return _one(subject, expected, "no such ConfigMap", f"Run {stack_up(contract)}")
    try:
        mounted = parse((seen["mounted_contract"].get("data") or {}).get(CONTRACT_KEY, ""), source=subject)
    except ContractError as error:
        return _one(subject, expected, error.message, anew)
    here, there = (document.model_dump(mode="json", exclude={"cluster"}) for document in (contract, mounted))
    different = [f"{key} is {there[key]!r}, checked is {here[key]!r}" for key in here if here[key] != there[key]]
    if different:
        return _one(subject, expected, "; ".join(different), f"{pull}; if the ConfigMap was changed by hand, {anew}")
    return Verdict(summary="agents mount the contract that is checked")


def runtime_class(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the contract's RuntimeClass exists and is gVisor's."""
    subject, found = f"RuntimeClass {contract.runtime_class}", seen["runtime_class"]
    expected = f"exists, with the handler {' or '.join(GVISOR_HANDLERS)}"
    if found is None:
        return _one(
            subject,
            expected,
            "no such RuntimeClass",
            "GKE makes `gvisor` with the first node pool that has GKE Sandbox; elsewhere install gVisor and make it. "
            "If the contract has the wrong name, correct runtime_class in the stack",
        )
    handler = str(found.get("handler"))
    if not handler.startswith(GVISOR_HANDLERS):
        fix = "Name gVisor's RuntimeClass in the stack: with this one a program shares the kernel of its node"
        return _one(subject, expected, f"handler {handler}", fix)
    return Verdict(summary=f"{contract.runtime_class}, handler {handler}")


def namespaces(contract: Contract, seen: Seen) -> Verdict:
    """Judge that both namespaces exist, are this stack's and are not being deleted."""
    problems = []
    for name, found in _both(contract, seen):
        subject, expected = f"Namespace {name}", f"exists, of the stack {contract.stack}"
        if found is None:
            fix = f"Run {stack_up(contract)}; if the contract is of another cluster, name that by --context"
            problems.append(Problem(object=subject, expected=expected, found="no such namespace", fix=fix))
        elif found["metadata"].get("deletionTimestamp"):
            fix = f"Wait until it is gone, then run {stack_up(contract)}"
            problems.append(Problem(object=subject, expected=expected, found="being deleted", fix=fix))
        elif (stack := _labels(found).get(STACK_LABEL)) != contract.stack:
            problems.append(
                Problem(
                    object=subject,
                    expected=f"label {STACK_LABEL}={contract.stack}",
                    found=f"{STACK_LABEL}={stack}" if stack else "no such label",
                    fix="Pull the contract of that stack, or name the cluster of this one by --context"
                    if stack
                    else f"Run {stack_up(contract)}",
                )
            )
    return Verdict(summary=f"{contract.namespace} and {contract.agents_namespace}", problems=tuple(problems))


def pod_security(contract: Contract, seen: Seen) -> Verdict:
    """Judge that both namespaces enforce a Pod Security Standard of a fixed version."""
    allowed = {contract.namespace: ("restricted",), contract.agents_namespace: ("baseline", "restricted")}
    problems, summary = [], []
    for name, found in _both(contract, seen):
        labels = _labels(found)
        level, version = labels.get(_POD_SECURITY), labels.get(f"{_POD_SECURITY}-version")
        summary.append(f"{name}: {level} {version}")
        if level not in allowed[name]:
            label = f"{_POD_SECURITY}={allowed[name][0]}"
            problems.append(_label(name, label, level, f"`kubectl label --overwrite namespace {name} {label}`"))
        if not _PINNED.fullmatch(version or ""):
            # Which version is a setting of the stack.
            label = f"{_POD_SECURITY}-version"
            remove = f"`kubectl label namespace {name} {label}-`, then " if version else "Run "
            problems.append(_label(name, f"{label}=v1.MINOR", version, remove + stack_up(contract)))
    return Verdict(summary=", ".join(summary), problems=tuple(problems))


def service_accounts(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the agents' and the sandboxes' ServiceAccount exist."""
    accounts = {
        f"{contract.agents_namespace}/{contract.agent_service_account}": seen["agent_account"],
        f"{contract.namespace}/{contract.sandbox_service_account}": seen["sandbox_account"],
    }
    problems = [
        Problem(
            object=f"ServiceAccount {name}",
            expected="exists",
            found="no such ServiceAccount",
            fix=f"Run {stack_up(contract)}",
        )
        for name, found in accounts.items()
        if found is None
    ]
    return Verdict(summary=" and ".join(accounts), problems=tuple(problems))


def tokens(contract: Contract, seen: Seen) -> Verdict:
    """Judge that no ServiceAccount of the sandbox namespace that a pod could run under mounts a token."""
    problems = []
    for name, key in ((contract.sandbox_service_account, "sandbox_account"), ("default", "default_account")):
        found = (seen[key] or {}).get("automountServiceAccountToken")
        if found is not False:
            patch = f"kubectl patch serviceaccount -n {contract.namespace} {name}"
            problems.append(
                Problem(
                    object=f"ServiceAccount {contract.namespace}/{name}",
                    expected="automountServiceAccountToken: false",
                    found=f"automountServiceAccountToken: {'not set' if found is None else str(found).lower()}",
                    fix=f"`{patch} -p '{{\"automountServiceAccountToken\": false}}'`",
                )
            )
    return Verdict(summary="no ServiceAccount of sandboxes mounts a token", problems=tuple(problems))


def _both(contract: Contract, seen: Seen) -> tuple[tuple[str, Mapping[str, Any] | None], ...]:
    return (
        (contract.namespace, seen["sandbox_namespace"]),
        (contract.agents_namespace, seen["agents_namespace"]),
    )


def _labels(found: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((found or {}).get("metadata") or {}).get("labels") or {}


def _label(namespace: str, expected: str, found: str | None, fix: str) -> Problem:
    key = expected.partition("=")[0]
    return Problem(
        object=f"Namespace {namespace}",
        expected=f"label {expected}",
        found=f"{key}={found}" if found else "no such label",
        fix=fix,
    )


def _one(subject: str, expected: str, found: str, fix: str) -> Verdict:
    return Verdict(problems=(Problem(object=subject, expected=expected, found=found, fix=fix),))
