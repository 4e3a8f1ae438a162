"""Rules for rights in the cluster: what no role grants, and who gets none.

An executor needs five rights in one namespace; whatever is refused here, nothing of this program needs.
https://kubernetes.io/docs/concepts/security/rbac-good-practices/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import Severity

from infra.policy import objects
from infra.policy.rule import Check, Finding, Resource, ResourceRule, Rule, StackRule, at, items, shown

_GOOD: Final = "https://kubernetes.io/docs/concepts/security/rbac-good-practices/"
_ROLES: Final = tuple(f"kubernetes:{kind}" for kind in ("Role", "ClusterRole"))
_BINDINGS: Final = tuple(f"kubernetes:{kind}" for kind in ("RoleBinding", "ClusterRoleBinding"))

_GRANTING_VERBS: Final = frozenset({"bind", "escalate", "impersonate"})
_GRANTING_RESOURCES: Final = frozenset(
    {
        "certificatesigningrequests/approval",
        "mutatingwebhookconfigurations",
        "nodes/proxy",
        "pods/ephemeralcontainers",
        "pods/exec",
        "pods/portforward",
        "serviceaccounts/token",
        "validatingwebhookconfigurations",
    }
)
"""Who may write to one of them has the rights of somebody else, or is inside somebody else's container."""

_WALLS: Final = frozenset(
    {
        # Its own namespace, whose labels hold pods to a standard.
        "namespaces",
        "ciliumnetworkpolicies",
        "clusterrolebindings",
        "clusterroles",
        "fqdnnetworkpolicies",
        "limitranges",
        "networkpolicies",
        "resourcequotas",
        "rolebindings",
        "roles",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    }
)
"""Who may write to one of them can take a wall of the namespace down."""

_READS: Final = frozenset({"get", "list", "watch"})
_READ_ONLY: Final = (("ClusterRole", "view"),)
"""Roles of Kubernetes' own that only read, and no Secrets
(https://kubernetes.io/docs/reference/access-authn-authz/rbac/#user-facing-roles)."""

_GROUPS: Final = {
    "rbac-anonymous": (("system:anonymous",), ("4.1.8",), "Nobody without credentials has rights in the cluster"),
    "rbac-unauthenticated": (
        ("system:unauthenticated",),
        ("4.1.9",),
        "The group of those without credentials has no rights in the cluster",
    ),
    "rbac-authenticated": (
        ("system:authenticated", "system:serviceaccounts"),
        ("4.1.10",),
        "Nobody has rights in the cluster just for having signed in, with whatever account of Google",
    ),
    "rbac-masters": (("system:masters",), ("4.1.6",), "Nobody is in the group that no rule can hold back"),
}

_Grant = Mapping[str, Any]


def _grants(wrong: Callable[[_Grant], Iterator[str]]) -> Check:
    """Return the check that looks at each rule of a role."""

    def check(role: Resource) -> Iterator[str]:
        for grant in items(role.inputs, "rules"):
            for text in wrong(grant):
                yield f"{role.kind} {objects.name(role)} {text}"

    return check


def _some_of(grant: _Grant, field: str, among: frozenset[str]) -> str:
    return ", ".join(sorted(among & set(items(grant, field))))


def _secrets(grant: _Grant) -> Iterator[str]:
    if "secrets" in items(grant, "resources"):
        yield f"grants {shown(items(grant, 'verbs'))} on secrets"


def _wildcard(grant: _Grant) -> Iterator[str]:
    for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
        if any("*" in each for each in items(grant, field)):
            yield f"has * in {field}"


def _others_rights(grant: _Grant) -> Iterator[str]:
    if verbs := _some_of(grant, "verbs", _GRANTING_VERBS):
        yield f"grants {verbs}"
    if resources := _some_of(grant, "resources", _GRANTING_RESOURCES):
        yield f"grants {shown(items(grant, 'verbs'))} on {resources}"


def _walls(grant: _Grant) -> Iterator[str]:
    verbs = set(items(grant, "verbs")) - _READS
    if verbs and (resources := _some_of(grant, "resources", _WALLS)):
        yield f"grants {shown(sorted(verbs))} on {resources}"


def _everything_at_once(grant: _Grant) -> Iterator[str]:
    if "deletecollection" in items(grant, "verbs"):
        yield f"grants deletecollection on {shown(items(grant, 'resources'))}"


def _rights_of_others(resources: Sequence[Resource]) -> Iterator[Finding]:
    own = {(role.kind, objects.namespace(role), objects.name(role)) for role in objects.of(resources, "Role")}
    own |= {(role.kind, "", objects.name(role)) for role in objects.of(resources, "ClusterRole")}
    for binding in objects.of(resources, "RoleBinding", "ClusterRoleBinding"):
        kind, role = (str(at(binding.inputs, f"roleRef.{field}")) for field in ("kind", "name"))
        place = objects.namespace(binding) if kind == "Role" else ""
        if (kind, place, role) not in own and (kind, role) not in _READ_ONLY:
            yield Finding(f"{binding.kind} {objects.name(binding)} grants {kind} {role}", binding)


def _subjects(*refused: str) -> Check:
    def check(binding: Resource) -> Iterator[str]:
        for subject in items(binding.inputs, "subjects"):
            if subject.get("kind") != "ServiceAccount" and subject.get("name") in refused:
                yield f"{binding.kind} {objects.name(binding)} names {subject['name']}"

    return check


def _default_account(binding: Resource) -> Iterator[str]:
    for subject in items(binding.inputs, "subjects"):
        if subject.get("kind") == "ServiceAccount" and subject.get("name") == "default":
            yield f"{binding.kind} {objects.name(binding)} names the ServiceAccount default"


def _cluster_wide(binding: Resource) -> Iterator[str]:
    yield f"{binding.kind} {objects.name(binding)} is for every namespace"


def _sandboxes_have_rights(resources: Sequence[Resource]) -> Iterator[Finding]:
    sandboxes = objects.sandbox_namespaces(resources)
    for binding in objects.of(resources, "RoleBinding", "ClusterRoleBinding"):
        for subject in items(binding.inputs, "subjects"):
            name, kind = str(subject.get("name")), subject.get("kind")
            inside = subject.get("namespace") or objects.namespace(binding)
            if (kind == "ServiceAccount" and inside in sandboxes) or (
                kind == "Group" and name in {f"system:serviceaccounts:{each}" for each in sandboxes}
            ):
                yield Finding(
                    f"{binding.kind} {objects.name(binding)} names {kind} {name}, which sandboxes have", binding
                )


RULES: Final[tuple[Rule, ...]] = (
    StackRule(
        name="rbac-broad-roles",
        title="Nobody has rights that the stack does not show, such as those of Kubernetes' own broad roles",
        cis=("4.1.1",),
        severity=Severity.CRITICAL,
        remedy="Write a Role with what is needed; administrators get their rights by IAM",
        url=_GOOD,
        survey=_rights_of_others,
    ),
    ResourceRule(
        name="rbac-cluster-wide",
        title="The stack grants rights in its namespaces, not in all of the cluster",
        cis=("4.1.1", "4.6.1"),
        remedy="Use a Role and a RoleBinding",
        url=_GOOD,
        types=("kubernetes:ClusterRole", "kubernetes:ClusterRoleBinding"),
        checks=(_cluster_wide,),
    ),
    ResourceRule(
        name="rbac-secrets",
        title="No role reads or writes Secrets",
        cis=("4.1.2",),
        severity=Severity.CRITICAL,
        remedy="Remove it: an execution has no use for Secrets",
        url=f"{_GOOD}#listing-secrets",
        types=_ROLES,
        checks=(_grants(_secrets),),
    ),
    ResourceRule(
        name="rbac-wildcards",
        title="Roles name what they grant",
        cis=("4.1.3",),
        remedy="Write out API groups, resources and verbs",
        url=f"{_GOOD}#least-privilege",
        types=_ROLES,
        checks=(_grants(_wildcard),),
    ),
    ResourceRule(
        name="rbac-default-account",
        title="A pod that names no ServiceAccount has no rights",
        cis=("4.1.4",),
        remedy="Bind a ServiceAccount that is made for it",
        url=_GOOD,
        types=_BINDINGS,
        checks=(_default_account,),
    ),
    *(
        ResourceRule(
            name=name,
            title=title,
            cis=cis,
            severity=Severity.CRITICAL,
            remedy="Bind a ServiceAccount, a person or a group of your own",
            url="https://cloud.google.com/kubernetes-engine/docs/best-practices/rbac#default-roles-groups",
            types=_BINDINGS,
            checks=(_subjects(*groups),),
        )
        for name, (groups, cis, title) in _GROUPS.items()
    ),
    ResourceRule(
        name="rbac-others-rights",
        title="No role lets its holder take over the rights of somebody else",
        cis=("4.1.7",),
        severity=Severity.CRITICAL,
        remedy="Remove it: an execution does not need it",
        url=f"{_GOOD}#privilege-escalation-risks",
        types=_ROLES,
        checks=(_grants(_others_rights),),
    ),
    ResourceRule(
        name="rbac-walls",
        title="No role changes what holds sandboxes back: networks, quotas, admission, rights, the namespace",
        severity=Severity.CRITICAL,
        remedy="Remove it: the stack alone makes and changes these",
        url=f"{_GOOD}#namespace-modification",
        types=_ROLES,
        checks=(_grants(_walls),),
    ),
    ResourceRule(
        name="rbac-deletecollection",
        title="No role deletes everything at once",
        severity=Severity.MEDIUM,
        remedy="Grant delete: objects are deleted by name",
        url=f"{_GOOD}#least-privilege",
        types=_ROLES,
        checks=(_grants(_everything_at_once),),
    ),
    StackRule(
        name="sandbox-rights",
        title="What models write has no rights in the cluster",
        cis=("4.1.1", "4.1.5"),
        severity=Severity.CRITICAL,
        remedy="Bind a ServiceAccount of the agents' namespace",
        url=f"{_GOOD}#workload-creation",
        survey=_sandboxes_have_rights,
    ),
)
