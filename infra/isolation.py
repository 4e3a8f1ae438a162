"""What a sandbox cannot do: use more than its share, and talk to anything.

Quota, LimitRange and NetworkPolicies. Pod Security is a label of the namespace (``access``), what a single
object may ask for is the business of ``admission``. gVisor itself comes with the cluster: its RuntimeClass is
GKE's, or the local cluster's, never this program's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.cluster.manifests import CONFIG_MAPS_MAX
from adk_gke_sandbox.config import EPHEMERAL_STORAGE
from adk_gke_sandbox.contract import DENY_ALL_POLICY, Contract
from infra.access import metadata
from infra.address_ranges import (
    DOCUMENTATION,
    LINK_LOCAL,
    METADATA,
    NODE_DNS,
    NOT_THE_INTERNET,
    NOT_THE_INTERNET_IPV6,
    Addresses,
    is_private,
    name_server,
)
from infra.admission.rules import EPHEMERAL_STORAGE_CEILING_MIB
from infra.environment_settings import HTTPS, Destination, Quota

DNS_PODS: Final = ("kube-dns", "node-local-dns")
"""Pods that resolve names, by their label; Dataplane V2 hands the queries to `kube-dns` on to the cache's own pods."""

_networking = kubernetes.networking.v1


def quota_hard(contract: Contract, quota: Quota) -> dict[str, str]:
    """Return the hard limits of the sandbox namespace.

    A quota on a resource obliges every pod to state it; the LimitRange fills what a pod leaves out.
    """
    disk = f"{quota.pods * EPHEMERAL_STORAGE_CEILING_MIB}Mi"
    return {
        # `pods` counts live pods, `count/pods` also finished ones, which stay until their Job goes.
        "pods": str(quota.pods),
        "count/pods": str(quota.pods + quota.jobs),
        "count/jobs.batch": str(quota.jobs),
        "count/configmaps": str(config_maps(quota)),
        # Where sandboxes may have some, the platform team alone can put them there.
        **({} if contract.secret_env else {"count/secrets": "0"}),
        "count/services": "0",
        "count/persistentvolumeclaims": "0",
        "requests.cpu": quota.cpu,
        "requests.memory": quota.memory,
        "requests.ephemeral-storage": disk,
        "limits.cpu": quota.cpu,
        "limits.memory": quota.memory,
        "limits.ephemeral-storage": disk,
    }


def config_maps(quota: Quota) -> int:
    """Return how many ConfigMaps there may be.

    An execution has one, and its ConfigMaps are collected a moment after it; what is left over is for two large
    requests of ``CONFIG_MAPS_MAX`` parts, for `kube-root-ca.crt` and for those of idle sandboxes.
    """
    return 2 * quota.jobs + 2 * CONFIG_MAPS_MAX


OBJECT_MIB: Final = 1.5
"""Size of any object at the most (https://etcd.io/docs/v3.5/dev-guide/limit/#request-size-limit).

The rules bound a ConfigMap's data, but not its `metadata.managedFields`: what is sent under the name of the request's
own field manager becomes a part of the one entry that the API server makes.
"""


def stored_mib(quota: Quota) -> dict[str, float]:
    """Return the MiB that the objects of the sandbox namespace take at the most, whoever creates them, by kind."""
    numbers = {"ConfigMaps": config_maps(quota), "Jobs": quota.jobs, "pods": quota.pods + quota.jobs}
    return {kind: OBJECT_MIB * number for kind, number in numbers.items()}


def limits(contract: Contract) -> list[kubernetes.core.v1.LimitRangeItemArgs]:
    """Return defaults and ceilings of containers, and the same ceilings for a pod as a whole."""
    resources, ceilings = contract.resources, contract.ceilings
    most = {
        "cpu": ceilings.cpu,
        "memory": ceilings.memory,
        "ephemeral-storage": f"{EPHEMERAL_STORAGE_CEILING_MIB}Mi",
    }
    return [
        kubernetes.core.v1.LimitRangeItemArgs(
            type="Container",
            default={
                "cpu": resources.cpu_limit,
                "memory": resources.mem_limit,
                "ephemeral-storage": EPHEMERAL_STORAGE,
            },
            default_request={
                "cpu": resources.cpu_requested,
                "memory": resources.mem_requested,
                "ephemeral-storage": EPHEMERAL_STORAGE,
            },
            max=most,
        ),
        # Without it a pod of ten containers would have ten times the ceiling.
        kubernetes.core.v1.LimitRangeItemArgs(type="Pod", max=most),
    ]


def bounds(name: str, contract: Contract, quota: Quota, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Create quota and LimitRange of the sandbox namespace; logical names begin with ``name``."""
    total = kubernetes.core.v1.ResourceQuota(
        f"{name}-quota",
        metadata=metadata(contract, "sandbox", contract.namespace),
        spec=kubernetes.core.v1.ResourceQuotaSpecArgs(hard=quota_hard(contract, quota)),
        opts=opts,
    )
    each = kubernetes.core.v1.LimitRange(
        f"{name}-limits",
        metadata=metadata(contract, "sandbox", contract.namespace),
        spec=kubernetes.core.v1.LimitRangeSpecArgs(limits=limits(contract)),
        opts=opts,
    )
    return [total, each]


def deny_all(contract: Contract, logical: str, namespace: str, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Create the policy that selects every pod of a namespace and allows nothing, in or out."""
    return _networking.NetworkPolicy(
        logical,
        metadata=metadata(contract, DENY_ALL_POLICY, namespace),
        spec=_networking.NetworkPolicySpecArgs(
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
        ),
        opts=opts,
    )


def agents_egress(
    name: str,
    contract: Contract,
    destinations: Sequence[Destination],
    addresses: Addresses,
    opts: pulumi.ResourceOptions,
) -> None:
    """Create the policies that let agents resolve names, call the Kubernetes and model APIs, and what else is named.

    The APIs are TLS on addresses that a NetworkPolicy cannot name; the port of the API server may differ from 443.
    """
    tls = sorted({HTTPS, urlsplit(contract.cluster.endpoint).port or HTTPS})
    _allow(
        contract,
        f"{name}-agents-egress",
        "allow-dns-and-apis",
        contract.agents_namespace,
        [
            _dns(addresses),
            # 169.254.0.0/16 is where a cloud's metadata server is.
            _rule([_block("0.0.0.0/0", [str(LINK_LOCAL)])], *(("TCP", port) for port in tls)),
            # Workload Identity; what answers there is GKE's own, and gives a pod its own identity only.
            *([_rule([_block(METADATA)], ("TCP", 80), ("TCP", 8080))] if contract.cluster.project else []),
            *(
                _rule([_block(str(each.block), each.left_out)], ("TCP", each.port))
                for each in destinations
                if each.block
            ),
        ],
        opts,
    )
    # On these ports every host answers to agents already.
    if hosts := [each for each in destinations if each.host and each.port not in tls]:
        _allow_hosts(
            contract,
            f"{name}-agents-hosts",
            contract.agents_namespace,
            {port: [each.host for each in hosts if each.port == port] for port in sorted({e.port for e in hosts})},
            opts,
        )


def sandbox_egress(
    name: str, contract: Contract, hosts: Sequence[str], addresses: Addresses, opts: pulumi.ResourceOptions
) -> None:
    """Create what lets sandboxes out, if the contract says so: to the internet, or to hosts by name.

    Args:
        name: What the logical names begin with.
        contract: Its ``egress`` is ``none``, ``fqdn`` or ``internet``.
        hosts: Host names for ``fqdn``; ``*.example.com`` is all below it.
        addresses: The cluster's own.
        opts: Options of every resource.
    """
    if contract.egress == "none":
        return
    rules = [_dns(addresses)]
    if contract.egress == "internet":
        # What a network of somebody else's has inside need not look private: GKE's own range of Services does not.
        left_out = [str(each) for each in (*NOT_THE_INTERNET, *DOCUMENTATION)]
        outside = pulumi.Output.from_input(addresses.inside).apply(
            lambda inside: [*left_out, *(each for each in inside if each and not is_private(each))]
        )
        rules.append(_rule([_block("0.0.0.0/0", outside), _block("::/0", list(map(str, NOT_THE_INTERNET_IPV6)))]))
    _allow(contract, f"{name}-egress", "allow-egress", contract.namespace, rules, opts)
    if contract.egress == "fqdn":
        _allow_hosts(contract, f"{name}-hosts", contract.namespace, {HTTPS: hosts}, opts)


def _allow_hosts(
    contract: Contract,
    logical: str,
    namespace: str,
    hosts: Mapping[int, Sequence[str]],
    opts: pulumi.ResourceOptions,
) -> None:
    """Create GKE's policy that names hosts, by port."""
    kubernetes.apiextensions.CustomResource(
        logical,
        # https://cloud.google.com/kubernetes-engine/docs/how-to/fqdn-network-policies
        api_version="networking.gke.io/v1alpha1",
        kind="FQDNNetworkPolicy",
        metadata=metadata(contract, "allow-hosts", namespace),
        spec={
            "podSelector": {},
            "egress": [
                {
                    "matches": [{"pattern" if "*" in host else "name": host} for host in named],
                    "ports": [{"protocol": "TCP", "port": port}],
                }
                for port, named in hosts.items()
            ],
        },
        opts=opts,
    )


def _dns(addresses: Addresses) -> _networking.NetworkPolicyEgressRuleArgs:
    """Return what resolving names takes: port 53 of every address that may be a pod's name server, and nothing else.

    Which one it is depends on the cluster's version and add-ons. Where a policy is held against the address that the
    pod dials, the pods behind a Service do not stand for it (https://github.com/gke-labs/kube-agents/pull/687).
    """
    pods = [
        _networking.NetworkPolicyPeerArgs(
            namespace_selector=kubernetes.meta.v1.LabelSelectorArgs(
                match_labels={"kubernetes.io/metadata.name": "kube-system"}
            ),
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels={"k8s-app": label}),
        )
        for label in DNS_PODS
    ]
    services = addresses.services
    service = [] if services is None else [_block(pulumi.Output.from_input(services).apply(name_server))]
    return _rule([*pods, _block(METADATA), _block(NODE_DNS), *service], ("UDP", 53), ("TCP", 53))


def _allow(
    contract: Contract,
    logical: str,
    name: str,
    namespace: str,
    rules: list[_networking.NetworkPolicyEgressRuleArgs],
    opts: pulumi.ResourceOptions,
) -> None:
    _networking.NetworkPolicy(
        logical,
        metadata=metadata(contract, name, namespace),
        spec=_networking.NetworkPolicySpecArgs(
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(), policy_types=["Egress"], egress=rules
        ),
        opts=opts,
    )


def _rule(
    to: list[_networking.NetworkPolicyPeerArgs], *ports: tuple[str, int]
) -> _networking.NetworkPolicyEgressRuleArgs:
    return _networking.NetworkPolicyEgressRuleArgs(
        to=to,
        ports=[_networking.NetworkPolicyPortArgs(protocol=protocol, port=port) for protocol, port in ports] or None,
    )


def _block(cidr: pulumi.Input[str], excluded: pulumi.Input[Sequence[str]] = ()) -> _networking.NetworkPolicyPeerArgs:
    return _networking.NetworkPolicyPeerArgs(ip_block=_networking.IPBlockArgs(cidr=cidr, except_=excluded or None))
