"""Settings of a GKE cluster that the stack makes: project, network, versions, pools, identity, protection.

Every value is checked when the object is built, before anything is asked of Google: an API finds most of these
mistakes after minutes, some only after the cluster is there. What is checked and why is in ``gke_checks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, get_args

from infra import gke_checks
from infra.address_ranges import OWN_RANGES, AddressPlan
from infra.configuration import choose
from infra.gke import maintenance, quotas

ReleaseChannel = Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"]
UpgradeStrategy = Literal["SURGE", "BLUE_GREEN"]
BinaryAuthorization = Literal["off", "enforce", "manage"]
SandboxLogs = Literal["exclude", "keep"]

SYSTEM_PODS_PER_NODE: Final = 64
"""Pods on a node of the system pool; GKE's own 110 would take twice the addresses."""

STANDARD_ONLY: Final = (
    "system_machine_type",
    "system_nodes_min",
    "system_nodes_max",
    "sandbox_machine_type",
    "sandbox_nodes_min",
    "sandbox_nodes_max",
    "sandbox_pods_per_node",
    "sandbox_spot",
    "sandbox_upgrade",
    "sandbox_disk_type",
    "sandbox_disk_gb",
    "project_quotas",
)
"""Settings of node pools, and of what they take: Autopilot has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GkeSettings:
    """Settings of the cluster itself, for `clusterMode: standard` and `clusterMode: autopilot`.

    What is marked *day 0* replaces the cluster or the pool when it changes later.

    Raises:
        ConfigError: a value that cannot work.
    """

    project: str
    """Id of the Google Cloud project (not its name or number); required. Day 0."""
    region: str
    """Region of the cluster and of everything beside it; required. Day 0."""
    production: bool = False
    """Whether people depend on the stack: refuses spot machines and the RAPID channel, warns without protection."""
    deletion_protection: bool = True
    """Whether nothing of the stack can be destroyed: neither by Pulumi nor, for the cluster, by Google's provider.

    Tearing down takes two steps: set it to false and run `pulumi up`, then `pulumi destroy`.
    """
    subnet_cidr: str = "10.64.0.0/20"
    """Addresses of the nodes. Day 0."""
    pods_cidr: str = "10.68.0.0/16"
    """Addresses of the pods; each node takes twice its pods, rounded up to a power of two. Day 0."""
    services_cidr: str = "10.72.0.0/20"
    """Addresses of the services. Day 0."""
    network: str = ""
    """Name of a VPC that is there; empty for one of the stack's own. Day 0."""
    subnetwork: str = ""
    """Name of a subnet of that VPC in the stack's region; empty for one of the stack's own. Day 0.

    Takes `podsRange` and `servicesRange`. Its routes and Cloud NAT are its owner's business: the stack makes none.
    """
    pods_range: str = ""
    """Name of the secondary range of `subnetwork` for pods. Day 0."""
    services_range: str = ""
    """Name of the secondary range of `subnetwork` for Services, which no other cluster uses. Day 0."""
    network_project: str = ""
    """Id of the host project of a Shared VPC that `subnetwork` is in; empty where it is the stack's project. Day 0."""
    node_service_account: str = ""
    """E-mail of a service account for the nodes; empty for one of the stack's own. Day 0 for the pools.

    Takes `roles/container.defaultNodeServiceAccount`, and the right to read `repository`.
    """
    kms_key: str = ""
    """Id of a Cloud KMS key in the stack's region, for Secrets and boot disks; empty for one of the stack's own.

    `projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY`; Google's own accounts must be allowed to use it.
    Day 0 for the pools.
    """
    repository: str = ""
    """Repository of sandbox images, `REGION-docker.pkg.dev/PROJECT/REPOSITORY`; empty for one of the stack's own."""
    release_channel: ReleaseChannel = "REGULAR"
    """GKE release channel: `RAPID`, `REGULAR`, `STABLE` or `EXTENDED`."""
    min_version: str = ""
    """Oldest GKE version of the control plane, such as `1.35.3-gke.1234000`; empty is the channel's default."""
    maintenance_start: str = "2026-01-03T02:00:00Z"
    """Begin of the first maintenance window, RFC 3339."""
    maintenance_end: str = "2026-01-03T08:00:00Z"
    """End of the first maintenance window, RFC 3339; windows of under four hours do not count for GKE."""
    maintenance_recurrence: str = "FREQ=WEEKLY;BYDAY=SA,SU"
    """When the window comes again, an RFC 5545 rule; GKE wants 48 hours in any 32 days."""
    maintenance_exclusions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Times without upgrades: name to `BEGIN/END SCOPE`.

    Begin and end are RFC 3339; the scope is `NO_UPGRADES` (also if it is left out), `NO_MINOR_UPGRADES` or
    `NO_MINOR_OR_NODE_UPGRADES`. One that is not here is taken away, whoever set it.
    """
    project_quotas: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Quotas of the project in the region, such as `SSD_TOTAL_GB`, where they are not those of a new project.

    Nothing is set by it: the stack warns where it would take more at full size.
    """
    system_machine_type: str = "e2-standard-4"
    """Machine type of the nodes for agents and for GKE's own pods."""
    system_nodes_min: int = 1
    """Fewest system nodes, in all zones together."""
    system_nodes_max: int = 4
    """Most system nodes, in all zones together."""
    sandbox_machine_type: str = "n2d-standard-4"
    """Machine type of the gVisor nodes.

    On Intel, GKE switches hyper-threading off in gVisor pools: half of the vCPUs that are paid for. AMD keeps it.
    E2 runs gVisor too, but no pod snapshots.
    """
    sandbox_nodes_min: int = 0
    """Fewest gVisor nodes, in all zones together. With 0 the first execution waits about 100 s for a machine."""
    sandbox_nodes_max: int = 10
    """Most gVisor nodes, in all zones together."""
    sandbox_pods_per_node: int = 64
    """Most pods on a gVisor node, GKE's own included. Day 0 for the pool."""
    sandbox_spot: bool = False
    """Whether gVisor nodes are spot machines: cheap, and taken back with 25 s notice. Day 0 for the pool."""
    sandbox_upgrade: UpgradeStrategy = "SURGE"
    """How gVisor nodes are upgraded: `SURGE` (one more node at a time) or `BLUE_GREEN` (a second set, then drained)."""
    sandbox_disk_type: str = "pd-balanced"
    """Boot disk type of the gVisor nodes. C4 and N4 machines take `hyperdisk-balanced` only."""
    sandbox_disk_gb: int = 100
    """Size of the boot disks of the gVisor nodes in GB: images and logs of sandboxes are there."""
    encrypt_boot_disks: bool = True
    """Whether boot disks are encrypted with the stack's own Cloud KMS key. Day 0 for the pools.

    On Autopilot there are no pools, and a change replaces the cluster.
    """
    rbac_security_group: str = ""
    """Google group `gke-security-groups@DOMAIN` whose nested groups RBAC may name; empty is none.

    GKE keeps a group that is no longer named: `off` takes it away.
    """
    agent_roles: tuple[str, ...] = ()
    """IAM roles in the project for the agents' ServiceAccount, such as `roles/aiplatform.user`."""
    binary_authorization: BinaryAuthorization = "off"
    """`off`; `enforce`: the project's policy decides which images run; `manage`: the stack writes that policy, too.

    There is one policy per project, and it binds every cluster in it that enforces any.
    """
    sandbox_logs: SandboxLogs = "exclude"
    """What becomes of what sandboxes print in Cloud Logging: `exclude` stores none of it, `keep` has a bucket for it.

    Replies and their files are in there; the executor reads them from the node. The bucket is encrypted with the
    stack's key.
    """
    sandbox_log_days: int = 30
    """How many days the bucket of `sandboxLogs: keep` stores an entry; 1 to 3650."""
    docker_hub_user: str = ""
    """User of Docker Hub as whom the stack's repository pulls through; empty is nobody, with the limits of that."""
    docker_hub_token: str = ""
    """Version in Secret Manager that holds the user's access token, `projects/NUMBER/secrets/NAME/versions/VERSION`."""
    agent_sandbox_addon: bool = False
    """Whether GKE's Agent Sandbox add-on is installed; nothing here depends on it. Takes a `minVersion`."""
    pod_snapshots: bool = False
    """Whether GKE's pod snapshots are enabled; nothing here depends on them. Takes a `minVersion`."""

    def __post_init__(self) -> None:
        gke_checks.place(self.project, self.region)
        choose("release_channel", self.release_channel, get_args(ReleaseChannel))
        choose("sandbox_upgrade", self.sandbox_upgrade, get_args(UpgradeStrategy))
        choose("binary_authorization", self.binary_authorization, get_args(BinaryAuthorization))
        choose("sandbox_logs", self.sandbox_logs, get_args(SandboxLogs))
        maintenance.check(self.maintenance_start, self.maintenance_end, self.maintenance_recurrence)
        maintenance.exclusions(self.maintenance_exclusions)
        gke_checks.pools(self)
        quotas.check(self.project_quotas)
        gke_checks.existing(self)
        if not self.subnetwork:
            self.addresses.check()
        gke_checks.versions(self)
        gke_checks.roles(self.agent_roles)
        gke_checks.security_group(self.rbac_security_group)
        gke_checks.logs_and_mirror(self)
        gke_checks.production(self)

    @property
    def addresses(self) -> AddressPlan:
        """The three address ranges, and how many nodes they must hold."""
        system, sandbox = self.nodes_at_most
        return AddressPlan(
            subnet=self.subnet_cidr,
            pods=self.pods_cidr,
            services=self.services_cidr,
            nodes=((system, SYSTEM_PODS_PER_NODE), (sandbox, self.sandbox_pods_per_node)),
            named=(f"the range of {self.subnetwork}", f"its range {self.pods_range}")
            if self.subnetwork
            else OWN_RANGES,
        )

    @property
    def nodes_at_most(self) -> tuple[int, int]:
        """Nodes of the system pool and of the gVisor pool: an upgrade adds some before it takes others away."""
        spare = self.sandbox_nodes_max if self.sandbox_upgrade == "BLUE_GREEN" else 1
        return self.system_nodes_max + 1, self.sandbox_nodes_max + spare

    @property
    def workload_pool(self) -> str:
        """The Workload Identity pool of the project.

        https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity
        """
        return f"{self.project}.svc.id.goog"
