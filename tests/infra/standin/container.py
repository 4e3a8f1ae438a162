"""Clusters and node pools, as GKE would have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from standin.cloud import CloudError, Json, World
from standin.compute import existing
from standin.identity import admit_account, admit_key
from standin.kinds import CLUSTER, NETWORK, POOL, SUBNETWORK, Kind, at, short, version_key
from standin.schema import Problem
from standin.wire import UNKNOWN

SANDBOX: Final = "sandbox.gke.io/runtime"
"""Key of the label and the taint that GKE gives to the nodes of a sandbox pool
(https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods)."""

_CLUSTER_ID: Final = "projects/{project}/locations/{location}/clusters/{name}"

AUTHORITY: Final = "c3RhbmQtaW4tYXV0aG9yaXR5"
CLIENT_CERTIFICATE: Final = "c3RhbmQtaW4tY2VydGlmaWNhdGU="
CLIENT_KEY: Final = "c3RhbmQtaW4ta2V5"
"""What a cluster's certificates look like here; base64 of words, of no use anywhere."""

_AUTOPILOT_EXCLUDES: Final = (
    "removeDefaultNodePool",
    "enableShieldedNodes",
    "enableIntranodeVisibility",
    "datapathProvider",
    "networkPolicy",
    "nodePoolDefaults",
    "initialNodeCount",
    "nodeVersion",
    "defaultMaxPodsPerNode",
)
"""What must be absent where `enable_autopilot` is present, even if it is false."""


def _check_cluster(inputs: Json) -> list[Problem]:
    found: list[Problem] = []
    name = inputs["name"]
    if len(name) > 40 or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(("name", f'"name" ("{name}") can be up to 40 characters of [a-z0-9-]'))
    if "enableAutopilot" in inputs:
        found += [
            ("enableAutopilot", f'Conflicting configuration arguments. "enable_autopilot": conflicts with {key}')
            for key in _AUTOPILOT_EXCLUDES
            if key in inputs
        ]
    if inputs.get("removeDefaultNodePool") and "nodeVersion" in inputs:
        found.append(("nodeVersion", "node_version can only be specified if remove_default_node_pool is not true"))
    addresses = inputs.get("ipAllocationPolicy") or {}
    for this in ("cluster", "services"):
        if f"{this}SecondaryRangeName" in addresses and f"{this}Ipv4CidrBlock" in addresses:
            found.append(
                (
                    f"ipAllocationPolicy.{this}Ipv4CidrBlock",
                    f"Conflicting configuration arguments. {this}_ipv4_cidr_block conflicts with "
                    f"{this}_secondary_range_name",
                )
            )
    if at(inputs, "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled") is False:
        found += [
            (path, "cannot be set while ip_endpoints_config.enabled is false")
            for path in (
                "masterAuthorizedNetworksConfig",
                "privateClusterConfig.enablePrivateEndpoint",
                "privateClusterConfig.privateEndpointSubnetwork",
                "privateClusterConfig.masterGlobalAccessConfig",
            )
            if at(inputs, path) is not None
        ]
    if inputs.get("datapathProvider") == "ADVANCED_DATAPATH" and at(inputs, "networkPolicy.enabled"):
        found.append(("networkPolicy", "Enabling NetworkPolicy is not allowed with Dataplane V2"))
    return found


def _admit_cluster(world: World, inputs: Json) -> None:
    if at(inputs, "workloadIdentityConfig.workloadPool") not in (None, f"{inputs['project']}.svc.id.goog"):
        raise CloudError(
            "googleapi: Error 400: Currently, the only supported Workload Identity Pool is "
            f'"{inputs["project"]}.svc.id.goog"., badRequest'
        )
    if "network" in inputs:
        existing(world, NETWORK, inputs["network"])
    if "subnetwork" in inputs:
        subnetwork = existing(world, SUBNETWORK, inputs["subnetwork"])
        names = {each["rangeName"] for each in subnetwork["inputs"].get("secondaryIpRanges") or []}
        for this in ("cluster", "services"):
            wanted = at(inputs, f"ipAllocationPolicy.{this}SecondaryRangeName")
            if wanted is not None and wanted not in names:
                raise CloudError(
                    f'googleapi: Error 400: {"Pods" if this == "cluster" else "Services"} secondary range "{wanted}" '
                    f'not found in subnet "{short(inputs["subnetwork"])}"., badRequest'
                )
    admit_key(world, at(inputs, "databaseEncryption.keyName"), "container-engine-robot")
    admit_account(world, at(inputs, "nodeConfig.serviceAccount"))


def control_plane_version(world: World, inputs: Json) -> str:
    """Return the version that GKE would give a control plane: the channel's, or the floor if that is above."""
    floor = inputs.get("minMasterVersion") or "0"
    return max(world.version, str(floor), key=version_key)


def _release_cluster(_world: World, outputs: Json) -> None:
    if outputs.get("deletionProtection", True):
        raise CloudError(
            "Cannot destroy cluster because deletion_protection is set to true. "
            "Set it to false to proceed with cluster deletion."
        )


def _cluster_outputs(world: World, inputs: Json) -> Json:
    version = control_plane_version(world, inputs)
    return {
        "masterVersion": version,
        "selfLink": f"https://container.googleapis.com/v1/{_CLUSTER_ID.format(**inputs)}",
        "endpoint": "203.0.113.10",  # Documentation block: must never be connected to.
        "operation": "",
        "labelFingerprint": "00000000",
        "servicesIpv4Cidr": "",
        # The client's key is what the provider marks as a secret; the rest of the block is plain text.
        "masterAuth": {**(inputs.get("masterAuth") or {}), **_credentials(inputs)},
    }


def _credentials(inputs: Json) -> Json:
    """Return the control plane's certificates; a client's only where one is asked for."""
    issued = at(inputs, "masterAuth.clientCertificateConfig.issueClientCertificate") is True
    return {
        "clientCertificate": CLIENT_CERTIFICATE if issued else "",
        "clientKey": CLIENT_KEY if issued else "",
        "clusterCaCertificate": AUTHORITY,
    }


def _check_pool(inputs: Json) -> list[Problem]:
    found: list[Problem] = []
    if len(inputs.get("namePrefix") or "") > 31:
        found.append(("namePrefix", f'"name_prefix" ("{inputs["namePrefix"]}") cannot be longer than 31 characters'))
    if len(inputs.get("name") or "") > 40:
        found.append(("name", f'"name" ("{inputs["name"]}") cannot be longer than 40 characters'))
    limits = inputs.get("autoscaling") or {}
    if {"minNodeCount", "maxNodeCount"} & limits.keys() and {"totalMinNodeCount", "totalMaxNodeCount"} & limits.keys():
        found.append(
            ("autoscaling", "Conflicting configuration arguments. max_node_count conflicts with total_max_node_count")
        )
    sandbox = at(inputs, "nodeConfig.sandboxConfig.type")
    if sandbox not in (None, UNKNOWN, "GVISOR"):
        found.append(
            (
                "nodeConfig.sandboxConfig.type",
                f'expected node_config.0.sandbox_config.0.type to be "GVISOR", got {sandbox}',
            )
        )
    if "initialNodeCount" in inputs and "nodeCount" in inputs:
        found.append(("nodeCount", "Cannot set both initial_node_count and node_count"))
    kubelet = at(inputs, "nodeConfig.kubeletConfig.insecureKubeletReadonlyPortEnabled")
    if kubelet not in (None, UNKNOWN, "TRUE", "FALSE"):
        found.append(
            (
                "nodeConfig.kubeletConfig.insecureKubeletReadonlyPortEnabled",
                f'expected to be one of ["FALSE" "TRUE"], got {kubelet}',
            )
        )
    return found


def _admit_pool(world: World, inputs: Json) -> None:
    cluster = short(inputs["cluster"])
    if cluster not in [each["name"] for each in world.outputs(CLUSTER)]:
        raise CloudError(
            f"error creating NodePool: googleapi: Error 404: Not found: projects/{inputs['project']}/"
            f"locations/{inputs.get('location')}/clusters/{cluster}., notFound"
        )
    config = inputs.get("nodeConfig") or {}
    admit_account(world, config.get("serviceAccount"))
    if at(inputs, "nodeConfig.sandboxConfig") and config.get("imageType", "COS_CONTAINERD").upper() != "COS_CONTAINERD":
        raise CloudError(
            "error creating NodePool: googleapi: Error 400: GKE Sandbox requires image type COS_CONTAINERD., badRequest"
        )
    taken = {taint["key"] for taint in config.get("taints") or []} | (config.get("labels") or {}).keys()
    if at(inputs, "nodeConfig.sandboxConfig") and SANDBOX in taken:
        raise CloudError(
            f"error creating NodePool: googleapi: Error 400: {SANDBOX} is reserved for GKE Sandbox., badRequest"
        )
    admit_key(world, config.get("bootDiskKmsKey"), "compute-system")


def _pool_outputs(_world: World, inputs: Json) -> Json:
    """Return the pool as GKE makes it: its own label and taint on sandbox nodes are not among ours."""
    config = dict(inputs.get("nodeConfig") or {})
    taints = list(config.get("taints") or [])
    if at(inputs, "nodeConfig.sandboxConfig"):
        taints.append({"key": SANDBOX, "value": "gvisor", "effect": "NO_SCHEDULE"})
    config["effectiveTaints"] = taints
    return {"nodeConfig": config, "instanceGroupUrls": [], "managedInstanceGroupUrls": [], "operation": ""}


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        CLUSTER: Kind(
            service="container.googleapis.com",
            permission="container.clusters.create",
            identity=_CLUSTER_ID,
            naming="name",
            replaces=frozenset(
                {
                    "name",
                    "location",
                    "project",
                    "description",
                    "network",
                    "subnetwork",
                    "networkingMode",
                    "ipAllocationPolicy",
                    "clusterIpv4Cidr",
                    "datapathProvider",
                    "defaultMaxPodsPerNode",
                    "enableKubernetesAlpha",
                    "enableAutopilot",
                    "confidentialNodes",
                    "initialNodeCount",
                    "masterAuth.clientCertificateConfig.issueClientCertificate",
                    "nodeConfig",
                    "privateClusterConfig.masterIpv4CidrBlock",
                    "privateClusterConfig.privateEndpointSubnetwork",
                }
            ),
            defaults={"deletionProtection": True},
            check=_check_cluster,
            admit=_admit_cluster,
            release=_release_cluster,
            outputs=_cluster_outputs,
            unknown=("controlPlaneEndpointsConfig.dnsEndpointConfig.endpoint",),
        ),
        POOL: Kind(
            service="container.googleapis.com",
            permission="container.nodePools.create",
            identity="projects/{project}/locations/{location}/clusters/{cluster_name}/nodePools/{name}",
            naming="name",
            replaces=frozenset(
                {
                    "name",
                    "namePrefix",
                    "cluster",
                    "location",
                    "project",
                    "maxPodsPerNode",
                    "initialNodeCount",
                    "placementPolicy",
                    "networkConfig.podRange",
                    "networkConfig.podIpv4CidrBlock",
                    "networkConfig.createPodRange",
                    "networkConfig.subnetwork",
                    "nodeConfig.sandboxConfig",
                    "nodeConfig.serviceAccount",
                    "nodeConfig.oauthScopes",
                    "nodeConfig.spot",
                    "nodeConfig.preemptible",
                    "nodeConfig.minCpuPlatform",
                    "nodeConfig.advancedMachineFeatures",
                    "nodeConfig.bootDiskKmsKey",
                    "nodeConfig.localSsdCount",
                    "nodeConfig.guestAccelerators",
                    "nodeConfig.shieldedInstanceConfig",
                    "nodeConfig.metadata",
                    "nodeConfig.secondaryBootDisks",
                }
            ),
            check=_check_pool,
            admit=_admit_pool,
            outputs=_pool_outputs,
            unknown=("nodeConfig.effectiveTaints",),
        ),
    }
)
