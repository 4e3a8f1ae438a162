"""Clusters and node pools, as GKE would have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from standin.cloud import CloudError, Json, World
from standin.compute import existing, known
from standin.identity import admit_account, admit_key, robot_account
from standin.kinds import CLUSTER, NETWORK, POOL, SUBNETWORK, Kind, at, kind, short, table, version_key
from standin.schema import Problem

SANDBOX: Final = "sandbox.gke.io/runtime"
"""Key of the label and the taint that GKE gives to the nodes of a sandbox pool
(https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods)."""

_MACHINE_TYPE: Final = re.compile(
    r"(?P<family>[a-z]\d[a-z]?)-(micro|small|medium|(standard|highmem|highcpu|custom|megamem|ultramem|highgpu|megagpu|"
    r"highlssd|standardlssd)-\d+g?)(-[a-z0-9]+)*"
)
_HYPERDISK_ONLY: Final = ("c4", "c4a", "c4d", "n4", "n4a", "n4d")
"""What machine types look like (https://cloud.google.com/compute/docs/machine-resource), and families without
persistent disks; how GKE says no to others: https://github.com/keras-team/kinetic/issues/305."""

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
        services = at(inputs, "ipAllocationPolicy.servicesSecondaryRangeName")
        for other in world.of(CLUSTER):
            if short(other["inputs"].get("subnetwork")) == short(inputs["subnetwork"]) and services is not None:
                # The rule is Google's (https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips), the words
                # are ours.
                raise CloudError(
                    f'googleapi: Error 400: Services secondary range "{services}" is already used by cluster '
                    f'"{short(other["id"])}"., badRequest'
                )
    admit_key(world, at(inputs, "databaseEncryption.keyName"), robot_account("container-engine-robot"))
    admit_key(world, at(inputs, "nodeConfig.bootDiskKmsKey"), robot_account("compute-system"))
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


def _cluster_outputs(world: World, state: Json) -> Json:
    version = control_plane_version(world, state)
    added: Json = {
        "masterVersion": version,
        "endpoint": "",
        "selfLink": f"https://container.googleapis.com/v1/projects/{state['project']}/clusters/{state['name']}",
        "tpuIpv4CidrBlock": "",
        "nodeVersion": version,
        "operation": "",
        **_ranges(world, state),
        "nodePools": [{"name": short(pool["id"])} for pool in world.of(POOL) if _belongs(pool, state)],
        # The client's key is what the provider marks as a secret; the rest of the block is plain text.
        "masterAuth": {**state["masterAuth"], **_credentials(state)},
    }
    if state.get("enableAutopilot"):
        absent = {key: value for key, value in table("container")[CLUSTER]["autopilot"].items() if key not in state}
        added = {**absent, **added}
    private = state.get("privateClusterConfig") or {}
    if at(state, "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled") is False:
        # GKE answers `ipEndpointsConfig: {enabled: false}` alone, and the provider takes a public endpoint that is
        # not mentioned for a private one (`flattenPrivateClusterConfig`; `containercluster-dnsendpoint-noipendpoint`).
        private = {**private, "enablePrivateEndpoint": True, "masterGlobalAccessConfig": {"enabled": False}}
    return {**added, "privateClusterConfig": private}


def _ranges(world: World, state: Json) -> Json:
    """Return the ranges of pods and Services, which GKE reads from the subnetwork."""
    ranges = {
        each["rangeName"]: each["ipCidrRange"]
        for subnetwork in known(world, SUBNETWORK)
        if short(subnetwork["outputs"]["selfLink"]) == short(state.get("subnetwork"))
        for each in subnetwork["inputs"].get("secondaryIpRanges") or []
    }
    names = state.get("ipAllocationPolicy") or {}
    return {
        f"{this}Ipv4Cidr": ranges.get(names.get(f"{this}SecondaryRangeName"), "") for this in ("cluster", "services")
    }


def _belongs(pool: Json, cluster: Json) -> bool:
    return short(pool["inputs"]["cluster"]) == cluster["name"]


def _credentials(state: Json) -> Json:
    """Return the control plane's certificates; a client's only where one is asked for."""
    issued = at(state, "masterAuth.clientCertificateConfig.issueClientCertificate") is True
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
    if "initialNodeCount" in inputs and "nodeCount" in inputs:
        found.append(("nodeCount", "Cannot set both initial_node_count and node_count"))
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
    machine = config.get("machineType", "e2-medium")
    family = _MACHINE_TYPE.fullmatch(machine)
    if not family:
        raise CloudError(
            f'error creating NodePool: googleapi: Error 400: Invalid machine type "{machine}" in zone '
            f'"{inputs.get("location")}-b": GCE_NOT_FOUND, badRequest'
        )
    disk = at(inputs, "nodeConfig.bootDisk.diskType") or "pd-balanced"
    if disk.startswith("pd-") and family["family"] in _HYPERDISK_ONLY:
        raise CloudError(
            f"error creating NodePool: googleapi: Error 400: {disk} disk type cannot be used by {machine} machine "
            "type., badRequest"
        )
    if at(inputs, "nodeConfig.sandboxConfig") and config.get("imageType", "COS_CONTAINERD").upper() != "COS_CONTAINERD":
        raise CloudError(
            "error creating NodePool: googleapi: Error 400: GKE Sandbox requires image type COS_CONTAINERD., badRequest"
        )
    taken = {taint["key"] for taint in config.get("taints") or []} | (config.get("labels") or {}).keys()
    if at(inputs, "nodeConfig.sandboxConfig") and SANDBOX in taken:
        raise CloudError(
            f"error creating NodePool: googleapi: Error 400: {SANDBOX} is reserved for GKE Sandbox., badRequest"
        )
    admit_key(world, config.get("bootDiskKmsKey"), robot_account("compute-system"))


def _pool_outputs(_world: World, state: Json) -> Json:
    """Return the pool as GKE makes it: its own label and taint on sandbox nodes are not among ours."""
    config = dict(state["nodeConfig"])
    taints = list(config.get("taints") or [])
    if at(state, "nodeConfig.sandboxConfig"):
        taints.append({"key": SANDBOX, "value": "gvisor", "effect": "NO_SCHEDULE"})
    config["effectiveTaints"] = taints
    return {"nodeConfig": config, "instanceGroupUrls": [], "managedInstanceGroupUrls": [], "operation": ""}


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        CLUSTER: kind(
            "container",
            CLUSTER,
            check=_check_cluster,
            admit=_admit_cluster,
            release=_release_cluster,
            outputs=_cluster_outputs,
        ),
        POOL: kind("container", POOL, check=_check_pool, admit=_admit_pool, outputs=_pool_outputs),
    }
)
