"""Rules for the control plane of a GKE cluster, and for what the cluster gives to all its nodes.

Autopilot decides a part of it itself and refuses to be told; those rules are for Standard clusters alone.
Names and limits of the fields: https://www.pulumi.com/registry/packages/gcp/api-docs/container/cluster/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pulumi_policy import Severity

from infra.policy.network import is_nearly_everybody
from infra.policy.rule import Resource, ResourceRule, at, items, refuses, shown, wants, wants_all, wants_some

CLUSTER: Final = "gcp:container/cluster:Cluster"

_GKE: Final = "https://cloud.google.com/kubernetes-engine/docs/"


def is_autopilot(cluster: Resource) -> bool:
    """Whether Google runs the nodes."""
    return bool(at(cluster.inputs, "enableAutopilot"))


def _is_standard(cluster: Resource) -> bool:
    return not is_autopilot(cluster)


def _control_plane_is_not_public(cluster: Resource) -> Iterator[str]:
    if at(cluster.inputs, "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled") is False:
        return
    if not at(cluster.inputs, "privateClusterConfig.enablePrivateEndpoint"):
        yield "the control plane has a public IP address"


def _control_plane_is_for_some_networks(cluster: Resource) -> Iterator[str]:
    if at(cluster.inputs, "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled") is False:
        return
    path = "masterAuthorizedNetworksConfig"
    if at(cluster.inputs, path) is None:
        yield f"{path} is not set, so every address may connect to the control plane"
    elif at(cluster.inputs, f"{path}.gcpPublicCidrsAccessEnabled"):
        yield f"{path}.gcpPublicCidrsAccessEnabled is true, so every machine of Google Cloud may connect"
    blocks = [block["cidrBlock"] for block in items(cluster.inputs, f"{path}.cidrBlocks")]
    if is_nearly_everybody(blocks):
        yield f"{path}.cidrBlocks has {shown(blocks)}, which is nearly everybody"


RULES: Final = (
    ResourceRule(
        name="client-certificate",
        title="Nobody signs in to the cluster with a certificate, which could not be revoked",
        cis=("5.8.1",),
        remedy="Set master_auth.client_certificate_config.issue_client_certificate=False; it replaces the cluster",
        url=f"{_GKE}how-to/api-server-authentication",
        types=(CLUSTER,),
        checks=(wants("masterAuth.clientCertificateConfig.issueClientCertificate", False),),
    ),
    ResourceRule(
        name="legacy-authorization",
        title="Only RBAC and IAM decide who may do what, not attribute-based rules of old",
        cis=("5.8.3",),
        remedy="Set enable_legacy_abac=False",
        url=f"{_GKE}how-to/hardening-your-cluster",
        types=(CLUSTER,),
        checks=(wants("enableLegacyAbac", False, absent=True),),
    ),
    ResourceRule(
        name="google-groups",
        title="People get their rights in the cluster by Google Groups, so that who leaves loses them",
        cis=("5.8.2",),
        severity=Severity.LOW,
        remedy="Set authenticator_groups_config.security_group to gke-security-groups@DOMAIN, if there is one",
        url=f"{_GKE}how-to/google-groups-rbac",
        # Who has no Google Workspace or Cloud Identity has no such group.
        advisory=True,
        types=(CLUSTER,),
        checks=(wants_some("authenticatorGroupsConfig.securityGroup"),),
    ),
    ResourceRule(
        name="anonymous-requests",
        title="Requests without credentials reach nothing but the control plane's health",
        cis=("4.1.8",),
        remedy='Set anonymous_authentication_config.mode="LIMITED"',
        url=f"{_GKE}how-to/hardening-your-cluster",
        types=(CLUSTER,),
        checks=(wants("anonymousAuthenticationConfig.mode", "LIMITED"),),
    ),
    ResourceRule(
        name="insecure-bindings",
        title="The cluster refuses rights for everybody, signed in or not",
        cis=("4.1.8", "4.1.9", "4.1.10"),
        remedy="Set both fields of rbac_binding_config to False",
        url=f"{_GKE}best-practices/rbac#default-roles-groups",
        types=(CLUSTER,),
        checks=(
            wants("rbacBindingConfig.enableInsecureBindingSystemAuthenticated", False),
            wants("rbacBindingConfig.enableInsecureBindingSystemUnauthenticated", False),
        ),
    ),
    ResourceRule(
        name="network-policy-support",
        title="The cluster's network enforces NetworkPolicies",
        cis=("4.3.1",),
        severity=Severity.CRITICAL,
        remedy='Set datapath_provider="ADVANCED_DATAPATH"; it replaces the cluster',
        url=f"{_GKE}concepts/dataplane-v2",
        types=(CLUSTER,),
        checks=(wants("datapathProvider", "ADVANCED_DATAPATH"),),
        applies=_is_standard,
    ),
    ResourceRule(
        name="secret-store",
        title="Secrets can be kept outside the cluster, in Secret Manager",
        cis=("4.4.2",),
        severity=Severity.MEDIUM,
        remedy="Set secret_manager_config.enabled=True",
        url="https://cloud.google.com/secret-manager/docs/secret-manager-managed-csi-component",
        types=(CLUSTER,),
        checks=(wants("secretManagerConfig.enabled", True),),
    ),
    ResourceRule(
        name="secret-encryption",
        title="Kubernetes Secrets are encrypted with a key in Cloud KMS",
        cis=("5.3.1",),
        remedy='Set database_encryption to state="ENCRYPTED" and the key_name of a key in the cluster\'s region',
        url=f"{_GKE}how-to/encrypting-secrets",
        types=(CLUSTER,),
        checks=(wants("databaseEncryption.state", "ENCRYPTED"), wants_some("databaseEncryption.keyName")),
    ),
    ResourceRule(
        name="binary-authorization",
        title="The cluster admits the images that a policy of the project admits, in every namespace",
        cis=("4.5.1", "5.1.4"),
        severity=Severity.LOW,
        remedy='Set binary_authorization.evaluation_mode="PROJECT_SINGLETON_POLICY_ENFORCE"',
        url="https://cloud.google.com/binary-authorization/docs/overview",
        # One policy binds every cluster of the project; sandboxes are held to their images by admission policies.
        advisory=True,
        types=(CLUSTER,),
        checks=(wants("binaryAuthorization.evaluationMode", "PROJECT_SINGLETON_POLICY_ENFORCE"),),
    ),
    ResourceRule(
        name="workload-identity",
        title="Pods have identities of their own in Google Cloud",
        cis=("5.2.2",),
        remedy='Set workload_identity_config.workload_pool="PROJECT.svc.id.goog"',
        url=f"{_GKE}how-to/workload-identity",
        types=(CLUSTER,),
        checks=(wants_some("workloadIdentityConfig.workloadPool"),),
        applies=_is_standard,
    ),
    ResourceRule(
        name="release-channel",
        title="Google keeps the cluster's version current",
        cis=("5.5.4",),
        severity=Severity.MEDIUM,
        remedy='Set release_channel.channel="REGULAR"',
        url=f"{_GKE}concepts/release-channels",
        types=(CLUSTER,),
        checks=(wants("releaseChannel.channel", "RAPID", "REGULAR", "STABLE", "EXTENDED"),),
    ),
    ResourceRule(
        name="shielded-nodes",
        title="The control plane takes only nodes that prove who they are",
        cis=("5.5.5",),
        remedy="Set enable_shielded_nodes=True",
        url=f"{_GKE}how-to/shielded-gke-nodes",
        types=(CLUSTER,),
        checks=(wants("enableShieldedNodes", True, absent=True),),
        applies=_is_standard,
    ),
    ResourceRule(
        name="intranode-visibility",
        title="Traffic between pods of one node is seen by the network's logs and policies",
        cis=("5.6.1",),
        severity=Severity.MEDIUM,
        remedy="Set enable_intranode_visibility=True",
        url=f"{_GKE}how-to/intranode-visibility",
        types=(CLUSTER,),
        checks=(wants("enableIntranodeVisibility", True),),
        applies=_is_standard,
    ),
    ResourceRule(
        name="vpc-native",
        title="Pods have addresses of the network, not of a route per node",
        cis=("5.6.2",),
        severity=Severity.MEDIUM,
        remedy='Set networking_mode="VPC_NATIVE" and ip_allocation_policy; it replaces the cluster',
        url=f"{_GKE}concepts/alias-ips",
        types=(CLUSTER,),
        checks=(refuses("networkingMode", "ROUTES"), wants_some("ipAllocationPolicy")),
    ),
    ResourceRule(
        name="control-plane-networks",
        title="Only networks that were named can connect to an IP address of the control plane",
        cis=("5.6.3",),
        severity=Severity.CRITICAL,
        remedy="Set control_plane_endpoints_config.ip_endpoints_config.enabled=False and use the DNS endpoint, or name "
        "networks in master_authorized_networks_config",
        url=f"{_GKE}how-to/authorized-networks",
        types=(CLUSTER,),
        checks=(_control_plane_is_for_some_networks,),
    ),
    ResourceRule(
        name="control-plane-address",
        title="The control plane has no public IP address",
        cis=("5.6.4",),
        severity=Severity.CRITICAL,
        remedy="Set control_plane_endpoints_config.ip_endpoints_config.enabled=False and use the DNS endpoint, or set "
        "private_cluster_config.enable_private_endpoint=True",
        url=f"{_GKE}concepts/network-isolation",
        types=(CLUSTER,),
        checks=(_control_plane_is_not_public,),
    ),
    ResourceRule(
        name="dns-endpoint-credentials",
        title="The DNS endpoint takes the credentials of Google Cloud alone, so that IAM decides who comes in",
        cis=("5.6.4",),
        remedy="Set enable_k8s_tokens_via_dns and enable_k8s_certs_via_dns of dns_endpoint_config to False",
        url=f"{_GKE}concepts/network-isolation#dns-based_endpoint",
        types=(CLUSTER,),
        checks=tuple(
            wants(f"controlPlaneEndpointsConfig.dnsEndpointConfig.{field}", False, absent=True)
            for field in ("enableK8sTokensViaDns", "enableK8sCertsViaDns")
        ),
    ),
    ResourceRule(
        name="private-nodes",
        title="Nodes have no public IP addresses",
        cis=("5.6.5",),
        severity=Severity.CRITICAL,
        remedy="Set private_cluster_config.enable_private_nodes=True",
        url=f"{_GKE}concepts/network-isolation",
        types=(CLUSTER,),
        checks=(wants("privateClusterConfig.enablePrivateNodes", True),),
    ),
    ResourceRule(
        name="logging",
        title="Logs of the system, of pods and of the API server, and the system's metrics, are kept",
        cis=("5.7.1",),
        remedy="Set logging_config.enable_components and monitoring_config.enable_components",
        url=f"{_GKE}concepts/observability",
        types=(CLUSTER,),
        checks=(
            wants_all("loggingConfig.enableComponents", "SYSTEM_COMPONENTS", "WORKLOADS", "APISERVER"),
            wants_all("monitoringConfig.enableComponents", "SYSTEM_COMPONENTS"),
        ),
        applies=_is_standard,
    ),
    ResourceRule(
        name="alpha-features",
        title="The cluster is no alpha cluster, which Google deletes after 30 days",
        cis=("5.10.2",),
        remedy="Remove enable_kubernetes_alpha; it replaces the cluster",
        url=f"{_GKE}concepts/alpha-clusters",
        types=(CLUSTER,),
        checks=(wants("enableKubernetesAlpha", False, absent=True),),
    ),
    ResourceRule(
        name="security-posture",
        title="Google looks for known weaknesses in the configuration of workloads",
        cis=("5.10.4",),
        severity=Severity.MEDIUM,
        remedy='Set security_posture_config.mode="BASIC"',
        url=f"{_GKE}concepts/about-security-posture-dashboard",
        types=(CLUSTER,),
        checks=(wants("securityPostureConfig.mode", "BASIC", "ENTERPRISE"),),
    ),
    ResourceRule(
        name="kubelet-port-default",
        title="New node pools do not show their pods on the kubelet's unauthenticated port",
        severity=Severity.MEDIUM,
        remedy='Set node_pool_defaults.node_config_defaults.insecure_kubelet_readonly_port_enabled="FALSE"',
        url=f"{_GKE}how-to/disable-kubelet-readonly-port",
        types=(CLUSTER,),
        checks=(wants("nodePoolDefaults.nodeConfigDefaults.insecureKubeletReadonlyPortEnabled", "FALSE"),),
        applies=_is_standard,
    ),
    ResourceRule(
        name="service-external-ips",
        title="No Service can take over traffic to an address that it names",
        severity=Severity.MEDIUM,
        remedy="Set service_external_ips_config.enabled=False",
        url=f"{_GKE}how-to/hardening-your-cluster",
        types=(CLUSTER,),
        checks=(wants("serviceExternalIpsConfig.enabled", False),),
    ),
)
