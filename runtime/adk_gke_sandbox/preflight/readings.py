"""What preflight reads of a cluster: which objects, by what right. Pure; the reading itself is ``observe``'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, JOBS, PODS, Contract, policy_name

_ADMISSION: Final = "admissionregistration.k8s.io"
_NETWORKING: Final = "networking.k8s.io"
_RBAC: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One object, or without a name all of a kind.

    Attributes:
        group: API group; empty for the core.
        resource: Resource, in plural.
        namespace: Namespace; empty for a resource of the cluster.
        name: Name; empty for a list.
    """

    group: str = ""
    resource: str
    namespace: str = ""
    name: str = ""

    @property
    def permission(self) -> str:
        """What the reader must be allowed."""
        where = f" in {self.namespace}" if self.namespace else ""
        return (
            f"{'get' if self.name else 'list'} {self.resource}{f'.{self.group}' if self.group else ''}"
            f"{f' {self.name}' if self.name else ''}{where}"
        )


def readings(contract: Contract) -> dict[str, Reading]:
    """Return everything that is read, by name."""
    sandbox, agents = contract.namespace, contract.agents_namespace
    found = {
        "runtime_class": Reading(group="node.k8s.io", resource="runtimeclasses", name=contract.runtime_class),
        "sandbox_namespace": Reading(resource="namespaces", name=sandbox),
        "agents_namespace": Reading(resource="namespaces", name=agents),
        "mounted_contract": Reading(resource="configmaps", namespace=agents, name=CONTRACT_CONFIG_MAP),
        "agent_account": Reading(resource="serviceaccounts", namespace=agents, name=contract.agent_service_account),
        "sandbox_account": Reading(
            resource="serviceaccounts", namespace=sandbox, name=contract.sandbox_service_account
        ),
        "default_account": Reading(resource="serviceaccounts", namespace=sandbox, name="default"),
        "roles": Reading(group=_RBAC, resource="roles", namespace=sandbox),
        "role_bindings": Reading(group=_RBAC, resource="rolebindings", namespace=sandbox),
        "cluster_roles": Reading(group=_RBAC, resource="clusterroles"),
        "cluster_role_bindings": Reading(group=_RBAC, resource="clusterrolebindings"),
        "quotas": Reading(resource="resourcequotas", namespace=sandbox),
        "limit_ranges": Reading(resource="limitranges", namespace=sandbox),
        "network_policies": Reading(group=_NETWORKING, resource="networkpolicies", namespace=sandbox),
        "agents_network_policies": Reading(group=_NETWORKING, resource="networkpolicies", namespace=agents),
        # To know where to knock from inside; without them there is less to try.
        "kubernetes_service": Reading(resource="services", namespace="default", name="kubernetes"),
        "dns_service": Reading(resource="services", namespace="kube-system", name="kube-dns"),
        "nodes": Reading(resource="nodes"),
    }
    for kind in (PODS, JOBS):
        name = policy_name(contract, kind)
        found[f"{kind}_policy"] = Reading(group=_ADMISSION, resource="validatingadmissionpolicies", name=name)
        found[f"{kind}_binding"] = Reading(group=_ADMISSION, resource="validatingadmissionpolicybindings", name=name)
    return found


OTHER_PERMISSIONS: Final = {
    "reviews": "create subjectaccessreviews.authorization.k8s.io",
    "agent_grants": f"list roles.{_RBAC}, rolebindings.{_RBAC}, clusterroles.{_RBAC} and clusterrolebindings.{_RBAC}",
    "sandbox_grants": f"list roles.{_RBAC}, rolebindings.{_RBAC}, clusterroles.{_RBAC} and clusterrolebindings.{_RBAC}",
    "job_trials": "create jobs.batch",
    "pod_trials": "create pods",
    "probe": "run programs, as the executor's Role allows",
}
"""What is asked rather than read, by name; the trials are dry runs."""
