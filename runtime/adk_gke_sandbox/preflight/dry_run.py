"""What the API server lets in: it is offered the executor's own Job, and Jobs and pods that break one rule each.

What a policy says is one thing, what the API server does with an object another. The offers are dry runs: nothing is
stored. The rules have the names that the stack's admission policies give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from adk_gke_sandbox.cluster.manifests import REQUEST_KEY, Manifest, job
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import JOBS, PODS, policy_name
from adk_gke_sandbox.errors import ClusterError, Forbidden
from adk_gke_sandbox.preflight.checks import Findings, Problem, check, delete_object, stack_up
from adk_gke_sandbox.preflight.reached import CheckedCluster

_AT_ONCE: Final = 8
_NAME: Final = "sandbox-preflight"
_OTHER_IMAGE: Final = f"registry.invalid/elsewhere/image@sha256:{'0' * 64}"
_TOO_LONG_SECONDS: Final = 10_000_000
_TOO_MUCH: Final = "1Pi"


_BREAK: Final[Mapping[str, Callable[[Manifest, Manifest], object]]] = {
    "runtime-class": lambda spec, _: spec.pop("runtimeClassName"),
    "host-namespaces": lambda spec, _: spec.update(hostNetwork=True),
    "dns-policy": lambda spec, _: spec.update(dnsPolicy="Default", dnsConfig={}),
    "token": lambda spec, _: spec.update(automountServiceAccountToken=True),
    "service-account": lambda spec, _: spec.update(serviceAccountName=_NAME),
    "volumes": lambda spec, _: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "privilege-escalation": lambda _, container: container["securityContext"].update(allowPrivilegeEscalation=True),
    "non-root": lambda spec, _: spec["securityContext"].update(runAsNonRoot=False),
    "read-only-root": lambda _, container: container["securityContext"].update(readOnlyRootFilesystem=False),
    "limits": lambda _, container: container.pop("resources"),
    "memory-ceiling": lambda _, container: container["resources"]["limits"].update(memory=_TOO_MUCH),
    "image-digest": lambda _, container: container.update(image=f"{container['image'].partition('@')[0]}:latest"),
    "image-registry": lambda _, container: container.update(image=_OTHER_IMAGE),
}
"""For each rule, what makes a pod's spec, or its container, break it."""

_POD_RULES: Final = ("runtime-class", "dns-policy", "image-digest", "image-registry")
"""Of these only the policy for pods knows; the rest other parts of the API server may refuse first."""


def own_job(config: ExecutorConfig) -> Manifest:
    """Return a Job as the executor makes it."""
    return job(config, _NAME, [{REQUEST_KEY: ""}])


def _break(rule: str, spec: Manifest) -> None:
    _BREAK[rule](spec, spec["containers"][0])


def wrong_jobs(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return for each rule a Job that breaks this rule alone."""
    found = {rule: own_job(config) for rule in (*_BREAK, "deadline")}
    for rule in _BREAK:
        _break(rule, found[rule]["spec"]["template"]["spec"])
    found["deadline"]["spec"]["activeDeadlineSeconds"] = _TOO_LONG_SECONDS
    return found


def wrong_pods(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return for each rule that is looked at a pod that breaks this rule alone."""
    found = {}
    for rule in _POD_RULES:
        template = own_job(config)["spec"]["template"]
        _break(rule, template["spec"])
        template["metadata"].update(name=_NAME, namespace=config.namespace)
        found[rule] = {"apiVersion": "v1", "kind": "Pod", **template}
    return found


@check("namespaces", permission="create jobs.batch")
def job_admitted(cluster: CheckedCluster) -> Findings:
    """The API server lets the executor's own Job in (dry run)."""
    contract, said = cluster.contract, _refusal(cluster, JOBS, own_job(cluster.config))
    fix = (
        "Do what the message says. If it names a rule of the stack, contract and policies do not match: pull the "
        f"contract with `adk-gke-sandbox contract pull {contract.stack}`, or run {stack_up(contract)}"
    )
    problems = [Problem(f"Job of the executor in {contract.namespace}", "let in", said, fix)] if said else []
    return "the executor's own Job is let in (dry run)", problems


@check("job-admitted", permission="create jobs.batch")
def jobs_refused(cluster: CheckedCluster) -> Findings:
    """It refuses Jobs that break one rule each, for that rule (dry run)."""
    return _refused(cluster, JOBS, wrong_jobs(cluster.config))


@check("job-admitted", permission="create pods")
def pods_refused(cluster: CheckedCluster) -> Findings:
    """It refuses pods that break one rule each, for that rule (dry run)."""
    return _refused(cluster, PODS, wrong_pods(cluster.config))


CHECKS: Final = (job_admitted, jobs_refused, pods_refused)


def _refused(cluster: CheckedCluster, kind: str, offers: Mapping[str, Manifest]) -> Findings:
    contract, name = cluster.contract, policy_name(cluster.contract, kind)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        said = dict(zip(offers, pool.map(lambda offer: _refusal(cluster, kind, offer), offers.values()), strict=True))
    subject, problems = f"ValidatingAdmissionPolicy {name}", []
    release = "use the release of this package that made the stack"
    if let_in := [rule for rule in offers if not said[rule]]:
        # The policy or its binding is gone or was changed.
        anew = " and ".join(delete_object(f"ValidatingAdmissionPolicy{part}", name) for part in ("", "Binding"))
        fix = f"{anew}, then {stack_up(contract)}; if that does not help, {release}"
        expected = f"refuses {kind} of {contract.namespace} that the contract does not describe"
        problems.append(Problem(subject, expected, f"lets in what breaks {', '.join(let_in)} (dry run)", fix))
    problems += [
        Problem(
            subject,
            f"refuses {kind} that break {rule}",
            f"refused, but with: {text}",
            f"Do what that says, or {release}",
        )
        for rule, text in said.items()
        if text and f" {rule}: " not in text
    ]
    return f"{len(offers)} that break a rule are refused (dry run)", problems


def _refusal(cluster: CheckedCluster, kind: str, manifest: Manifest) -> str:
    """Return the API server's refusal of an object, empty where it would take it.

    Raises:
        ClusterError: it did not judge the object: no answer, or the caller may not create any.
    """
    try:
        cluster.create(manifest["apiVersion"], kind, manifest, namespace=cluster.contract.namespace, dry_run=True)
    except ClusterError as error:
        not_permitted = isinstance(error, Forbidden) and f'cannot create resource "{kind}"' in error.message
        if not_permitted or error.status is None or error.status in (401, 429) or error.status >= 500:
            raise
        return error.message
    return ""
