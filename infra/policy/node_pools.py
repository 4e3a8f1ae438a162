"""Rules for nodes: what runs on them, as whom, and that sandboxes have a pool with gVisor.

Nodes are those of a pool, those of the pools that a cluster brings along, and those that GKE adds by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pulumi_policy import Severity
from pulumi_policy.proxy import UnknownValueError

from infra.policy.cluster import CLUSTER, is_autopilot
from infra.policy.project import grants
from infra.policy.rule import (
    Check,
    Finding,
    Resource,
    ResourceRule,
    Rule,
    StackRule,
    at,
    items,
    present,
    refuses,
    shown,
    wants,
    wants_some,
)

NODE_POOL: Final = "gcp:container/nodePool:NodePool"
_TYPES: Final = (NODE_POOL, CLUSTER)

_GKE: Final = "https://cloud.google.com/kubernetes-engine/docs/"
_DEFAULT_ACCOUNTS: Final = (
    "-compute@developer.gserviceaccount.com",
    "@appspot.gserviceaccount.com",
    "@cloudservices.gserviceaccount.com",
)
"""Accounts that Google makes in a project, and that may be editors of it
(https://cloud.google.com/iam/docs/service-account-types#default)."""

_ACCOUNT: Final = "gcp:serviceaccount/account:Account"
_PROVISIONED: Final = "clusterAutoscaling.autoProvisioningDefaults"

_NODE_ROLES: Final = frozenset(
    {
        "roles/container.defaultNodeServiceAccount",
        # What it consists of, for who grants that one by one.
        "roles/autoscaling.metricsWriter",
        "roles/logging.logWriter",
        "roles/monitoring.metricWriter",
        "roles/monitoring.viewer",
        "roles/stackdriver.resourceMetadata.writer",
        # Images; rules of ``project`` say of which repositories.
        "roles/artifactregistry.reader",
    }
)
"""All that nodes need (https://cloud.google.com/kubernetes-engine/docs/how-to/service-accounts#default-gke-service-agent
and .../how-to/hardening-your-cluster#use_least_privilege_sa)."""


def _pools(resource: Resource) -> list[str]:
    """Return where the configurations of node pools are: a pool's own, or those that a cluster brings along.

    https://www.pulumi.com/registry/packages/gcp/api-docs/container/cluster/#nodeconfig_python
    """
    if resource.type == NODE_POOL:
        return ["nodeConfig"]
    if resource.type != CLUSTER or is_autopilot(resource):
        return []
    if inline := items(resource.inputs, "nodePools"):
        return [f"nodePools.{index}.nodeConfig" for index in range(len(inline))]
    return [] if at(resource.inputs, "removeDefaultNodePool") else ["nodeConfig"]


def _machines(resource: Resource) -> list[str]:
    """Return where the configurations of nodes are whose machine the program decides on."""
    provisions = resource.type == CLUSTER and not is_autopilot(resource)
    if provisions and at(resource.inputs, "clusterAutoscaling.enabled"):
        return [*_pools(resource), _PROVISIONED]
    return _pools(resource)


def _nodes(resource: Resource) -> list[str]:
    """Return where the configurations of all nodes are."""
    if resource.type == CLUSTER and is_autopilot(resource):
        return [_PROVISIONED]
    return _machines(resource)


def _management(resource: Resource) -> list[str]:
    """Return where it is said what Google does for nodes; the first pool of a cluster has no such field."""
    if resource.type == NODE_POOL:
        return ["management"]
    return [f"{place.removesuffix('.nodeConfig')}.management" for place in _machines(resource) if "." in place]


def _at(places: Callable[[Resource], list[str]], make: Callable[[str], Check]) -> Check:
    """Return the check that is made for each of some places in a resource."""

    def check(resource: Resource) -> Iterator[str]:
        for place in places(resource):
            yield from make(place)(resource)

    return check


def _is_not_the_default_account(place: str) -> Check:
    path = f"{place}.serviceAccount"

    def check(resource: Resource) -> Iterator[str]:
        if not present(resource.inputs, path):
            yield f"{path} is not set, so nodes run as the project's default account, which may be an editor of it"
            return
        with contextlib.suppress(UnknownValueError):  # an account that does not exist yet is not the default one
            account = at(resource.inputs, path)
            if account == "default" or account.endswith(_DEFAULT_ACCOUNTS):
                yield f"{path} is {account}"

    return check


def _sandbox_is_gvisor(place: str) -> Check:
    path = f"{place}.sandboxConfig"

    def check(resource: Resource) -> Iterator[str]:
        if at(resource.inputs, path) is not None and (kind := at(resource.inputs, f"{path}.type")) != "GVISOR":
            yield f"{path} is there and its type is {shown(kind)}"

    return check


def _gvisor_is_on_some_pools(resources: Sequence[Resource]) -> Iterator[Finding]:
    pools = [at(each.inputs, f"{place}.sandboxConfig") for each in resources for place in _pools(each)]
    if not any(at(pool or {}, "type") == "GVISOR" for pool in pools):
        for resource in resources:
            if resource.type == CLUSTER and not is_autopilot(resource):
                yield Finding(
                    "no node pool has gVisor, so no sandbox could run isolated from its node's kernel", resource
                )
    if pools and None not in pools:
        yield Finding("every node pool has gVisor, so GKE's own pods have no node, or share one with sandboxes")


def _nodes_have_other_roles(resources: Sequence[Resource]) -> Iterator[Finding]:
    accounts = {each.urn for each in resources if each.type == _ACCOUNT}
    named: set[str] = set()
    for each in resources:
        for place in _nodes(each):
            # In a preview an account that is not there yet has no name; the engine knows which one it is.
            named.update(accounts.intersection(each.uses.get(place.partition(".")[0], ())))
            with contextlib.suppress(UnknownValueError):
                named.add(f"serviceAccount:{at(each.inputs, f'{place}.serviceAccount')}")
    for each in resources:
        used = {*each.uses.get("member", ()), *each.uses.get("members", ())}
        for role, members in grants(each):
            if role not in _NODE_ROLES and not named.isdisjoint({*used, *members}):
                yield Finding(f"{each.kind} {each.name} gives nodes the role {role}", each)


RULES: Final[tuple[Rule, ...]] = (
    StackRule(
        name="gvisor-pool",
        title="What models write runs on nodes with gVisor, and nothing else does",
        cis=("5.10.3",),
        severity=Severity.CRITICAL,
        remedy='Give one pool node_config.sandbox_config=NodePoolNodeConfigSandboxConfigArgs(type="GVISOR"), and '
        "another one none",
        url=f"{_GKE}concepts/sandbox-pods",
        survey=_gvisor_is_on_some_pools,
    ),
    ResourceRule(
        name="sandbox-type",
        title="A pool that is configured for sandboxes has gVisor",
        cis=("5.10.3",),
        severity=Severity.CRITICAL,
        remedy='Set node_config.sandbox_config.type="GVISOR"; use the argument classes, a dict takes any misspelling',
        url=f"{_GKE}concepts/sandbox-pods",
        types=_TYPES,
        checks=(_at(_pools, _sandbox_is_gvisor),),
    ),
    ResourceRule(
        name="node-image",
        title="Nodes run Container-Optimized OS",
        cis=("5.5.1",),
        remedy='Set image_type="COS_CONTAINERD"',
        url=f"{_GKE}concepts/node-images",
        types=_TYPES,
        checks=(_at(_machines, lambda place: wants(f"{place}.imageType", "COS_CONTAINERD", "cos_containerd")),),
    ),
    ResourceRule(
        name="node-identity",
        title="No node runs as the default account of Compute Engine",
        cis=("5.2.1",),
        severity=Severity.CRITICAL,
        remedy="Set service_account to an account with roles/container.defaultNodeServiceAccount only; on Standard, "
        "set remove_default_node_pool=True as well",
        url=f"{_GKE}how-to/hardening-your-cluster#use_least_privilege_sa",
        types=_TYPES,
        checks=(_at(_nodes, _is_not_the_default_account),),
    ),
    StackRule(
        name="node-roles",
        title="Nodes may write logs and metrics and read images, and nothing else",
        cis=("5.2.1",),
        severity=Severity.CRITICAL,
        remedy="Grant nodes roles/container.defaultNodeServiceAccount, and roles/artifactregistry.reader on "
        "repositories; give pods roles of their own by Workload Identity",
        url=f"{_GKE}how-to/hardening-your-cluster#use_least_privilege_sa",
        survey=_nodes_have_other_roles,
    ),
    ResourceRule(
        name="metadata-server",
        title="Pods see GKE's metadata server and not that of the node, which hands out the node's identity",
        cis=("5.4.1",),
        severity=Severity.CRITICAL,
        remedy='Set node_config.workload_metadata_config.mode="GKE_METADATA" and leave legacy endpoints off',
        url=f"{_GKE}how-to/protecting-cluster-metadata",
        types=_TYPES,
        checks=(
            _at(_pools, lambda place: wants(f"{place}.workloadMetadataConfig.mode", "GKE_METADATA")),
            _at(_pools, lambda place: refuses(f"{place}.metadata.disable-legacy-endpoints", "false")),
        ),
    ),
    ResourceRule(
        name="node-repair",
        title="Google repairs broken nodes",
        cis=("5.5.2",),
        severity=Severity.MEDIUM,
        remedy="Set management.auto_repair=True",
        url=f"{_GKE}how-to/node-auto-repair",
        types=_TYPES,
        checks=(_at(_management, lambda place: wants(f"{place}.autoRepair", True)),),
    ),
    ResourceRule(
        name="node-upgrade",
        title="Google keeps the version of nodes current",
        cis=("5.5.3",),
        remedy="Set management.auto_upgrade=True",
        url=f"{_GKE}how-to/node-auto-upgrades",
        types=_TYPES,
        checks=(_at(_management, lambda place: wants(f"{place}.autoUpgrade", True)),),
    ),
    ResourceRule(
        name="integrity-monitoring",
        title="It is noticed when a node boots something else than before",
        cis=("5.5.6",),
        severity=Severity.MEDIUM,
        remedy="Set shielded_instance_config.enable_integrity_monitoring=True; it replaces the pool",
        url=f"{_GKE}how-to/shielded-gke-nodes#node_integrity",
        types=_TYPES,
        checks=(
            _at(_machines, lambda place: wants(f"{place}.shieldedInstanceConfig.enableIntegrityMonitoring", True)),
        ),
    ),
    ResourceRule(
        name="secure-boot",
        title="Nodes boot only what is signed",
        cis=("5.5.7",),
        remedy="Set shielded_instance_config.enable_secure_boot=True; it replaces the pool",
        url=f"{_GKE}how-to/shielded-gke-nodes#secure_boot",
        types=_TYPES,
        checks=(_at(_machines, lambda place: wants(f"{place}.shieldedInstanceConfig.enableSecureBoot", True)),),
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
        types=_TYPES,
        checks=(_at(_nodes, lambda place: wants_some(f"{place}.bootDiskKmsKey")),),
    ),
    ResourceRule(
        name="kubelet-port",
        title="Nodes do not show their pods on the kubelet's unauthenticated port",
        remedy='Set node_config.kubelet_config.insecure_kubelet_readonly_port_enabled="FALSE"',
        url=f"{_GKE}how-to/disable-kubelet-readonly-port",
        types=_TYPES,
        checks=(
            _at(_pools, lambda place: wants(f"{place}.kubeletConfig.insecureKubeletReadonlyPortEnabled", "FALSE")),
        ),
    ),
)
