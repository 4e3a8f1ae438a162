"""The two node pools of a standard cluster: one for agents and GKE's own pods, one for sandboxes under gVisor.

GKE itself gives the nodes of a gVisor pool the label and the taint ``sandbox.gke.io/runtime=gvisor``, and the
cluster the RuntimeClass that goes with them; none of these is written here.
https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods
"""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.gke_checks import SYSTEM_DISK_GB, SYSTEM_DISK_TYPE
from infra.gke_settings import SYSTEM_PODS_PER_NODE, GkeSettings
from infra.node_identity import SCOPES

_PIDS: Final = 1024
"""Processes of one pod as the node's kernel sees them; gVisor's own kernel does not start with 64."""

_LOG_FILE: Final = "50Mi"
"""When the kubelet rotates a container's log: a reply, of 8 MiB at the most, is never cut in two by it."""

_ZONES: Final = 3
"""In how many zones of a region GKE puts nodes, unless it is told
(https://cloud.google.com/kubernetes-engine/docs/concepts/regional-clusters#default_zones)."""

_BLUE_GREEN_SOAK_SECONDS: Final = 3600


def node_config(
    *, machine_type: str, account: pulumi.Input[str], key: pulumi.Input[str] | None
) -> gcp.container.NodePoolNodeConfigArgs:
    """Return what all nodes have in common."""
    return gcp.container.NodePoolNodeConfigArgs(
        machine_type=machine_type,
        image_type="COS_CONTAINERD",
        service_account=account,
        oauth_scopes=list(SCOPES),
        boot_disk=gcp.container.NodePoolNodeConfigBootDiskArgs(disk_type=SYSTEM_DISK_TYPE, size_gb=SYSTEM_DISK_GB),
        boot_disk_kms_key=key,
        gcfs_config=gcp.container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
        kubelet_config=gcp.container.NodePoolNodeConfigKubeletConfigArgs(
            insecure_kubelet_readonly_port_enabled="FALSE",
            pod_pids_limit=_PIDS,
            cpu_cfs_quota=True,
            container_log_max_size=_LOG_FILE,
        ),
        # GKE adds it anyway; unset it would be a difference at every refresh.
        metadata={"disable-legacy-endpoints": "true"},
        shielded_instance_config=gcp.container.NodePoolNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
        workload_metadata_config=gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
    )


def node_pools(
    name: str,
    *,
    cluster: gcp.container.Cluster,
    gke: GkeSettings,
    account: pulumi.Input[str],
    key: pulumi.Input[str] | None,
    opts: pulumi.ResourceOptions,
) -> list[gcp.container.NodePool]:
    """Create both pools.

    Args:
        name: What the logical names begin with.
        cluster: Their cluster.
        gke: Machines, sizes, upgrades.
        account: E-mail of the nodes' service account.
        key: Cloud KMS key of the boot disks; ``None`` is Google's own.
        opts: Options of both.
    """

    def pool(
        word: str,
        config: gcp.container.NodePoolNodeConfigArgs,
        *,
        least: int,
        most: int,
        pods: int,
        upgrade: gcp.container.NodePoolUpgradeSettingsArgs,
    ) -> gcp.container.NodePool:
        return gcp.container.NodePool(
            f"{name}-{word}",
            project=gke.project,
            cluster=cluster.id,
            location=gke.region,
            node_config=config,
            initial_node_count=_first_nodes(least, most),
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=least, total_max_node_count=most, location_policy="ANY"
            ),
            max_pods_per_node=pods,
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            upgrade_settings=upgrade,
            network_config=gcp.container.NodePoolNetworkConfigArgs(enable_private_nodes=True),
            # The autoscaler changes it; a later value would replace the pool.
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(ignore_changes=["initial_node_count"])),
        )

    system = node_config(machine_type=gke.system_machine_type, account=account, key=key)
    sandbox = node_config(machine_type=gke.sandbox_machine_type, account=account, key=key)
    sandbox.sandbox_config = gcp.container.NodePoolNodeConfigSandboxConfigArgs(type="GVISOR")
    sandbox.spot = gke.sandbox_spot
    sandbox.boot_disk = gcp.container.NodePoolNodeConfigBootDiskArgs(
        disk_type=gke.sandbox_disk_type, size_gb=gke.sandbox_disk_gb
    )
    return [
        pool(
            "system-pool",
            system,
            least=gke.system_nodes_min,
            most=gke.system_nodes_max,
            pods=SYSTEM_PODS_PER_NODE,
            upgrade=_surge(),
        ),
        pool(
            "gvisor-pool",
            sandbox,
            least=gke.sandbox_nodes_min,
            most=gke.sandbox_nodes_max,
            pods=gke.sandbox_pods_per_node,
            upgrade=_blue_green() if gke.sandbox_upgrade == "BLUE_GREEN" else _surge(),
        ),
    ]


def _first_nodes(least: int, most: int) -> int:
    """Return how many nodes of each zone a pool begins with: its floor, which the autoscaler need not fill up to.

    Where a node in every zone would be too many, none: the autoscaler adds one for the first pod.
    """
    a_zone = -(-least // _ZONES)
    return a_zone if a_zone * _ZONES <= most else least // _ZONES


def _surge() -> gcp.container.NodePoolUpgradeSettingsArgs:
    return gcp.container.NodePoolUpgradeSettingsArgs(strategy="SURGE", max_surge=1, max_unavailable=0)


def _blue_green() -> gcp.container.NodePoolUpgradeSettingsArgs:
    rollout = gcp.container.NodePoolUpgradeSettingsBlueGreenSettingsStandardRolloutPolicyArgs(
        batch_percentage=1.0, batch_soak_duration="0s"
    )
    return gcp.container.NodePoolUpgradeSettingsArgs(
        strategy="BLUE_GREEN",
        blue_green_settings=gcp.container.NodePoolUpgradeSettingsBlueGreenSettingsArgs(
            node_pool_soak_duration=f"{_BLUE_GREEN_SOAK_SECONDS}s", standard_rollout_policy=rollout
        ),
    )
