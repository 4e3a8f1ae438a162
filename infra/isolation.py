"""What a sandbox cannot do: use more than its share, and talk to anything.

Quota, LimitRange and NetworkPolicies. Pod Security is a label of the namespace (``access``). gVisor itself
comes with the cluster: its RuntimeClass is GKE's, or the local cluster's, never this program's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.config import EPHEMERAL_STORAGE
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.manifests import CONFIG_MAPS_MAX
from infra.access import metadata
from infra.settings import Quota

EPHEMERAL_STORAGE_CEILING_MIB: Final = 1024
"""Disk of one sandbox at the most; it holds the container's log and the mounted request, nothing else."""

_networking = kubernetes.networking.v1


def quota_hard(quota: Quota) -> dict[str, str]:
    """Return the hard limits of the sandbox namespace.

    A quota on a resource obliges every pod to state it; the LimitRange fills what a pod leaves out.
    """
    disk = f"{quota.pods * EPHEMERAL_STORAGE_CEILING_MIB}Mi"
    return {
        # `pods` counts live pods, `count/pods` also finished ones, which stay until their Job goes.
        "pods": str(quota.pods),
        "count/pods": str(quota.pods + quota.jobs),
        "count/jobs.batch": str(quota.jobs),
        # A large request is split; `kube-root-ca.crt` is in every namespace.
        "count/configmaps": str(CONFIG_MAPS_MAX * quota.jobs + 1),
        "count/secrets": "0",
        "count/services": "0",
        "count/persistentvolumeclaims": "0",
        "requests.cpu": quota.cpu,
        "requests.memory": quota.memory,
        "requests.ephemeral-storage": disk,
        "limits.cpu": quota.cpu,
        "limits.memory": quota.memory,
        "limits.ephemeral-storage": disk,
    }


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


def bounds(contract: Contract, quota: Quota, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Create quota and LimitRange of the sandbox namespace."""
    total = kubernetes.core.v1.ResourceQuota(
        "sandbox-quota",
        metadata=metadata(contract, "sandbox", contract.namespace),
        spec=kubernetes.core.v1.ResourceQuotaSpecArgs(hard=quota_hard(quota)),
        opts=opts,
    )
    each = kubernetes.core.v1.LimitRange(
        "sandbox-limits",
        metadata=metadata(contract, "sandbox", contract.namespace),
        spec=kubernetes.core.v1.LimitRangeSpecArgs(limits=limits(contract)),
        opts=opts,
    )
    return [total, each]


def deny_all(contract: Contract, logical: str, namespace: str, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Create the policy that selects every pod of a namespace and allows nothing, in or out."""
    return _networking.NetworkPolicy(
        logical,
        metadata=metadata(contract, "deny-all", namespace),
        spec=_networking.NetworkPolicySpecArgs(
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
        ),
        opts=opts,
    )


def agents_egress(contract: Contract, opts: pulumi.ResourceOptions) -> None:
    """Create the policy that lets agents resolve names and call the Kubernetes and model APIs.

    Both are TLS on addresses that a NetworkPolicy cannot name; the port of the API server may differ from 443.
    """
    peer, port = _networking.NetworkPolicyPeerArgs, _networking.NetworkPolicyPortArgs
    tls = sorted({443, urlsplit(contract.cluster.endpoint).port or 443})
    _networking.NetworkPolicy(
        "agents-egress",
        metadata=metadata(contract, "allow-dns-and-apis", contract.agents_namespace),
        spec=_networking.NetworkPolicySpecArgs(
            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(),
            policy_types=["Egress"],
            egress=[
                _networking.NetworkPolicyEgressRuleArgs(
                    to=[
                        peer(
                            namespace_selector=kubernetes.meta.v1.LabelSelectorArgs(
                                match_labels={"kubernetes.io/metadata.name": "kube-system"}
                            ),
                            pod_selector=kubernetes.meta.v1.LabelSelectorArgs(match_labels={"k8s-app": "kube-dns"}),
                        )
                    ],
                    ports=[port(protocol="UDP", port=53), port(protocol="TCP", port=53)],
                ),
                _networking.NetworkPolicyEgressRuleArgs(
                    # 169.254.0.0/16 is where a cloud's metadata server is.
                    to=[
                        peer(
                            ip_block=_networking.IPBlockArgs(cidr="0.0.0.0/0", except_=["169.254.0.0/16"]),
                        )
                    ],
                    ports=[port(protocol="TCP", port=number) for number in tls],
                ),
            ],
        ),
        opts=opts,
    )
