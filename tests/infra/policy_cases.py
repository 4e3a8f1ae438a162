"""How each rule of the policy pack is broken, and what it says then: one change of a program that breaks no rule.

Also resources of kinds that the program does not have and somebody may add: good ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

GONE: Final = object()
"""Instead of a value: the input is left out."""

CLUSTER: Final = "gcp:container/cluster:Cluster"
POOL: Final = "gcp:container/nodePool:NodePool"
NETWORK: Final = "gcp:compute/network:Network"
SUBNETWORK: Final = "gcp:compute/subnetwork:Subnetwork"
FIREWALL: Final = "gcp:compute/firewall:Firewall"
NAT: Final = "gcp:compute/routerNat:RouterNat"
REPOSITORY: Final = "gcp:artifactregistry/repository:Repository"
READER: Final = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
PROJECT_MEMBER: Final = "gcp:projects/iAMMember:IAMMember"
PROJECT_BINDING: Final = "gcp:projects/iAMBinding:IAMBinding"
SERVICE_API: Final = "gcp:projects/service:Service"
ACCOUNT_KEY: Final = "gcp:serviceaccount/key:Key"
CRYPTO_KEY: Final = "gcp:kms/cryptoKey:CryptoKey"
AUTHORIZATION: Final = "gcp:binaryauthorization/policy:Policy"

NAMESPACE: Final = "kubernetes:core/v1:Namespace"
ACCOUNT: Final = "kubernetes:core/v1:ServiceAccount"
ACCOUNT_PATCH: Final = "kubernetes:core/v1:ServiceAccountPatch"
QUOTA: Final = "kubernetes:core/v1:ResourceQuota"
LIMIT_RANGE: Final = "kubernetes:core/v1:LimitRange"
CONFIG_MAP: Final = "kubernetes:core/v1:ConfigMap"
SECRET: Final = "kubernetes:core/v1:Secret"
SERVICE: Final = "kubernetes:core/v1:Service"
INGRESS: Final = "kubernetes:networking.k8s.io/v1:Ingress"
DEPLOYMENT: Final = "kubernetes:apps/v1:Deployment"
ROLE: Final = "kubernetes:rbac.authorization.k8s.io/v1:Role"
BINDING: Final = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
CLUSTER_ROLE: Final = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole"
NETWORK_POLICY: Final = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
ADMISSION_POLICY: Final = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy"
ADMISSION_BINDING: Final = "kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicyBinding"

SANDBOX: Final = "agent-sandbox"
AGENTS: Final = "agents"

_RBAC: Final = "rbac.authorization.k8s.io"
_DNS_PORTS: Final = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
_PRIVATE_RANGES: Final = ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]
_CONTAINER: Final = {
    "name": "sandbox",
    "image": f"europe-docker.pkg.dev/p/r/data@sha256:{'a' * 64}",
    "env": [{"name": "HOME", "value": "/workspace"}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}},
    "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
}

GUESTS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    (FIREWALL, "health-checks"): {"allows": [{"protocol": "tcp"}], "sourceRanges": ["10.0.0.0/20"]},
    (FIREWALL, "by-tag"): {"allows": [{"protocol": "tcp"}], "sourceTags": ["bastion"]},
    (FIREWALL, "way-out"): {"direction": "EGRESS", "allows": [{"protocol": "tcp"}], "destinationRanges": ["0.0.0.0/0"]},
    (NAT, "nat"): {"sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS"},
    (AUTHORIZATION, "policy"): {
        "defaultAdmissionRule": {"evaluationMode": "ALWAYS_DENY", "enforcementMode": "ENFORCED_BLOCK_AND_AUDIT_LOG"},
        "admissionWhitelistPatterns": [{"namePattern": "europe-docker.pkg.dev/p/r/*"}],
    },
    (PROJECT_BINDING, "auditors"): {"role": "roles/container.viewer", "members": ["group:auditors@example.com"]},
    (SERVICE, "inside"): {"metadata": {"name": "inside", "namespace": AGENTS}, "spec": {"type": "ClusterIP"}},
    (DEPLOYMENT, "idle"): {
        "metadata": {"name": "idle", "namespace": SANDBOX},
        "spec": {
            "template": {
                "spec": {
                    "runtimeClassName": "gvisor",
                    "automountServiceAccountToken": False,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
                    "containers": [_CONTAINER],
                }
            }
        },
    },
    (NETWORK_POLICY, "sandbox-internet"): {
        "metadata": {"name": "internet", "namespace": SANDBOX},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": _PRIVATE_RANGES}},
                        {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}},
                        {"ipBlock": {"cidr": "198.51.100.0/24"}},
                    ]
                },
                {
                    "to": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                        },
                        {"ipBlock": {"cidr": "169.254.20.10/32"}},
                        {"ipBlock": {"cidr": "169.254.169.254/32"}},
                        {"ipBlock": {"cidr": "10.72.0.10/32"}},
                    ],
                    "ports": _DNS_PORTS,
                },
            ],
        },
    },
}
"""(type, logical name) -> inputs."""

_POD: Final = "spec.template.spec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One broken program.

    Attributes:
        rule: The rule that it breaks.
        type: Type of the resource that is changed or added.
        name: Its logical name; empty is the first one of the type.
        change: Path -> value; ``None`` removes the resource.
        says: What is wrong, in the words of the rule, without the remedy.
        also: Other rules that it breaks, for one thing can be wrong in two ways.
    """

    rule: str
    type: str
    name: str = ""
    change: Mapping[str, Any] | None = field(default_factory=dict)
    says: str
    also: tuple[str, ...] = ()


def _dotted(change: Mapping[str, Any]) -> dict[str, Any]:
    return {path.replace("__", "."): value for path, value in change.items()}


def _cluster(rule: str, says: str, *also: str, **change: Any) -> Case:
    return Case(rule=rule, type=CLUSTER, change=_dotted(change), says=says, also=also)


def _pool(rule: str, says: str, *also: str, **change: Any) -> Case:
    return Case(rule=rule, type=POOL, name="sandbox-gvisor-pool", change=_dotted(change), says=says, also=also)


def _role(rule: str, says: str, **grant: Any) -> Case:
    granted = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **grant}
    change = {"metadata": {"name": "more", "namespace": SANDBOX}, "rules": [granted]}
    return Case(rule=rule, type=ROLE, name="more", change=change, says=f"Role more {says}")


def _binding(rule: str, says: str, **subject: Any) -> Case:
    change = {
        "metadata": {"name": "more", "namespace": SANDBOX},
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "sandbox-executor"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": AGENTS, **subject}],
    }
    return Case(rule=rule, type=BINDING, name="more", change=change, says=f"RoleBinding more {says}")


def _pod(rule: str, says: str, **change: Any) -> Case:
    full = {f"{_POD}.{path}": value for path, value in _dotted(change).items()}
    return Case(rule=rule, type=DEPLOYMENT, name="idle", change=full, says=says)


def _container(rule: str, says: str, **change: Any) -> Case:
    return _pod(
        rule,
        f"container sandbox of Deployment idle {says}",
        **{f"containers__0__{path}": value for path, value in change.items()},
    )


_IP_ON: Final = {"controlPlaneEndpointsConfig__ipEndpointsConfig__enabled": True}
_PRIVATE: Final = {**_IP_ON, "privateClusterConfig__enablePrivateEndpoint": True}

CLUSTER_CASES: Final = (
    _cluster(
        "client-certificate",
        "masterAuth.clientCertificateConfig.issueClientCertificate is true, not false",
        masterAuth__clientCertificateConfig__issueClientCertificate=True,
    ),
    _cluster(
        "client-certificate",
        "masterAuth.clientCertificateConfig.issueClientCertificate is not set, not false",
        masterAuth=GONE,
    ),
    _cluster("legacy-authorization", "enableLegacyAbac is true, not false", enableLegacyAbac=True),
    _cluster("google-groups", "authenticatorGroupsConfig.securityGroup is not set", authenticatorGroupsConfig=GONE),
    _cluster(
        "anonymous-requests",
        "anonymousAuthenticationConfig.mode is ENABLED, not LIMITED",
        anonymousAuthenticationConfig__mode="ENABLED",
    ),
    _cluster(
        "insecure-bindings",
        "rbacBindingConfig.enableInsecureBindingSystemAuthenticated is true, not false",
        rbacBindingConfig__enableInsecureBindingSystemAuthenticated=True,
    ),
    _cluster(
        "insecure-bindings",
        "rbacBindingConfig.enableInsecureBindingSystemUnauthenticated is not set, not false",
        rbacBindingConfig__enableInsecureBindingSystemUnauthenticated=GONE,
    ),
    _cluster("network-policy-support", "datapathProvider is not set, not ADVANCED_DATAPATH", datapathProvider=GONE),
    _cluster("secret-store", "secretManagerConfig.enabled is false, not true", secretManagerConfig__enabled=False),
    _cluster(
        "secret-encryption",
        "databaseEncryption.state is DECRYPTED, not ENCRYPTED",
        databaseEncryption__state="DECRYPTED",
    ),
    _cluster("secret-encryption", "databaseEncryption.keyName is not set", databaseEncryption__keyName=GONE),
    _cluster(
        "binary-authorization",
        "binaryAuthorization.evaluationMode is DISABLED, not PROJECT_SINGLETON_POLICY_ENFORCE",
        binaryAuthorization__evaluationMode="DISABLED",
    ),
    _cluster(
        "cluster-node-identity",
        "nodeConfig.serviceAccount is not set, so nodes run as the project's default account",
        removeDefaultNodePool=False,
        nodeConfig=GONE,
    ),
    _cluster("workload-identity", "workloadIdentityConfig.workloadPool is not set", workloadIdentityConfig=GONE),
    _cluster(
        "release-channel",
        "releaseChannel.channel is UNSPECIFIED, not RAPID or REGULAR or STABLE or EXTENDED",
        releaseChannel__channel="UNSPECIFIED",
    ),
    _cluster("shielded-nodes", "enableShieldedNodes is false, not true", enableShieldedNodes=False),
    _cluster("intranode-visibility", "enableIntranodeVisibility is not set, not true", enableIntranodeVisibility=GONE),
    _cluster("vpc-native", "networkingMode is ROUTES", networkingMode="ROUTES"),
    _cluster("vpc-native", "ipAllocationPolicy is not set", ipAllocationPolicy=GONE),
    _cluster(
        "control-plane-networks",
        "masterAuthorizedNetworksConfig is not set, so every address may connect to the control plane",
        **_PRIVATE,
    ),
    _cluster(
        "control-plane-networks",
        "masterAuthorizedNetworksConfig.cidrBlocks has 0.0.0.0/0",
        **_PRIVATE,
        masterAuthorizedNetworksConfig={"cidrBlocks": [{"cidrBlock": "0.0.0.0/0"}]},
    ),
    _cluster(
        "control-plane-networks",
        "masterAuthorizedNetworksConfig.gcpPublicCidrsAccessEnabled is true, so every machine of Google Cloud may",
        **_PRIVATE,
        masterAuthorizedNetworksConfig={"gcpPublicCidrsAccessEnabled": True},
    ),
    _cluster(
        "control-plane-address",
        "the control plane has a public IP address",
        **_IP_ON,
        masterAuthorizedNetworksConfig={"cidrBlocks": [{"cidrBlock": "198.51.100.0/24"}]},
    ),
    _cluster(
        "control-plane-address",
        "the control plane has a public IP address",
        "control-plane-networks",
        controlPlaneEndpointsConfig=GONE,
    ),
    _cluster(
        "dns-endpoint-credentials",
        "controlPlaneEndpointsConfig.dnsEndpointConfig.enableK8sTokensViaDns is true, not false",
        controlPlaneEndpointsConfig__dnsEndpointConfig__enableK8sTokensViaDns=True,
    ),
    _cluster(
        "private-nodes", "privateClusterConfig.enablePrivateNodes is not set, not true", privateClusterConfig=GONE
    ),
    _cluster(
        "logging",
        "loggingConfig.enableComponents is without WORKLOADS, APISERVER",
        loggingConfig__enableComponents=["SYSTEM_COMPONENTS"],
    ),
    _cluster("logging", "monitoringConfig.enableComponents is without SYSTEM_COMPONENTS", monitoringConfig=GONE),
    _cluster("alpha-features", "enableKubernetesAlpha is true, not false", enableKubernetesAlpha=True),
    _cluster(
        "security-posture",
        "securityPostureConfig.mode is DISABLED, not BASIC or ENTERPRISE",
        securityPostureConfig__mode="DISABLED",
    ),
    _cluster(
        "kubelet-port-default",
        "nodePoolDefaults.nodeConfigDefaults.insecureKubeletReadonlyPortEnabled is TRUE, not FALSE",
        nodePoolDefaults__nodeConfigDefaults__insecureKubeletReadonlyPortEnabled="TRUE",
    ),
    _cluster(
        "service-external-ips", "serviceExternalIpsConfig.enabled is not set, not false", serviceExternalIpsConfig=GONE
    ),
)

POOL_CASES: Final = (
    _pool("gvisor-pool", "no node pool has gVisor", nodeConfig__sandboxConfig=GONE),
    Case(
        rule="gvisor-pool",
        type=POOL,
        name="sandbox-system-pool",
        change={"nodeConfig.sandboxConfig": {"type": "GVISOR"}},
        says="every node pool has gVisor",
    ),
    # A misspelling that neither the SDK nor its mocks notice.
    _pool(
        "sandbox-type",
        "nodeConfig.sandboxConfig is there and its type is not set",
        "gvisor-pool",
        nodeConfig__sandboxConfig={"typ": "GVISOR"},
    ),
    _pool(
        "node-image",
        "nodeConfig.imageType is UBUNTU_CONTAINERD, not COS_CONTAINERD",
        nodeConfig__imageType="UBUNTU_CONTAINERD",
    ),
    _pool("node-identity", "nodeConfig.serviceAccount is not set", nodeConfig__serviceAccount=GONE),
    _pool("node-identity", "nodeConfig.serviceAccount is default", nodeConfig__serviceAccount="default"),
    _pool(
        "node-identity",
        "nodeConfig.serviceAccount is 1-compute@developer.gserviceaccount.com",
        nodeConfig__serviceAccount="1-compute@developer.gserviceaccount.com",
    ),
    _pool(
        "metadata-server",
        "nodeConfig.workloadMetadataConfig.mode is GCE_METADATA, not GKE_METADATA",
        nodeConfig__workloadMetadataConfig__mode="GCE_METADATA",
    ),
    _pool(
        "metadata-server",
        "nodeConfig.metadata.disable-legacy-endpoints is false",
        nodeConfig__metadata={"disable-legacy-endpoints": "false"},
    ),
    _pool("node-repair", "management.autoRepair is false, not true", management__autoRepair=False),
    _pool("node-upgrade", "management.autoUpgrade is not set, not true", management__autoUpgrade=GONE),
    _pool(
        "integrity-monitoring",
        "nodeConfig.shieldedInstanceConfig.enableIntegrityMonitoring is false, not true",
        nodeConfig__shieldedInstanceConfig__enableIntegrityMonitoring=False,
    ),
    _pool(
        "secure-boot",
        "nodeConfig.shieldedInstanceConfig.enableSecureBoot is not set, not true",
        nodeConfig__shieldedInstanceConfig__enableSecureBoot=GONE,
    ),
    _pool(
        "pool-private-nodes",
        "networkConfig.enablePrivateNodes is false, not true",
        networkConfig__enablePrivateNodes=False,
    ),
    _pool("boot-disk-key", "nodeConfig.bootDiskKmsKey is not set", nodeConfig__bootDiskKmsKey=GONE),
    _pool(
        "kubelet-port",
        "nodeConfig.kubeletConfig.insecureKubeletReadonlyPortEnabled is TRUE, not FALSE",
        nodeConfig__kubeletConfig__insecureKubeletReadonlyPortEnabled="TRUE",
    ),
)

NETWORK_CASES: Final = (
    Case(rule="flow-logs", type=SUBNETWORK, change={"logConfig": GONE}, says="logConfig is not set"),
    Case(
        rule="private-google-access",
        type=SUBNETWORK,
        change={"privateIpGoogleAccess": False},
        says="privateIpGoogleAccess is false, not true",
    ),
    Case(
        rule="own-subnetworks",
        type=NETWORK,
        change={"autoCreateSubnetworks": True},
        says="autoCreateSubnetworks is true, not false",
    ),
    Case(
        rule="open-firewall",
        type=FIREWALL,
        name="health-checks",
        change={"sourceRanges": ["10.0.0.0/8", "0.0.0.0/0"]},
        says="sourceRanges has 0.0.0.0/0",
    ),
    Case(
        rule="open-firewall",
        type=FIREWALL,
        name="health-checks",
        change={"sourceRanges": GONE},
        says="no source is named, which is everybody",
    ),
    Case(
        rule="nat-scope",
        type=NAT,
        change={"sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES"},
        says="sourceSubnetworkIpRangesToNat is ALL_SUBNETWORKS_ALL_IP_RANGES, not LIST_OF_SUBNETWORKS",
    ),
)

PROJECT_CASES: Final = (
    Case(
        rule="public-grant",
        type=READER,
        change={"member": "allUsers"},
        says="allUsers gets roles/artifactregistry.reader",
    ),
    Case(
        rule="public-grant",
        type=PROJECT_BINDING,
        change={"members": ["group:auditors@example.com", "allAuthenticatedUsers"]},
        says="allAuthenticatedUsers gets roles/container.viewer",
    ),
    Case(rule="basic-role", type=PROJECT_MEMBER, change={"role": "roles/editor"}, says="role is roles/editor"),
    Case(
        rule="registry-access",
        type=READER,
        change={"role": "roles/artifactregistry.writer"},
        says="role is roles/artifactregistry.writer, not roles/artifactregistry.reader",
    ),
    Case(
        rule="registry-scope",
        type=PROJECT_MEMBER,
        change={"role": "roles/artifactregistry.reader"},
        says="role is roles/artifactregistry.reader, which is for every repository of the project",
    ),
    Case(rule="account-key", type=ACCOUNT_KEY, name="key", says="the stack makes a key of an account"),
    Case(
        rule="image-scanning",
        type=REPOSITORY,
        change={"vulnerabilityScanningConfig.enablementConfig": "DISABLED"},
        says="vulnerabilityScanningConfig.enablementConfig is DISABLED, not INHERITED",
    ),
    Case(
        rule="image-scanning-api",
        type=SERVICE_API,
        name="sandbox-containerscanning",
        change=None,
        says="the API that scans images, containerscanning.googleapis.com, is not enabled",
    ),
    Case(
        rule="immutable-tags",
        type=REPOSITORY,
        name="sandbox-images",
        change={"dockerConfig": GONE},
        says="dockerConfig.immutableTags is not set, not true",
    ),
    Case(
        rule="binary-authorization-policy",
        type=AUTHORIZATION,
        change={"defaultAdmissionRule.evaluationMode": "ALWAYS_ALLOW"},
        says="defaultAdmissionRule.evaluationMode is ALWAYS_ALLOW, not ALWAYS_DENY or REQUIRE_ATTESTATION",
    ),
    Case(
        rule="binary-authorization-policy",
        type=AUTHORIZATION,
        change={"admissionWhitelistPatterns": [{"namePattern": "**"}]},
        says="admissionWhitelistPatterns has **, which is every image",
    ),
    Case(
        rule="binary-authorization-policy",
        type=AUTHORIZATION,
        change={"defaultAdmissionRule.enforcementMode": "DRYRUN_AUDIT_LOG_ONLY"},
        says="defaultAdmissionRule.enforcementMode is DRYRUN_AUDIT_LOG_ONLY, not ENFORCED_BLOCK_AND_AUDIT_LOG",
    ),
    Case(
        rule="key-rotation",
        type=CRYPTO_KEY,
        change={"rotationPeriod": "31536000s"},
        says="rotationPeriod is 31536000s, not 7776000s or less",
    ),
    Case(
        rule="key-rotation",
        type=CRYPTO_KEY,
        change={"rotationPeriod": GONE},
        says="rotationPeriod is not set, not 7776000s or less",
    ),
)

NAMESPACE_CASES: Final = (
    Case(
        rule="pod-security",
        type=NAMESPACE,
        name="sandbox-agents-namespace",
        change={"metadata.labels": {}},
        says="label pod-security.kubernetes.io/enforce is not set, not baseline or restricted",
    ),
    Case(
        rule="sandbox-pod-security",
        type=NAMESPACE,
        name="sandbox-namespace",
        change={"metadata.labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
        says=f"namespace {SANDBOX} has label pod-security.kubernetes.io/enforce baseline",
    ),
    Case(
        rule="default-deny",
        type=NETWORK_POLICY,
        name="sandbox-deny-all",
        change=None,
        says=f"namespace {SANDBOX} has no NetworkPolicy that selects every pod and allows nothing in or out",
    ),
    *(
        Case(
            rule="default-deny",
            type=NETWORK_POLICY,
            name="sandbox-agents-deny-all",
            change=change,
            says=f"namespace {AGENTS} has no NetworkPolicy that selects every pod and allows nothing in or out",
        )
        for change in (
            {"spec.policyTypes": ["Ingress"]},
            {"spec.podSelector": {"matchLabels": {"app": "one"}}},
            {"spec.ingress": [{}]},
            {"metadata.namespace": "another"},
        )
    ),
    *(
        Case(
            rule="sandbox-network",
            type=NETWORK_POLICY,
            name="sandbox-internet",
            change={"spec.egress": [{**({"to": to} if to else {}), **({"ports": ports} if ports else {})}]},
            says=f"NetworkPolicy internet allows {what}",
        )
        for to, what, *ports in (
            *(
                ([{"ipBlock": {"cidr": "169.254.169.254/32"}}], "169.254.0.0/16", *found)
                for found in (
                    [{"protocol": "TCP", "port": 80}],
                    [*_DNS_PORTS, {"protocol": "TCP", "port": 80}],
                    [{"protocol": "TCP", "port": 53, "endPort": 988}],
                    [{"protocol": "TCP"}],
                )
            ),
            ([{"ipBlock": {"cidr": "169.254.0.0/16"}}], "169.254.0.0/16", *_DNS_PORTS),
            ([{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}], "pods (k8s-app=kube-dns)", *_DNS_PORTS),
            ([], "every address"),
            ([{"ipBlock": {"cidr": "0.0.0.0/0"}}], ", ".join(_PRIVATE_RANGES)),
            (
                [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*_PRIVATE_RANGES[:2], *_PRIVATE_RANGES[3:]]}}],
                "169.254.0.0/16",
            ),
            ([{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*_PRIVATE_RANGES[1:], "10.0.0.0/9"]}}], "10.0.0.0/8"),
            ([{"ipBlock": {"cidr": "169.254.169.254/32"}}], "169.254.0.0/16"),
            ([{"ipBlock": {"cidr": "::/0"}}], "fc00::/7, fe80::/10"),
            ([{"podSelector": {"matchLabels": {"app": "database"}}}], "pods (app=database)"),
            ([{"namespaceSelector": {}}], "pods (all)"),
        )
    ),
    *(
        Case(
            rule="default-account",
            type=ACCOUNT_PATCH,
            name="sandbox-agents-default",
            change=change,
            says=f"namespace {AGENTS} gives a token to every pod that names no ServiceAccount",
            also=also,
        )
        for change, also in ((None, ()), ({"automountServiceAccountToken": True}, ("account-tokens",)))
    ),
    Case(
        rule="account-tokens",
        type=ACCOUNT,
        name="sandbox-runner",
        change={"automountServiceAccountToken": True},
        says=f"ServiceAccount sandbox-runner of namespace {SANDBOX} gives its pods a token",
    ),
    Case(
        rule="account-tokens",
        type=ACCOUNT,
        name="idle",
        change={"metadata": {"name": "idle", "namespace": AGENTS}},
        says=f"ServiceAccount idle of namespace {AGENTS} gives its pods a token",
    ),
    *(
        Case(
            rule="sandbox-identity",
            type=PROJECT_MEMBER,
            name="more",
            change={"role": "roles/aiplatform.user", "member": member},
            says=f"{member} gets roles/aiplatform.user",
        )
        for member in (
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p.svc.id.goog"
            f"/subject/ns/{SANDBOX}/sa/sandbox-runner",
            "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p.svc.id.goog"
            f"/namespace/{SANDBOX}",
            f"serviceAccount:p.svc.id.goog[{SANDBOX}/sandbox-runner]",
        )
    ),
    Case(
        rule="sandbox-quota",
        type=QUOTA,
        change={"spec.hard": {"count/secrets": "0", "count/services": "0", "count/persistentvolumeclaims": "0"}},
        says=f"no ResourceQuota of namespace {SANDBOX} bounds count/pods, count/jobs.batch, limits.cpu, limits.memory, "
        "limits.ephemeral-storage",
    ),
    Case(
        rule="sandbox-quota",
        type=QUOTA,
        change={"spec.hard.count/secrets": "10"},
        says=f"no ResourceQuota of namespace {SANDBOX} sets count/secrets to 0",
    ),
    Case(rule="sandbox-quota", type=LIMIT_RANGE, change=None, says=f"namespace {SANDBOX} has no LimitRange"),
    *(
        Case(
            rule="sandbox-admission",
            type=kind,
            name="sandbox-jobs",
            change=change,
            says=f"no policy that fails closed and denies is bound to namespace {SANDBOX} for jobs",
        )
        for kind, change in (
            (ADMISSION_BINDING, None),
            (ADMISSION_POLICY, None),
            (ADMISSION_BINDING, {"spec.validationActions": ["Audit"]}),
            (ADMISSION_POLICY, {"spec.failurePolicy": "Ignore"}),
            (ADMISSION_POLICY, {"spec.matchConstraints.resourceRules.0.operations": ["CREATE"]}),
            (
                ADMISSION_BINDING,
                {"spec.matchResources.namespaceSelector.matchLabels": {"kubernetes.io/metadata.name": "another"}},
            ),
        )
    ),
    Case(
        rule="own-namespaces",
        type=CONFIG_MAP,
        name="more",
        change={"metadata": {"name": "more"}},
        says="ConfigMap more is in namespace default",
    ),
    Case(
        rule="own-namespaces",
        type=CONFIG_MAP,
        name="more",
        change={"metadata": {"name": "more", "namespace": "kube-system"}},
        says="ConfigMap more is in namespace kube-system",
    ),
    Case(
        rule="no-entrance",
        type=SERVICE,
        change={"spec.type": "LoadBalancer"},
        says="Service inside makes pods reachable from outside the cluster",
    ),
    Case(
        rule="no-entrance",
        type=INGRESS,
        name="front",
        change={"metadata": {"name": "front", "namespace": AGENTS}},
        says="Ingress front makes pods reachable from outside the cluster",
    ),
    Case(
        rule="no-secrets",
        type=SECRET,
        name="key",
        change={"metadata": {"name": "key", "namespace": AGENTS}},
        says="Secret key is a resource of the stack",
    ),
)

RBAC_CASES: Final = (
    *(
        Case(
            rule="rbac-broad-roles",
            type=BINDING,
            name="sandbox-executor",
            change={"roleRef.name": role, "roleRef.kind": "ClusterRole"},
            says=f"RoleBinding sandbox-executor grants {role}",
        )
        for role in ("cluster-admin", "admin", "edit")
    ),
    Case(
        rule="rbac-cluster-wide",
        type=CLUSTER_ROLE,
        name="more",
        change={"metadata": {"name": "more"}, "rules": []},
        says="ClusterRole more is for every namespace",
    ),
    _role("rbac-secrets", "grants get, list on secrets", resources=["secrets"], verbs=["get", "list"]),
    *(
        _role("rbac-wildcards", f"has * in {key}", **{key: [value]})
        for key, value in (("apiGroups", "*"), ("resources", "*"), ("resources", "pods/*"), ("verbs", "*"))
    ),
    _binding("rbac-default-account", "names the ServiceAccount default", name="default"),
    *(
        _binding(rule, f"names {name}", kind=kind, name=name, namespace=None)
        for rule, kind, name in (
            ("rbac-anonymous", "User", "system:anonymous"),
            ("rbac-unauthenticated", "Group", "system:unauthenticated"),
            ("rbac-authenticated", "Group", "system:authenticated"),
            ("rbac-authenticated", "Group", "system:serviceaccounts"),
            ("rbac-masters", "Group", "system:masters"),
        )
    ),
    *(_role("rbac-others-rights", f"grants {verb}", verbs=[verb]) for verb in ("bind", "escalate", "impersonate")),
    *(
        _role("rbac-others-rights", f"grants create on {kind}", resources=[kind], verbs=["create"])
        for kind in ("serviceaccounts/token", "pods/exec", "nodes/proxy")
    ),
    _role("rbac-deletecollection", "grants deletecollection on pods", verbs=["deletecollection"]),
    _binding(
        "sandbox-rights",
        "names ServiceAccount sandbox-runner, which sandboxes have",
        name="sandbox-runner",
        namespace=SANDBOX,
    ),
    _binding(
        "sandbox-rights",
        f"names Group system:serviceaccounts:{SANDBOX}, which sandboxes have",
        kind="Group",
        name=f"system:serviceaccounts:{SANDBOX}",
        namespace=None,
    ),
)

POD_CASES: Final = (
    _pod("pod-gvisor", "runtimeClassName of Deployment idle is not set", runtimeClassName=GONE),
    _pod("pod-token", "the pod of Deployment idle gets a token", automountServiceAccountToken=GONE),
    _pod("pod-host", "the pod of Deployment idle has hostNetwork", hostNetwork=True),
    _pod(
        "pod-host",
        "the pod of Deployment idle mounts /var/run of its node",
        volumes=[{"name": "run", "hostPath": {"path": "/var/run"}}],
    ),
    _container(
        "pod-secret-environment",
        "has Secrets in its environment: TOKEN",
        env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "t"}}}],
    ),
    _container(
        "pod-secret-environment", "has Secrets in its environment: envFrom", envFrom=[{"secretRef": {"name": "t"}}]
    ),
    _container("pod-image", "has image python:3.11-slim, which is not named by digest", image="python:3.11-slim"),
    _pod(
        "pod-seccomp",
        "securityContext.seccompProfile.type of container sandbox is Unconfined, not RuntimeDefault",
        securityContext={"seccompProfile": {"type": "Unconfined"}},
    ),
    _container("pod-privileges", "is privileged", securityContext__privileged=True),
    _container("pod-privileges", "can gain privileges", securityContext__allowPrivilegeEscalation=GONE),
    _container("pod-privileges", "keeps or adds capabilities", securityContext__capabilities={"add": ["NET_RAW"]}),
    _container("pod-privileges", "may run as root", securityContext__runAsNonRoot=GONE),
    _container("pod-limits", "has no limit of memory", resources__limits__memory=GONE),
)

CASES: Final = (*CLUSTER_CASES, *POOL_CASES, *NETWORK_CASES, *PROJECT_CASES, *NAMESPACE_CASES, *RBAC_CASES, *POD_CASES)
