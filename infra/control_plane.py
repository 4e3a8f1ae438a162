"""The arguments of a GKE cluster, in both modes: what is hardened, and why where it is not plain.

https://cloud.google.com/kubernetes-engine/docs/how-to/hardening-your-cluster. Creates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.gke.maintenance import exclusions, in_utc
from infra.gke_checks import GROUPS_OFF, MIN_DISK_GB
from infra.gke_settings import GkeSettings
from infra.node_identity import SCOPES

_container = gcp.container

_READ_BACK: Final = (
    # Of the first pool, which is gone by then.
    "node_config",
    # With the addresses off the provider sends nothing of it and reads back true
    # (https://github.com/hashicorp/terraform-provider-google/pull/28981).
    "privateClusterConfig.enablePrivateEndpoint",
)
NOT_OURS: Final[Mapping[str, list[str]]] = MappingProxyType(
    {
        # GKE names the domain, and the provider would take the name away ("suppresses permadiff" in its own tests,
        # resource_container_cluster_test.go). Of Autopilot's DNS it overlooks everything.
        "standard": [*_READ_BACK, "dnsConfig.clusterDnsDomain"],
        "autopilot": list(_READ_BACK),
    }
)
"""By mode, what GKE says of a cluster unasked, and what would be a difference in every preview."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a cluster is made in.

    Attributes:
        network: Link of its VPC.
        subnetwork: Link of the subnet of its nodes.
        pods_range: Name of that subnet's range of pods.
        services_range: Name of that subnet's range of Services.
        key: Cloud KMS key of the Secrets in etcd.
        boot_disk_key: Cloud KMS key of boot disks; ``None`` is Google's own.
        node_account: E-mail of the nodes' service account.
        fqdn_policies: Whether network policies may name hosts.
    """

    network: pulumi.Input[str]
    subnetwork: pulumi.Input[str]
    pods_range: str
    services_range: str
    key: pulumi.Input[str]
    boot_disk_key: pulumi.Input[str] | None
    node_account: pulumi.Input[str]
    fqdn_policies: bool


def standard(gke: GkeSettings, around: Surroundings) -> _container.ClusterArgs:
    """Return the arguments of a cluster whose node pools are ours."""
    args = _both(gke, around)
    # GKE insists on a first pool; it exists for minutes, and even so not as the project's default account.
    args.remove_default_node_pool = True
    args.initial_node_count = 1
    args.node_config = _container.ClusterNodeConfigArgs(
        service_account=around.node_account,
        oauth_scopes=list(SCOPES),
        boot_disk_kms_key=around.boot_disk_key,
        # GKE's own choice is 100 GB of the quota for SSD in each of three zones, which a new project may not have
        # (https://github.com/terraform-google-modules/terraform-google-kubernetes-engine/issues/1795).
        boot_disk=_container.ClusterNodeConfigBootDiskArgs(disk_type="pd-standard", size_gb=MIN_DISK_GB),
        image_type="COS_CONTAINERD",
        shielded_instance_config=_container.ClusterNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
    )
    args.networking_mode = "VPC_NATIVE"
    # With the older datapath NetworkPolicies are objects that nobody enforces.
    args.datapath_provider = "ADVANCED_DATAPATH"
    args.enable_fqdn_network_policy = around.fqdn_policies or None
    args.enable_intranode_visibility = True
    args.enable_shielded_nodes = True
    args.enable_legacy_abac = False
    args.addons_config = _addons(gke)
    # Calico's; it excludes Dataplane V2.
    args.addons_config.network_policy_config = _container.ClusterAddonsConfigNetworkPolicyConfigArgs(disabled=True)
    # Left out, it depends on the version: on by default from 1.34.1-gke.3720000, as it always is on Autopilot
    # (https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache).
    args.addons_config.dns_cache_config = _container.ClusterAddonsConfigDnsCacheConfigArgs(enabled=True)
    args.dns_config = _container.ClusterDnsConfigArgs(cluster_dns="CLOUD_DNS", cluster_dns_scope="CLUSTER_SCOPE")
    args.workload_identity_config = _container.ClusterWorkloadIdentityConfigArgs(workload_pool=gke.workload_pool)
    args.node_pool_defaults = _container.ClusterNodePoolDefaultsArgs(
        node_config_defaults=_container.ClusterNodePoolDefaultsNodeConfigDefaultsArgs(
            insecure_kubelet_readonly_port_enabled="FALSE",
            gcfs_config=_container.ClusterNodePoolDefaultsNodeConfigDefaultsGcfsConfigArgs(enabled=True),
        )
    )
    args.cluster_autoscaling = _container.ClusterClusterAutoscalingArgs(autoscaling_profile="OPTIMIZE_UTILIZATION")
    return args


def autopilot(gke: GkeSettings, around: Surroundings) -> _container.ClusterArgs:
    """Return the arguments of a cluster whose nodes are GKE's business.

    Autopilot brings Dataplane V2, Workload Identity, shielded nodes and gVisor itself, and refuses to be told so.
    """
    args = _both(gke, around)
    args.enable_autopilot = True
    args.addons_config = _addons(gke)
    args.enable_fqdn_network_policy = around.fqdn_policies or None
    args.cluster_autoscaling = _container.ClusterClusterAutoscalingArgs(
        auto_provisioning_defaults=_container.ClusterClusterAutoscalingAutoProvisioningDefaultsArgs(
            service_account=around.node_account,
            oauth_scopes=list(SCOPES),
            boot_disk_kms_key=around.boot_disk_key,
        )
    )
    return args


def _addons(gke: GkeSettings) -> _container.ClusterAddonsConfigArgs:
    """Return the add-ons, the ones that are off as well: left out, one that was on would stay on."""
    return _container.ClusterAddonsConfigArgs(
        agent_sandbox_config=_container.ClusterAddonsConfigAgentSandboxConfigArgs(enabled=gke.agent_sandbox_addon),
        pod_snapshot_config=_container.ClusterAddonsConfigPodSnapshotConfigArgs(enabled=gke.pod_snapshots),
    )


def _both(gke: GkeSettings, around: Surroundings) -> _container.ClusterArgs:
    return _container.ClusterArgs(
        project=gke.project,
        location=gke.region,
        deletion_protection=gke.deletion_protection,
        network=around.network,
        subnetwork=around.subnetwork,
        ip_allocation_policy=_container.ClusterIpAllocationPolicyArgs(
            cluster_secondary_range_name=around.pods_range, services_secondary_range_name=around.services_range
        ),
        private_cluster_config=_container.ClusterPrivateClusterConfigArgs(enable_private_nodes=True),
        # The DNS endpoint is guarded by IAM; with the addresses off nothing else listens.
        control_plane_endpoints_config=_container.ClusterControlPlaneEndpointsConfigArgs(
            dns_endpoint_config=_container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(
                allow_external_traffic=True, enable_k8s_tokens_via_dns=False, enable_k8s_certs_via_dns=False
            ),
            ip_endpoints_config=_container.ClusterControlPlaneEndpointsConfigIpEndpointsConfigArgs(enabled=False),
        ),
        release_channel=_container.ClusterReleaseChannelArgs(channel=gke.release_channel),
        min_master_version=gke.min_version or None,
        maintenance_policy=_container.ClusterMaintenancePolicyArgs(
            recurring_window=_container.ClusterMaintenancePolicyRecurringWindowArgs(
                start_time=in_utc(gke.maintenance_start),
                end_time=in_utc(gke.maintenance_end),
                recurrence=gke.maintenance_recurrence,
            ),
            # The provider reads them back, and takes away those that are not here (`expandMaintenancePolicy`).
            maintenance_exclusions=[
                _container.ClusterMaintenancePolicyMaintenanceExclusionArgs(
                    exclusion_name=each.name,
                    start_time=each.start,
                    end_time=each.end,
                    exclusion_options=(
                        _container.ClusterMaintenancePolicyMaintenanceExclusionExclusionOptionsArgs(scope=each.scope)
                    ),
                )
                for each in exclusions(gke.maintenance_exclusions)
            ]
            or None,
        ),
        master_auth=_container.ClusterMasterAuthArgs(
            client_certificate_config=_container.ClusterMasterAuthClientCertificateConfigArgs(
                issue_client_certificate=False
            )
        ),
        anonymous_authentication_config=_container.ClusterAnonymousAuthenticationConfigArgs(mode="LIMITED"),
        rbac_binding_config=_container.ClusterRbacBindingConfigArgs(
            enable_insecure_binding_system_authenticated=False, enable_insecure_binding_system_unauthenticated=False
        ),
        authenticator_groups_config=_container.ClusterAuthenticatorGroupsConfigArgs(
            # Empty switches it off (`expandContainerClusterAuthenticatorGroupsConfig`).
            security_group="" if gke.rbac_security_group == GROUPS_OFF else gke.rbac_security_group
        )
        if gke.rbac_security_group
        else None,
        database_encryption=_container.ClusterDatabaseEncryptionArgs(state="ENCRYPTED", key_name=around.key),
        binary_authorization=_container.ClusterBinaryAuthorizationArgs(
            evaluation_mode="DISABLED" if gke.binary_authorization == "off" else "PROJECT_SINGLETON_POLICY_ENFORCE"
        ),
        security_posture_config=_container.ClusterSecurityPostureConfigArgs(
            mode="BASIC", vulnerability_mode="VULNERABILITY_DISABLED"
        ),
        service_external_ips_config=_container.ClusterServiceExternalIpsConfigArgs(enabled=False),
        secret_manager_config=_container.ClusterSecretManagerConfigArgs(enabled=True),
        cost_management_config=_container.ClusterCostManagementConfigArgs(enabled=True),
        logging_config=_container.ClusterLoggingConfigArgs(
            enable_components=["SYSTEM_COMPONENTS", "WORKLOADS", "APISERVER", "SCHEDULER", "CONTROLLER_MANAGER"]
        ),
        monitoring_config=_container.ClusterMonitoringConfigArgs(
            enable_components=[
                "SYSTEM_COMPONENTS",
                "APISERVER",
                "SCHEDULER",
                "CONTROLLER_MANAGER",
                "POD",
                "DEPLOYMENT",
            ],
            managed_prometheus=_container.ClusterMonitoringConfigManagedPrometheusArgs(enabled=True),
            advanced_datapath_observability_config=(
                _container.ClusterMonitoringConfigAdvancedDatapathObservabilityConfigArgs(
                    enable_metrics=True, enable_relay=False
                )
            ),
        ),
    )
