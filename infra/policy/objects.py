"""Reads Kubernetes objects among a stack's resources: names, namespaces, which of them are for sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from infra.policy.rule import Finding, Resource, Survey, at, items

KINDS: Final[Mapping[str, frozenset[str]]] = {
    "admissionregistration.k8s.io": frozenset({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}),
    "core": frozenset(
        {
            "ConfigMap",
            "LimitRange",
            "Namespace",
            "PersistentVolumeClaim",
            "ResourceQuota",
            "Secret",
            "Service",
            "ServiceAccount",
            # Of `default`, which Kubernetes makes; any other patch changes an object behind its rules' back.
            "ServiceAccountPatch",
        }
    ),
    "gateway.networking.k8s.io": frozenset({"Gateway"}),
    "monitoring.googleapis.com": frozenset({"ClusterPodMonitoring", "ClusterRules", "PodMonitoring", "Rules"}),
    "networking.gke.io": frozenset({"FQDNNetworkPolicy"}),
    "networking.k8s.io": frozenset({"Ingress", "NetworkPolicy"}),
    "policy": frozenset({"PodDisruptionBudget"}),
    "rbac.authorization.k8s.io": frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}),
    "scheduling.k8s.io": frozenset({"PriorityClass"}),
}
"""Kinds that rules look at, or that can do no harm, by API group. What another kind does, no rule sees: it may run
programs, open networks or change objects on their way."""

_COMPONENTS: Final = frozenset({"Chart", "ConfigFile", "ConfigGroup", "Directory"})
"""Resources of Pulumi's that hold others, which rules see
(https://www.pulumi.com/registry/packages/kubernetes/api-docs/)."""

_GROUPS: Final = frozenset(
    {"", "coordination.k8s.io", "discovery.k8s.io", "events.k8s.io", "networking.k8s.io", "policy"}
)
_INERT: Final = frozenset(
    {
        "configmaps",
        "endpoints",
        "endpointslices",
        "events",
        "leases",
        "limitranges",
        "networkpolicies",
        "persistentvolumeclaims",
        "poddisruptionbudgets",
        "resourcequotas",
        "secrets",
        "serviceaccounts",
        "services",
    }
)
"""Resources of `_GROUPS` that start no program, whoever writes them. Any other may, be it by a controller of somebody's
(https://kubernetes.io/docs/concepts/security/rbac-good-practices/#workload-creation)."""

_WRITES: Final = frozenset({"*", "create", "patch", "update"})


def is_object(resource: Resource) -> bool:
    """Whether a resource is a Kubernetes object, and not a component that holds some."""
    return resource.type.startswith("kubernetes:") and "metadata" in resource.inputs


def is_known(resource: Resource) -> bool:
    """Whether a resource of the cluster is of a kind that rules know."""
    group = resource.type.split(":")[1].partition("/")[0]
    kind = resource.type.rsplit(":", 1)[-1]
    return kind in KINDS.get(group, ()) or kind in _COMPONENTS


def of(resources: Sequence[Resource], *kinds: str) -> Iterator[Resource]:
    """Yield the Kubernetes objects of some kinds; a patch counts as what it patches."""
    return (each for each in resources if each.type.startswith("kubernetes:") and each.kind in kinds)


def name(resource: Resource) -> str:
    """Return the name of an object in the cluster."""
    return str(at(resource.inputs, "metadata.name") or "")


def namespace(resource: Resource) -> str:
    """Return the namespace of an object; Kubernetes' own default if it names none."""
    return str(at(resource.inputs, "metadata.namespace") or "default")


def sandbox_namespaces(resources: Sequence[Resource]) -> dict[str, str]:
    """Return the namespaces of sandboxes, where some Role of the stack lets somebody start programs, and what tells it.

    Roles that are not the stack's, such as `edit`, are refused by `rbac-broad-roles`.
    """
    found: dict[str, str] = {}
    for role in of(resources, "Role"):
        if started := ", ".join(each for grant in items(role.inputs, "rules") for each in _starts(grant)):
            found.setdefault(namespace(role), f"as Role {name(role)} lets programs be started ({started})")
    return dict(sorted(found.items()))


def _starts(grant: Mapping[str, Any]) -> Iterator[str]:
    """Yield the resources that somebody may write and that may start programs."""
    if _WRITES.isdisjoint(items(grant, "verbs")):
        return
    inert = _INERT if _GROUPS.issuperset(items(grant, "apiGroups")) else frozenset()
    for resource in items(grant, "resources"):
        if resource not in inert and not resource.endswith(("/eviction", "/finalizers", "/status")):
            yield resource


def of_each_sandbox_namespace(wrong: Callable[[str, Sequence[Resource]], Iterator[Finding]]) -> Survey:
    """Return what looks at each namespace of sandboxes, and says why it is one."""

    def survey(resources: Sequence[Resource]) -> Iterator[Finding]:
        for found, why in sandbox_namespaces(resources).items():
            for finding in wrong(found, resources):
                yield finding._replace(message=f"{finding.message}; {found} is for sandboxes, {why}")

    return survey
