"""Who may do what: the agents' identity exactly what the executor calls, the sandboxes' identities nothing.

The API server is asked about one call at a time. It knows every authorizer (on GKE also Google Cloud's IAM), and
names the binding that allows a call; one that somebody added is not in the stack, so that Pulumi does not see it.

https://kubernetes.io/docs/reference/access-authn-authz/authorization/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from adk_gke_sandbox.contract import EXECUTOR_ROLE, EXECUTOR_RULES, Contract
from adk_gke_sandbox.preflight.checks import Findings, Problem, at_once, check, delete_object, stack_up
from adk_gke_sandbox.preflight.reached import CheckedCluster, Document

_GROUP_VERSION: Final = "authorization.k8s.io/v1"
_PERMISSION: Final = "create subjectaccessreviews.authorization.k8s.io"
_ALL_VERBS: Final = "get list watch create update patch delete deletecollection"

_ALLOWED_BY: Final = re.compile(r'(\w*RoleBinding) "([^"/]+)[^"]*" of (\w+) "([^"]+)"')
"""How RBAC words the reason of a review
(https://github.com/kubernetes/kubernetes/blob/master/pkg/registry/rbac/validation/rule.go)."""


class Access(NamedTuple):
    """A verb on a resource, written as ``kubectl`` does (``jobs.batch``, ``pods/log``).

    ``everywhere`` is true for a resource of the cluster, false for one of the sandbox namespace.
    """

    resource: str
    verb: str
    everywhere: bool = False


_EXECUTOR: Final = {
    rule.resource + (f".{rule.api_group}" if rule.api_group else ""): rule.verbs for rule in EXECUTOR_RULES
}

NEEDED: Final = frozenset(Access(resource, verb) for resource, verbs in _EXECUTOR.items() for verb in verbs)
"""What the executor calls in the sandbox namespace."""

_IN_THE_NAMESPACE: Final = {
    # On what the executor uses, every verb that it does not call.
    " ".join(_EXECUTOR): _ALL_VERBS,
    "secrets": _ALL_VERBS,
    # Ways around the Job: other pods, a way into a running one.
    "pods/exec pods/attach pods/portforward": "create get",
    "pods/ephemeralcontainers": "update patch",
    "cronjobs.batch deployments.apps": "create patch",
    # Other identities.
    "serviceaccounts/token": "create",
    "serviceaccounts": "impersonate patch",
    # What isolates the sandboxes.
    "roles.rbac.authorization.k8s.io": "create patch bind escalate",
    "rolebindings.rbac.authorization.k8s.io": "create patch",
    "networkpolicies.networking.k8s.io resourcequotas limitranges": "create patch delete",
}
_IN_THE_CLUSTER: Final = {
    "users groups": "impersonate",
    "clusterroles.rbac.authorization.k8s.io": "bind escalate",
    "clusterrolebindings.rbac.authorization.k8s.io": "create",
    "namespaces": "create patch delete",
    "validatingadmissionpolicies.admissionregistration.k8s.io": "patch delete",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": "patch delete",
    "runtimeclasses.node.k8s.io": "create patch",
    "nodes/proxy": "get create",
}

REFUSED: Final = tuple(
    access
    for table in (_IN_THE_NAMESPACE, _IN_THE_CLUSTER)
    for resources, verbs in table.items()
    for resource in resources.split()
    for verb in verbs.split()
    if (access := Access(resource, verb, table is _IN_THE_CLUSTER)) not in NEEDED
)
"""What would let an identity read, reach or change more than its own executions."""


@check("namespaces", permission=_PERMISSION)
def executor_allowed(cluster: CheckedCluster) -> Findings:
    """The agents' identity may make every call of the executor."""
    contract, who = cluster.contract, _agent(cluster.contract)
    missing = NEEDED - _allowed(cluster, who, NEEDED).keys()
    role = delete_object("role", EXECUTOR_ROLE, contract.namespace)
    fix = f"Run {stack_up(contract)}; if the Role was changed by hand, {role}, then {stack_up(contract)}"
    said = f"may not {_listed(missing)}" if missing else ""
    return f"{len(NEEDED)} calls are allowed", [Problem(f"ServiceAccount {who}", f"may {_listed(NEEDED)}", said, fix)]


@check("namespaces", permission=_PERMISSION)
def executor_refused(cluster: CheckedCluster) -> Findings:
    """It may do nothing else with Jobs, pods and ConfigMaps, nor with secrets, identities, roles and policies."""
    return _refused(cluster, [_agent(cluster.contract)], REFUSED)


@check("namespaces", permission=_PERMISSION)
def sandbox_refused(cluster: CheckedCluster) -> Findings:
    """The identities that a sandbox could have may do nothing of all this."""
    names = {cluster.contract.sandbox_service_account, "default"}
    accounts = [f"{cluster.contract.namespace}/{name}" for name in sorted(names)]
    return _refused(cluster, accounts, (*sorted(NEEDED), *REFUSED))


CHECKS: Final = (executor_allowed, executor_refused, sandbox_refused)


def _agent(contract: Contract) -> str:
    """Return namespace and name of the ServiceAccount that runs the executor."""
    return f"{contract.agents_namespace}/{contract.agent_service_account}"


def _refused(cluster: CheckedCluster, accounts: list[str], asked: tuple[Access, ...]) -> Findings:
    problems = []
    for who in accounts:
        allowed = _allowed(cluster, who, asked)
        for reason in sorted(set(allowed.values())):
            found = _listed(access for access in allowed if allowed[access] == reason)
            fix = _how_to_withdraw(cluster.contract, reason)
            problems.append(Problem(f"ServiceAccount {who}", "may not", f"may {found}: {reason or 'no reason'}", fix))
    return f"{len(asked)} calls are refused", problems


def _allowed(cluster: CheckedCluster, who: str, asked: Iterable[Access]) -> dict[Access, str]:
    """Return what of this a ServiceAccount may do, each with the API server's reason."""
    answers: dict[Access, Document] = at_once(
        lambda access: cluster.create(review(cluster.contract, who, access, caller=cluster.identity))["status"], asked
    )
    return {access: str(status.get("reason", "")) for access, status in answers.items() if status.get("allowed")}


def review(contract: Contract, who: str, access: Access, *, caller: str) -> Document:
    """Return the review that asks whether a ServiceAccount has an access; everybody may ask about itself."""
    namespace, _, name = who.partition("/")
    user = f"system:serviceaccount:{namespace}:{name}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    qualified, _, sub = access.resource.partition("/")
    resource, _, group = qualified.partition(".")
    where = {"namespace": "" if access.everywhere else contract.namespace, "group": group, "resource": resource}
    attributes = {"resourceAttributes": {**where, "subresource": sub, "verb": access.verb}}
    kind, asked = ("SelfSubject", {}) if caller == user else ("Subject", {"user": user, "groups": groups})
    return {"apiVersion": _GROUP_VERSION, "kind": f"{kind}AccessReview", "spec": {**asked, **attributes}}


def _how_to_withdraw(contract: Contract, reason: str) -> str:
    """Return how to withdraw what a binding gives; ``pulumi up`` makes the stack's own part of it anew."""
    found = _ALLOWED_BY.search(reason)
    if found is None:
        return "Withdraw it where the API server says that it comes from; on GKE that may be Google Cloud's IAM"
    kind, name, role_kind, role = found.groups()
    if kind == "ClusterRoleBinding":
        return delete_object(kind, name)
    # A ClusterRole may serve others, too.
    both = [("role", role)] * (role_kind == "Role") + [(kind, name)]
    commands = " and ".join(delete_object(*each, contract.namespace) for each in both)
    return f"{commands}, then {stack_up(contract)}, which makes the stack's own anew"


def _listed(accesses: Iterable[Access]) -> str:
    """Return accesses with the verbs of one resource together."""
    verbs: dict[str, list[str]] = {}
    for access in accesses:
        verbs.setdefault(access.resource, []).append(access.verb)
    return ", ".join(f"{'/'.join(sorted(found))} {resource}" for resource, found in sorted(verbs.items()))
