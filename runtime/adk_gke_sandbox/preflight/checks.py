"""All checks, in the order in which they are judged: what others build on first. Data only."""

from __future__ import annotations

from typing import Final

from adk_gke_sandbox.preflight import admission, bounds, environment, identities, inside
from adk_gke_sandbox.preflight.verdicts import Check

_POLICIES: Final = ("pods_policy", "pods_binding", "jobs_policy", "jobs_binding")

CHECKS: Final[tuple[Check, ...]] = (
    Check(
        id="api-server",
        shows=f"The API server answers, takes the credentials and is Kubernetes 1.{environment.MIN_MINOR} or later",
        judge=environment.api_server,
    ),
    Check(
        id="namespaces",
        shows="Both namespaces exist and carry the label of the contract's stack",
        judge=environment.namespaces,
        reads=("sandbox_namespace", "agents_namespace"),
        needs=("api-server",),
    ),
    Check(
        id="contract",
        shows="Agents mount the contract that is checked",
        judge=environment.mounted_contract,
        reads=("mounted_contract",),
        needs=("namespaces",),
    ),
    Check(
        id="runtime-class",
        shows="The contract's RuntimeClass exists and its handler is gVisor's",
        judge=environment.runtime_class,
        reads=("runtime_class",),
        needs=("api-server",),
    ),
    Check(
        id="pod-security",
        shows="The sandbox namespace enforces the Pod Security Standard `restricted`, the agents' at least `baseline`, "
        "each in a fixed version",
        judge=environment.pod_security,
        reads=("sandbox_namespace", "agents_namespace"),
        needs=("namespaces",),
    ),
    Check(
        id="service-accounts",
        shows="The ServiceAccounts of agents and of sandboxes exist",
        judge=environment.service_accounts,
        reads=("agent_account", "sandbox_account"),
        needs=("namespaces",),
    ),
    Check(
        id="tokens",
        shows="No ServiceAccount of the sandbox namespace that a pod could run under mounts a token",
        judge=environment.tokens,
        reads=("sandbox_account", "default_account"),
        needs=("service-accounts",),
    ),
    Check(
        id="executor-allowed",
        shows="The agents' identity may make every call of the executor",
        judge=identities.allowed,
        reads=("reviews",),
        needs=("service-accounts",),
    ),
    Check(
        id="executor-refused",
        shows="It may not read secrets or other executions, start or enter pods, take other identities, or change "
        "roles, policies and quota",
        judge=identities.refused,
        reads=("reviews",),
        needs=("service-accounts",),
    ),
    Check(
        id=identities.EXACT,
        shows="It is granted exactly the executor's rules in the sandbox namespace, by whatever binding",
        judge=identities.exact,
        reads=("agent_grants",),
        needs=("service-accounts",),
    ),
    Check(
        id="sandbox-bindings",
        shows="No binding names a ServiceAccount of sandboxes",
        judge=identities.bound_to_nothing,
        reads=("sandbox_grants",),
        needs=("service-accounts",),
    ),
    Check(
        id="quota",
        shows="Pods, Jobs, CPU and memory of all sandboxes are bounded, one execution at its ceilings fits in, "
        "secrets, services and volumes are none",
        judge=bounds.quota,
        reads=("quotas",),
        needs=("namespaces",),
    ),
    Check(
        id="limit-range",
        shows="CPU and memory of one sandbox are bounded by the contract's ceilings",
        judge=bounds.limit_range,
        reads=("limit_ranges",),
        needs=("namespaces",),
    ),
    Check(
        id="network-policies",
        shows="Both namespaces deny all traffic by default, and nothing opens the sandboxes'",
        judge=bounds.network_policies,
        reads=("network_policies", "agents_network_policies"),
        needs=("namespaces",),
    ),
    Check(
        id="admission-policies",
        shows="The admission policies for pods and Jobs exist, fail closed and are bound to the sandbox namespace",
        judge=admission.policies,
        reads=(*_POLICIES, "sandbox_namespace"),
        needs=("namespaces",),
    ),
    Check(
        id="image",
        shows="The contract's image is named by digest, and allowed",
        judge=admission.image,
        reads=("job_trials",),
        needs=("namespaces",),
    ),
    Check(
        id="job-admitted",
        shows="The API server lets the executor's own Job in (dry run)",
        judge=admission.job_admitted,
        reads=("job_trials",),
        needs=("namespaces", "runtime-class", "quota", "image"),
    ),
    Check(
        id="jobs-refused",
        shows="It refuses Jobs that break one rule each, for that rule (dry run)",
        judge=admission.jobs_refused,
        reads=("job_trials",),
        needs=("admission-policies", "job-admitted"),
    ),
    Check(
        id="pods-refused",
        shows="It refuses pods that break one rule each, for that rule (dry run)",
        judge=admission.pods_refused,
        reads=("pod_trials",),
        needs=("admission-policies", "job-admitted", "service-accounts", "limit-range"),
    ),
)
"""Made without starting anything."""

PROBE: Final = Check(
    id="probe",
    shows="A program runs in a sandbox to its end, on the path that agents take",
    judge=inside.ran,
    reads=("probe",),
    needs=("job-admitted", "service-accounts", "limit-range"),
)

PROBE_NETWORK: Final = Check(
    id="probe-network",
    shows="No address of the cluster answers it: API server, kubelets, name servers, on GKE the metadata server",
    judge=inside.network,
    reads=("probe",),
    needs=("probe", "network-policies"),
)

INSIDE: Final[tuple[Check, ...]] = (
    PROBE,
    Check(
        id="probe-gvisor",
        shows="The kernel that it runs on is gVisor's, by the kernel's own log",
        judge=inside.gvisor,
        reads=("probe",),
        needs=("probe",),
    ),
    PROBE_NETWORK,
    Check(
        id="probe-identity",
        shows="It is not root, and has no token",
        judge=inside.identity,
        reads=("probe",),
        needs=("probe",),
    ),
)
"""Made with the report of one program in a sandbox."""
