"""Checks of what the API server lets in: the policies, and what it answers to objects that break them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from adk_gke_sandbox.contract import JOBS, PODS, Contract, policy_name
from adk_gke_sandbox.preflight.trials import IMAGE_RULES, OWN
from adk_gke_sandbox.preflight.verdicts import Problem, Seen, Verdict, made_anew, stack_up

_ABSENT: Final = "does not exist"
_BY_DIGEST: Final = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")


def policies(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the stack's policies for pods and Jobs exist and are bound to the sandbox namespace."""
    labels = seen["sandbox_namespace"]["metadata"].get("labels") or {}
    problems = []
    for kind in (PODS, JOBS):
        name = policy_name(contract, kind)
        policy, binding = seen[f"{kind}_policy"], seen[f"{kind}_binding"]
        wrong = {
            "ValidatingAdmissionPolicy": _ABSENT if policy is None else _policy_wrong(policy["spec"]),
            "ValidatingAdmissionPolicyBinding": _ABSENT
            if binding is None
            else _binding_wrong(binding["spec"], name, labels),
        }
        problems += [
            Problem(
                object=f"{label} {name}",
                expected=f"refuses {kind} of {contract.namespace} that the contract does not describe",
                found=said,
                fix=f"Run {stack_up(contract)}" if said == _ABSENT else made_anew(contract, label, name),
            )
            for label, said in wrong.items()
            if said
        ]
    return Verdict(summary="policies for pods and jobs are bound", problems=tuple(problems))


def image(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the contract's image is named by digest and is one that the policies let in."""
    subject = f"image {contract.image}"
    if not _BY_DIGEST.fullmatch(contract.image):
        fix = f"`pulumi config set image NAME@sha256:DIGEST --stack {contract.stack}`, then `pulumi up`"
        problem = Problem(object=subject, expected="a name by digest, NAME@sha256:DIGEST", found="a tag", fix=fix)
        return Verdict(problems=(problem,))
    said = seen["job_trials"][OWN]
    if any(f"{rule}:" in said for rule in IMAGE_RULES):
        problem = Problem(object=subject, expected="let in by the policies", found=said, fix=_mismatch(contract))
        return Verdict(problems=(problem,))
    return Verdict(summary="by digest, and allowed")


def job_admitted(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the API server takes the executor's own Job."""
    said = seen["job_trials"][OWN]
    if not said:
        return Verdict(summary="the executor's own Job is let in (dry run)")
    problem = Problem(
        object=f"Job of the executor in {contract.namespace}",
        expected="let in",
        found=said,
        fix=_mismatch(contract),
    )
    return Verdict(problems=(problem,))


def jobs_refused(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the API server refuses every Job that breaks a rule, for that rule."""
    return _refused(contract, JOBS, seen["job_trials"])


def pods_refused(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the API server refuses every pod that breaks a rule, for that rule."""
    return _refused(contract, PODS, seen["pod_trials"])


def _refused(contract: Contract, kind: str, answers: Mapping[str, str]) -> Verdict:
    broken = {rule: said for rule, said in answers.items() if rule != OWN}
    problems = [
        Problem(
            object=f"ValidatingAdmissionPolicy {policy_name(contract, kind)}",
            expected=f"refuses {kind} that break the rule {rule}",
            found=f"refused, but with: {said}" if said else "let in (dry run)",
            fix="Use the release of this package that made the stack; if the policy was changed by hand, "
            + made_anew(contract, "validatingadmissionpolicy", policy_name(contract, kind)),
        )
        for rule, said in broken.items()
        if f" {rule}: " not in said
    ]
    return Verdict(summary=f"{len(broken)} that break a rule are refused (dry run)", problems=tuple(problems))


def _mismatch(contract: Contract) -> str:
    return (
        f"If that names a rule of the stack, contract and policies do not match: pull the contract with "
        f"`adk-gke-sandbox contract pull {contract.stack}`, or run {stack_up(contract)}"
    )


def _policy_wrong(spec: Mapping[str, Any]) -> str:
    constraints = spec.get("matchConstraints") or {}
    if spec.get("failurePolicy", "Fail") != "Fail":
        return f"failurePolicy is {spec['failurePolicy']}: what cannot be judged is let in"
    if not spec.get("validations"):
        return "has no rule"
    if any((constraints.get(key) or {}).values() for key in ("namespaceSelector", "objectSelector")) or constraints.get(
        "excludeResourceRules"
    ):
        return "matchConstraints leave objects out"
    return ""


def _binding_wrong(spec: Mapping[str, Any], policy: str, labels: Mapping[str, str]) -> str:
    matched = spec.get("matchResources") or {}
    if spec.get("policyName") != policy:
        return f"is for the policy {spec.get('policyName')}"
    if "Deny" not in (spec.get("validationActions") or []):
        return f"validationActions are {', '.join(spec.get('validationActions') or ['none'])}: nothing is refused"
    if not _selects(matched.get("namespaceSelector") or {}, labels):
        return "namespaceSelector does not select the namespace"
    if any((matched.get("objectSelector") or {}).values()) or any(
        matched.get(key) for key in ("resourceRules", "excludeResourceRules")
    ):
        return "matchResources leave objects out"
    return ""


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
    """

    def holds(item: Mapping[str, Any]) -> bool:
        key, values = item["key"], item.get("values") or []
        return {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[item["operator"]]

    equal = all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
    return equal and all(holds(item) for item in selector.get("matchExpressions") or [])
