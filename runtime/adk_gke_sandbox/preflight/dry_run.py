"""What the API server lets in: it is offered the executor's own Job, and Jobs and pods that break one rule each.

What a policy says is one thing, what the API server does with an object another. The offers are dry runs: nothing is
stored. The rules have the names that the stack's admission policies give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from adk_gke_sandbox.cluster.manifests import REQUEST_KEY, Manifest, job
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import JOBS, PODS, policy_name
from adk_gke_sandbox.errors import ClusterError, Forbidden
from adk_gke_sandbox.preflight.checks import Findings, Problem, at_once, check, delete_object, stack_up
from adk_gke_sandbox.preflight.reached import CheckedCluster

_NAME: Final = "sandbox-preflight"
_OTHER_IMAGE: Final = f"registry.invalid/elsewhere/image@sha256:{'0' * 64}"


_BREAK: Final[Mapping[str, Callable[[Manifest, Manifest, Manifest], object]]] = {
    "runtime-class": lambda pod, *_: pod.pop("runtimeClassName"),
    "host-namespaces": lambda pod, *_: pod.update(hostNetwork=True),
    "dns-policy": lambda pod, *_: pod.update(dnsPolicy="Default", dnsConfig={}),
    "token": lambda pod, *_: pod.update(automountServiceAccountToken=True),
    "service-account": lambda pod, *_: pod.update(serviceAccountName=_NAME),
    "volumes": lambda pod, *_: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "privilege-escalation": lambda _, box, *__: box["securityContext"].update(allowPrivilegeEscalation=True),
    "non-root": lambda pod, *_: pod["securityContext"].update(runAsNonRoot=False),
    "read-only-root": lambda _, box, *__: box["securityContext"].update(readOnlyRootFilesystem=False),
    "limits": lambda _, box, *__: box.pop("resources"),
    "memory-ceiling": lambda _, box, *__: box["resources"]["limits"].update(memory="1Pi"),
    "image-digest": lambda _, box, *__: box.update(image=f"{box['image'].partition('@')[0]}:latest"),
    "image-registry": lambda _, box, *__: box.update(image=_OTHER_IMAGE),
    "deadline": lambda _, __, job: job.update(activeDeadlineSeconds=10_000_000),
}
"""For each rule, what makes the spec of a pod, its container or the spec of its Job break it."""

_POD_RULES: Final = ("runtime-class", "dns-policy", "image-digest", "image-registry")
"""Of these only the policy for pods knows; the rest other parts of the API server may refuse first."""


def own_job(config: ExecutorConfig) -> Manifest:
    """Return a Job as the executor makes it."""
    return job(config, _NAME, [{REQUEST_KEY: ""}])


def wrong_jobs(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return for each rule a Job that breaks this rule alone."""
    found = {rule: own_job(config) for rule in _BREAK}
    for rule, made in found.items():
        pod = made["spec"]["template"]["spec"]
        _BREAK[rule](pod, pod["containers"][0], made["spec"])
    return found


def wrong_pods(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return for each rule that is looked at a pod that breaks this rule alone."""
    jobs, found = wrong_jobs(config), {}
    for rule in _POD_RULES:
        template = jobs[rule]["spec"]["template"]
        metadata = {**template["metadata"], "name": _NAME, "namespace": config.namespace}
        found[rule] = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}
    return found


@check("namespaces", permission="create jobs.batch")
def job_admitted(cluster: CheckedCluster) -> Findings:
    """The API server lets the executor's own Job in (dry run)."""
    contract, said = cluster.contract, _refusal(cluster, JOBS, own_job(cluster.config))
    fix = (
        "Do what the message says. If it names a rule of the stack, contract and policies do not match: pull the "
        f"contract with `adk-gke-sandbox contract pull {contract.stack}`, or run {stack_up(contract)}"
    )
    problem = Problem(f"Job of the executor in {contract.namespace}", "let in", said, fix)
    return "the executor's own Job is let in (dry run)", [problem]


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
    said = at_once(lambda rule: _refusal(cluster, kind, offers[rule]), offers)
    subject, release = f"ValidatingAdmissionPolicy {name}", "use the release of this package that made the stack"
    # The policy or its binding is gone or was changed.
    anew = " and ".join(delete_object(f"ValidatingAdmissionPolicy{part}", name) for part in ("", "Binding"))
    fix = f"{anew}, then {stack_up(contract)}; if that does not help, {release}"
    expected = f"refuses {kind} of {contract.namespace} that the contract does not describe"
    let_in = ", ".join(rule for rule in offers if not said[rule])
    problems = [Problem(subject, expected, let_in and f"lets in what breaks {let_in} (dry run)", fix)]
    for rule, text in said.items():
        if text and f" {rule}: " not in text:
            expected, fix = f"refuses {kind} that break {rule}", f"Do what that says, or {release}"
            problems.append(Problem(subject, expected, f"refused, but with: {text}", fix))
    return f"{len(offers)} that break a rule are refused (dry run)", problems


def _refusal(cluster: CheckedCluster, kind: str, manifest: Manifest) -> str:
    """Return the API server's refusal of an object, empty where it would take it.

    Raises:
        ClusterError: it did not judge the object: no answer, or the caller may not create any.
    """
    try:
        cluster.create(manifest, namespace=cluster.contract.namespace, dryRun="All")
    except ClusterError as error:
        not_permitted = isinstance(error, Forbidden) and f'cannot create resource "{kind}"' in error.message
        if not_permitted or error.status is None or error.status in (401, 429) or error.status >= 500:
            raise
        return error.message
    return ""
