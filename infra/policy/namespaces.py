"""Rules for namespaces: the walls that each has, and those of the namespace of sandboxes.

That namespace is told by the stack's own roles (`objects.sandbox_namespaces`): where somebody may start programs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

from pulumi_policy import Severity

from infra.address_ranges import METADATA, NODE_DNS
from infra.policy import objects
from infra.policy.network import INSIDE, is_nearly_everybody
from infra.policy.project import grants
from infra.policy.rule import Finding, Resource, ResourceRule, Rule, StackRule, Survey, at, items, shown

_K8S: Final = "https://kubernetes.io/docs/"
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_SYSTEM: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
_BOTH: Final = frozenset({"Ingress", "Egress"})

_NO_OBJECTS: Final = ("count/secrets", "count/services", "count/persistentvolumeclaims")
_BOUNDED: Final = ("count/pods", "count/jobs.batch", "limits.cpu", "limits.memory", "limits.ephemeral-storage")

_HOST: Final = re.compile(r"([a-z0-9*-]+\.)*[a-z0-9-]+\.[a-z][a-z0-9-]*\.?", re.ASCII)
"""A host, or some below a domain that somebody owns; of a top-level domain alone, as in `*.com`, nobody does
(https://cloud.google.com/kubernetes-engine/docs/how-to/fqdn-network-policies)."""

_DNS: Final = ("kube-dns", "node-local-dns")
_DNS_PORTS: Final = frozenset({("TCP", 53), ("UDP", 53)})
_NAME_SERVERS: Final = frozenset({METADATA, NODE_DNS})
"""Addresses that are name servers on these ports, and on no others
(https://github.com/gke-labs/kube-agents/pull/1169: no credentials on this port)."""


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


def _is_of_a_known_kind(resource: Resource) -> Iterator[str]:
    if not objects.is_known(resource):
        kind = resource.type.removeprefix("kubernetes:")
        yield f"{kind} {objects.name(resource) or resource.name} is of a kind that no rule looks at"


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
    made = [each for each in objects.of(resources, "Namespace") if objects.name(each) == namespace]
    for each in made:
        if (level := _labels(each).get(_ENFORCE)) != "restricted":
            yield Finding(f"namespace {namespace} has label {_ENFORCE} {shown(level)}", each)
    if not made:
        yield Finding(f"namespace {namespace} is none of the stack's, so nobody knows its labels")


def _is_not_bounded(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    inside = [each for each in resources if objects.is_object(each) and objects.namespace(each) == namespace]
    hard: dict[str, Any] = {}
    for quota in objects.of(inside, "ResourceQuota"):
        if any(at(quota.inputs, f"spec.{scope}") for scope in ("scopes", "scopeSelector")):
            continue  # it is for some pods only
        hard.update(at(quota.inputs, "spec.hard") or {})
    if missing := [name for name in _BOUNDED if name not in hard]:
        yield Finding(f"no ResourceQuota of namespace {namespace} bounds {', '.join(missing)}")
    if allowed := [name for name in _NO_OBJECTS if str(hard.get(name)) != "0"]:
        yield Finding(f"no ResourceQuota of namespace {namespace} sets {', '.join(allowed)} to 0")
    if not any(objects.of(inside, "LimitRange")):
        yield Finding(f"namespace {namespace} has no LimitRange")


def _reaches_inside(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    found = [
        (policy, rule)
        for policy in objects.of(resources, "NetworkPolicy")
        if objects.namespace(policy) == namespace
        for rule in items(policy.inputs, "spec.egress")
    ]
    servers = _name_servers([rule for _, rule in found])
    for policy, rule in found:
        peers = items(rule, "to")
        reached = [] if peers else ["every address"]
        names = _resolves_names_alone(rule)
        for peer in peers:
            if "ipBlock" not in peer:
                reached += _pods(peer, names)
            elif not (names and _cidr(peer["ipBlock"]) in servers):
                reached += _private_part(peer["ipBlock"])
        if reached:
            yield Finding(f"NetworkPolicy {objects.name(policy)} allows {', '.join(reached)}", policy)


def _name_servers(rules: Sequence[Mapping[str, Any]]) -> Set[str]:
    """Return which addresses are name servers: beside those that are known, the one Service `kube-dns`.

    Its address is the cluster's, and not in the policies. Of two that may be it neither is.
    """
    inside = {
        _cidr(peer["ipBlock"])
        for rule in rules
        if _resolves_names_alone(rule)
        for peer in items(rule, "to")
        if "ipBlock" in peer and _private_part(peer["ipBlock"])
    }
    further = {each for each in inside - _NAME_SERVERS if ipaddress.ip_network(each).num_addresses == 1}
    return _NAME_SERVERS | further if len(further) == 1 else _NAME_SERVERS


def _cidr(block: Mapping[str, Any]) -> str:
    return str(ipaddress.ip_network(block["cidr"], strict=False))


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


def _private_part(block: Mapping[str, Any]) -> list[str]:
    """Return the private ranges that a block of addresses lets through."""
    cidr = ipaddress.ip_network(block["cidr"], strict=False)
    kept = [ipaddress.ip_network(each, strict=False) for each in block.get("except") or ()]
    return [
        str(private)
        for private in INSIDE
        if private.version == cidr.version
        and private.overlaps(cidr)
        and not any(each.version == private.version and _within(private, cidr, each) for each in kept)
    ]


def _within(private: Any, cidr: Any, excepted: Any) -> bool:
    """Whether what is private of a block is excepted from it."""
    return bool((private if private.subnet_of(cidr) else cidr).subnet_of(excepted))


def _has_an_identity_at_google(namespace: str, resources: Sequence[Resource]) -> Iterator[Finding]:
    """Yield grants to the namespace, to one of its accounts, or to everybody in the cluster or the pool of identities.

    https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity#principal-id-examples
    """
    ours = (f"/subject/ns/{namespace}/", f"/namespace/{namespace}/", f".svc.id.goog[{namespace}/", ".svc.id.goog/*/")
    for each in resources:
        for role, members in grants(each):
            for member in members:
                if "/kubernetes.cluster/" in member or any(part in f"{member}/" for part in ours):
                    yield Finding(f"{member} gets {role}", each)


def _everybody_is_let_through(resources: Sequence[Resource]) -> Iterator[Finding]:
    """Yield the policies that take back what the one that denies everything says."""
    sandboxes = objects.sandbox_namespaces(resources)
    for policy in objects.of(resources, "NetworkPolicy"):
        where = f"NetworkPolicy {objects.name(policy)} of namespace {objects.namespace(policy)}"
        came, went = items(policy.inputs, "spec.ingress"), items(policy.inputs, "spec.egress")
        if objects.namespace(policy) in sandboxes:
            if came:
                yield Finding(f"{where} lets somebody in to sandboxes, which serve nobody", policy)
            continue  # of what goes out, `sandbox-network` says more
        if any(_is_everybody(items(rule, "from"), any_address=True) for rule in came):
            yield Finding(f"{where} lets everybody in", policy)
        if any(_is_everybody(items(rule, "to"), any_address=not _has_some_ports(rule)) for rule in went):
            yield Finding(f"{where} lets everything out", policy)
    for policy in objects.of(resources, "FQDNNetworkPolicy"):
        for rule in items(policy.inputs, "spec.egress"):
            matches = items(rule, "matches")
            hosts = [str(at(match, "name") or at(match, "pattern")) for match in matches] or ["every host"]
            if wide := [host for host in hosts if not _HOST.fullmatch(host.lower())]:
                yield Finding(
                    f"FQDNNetworkPolicy {objects.name(policy)} lets pods connect to {shown(wide)}, which is nobody's "
                    "domain",
                    policy,
                )


def _is_everybody(peers: Sequence[Mapping[str, Any]], *, any_address: bool) -> bool:
    """Whether the peers of a rule leave nobody out: no pod of the cluster, or next to no address where that counts."""
    return (
        not peers
        or any("namespaceSelector" in peer and not _names_pods(peer) for peer in peers)
        or (any_address and is_nearly_everybody(peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer))
    )


def _names_pods(peer: Mapping[str, Any]) -> bool:
    """Whether a peer says which pods or namespaces it is, and not only which it is not."""
    return any(
        at(peer, f"{selector}.matchLabels")
        or any(each["operator"] == "In" for each in items(peer, f"{selector}.matchExpressions"))
        for selector in ("namespaceSelector", "podSelector")
    )


def _has_some_ports(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is for single ports."""
    ports = items(rule, "ports")
    return bool(ports) and all(at(each, "port") and not at(each, "endPort") for each in ports)


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
        survey=objects.of_each_sandbox_namespace(_is_not_restricted),
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
        name="open-network",
        title="No policy lets everybody in or everything out, and nobody comes in to sandboxes",
        cis=("4.3.2",),
        severity=Severity.CRITICAL,
        remedy="Name who may connect to whom: labels of pods, addresses with ports, hosts such as *.example.com",
        url=f"{_K8S}concepts/services-networking/network-policies/#allow-all-ingress-traffic",
        survey=_everybody_is_let_through,
    ),
    StackRule(
        name="sandbox-network",
        title="A sandbox reaches no private address: no node, no pod, no API server, no metadata server",
        cis=("5.4.1",),
        severity=Severity.CRITICAL,
        remedy="Except the private ranges from the block; a sandbox needs none of them",
        url="https://cloud.google.com/kubernetes-engine/docs/how-to/protecting-cluster-metadata",
        survey=objects.of_each_sandbox_namespace(_reaches_inside),
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
        survey=objects.of_each_sandbox_namespace(_has_an_identity_at_google),
    ),
    StackRule(
        name="sandbox-quota",
        title="What sandboxes use together is bounded, and there are no Secrets, Services or volumes among them",
        cis=("4.4.1", "4.4.2", "5.9.1"),
        remedy="Add it to the ResourceQuota of the namespace; a LimitRange fills what a pod leaves out",
        url=f"{_K8S}concepts/policy/resource-quotas/",
        survey=objects.of_each_sandbox_namespace(_is_not_bounded),
    ),
    ResourceRule(
        name="known-kinds",
        title="Every object in the cluster is of a kind that rules look at, and the stack starts no pods",
        cis=("4.3.2", "4.6.3"),
        severity=Severity.CRITICAL,
        remedy="Write networks as NetworkPolicy or FQDNNetworkPolicy, and start pods by a program of their own; for "
        "another kind write a rule, and add it to KINDS of infra/policy/objects.py",
        url=f"{_K8S}concepts/security/rbac-good-practices/#workload-creation",
        checks=(_is_of_a_known_kind,),
        applies=lambda resource: resource.type.startswith("kubernetes:"),
    ),
    ResourceRule(
        name="own-namespaces",
        title="The stack puts nothing into Kubernetes' own namespaces",
        cis=("4.6.1", "4.6.4"),
        severity=Severity.MEDIUM,
        remedy="Set metadata.namespace to a namespace that the stack makes",
        url=f"{_K8S}concepts/overview/working-with-objects/namespaces/",
        types=_NAMESPACED,
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
