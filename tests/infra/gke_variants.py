"""Settings of GKE stacks that an update is tried with: each must leave nothing to do for the next one."""

from __future__ import annotations

from typing import Any, Final

EVERYTHING: Final[dict[str, Any]] = {
    "egress": "fqdn",
    "egressHosts": ["pypi.org"],
    "binaryAuthorization": "manage",
    "agentSandboxAddon": True,
    "podSnapshots": True,
    "minVersion": "1.36.3-gke.1767000",
    "agentRoles": ["roles/aiplatform.user"],
    "rbacSecurityGroup": "gke-security-groups@example.com",
    "sandboxLogs": "keep",
    "maintenanceExclusions": {"year-end": "2026-12-18T00:00:00+01:00/2027-01-04T00:00:00+01:00 NO_MINOR_UPGRADES"},
    "dockerHubUser": "a-user",
    "dockerHubToken": "projects/123456789012/secrets/docker-hub/versions/1",
}
"""Settings that switch all options on."""

_POOLS_OF_STAGING: Final = ("sandboxNodesMin", "sandboxNodesMax", "sandboxSpot", "systemNodesMax")
AUTOPILOT: Final[dict[str, Any]] = {"clusterMode": "autopilot", **dict.fromkeys(_POOLS_OF_STAGING)}
"""The staging stack as an Autopilot cluster: settings of node pools are refused there."""

NETWORK_OF_OTHERS: Final[dict[str, Any]] = {
    "networkProject": "host-project",
    "network": "shared",
    "subnetwork": "gke-nodes",
    "podsRange": "gke-pods",
    "servicesRange": "gke-services",
}
"""Settings for a Shared VPC that is there; `standin/tables/theirs.yaml` says what it is like."""

ALL_OF_OTHERS: Final[dict[str, Any]] = {
    **NETWORK_OF_OTHERS,
    "nodeServiceAccount": "gke-nodes@their-project.iam.gserviceaccount.com",
    "kmsKey": "projects/their-project/locations/europe-west4/keyRings/theirs/cryptoKeys/gke",
    "repository": "europe-west4-docker.pkg.dev/their-project/images",
}

VARIANTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "staging": ("staging", {}),
    "prod": ("prod", {}),
    "everything": ("staging", EVERYTHING),
    "way out": ("staging", {"egress": "internet"}),
    "hosts": ("staging", {"egress": "fqdn", "egressHosts": ["pypi.org"]}),
    "agents' way out": ("staging", {"agentsEgress": ["db.example.com:5432", "10.20.0.0/24:6379"]}),
    "existing network": ("staging", {**NETWORK_OF_OTHERS, "egress": "internet"}),
    "existing everything": ("staging", ALL_OF_OTHERS),
    "autopilot in an existing network": ("staging", {**AUTOPILOT, **ALL_OF_OTHERS}),
    "autopilot": ("staging", AUTOPILOT),
    "autopilot with everything": ("staging", {**EVERYTHING, **AUTOPILOT}),
    "policy of the project": ("staging", {"binaryAuthorization": "enforce"}),
    "policy of the stack": ("staging", {"binaryAuthorization": "manage"}),
    "add-ons": ("staging", {"agentSandboxAddon": True, "podSnapshots": True, "minVersion": "1.36.3-gke.1767000"}),
    "hyperdisk": ("staging", {"sandboxMachineType": "c4-standard-4", "sandboxDiskType": "hyperdisk-balanced"}),
    "E2 machines": ("staging", {"sandboxMachineType": "e2-standard-4"}),
    "a node from the start": ("staging", {"sandboxNodesMin": 1}),
    "no key for boot disks": ("staging", {"encryptBootDisks": False}),
    "roles and a group": (
        "staging",
        {"agentRoles": ["roles/aiplatform.user"], "rbacSecurityGroup": "gke-security-groups@example.com"},
    ),
    "EXTENDED": ("staging", {"releaseChannel": "EXTENDED"}),
    "RAPID": ("staging", {"releaseChannel": "RAPID"}),
    "times of Amsterdam": (
        "staging",
        {"maintenanceStart": "2026-01-03T02:00:00+01:00", "maintenanceEnd": "2026-01-03T08:00:00+01:00"},
    ),
}
"""Name -> committed stack, and what is set beyond it."""

IN_SHORT: Final = ("prod", "everything")
"""Those that `make test` tries with the engine, beside its shared staging stack; `make test-variants` tries all."""
