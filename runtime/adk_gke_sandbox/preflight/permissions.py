"""What an identity may do, as sets: what the executor needs, what it must not have, what RBAC objects grant. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from adk_gke_sandbox.contract import EXECUTOR_RULES, Contract

Document = Mapping[str, Any]


class Access(NamedTuple):
    """One verb on one resource.

    ``resource`` has its subresource, as in ``pods/log``, and the names that it is limited to, if any, as in
    ``configmaps[a,b]``. ``everywhere`` is true for a resource of the cluster, false for the sandbox namespace.
    """

    group: str
    resource: str
    verb: str
    everywhere: bool = False

    def __str__(self) -> str:
        resource, slash, sub = self.resource.partition("/")
        return f"{self.verb} {resource}{f'.{self.group}' if self.group else ''}{slash}{sub}"


class Grant(NamedTuple):
    """An access and the binding that gives it; empty where nobody says which."""

    access: Access
    binding: str


NEEDED: Final = frozenset(Access(rule.api_group, rule.resource, verb) for rule in EXECUTOR_RULES for verb in rule.verbs)
"""What the executor calls in the sandbox namespace."""

_RBAC: Final = "rbac.authorization.k8s.io"
_DANGEROUS: Final[tuple[tuple[str, str, tuple[str, ...], bool], ...]] = (
    # Other executions' code and files, and every secret of the namespace.
    ("", "secrets", ("get", "list", "create"), False),
    ("", "configmaps", ("get", "list", "watch", "update", "patch", "delete"), False),
    # Ways around the Job: a pod of its own, a way into a running one.
    ("", "pods", ("create", "update", "patch", "delete", "deletecollection"), False),
    ("", "pods/exec", ("create", "get"), False),
    ("", "pods/attach", ("create", "get"), False),
    ("", "pods/portforward", ("create", "get"), False),
    ("", "pods/ephemeralcontainers", ("update", "patch"), False),
    ("batch", "jobs", ("list", "watch", "update", "patch", "deletecollection"), False),
    ("batch", "cronjobs", ("create",), False),
    ("apps", "deployments", ("create", "patch"), False),
    # Other identities.
    ("", "serviceaccounts/token", ("create",), False),
    ("", "serviceaccounts", ("impersonate", "patch"), False),
    ("", "users", ("impersonate",), True),
    ("", "groups", ("impersonate",), True),
    # The walls themselves.
    (_RBAC, "roles", ("create", "patch", "bind", "escalate"), False),
    (_RBAC, "rolebindings", ("create", "patch"), False),
    (_RBAC, "clusterroles", ("bind", "escalate"), True),
    (_RBAC, "clusterrolebindings", ("create",), True),
    ("networking.k8s.io", "networkpolicies", ("create", "patch", "delete"), False),
    ("", "resourcequotas", ("patch", "delete"), False),
    ("", "limitranges", ("patch", "delete"), False),
    ("", "namespaces", ("create", "patch", "delete"), True),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", ("patch", "delete"), True),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", ("patch", "delete"), True),
    ("node.k8s.io", "runtimeclasses", ("create", "patch"), True),
    ("", "nodes/proxy", ("get", "create"), True),
)
"""Group, resource, verbs and whether of the whole cluster."""

REFUSED: Final = tuple(
    access
    for group, resource, verbs, everywhere in _DANGEROUS
    for verb in verbs
    if (access := Access(group, resource, verb, everywhere)) not in NEEDED
)
"""What would let the executor's identity read, reach or change more than its own executions."""

_FOR_EVERYBODY: Final = frozenset(
    {
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("certificates.k8s.io", "clustertrustbundles"),
    }
)
"""What Kubernetes itself lets every ServiceAccount do: ask about itself, and read public certificates."""


def agent_user(contract: Contract) -> str:
    """Return the user name of the agents' ServiceAccount."""
    return f"system:serviceaccount:{contract.agents_namespace}:{contract.agent_service_account}"


def groups(namespace: str) -> tuple[str, ...]:
    """Return the groups of a ServiceAccount in a namespace."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")


def review(contract: Contract, access: Access, *, of_agent: bool) -> dict[str, Any]:
    """Return the review that asks whether the agents' identity has an access.

    Args:
        contract: Names of namespace and ServiceAccount.
        access: What is asked for.
        of_agent: Whether to name the identity; otherwise the caller asks about itself.
    """
    resource, _, sub = access.resource.partition("/")
    who = {"user": agent_user(contract), "groups": list(groups(contract.agents_namespace))} if of_agent else {}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview" if of_agent else "SelfSubjectAccessReview",
        "spec": {
            **who,
            "resourceAttributes": {
                "namespace": "" if access.everywhere else contract.namespace,
                "verb": access.verb,
                "group": access.group,
                "resource": resource,
                "subresource": sub,
            },
        },
    }


def in_rules(rules: Iterable[Document]) -> set[Access]:
    """Return what rules allow, but for what everybody may; a wildcard stays one."""
    return {
        Access(group, resource + (f"[{','.join(names)}]" if (names := rule.get("resourceNames") or []) else ""), verb)
        for rule in rules
        for group in rule.get("apiGroups") or []
        for resource in rule.get("resources") or []
        for verb in rule.get("verbs") or []
        if (group, resource) not in _FOR_EVERYBODY
    }


def grants(
    bindings: Iterable[Document], roles: Iterable[Document], *, namespace: str, service_account: str
) -> set[Grant]:
    """Return what bindings give a ServiceAccount.

    Args:
        bindings: RoleBindings of one namespace, and ClusterRoleBindings.
        roles: Roles of that namespace, and ClusterRoles; one that is missing gives nothing.
        namespace: Namespace of the ServiceAccount.
        service_account: Its name.
    """
    rules = {(_kind(role, "Role"), role["metadata"]["name"]): role.get("rules") or [] for role in roles}
    found: set[Grant] = set()
    for binding in bindings:
        if not any(_is(subject, namespace, service_account) for subject in binding.get("subjects") or []):
            continue
        reference = binding["roleRef"]
        name = f"{_kind(binding, 'RoleBinding')} {binding['metadata']['name']}"
        found |= {
            Grant(access, f"{name} ({reference['kind']} {reference['name']})")
            for access in in_rules(rules.get((reference["kind"], reference["name"]), []))
        }
    return found


def _kind(document: Document, kind: str) -> str:
    """Return the kind with its ``Cluster``: items of a list do not say what they are."""
    return kind if document["metadata"].get("namespace") else f"Cluster{kind}"


def _is(subject: Document, namespace: str, service_account: str) -> bool:
    match subject.get("kind"):
        case "ServiceAccount":
            return (subject.get("namespace"), subject.get("name")) == (namespace, service_account)
        case "User":
            return bool(subject.get("name") == f"system:serviceaccount:{namespace}:{service_account}")
        case "Group":
            return subject.get("name") in groups(namespace)
    return False
