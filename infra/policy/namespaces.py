"""Rules for namespaces: the walls that each has, and those of the namespace of sandboxes.

That namespace is told by the stack's own roles (`objects.sandbox_namespaces`): where somebody may start programs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import Severity

from infra.policy import objects
from infra.policy.project import GRANTS, members
from infra.policy.rule import Finding, Resource, ResourceRule, Rule, StackRule, Survey, at, items, shown

_K8S: Final = "https://kubernetes.io/docs/"
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_SYSTEM: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
_BOTH: Final = frozenset({"Ingress", "Egress"})

_NO_OBJECTS: Final = ("count/secrets", "count/services", "count/persistentvolumeclaims")
_BOUNDED: Final = ("count/pods", "count/jobs.batch", "limits.cpu", "limits.memory", "limits.ephemeral-storage")

_DNS: Final = ("kube-dns", "node-local-dns")
_DNS_PORTS: Final = frozenset({("TCP", 53), ("UDP", 53)})
"""A single address on these ports alone is a name server: the cache of a node, Cloud DNS at the metadata server's
address, the Service `kube-dns` (https://github.com/gke-labs/kube-agents/pull/1169: no credentials on this port)."""

_INSIDE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
"""Addresses of nodes, pods, services, the control plane and the metadata server
(https://www.iana.org/assignments/iana-ipv4-special-registry)."""


def _labels(namespace: Resource) -> Mapping[str, Any]:
    return at(namespace.inputs, "metadata.labels") or {}


def _holds_pods_to_a_standard(namespace: Resource) -> Iterator[str]:
    if (level := _labels(namespace).get(_ENFORCE)) not in ("baseline", "restricted"):
        yield f"label {_ENFORCE} is {shown(level)}, not baseline or restricted"


def _is_in_a_namespace_of_its_own(resource: Resource) -> Iterator[str]:
    if (namespace := objects.namespace(resource)) in _SYSTEM:
        # What Kubernetes makes is there; the stack does not put it there.
        yield f"{resource.kind} {objects.name(resource)} is in namespace {namespace}"


def _opens_to_the_network(resource: Resource) -> Iterator[str]:
    kind = at(resource.inputs, "spec.type")
    if resource.kind != "Service" or kind in ("LoadBalancer", "NodePort"):
        yield f"{resource.kind} {objects.name(resource)} makes pods reachable from outside the cluster"


def _of_each_namespace(wrong: Callable[[Resource, Sequence[Resource]], Iterator[str]]) -> Survey:
    def survey(resources: Sequence[Resource]) -> Iterator[Finding]:
        for namespace in objects.of(resources, "Namespace"):
            inside = [
                each
                for each in resources
                if objects.is_object(each) and objects.namespace(each) == objects.name(namespace)
            ]
            for text in wrong(namespace, inside):
                yield Finding(f"namespace {objects.name(namespace)} {text}", namespace)

    return survey


def _of_each_sandbox_namespace(wrong: Callable[[str, Sequence[Resource]], Iterator[Finding]]) -> Survey:
    def survey(resources: Sequence[Resource]) -> Iterator[Finding]:
        for namespace in sorted(objects.sandbox_namespaces(resources)):
            yield from wrong(namespace, resources)

    return survey


def _no_default_deny(_namespace: Resource, inside: Sequence[Resource]) -> Iterator[str]:
    for policy in objects.of(inside, "NetworkPolicy"):
        spec = at(policy.inputs, "spec") or {}
        everybody = not any(items(spec, f"podSelector.{field}") for field in ("matchLabels", "matchExpressions"))
        nothing = not items(spec, "ingress") and not items(spec, "egress")
        if everybody and nothing and set(items(spec, "policyTypes")) >= _BOTH:
            return
    yield "has no NetworkPolicy that selects every pod and allows nothing in or out"


def _default_account_has_a_token(_namespace: Resource, inside: Sequence[Resource]) -> Iterator[str]:
    accounts = [each for each in objects.of(inside, "ServiceAccount") if objects.name(each) == "default"]
    if not any(at(each.inputs, "automountServiceAccountToken") is False for each in accounts):
        yield "gives a token to every pod that names no ServiceAccount"


def _tokens_without_rights(resources: Sequence[Resource]) -> Iterator[Finding]:
    sandboxes = objects.sandbox_namespaces(resources)
    bound = {
        (subject.get("namespace"), subject.get("name"))
        for binding in objects.of(resources, "RoleBinding", "ClusterRoleBinding")
        for subject in items(binding.inputs, "subjects")
    }
    for account in objects.of(resources, "ServiceAccount"):
        place = (objects.namespace(account), objects.name(account))
        if at(account.inputs, "automountServiceAccountToken") is False:
            continue
        if place[0] in sandboxes or place not in bound:
            yield Finding(f"ServiceAccount {place[1]} of namespace {place[0]} gives its pods a token", account)


def _is_not_restricted(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    for each in objects.of(resources, "Namespace"):
        if objects.name(each) == namespace and (level := _labels(each).get(_ENFORCE)) != "restricted":
            yield Finding(f"namespace {namespace} has label {_ENFORCE} {shown(level)}", each)


def _is_not_bounded(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    inside = [each for each in resources if objects.is_object(each) and objects.namespace(each) == namespace]
    hard: dict[str, Any] = {}
    for quota in objects.of(inside, "ResourceQuota"):
        hard.update(at(quota.inputs, "spec.hard") or {})
    if missing := [name for name in _BOUNDED if name not in hard]:
        yield Finding(f"no ResourceQuota of namespace {namespace} bounds {', '.join(missing)}")
    if allowed := [name for name in _NO_OBJECTS if str(hard.get(name)) != "0"]:
        yield Finding(f"no ResourceQuota of namespace {namespace} sets {', '.join(allowed)} to 0")
    if not any(objects.of(inside, "LimitRange")):
        yield Finding(f"namespace {namespace} has no LimitRange")


def _is_not_admission_controlled(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    held: set[str] = set()
    bindings = list(objects.of(resources, "ValidatingAdmissionPolicyBinding"))
    for policy in objects.of(resources, "ValidatingAdmissionPolicy"):
        if not any(_binds(binding, policy, namespace) for binding in bindings):
            continue
        for rule in items(policy.inputs, "spec.matchConstraints.resourceRules"):
            if {"CREATE", "UPDATE"} <= set(items(rule, "operations")):
                held |= set(items(rule, "resources"))
    if missing := [each for each in ("configmaps", "jobs", "pods", "pods/ephemeralcontainers") if each not in held]:
        yield Finding(f"no policy that fails closed and denies is bound to namespace {namespace} for {shown(missing)}")


def _binds(binding: Resource, policy: Resource, namespace: str) -> bool:
    """Whether a binding makes the API server refuse what a policy refuses, in a namespace."""
    selector = at(binding.inputs, "spec.matchResources.namespaceSelector.matchLabels") or {}
    return (
        at(binding.inputs, "spec.policyName") == objects.name(policy)
        and "Deny" in items(binding.inputs, "spec.validationActions")
        and selector.get("kubernetes.io/metadata.name", namespace) == namespace
        # Left out, Kubernetes fails closed.
        and at(policy.inputs, "spec.failurePolicy") in (None, "Fail")
    )


def _reaches_inside(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    for policy in objects.of(resources, "NetworkPolicy"):
        if objects.namespace(policy) != namespace:
            continue
        for rule in items(policy.inputs, "spec.egress"):
            peers = items(rule, "to")
            reached = [] if peers else ["every address"]
            names = _resolves_names_alone(rule)
            for peer in peers:
                reached += _private_part(peer["ipBlock"], names) if "ipBlock" in peer else _pods(peer, names)
            if reached:
                yield Finding(f"NetworkPolicy {objects.name(policy)} allows {', '.join(reached)}", policy)


def _resolves_names_alone(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is for port 53 and no other; a range of ports may hold others."""
    ports = items(rule, "ports")
    found = {(at(each, "protocol") or "TCP", at(each, "port")) for each in ports}
    return bool(found) and found <= _DNS_PORTS and not any(at(each, "endPort") for each in ports)


def _pods(peer: Mapping[str, Any], names: bool) -> list[str]:
    """Return which pods a peer is, unless it is the cluster's DNS."""
    namespace = at(peer, "namespaceSelector.matchLabels") or {}
    labels = at(peer, "podSelector.matchLabels") or {}
    if names and namespace.get("kubernetes.io/metadata.name") == "kube-system" and labels.get("k8s-app") in _DNS:
        return []
    return [f"pods ({', '.join(f'{key}={value}' for key, value in {**namespace, **labels}.items()) or 'all'})"]


def _private_part(block: Mapping[str, Any], names: bool) -> list[str]:
    """Return the private ranges that a block of addresses lets through, unless it is a name server."""
    cidr = ipaddress.ip_network(block["cidr"], strict=False)
    if names and cidr.num_addresses == 1:
        return []
    kept = [ipaddress.ip_network(each, strict=False) for each in block.get("except") or ()]
    return [
        str(private)
        for private in _INSIDE
        if private.version == cidr.version
        and private.overlaps(cidr)
        and not any(each.version == private.version and _within(private, cidr, each) for each in kept)
    ]


def _within(private: Any, cidr: Any, excepted: Any) -> bool:
    """Whether what is private of a block is excepted from it."""
    return bool((private if private.subnet_of(cidr) else cidr).subnet_of(excepted))


def _has_an_identity_at_google(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    ours = (f"/subject/ns/{namespace}/", f"/namespace/{namespace}", f".svc.id.goog[{namespace}/")
    for grant in resources:
        if grant.type not in GRANTS:
            continue
        for member in members(grant):
            if any(each in f"{member}/" or member.endswith(each) for each in ours):
                yield Finding(f"{member} gets {shown(at(grant.inputs, 'role'))}", grant)


_NAMESPACED: Final = tuple(
    f"kubernetes:{kind}"
    for kind in (
        "ConfigMap",
        "LimitRange",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
    )
)

RULES: Final[tuple[Rule, ...]] = (
    ResourceRule(
        name="pod-security",
        title="Every namespace holds its pods to a Pod Security Standard",
        cis=("4.2.1",),
        severity=Severity.CRITICAL,
        remedy="Label it pod-security.kubernetes.io/enforce=restricted, or baseline for agents",
        url=f"{_K8S}concepts/security/pod-security-admission/",
        types=("kubernetes:Namespace",),
        checks=(_holds_pods_to_a_standard,),
    ),
    StackRule(
        name="sandbox-pod-security",
        title="The namespace of sandboxes holds its pods to the strictest standard",
        cis=("4.2.1", "4.6.2", "4.6.3"),
        severity=Severity.CRITICAL,
        remedy="Label it pod-security.kubernetes.io/enforce=restricted",
        url=f"{_K8S}concepts/security/pod-security-standards/#restricted",
        survey=_of_each_sandbox_namespace(_is_not_restricted),
    ),
    StackRule(
        name="default-deny",
        title="In every namespace a pod reaches nothing and nothing reaches it, but for what a policy allows",
        cis=("4.3.2",),
        severity=Severity.CRITICAL,
        remedy='Add one with an empty podSelector, policyTypes ["Ingress", "Egress"] and no rules',
        url=f"{_K8S}concepts/services-networking/network-policies/#default-deny-all-ingress-and-all-egress-traffic",
        survey=_of_each_namespace(_no_default_deny),
    ),
    StackRule(
        name="sandbox-network",
        title="A sandbox reaches no private address: no node, no pod, no API server, no metadata server",
        cis=("5.4.1",),
        severity=Severity.CRITICAL,
        remedy="Except the private ranges from the block; a sandbox needs none of them",
        url="https://cloud.google.com/kubernetes-engine/docs/how-to/protecting-cluster-metadata",
        survey=_of_each_sandbox_namespace(_reaches_inside),
    ),
    StackRule(
        name="default-account",
        title="A pod that names no ServiceAccount gets no token",
        cis=("4.1.4", "4.1.5"),
        remedy="Patch the ServiceAccount default of the namespace with automountServiceAccountToken: false",
        url=f"{_K8S}tasks/configure-pod-container/configure-service-account/#opt-out-of-api-credential-automounting",
        survey=_of_each_namespace(_default_account_has_a_token),
    ),
    StackRule(
        name="account-tokens",
        title="Only pods whose ServiceAccount has rights get its token, and no sandbox does",
        cis=("4.1.5",),
        remedy="Set automountServiceAccountToken to false",
        url=f"{_K8S}tasks/configure-pod-container/configure-service-account/#opt-out-of-api-credential-automounting",
        survey=_tokens_without_rights,
    ),
    StackRule(
        name="sandbox-identity",
        title="What models write is nobody in Google Cloud",
        cis=("5.2.2",),
        severity=Severity.CRITICAL,
        remedy="Grant the role to the agents' ServiceAccount, in the other namespace",
        url="https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity",
        survey=_of_each_sandbox_namespace(_has_an_identity_at_google),
    ),
    StackRule(
        name="sandbox-quota",
        title="What sandboxes use together is bounded, and there are no Secrets, Services or volumes among them",
        cis=("4.4.1", "4.4.2", "5.9.1"),
        remedy="Add it to the ResourceQuota of the namespace; a LimitRange fills what a pod leaves out",
        url=f"{_K8S}concepts/policy/resource-quotas/",
        survey=_of_each_sandbox_namespace(_is_not_bounded),
    ),
    StackRule(
        name="sandbox-admission",
        title="The API server refuses sandboxes that the contract does not describe",
        cis=("4.5.1", "4.6.2", "4.6.3", "5.1.4", "5.10.3"),
        severity=Severity.CRITICAL,
        remedy="Bind the policies with validationActions Deny and failurePolicy Fail to the namespace of sandboxes",
        url=f"{_K8S}reference/access-authn-authz/validating-admission-policy/",
        survey=_of_each_sandbox_namespace(_is_not_admission_controlled),
    ),
    ResourceRule(
        name="own-namespaces",
        title="The stack puts nothing into Kubernetes' own namespaces",
        cis=("4.6.1", "4.6.4"),
        severity=Severity.MEDIUM,
        remedy="Set metadata.namespace to a namespace that the stack makes",
        url=f"{_K8S}concepts/overview/working-with-objects/namespaces/",
        types=(*_NAMESPACED, *objects.PODS),
        checks=(_is_in_a_namespace_of_its_own,),
    ),
    ResourceRule(
        name="no-entrance",
        title="Nothing of the stack can be reached from outside the cluster, so it needs no certificate",
        cis=("5.6.7",),
        remedy="Remove it: agents call models and the API server, nobody calls them by this stack",
        url="https://cloud.google.com/kubernetes-engine/docs/concepts/service-networking",
        types=("kubernetes:Service", "kubernetes:Ingress", "kubernetes:Gateway"),
        checks=(_opens_to_the_network,),
    ),
    ResourceRule(
        name="no-secrets",
        title="The stack keeps no Secrets in the cluster",
        cis=("4.4.2",),
        severity=Severity.MEDIUM,
        remedy="Keep it in Secret Manager and let the agents' ServiceAccount read it",
        url="https://cloud.google.com/secret-manager/docs/secret-manager-managed-csi-component",
        types=("kubernetes:Secret",),
        checks=(lambda secret: iter((f"Secret {objects.name(secret)} is a resource of the stack",)),),
    ),
)
