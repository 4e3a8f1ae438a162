"""Rules for node pools: what runs on them, as whom, and that sandboxes have a pool with gVisor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pulumi_policy import Severity
from pulumi_policy.proxy import UnknownValueError

from infra.policy.cluster import CLUSTER, is_autopilot
from infra.policy.rule import (
    Finding,
    Resource,
    ResourceRule,
    Rule,
    StackRule,
    at,
    refuses,
    shown,
    wants,
    wants_some,
)

NODE_POOL: Final = "gcp:container/nodePool:NodePool"

_GKE: Final = "https://cloud.google.com/kubernetes-engine/docs/"
_DEFAULT_ACCOUNT: Final = "-compute@developer.gserviceaccount.com"


def _is_not_the_default_account(pool: Resource) -> Iterator[str]:
    path = "nodeConfig.serviceAccount"
    try:
        account = at(pool.inputs, path)
    except UnknownValueError:
        return  # an account that does not exist yet is not the default one
    if account and (account == "default" or account.endswith(_DEFAULT_ACCOUNT)):
        yield f"{path} is {account}"


def _sandbox_is_gvisor(pool: Resource) -> Iterator[str]:
    path = "nodeConfig.sandboxConfig"
    if at(pool.inputs, path) is not None and (kind := at(pool.inputs, f"{path}.type")) != "GVISOR":
        yield f"{path} is there and its type is {shown(kind)}"


def _has_a_gvisor_pool(resources: Sequence[Resource]) -> Iterator[Finding]:
    pools = [resource for resource in resources if resource.type == NODE_POOL]
    if any(at(pool.inputs, "nodeConfig.sandboxConfig.type") == "GVISOR" for pool in pools):
        return
    for resource in resources:
        if resource.type == CLUSTER and not is_autopilot(resource):
            yield Finding("no node pool has gVisor, so no sandbox could run isolated from its node's kernel", resource)


def _has_another_pool(resources: Sequence[Resource]) -> Iterator[Finding]:
    pools = [resource for resource in resources if resource.type == NODE_POOL]
    if pools and all(at(pool.inputs, "nodeConfig.sandboxConfig") is not None for pool in pools):
        yield Finding("every node pool has gVisor, so GKE's own pods have no node, or share one with sandboxes")


RULES: Final[tuple[Rule, ...]] = (
    StackRule(
        name="gvisor-pool",
        title="What models write runs on nodes with gVisor, and nothing else does",
        cis=("5.10.3",),
        severity=Severity.CRITICAL,
        remedy='Give one pool node_config.sandbox_config=NodePoolNodeConfigSandboxConfigArgs(type="GVISOR"), and '
        "another one none",
        url=f"{_GKE}concepts/sandbox-pods",
        survey=lambda resources: (
            finding for survey in (_has_a_gvisor_pool, _has_another_pool) for finding in survey(resources)
        ),
    ),
    ResourceRule(
        name="sandbox-type",
        title="A pool that is configured for sandboxes has gVisor",
        cis=("5.10.3",),
        severity=Severity.CRITICAL,
        remedy='Set node_config.sandbox_config.type="GVISOR"; use the argument classes, a dict takes any misspelling',
        url=f"{_GKE}concepts/sandbox-pods",
        types=(NODE_POOL,),
        checks=(_sandbox_is_gvisor,),
    ),
    ResourceRule(
        name="node-image",
        title="Nodes run Container-Optimized OS",
        cis=("5.5.1",),
        remedy='Set node_config.image_type="COS_CONTAINERD"',
        url=f"{_GKE}concepts/node-images",
        types=(NODE_POOL,),
        checks=(wants("nodeConfig.imageType", "COS_CONTAINERD", "cos_containerd"),),
    ),
    ResourceRule(
        name="node-identity",
        title="Nodes have an account of their own with the least rights",
        cis=("5.2.1",),
        severity=Severity.CRITICAL,
        remedy="Set node_config.service_account to an account with roles/container.defaultNodeServiceAccount only",
        url=f"{_GKE}how-to/hardening-your-cluster#use_least_privilege_sa",
        types=(NODE_POOL,),
        checks=(wants_some("nodeConfig.serviceAccount"), _is_not_the_default_account),
    ),
    ResourceRule(
        name="metadata-server",
        title="Pods see GKE's metadata server and not that of the node, which hands out the node's identity",
        cis=("5.4.1",),
        severity=Severity.CRITICAL,
        remedy='Set node_config.workload_metadata_config.mode="GKE_METADATA" and leave legacy endpoints off',
        url=f"{_GKE}how-to/protecting-cluster-metadata",
        types=(NODE_POOL,),
        checks=(
            wants("nodeConfig.workloadMetadataConfig.mode", "GKE_METADATA"),
            refuses("nodeConfig.metadata.disable-legacy-endpoints", "false"),
        ),
    ),
    ResourceRule(
        name="node-repair",
        title="Google repairs broken nodes",
        cis=("5.5.2",),
        severity=Severity.MEDIUM,
        remedy="Set management.auto_repair=True",
        url=f"{_GKE}how-to/node-auto-repair",
        types=(NODE_POOL,),
        checks=(wants("management.autoRepair", True),),
    ),
    ResourceRule(
        name="node-upgrade",
        title="Google keeps the version of nodes current",
        cis=("5.5.3",),
        remedy="Set management.auto_upgrade=True",
        url=f"{_GKE}how-to/node-auto-upgrades",
        types=(NODE_POOL,),
        checks=(wants("management.autoUpgrade", True),),
    ),
    ResourceRule(
        name="integrity-monitoring",
        title="It is noticed when a node boots something else than before",
        cis=("5.5.6",),
        severity=Severity.MEDIUM,
        remedy="Set node_config.shielded_instance_config.enable_integrity_monitoring=True; it replaces the pool",
        url=f"{_GKE}how-to/shielded-gke-nodes#node_integrity",
        types=(NODE_POOL,),
        checks=(wants("nodeConfig.shieldedInstanceConfig.enableIntegrityMonitoring", True),),
    ),
    ResourceRule(
        name="secure-boot",
        title="Nodes boot only what is signed",
        cis=("5.5.7",),
        remedy="Set node_config.shielded_instance_config.enable_secure_boot=True; it replaces the pool",
        url=f"{_GKE}how-to/shielded-gke-nodes#secure_boot",
        types=(NODE_POOL,),
        checks=(wants("nodeConfig.shieldedInstanceConfig.enableSecureBoot", True),),
    ),
    ResourceRule(
        name="pool-private-nodes",
        title="No node pool has public IP addresses where the cluster has none",
        cis=("5.6.5",),
        severity=Severity.CRITICAL,
        remedy="Set network_config.enable_private_nodes=True",
        url=f"{_GKE}concepts/network-isolation",
        types=(NODE_POOL,),
        checks=(wants("networkConfig.enablePrivateNodes", True, absent=True),),
    ),
    ResourceRule(
        name="boot-disk-key",
        title="Boot disks of nodes, which hold images, logs and requests, are encrypted with a key in Cloud KMS",
        cis=("5.9.2",),
        severity=Severity.MEDIUM,
        remedy="Set node_config.boot_disk_kms_key; it replaces the pool",
        url=f"{_GKE}how-to/using-cmek",
        types=(NODE_POOL,),
        checks=(wants_some("nodeConfig.bootDiskKmsKey"),),
    ),
    ResourceRule(
        name="kubelet-port",
        title="Nodes do not show their pods on the kubelet's unauthenticated port",
        remedy='Set node_config.kubelet_config.insecure_kubelet_readonly_port_enabled="FALSE"',
        url=f"{_GKE}how-to/disable-kubelet-readonly-port",
        types=(NODE_POOL,),
        checks=(wants("nodeConfig.kubeletConfig.insecureKubeletReadonlyPortEnabled", "FALSE"),),
    ),
)
