"""What makes settings of a GKE cluster impossible or unwise; each refusal names key, value and repair. Pure.

Google's rules change: each has its source, and none is here that the API would not enforce as well, but for those
of production. What Google has (regions, machine types, versions) is not looked up: patterns only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from adk_gke_sandbox.errors import ConfigError
from infra.configuration import full_key, key, repair, shown

if TYPE_CHECKING:
    from infra.gke_settings import GkeSettings

_PROJECT: Final = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")
"""https://cloud.google.com/resource-manager/docs/creating-managing-projects#before_you_begin."""

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""https://cloud.google.com/compute/docs/naming-resources#resource-name-format."""

_EXISTING: Final[Mapping[str, tuple[re.Pattern[str], tuple[str, str]]]] = MappingProxyType(
    {
        **{
            name: (_NAME, (f"the name of a {what}", example))
            for name, what, example in (
                ("network", "VPC", "shared"),
                ("subnetwork", "subnet", "gke-nodes"),
                ("pods_range", "secondary range", "gke-pods"),
                ("services_range", "secondary range", "gke-services"),
            )
        },
        "network_project": (_PROJECT, ("the id of a project", "my-host-project")),
        # Not Compute Engine's default account, NUMBER-compute@developer.gserviceaccount.com: it may edit the project
        # (https://cloud.google.com/kubernetes-engine/docs/how-to/hardening-your-cluster#use_least_privilege_sa).
        "node_service_account": (
            re.compile(rf"[a-z]([-a-z0-9]{{4,28}}[a-z0-9])@{_PROJECT.pattern}\.iam\.gserviceaccount\.com"),
            ("the e-mail of a service account of a project", "gke-nodes@my-project.iam.gserviceaccount.com"),
        ),
        "kms_key": (
            re.compile(
                rf"projects/{_PROJECT.pattern}/locations/[a-z0-9-]+/keyRings/[\w-]{{1,63}}/cryptoKeys/[\w-]{{1,63}}"
            ),
            (
                "the id of a Cloud KMS key",
                "projects/my-project/locations/europe-west4/keyRings/my-ring/cryptoKeys/my-key",
            ),
        ),
        "repository": (
            re.compile(rf"[a-z0-9-]+-docker\.pkg\.dev/{_PROJECT.pattern}/[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?"),
            ("a repository of Artifact Registry", "europe-west4-docker.pkg.dev/my-project/my-images"),
        ),
    }
)
"""Settings that name what there is already: what they look like, in a pattern, in words and by example."""

_REGION: Final = re.compile(r"[a-z]+-[a-z]+\d{1,2}")
_ZONE: Final = re.compile(rf"({_REGION.pattern})-[a-z]")
_VERSION: Final = re.compile(r"1\.\d{1,3}(\.\d{1,3}(-gke\.\d+)?)?")
_MACHINE_TYPE: Final = re.compile(r"[a-z]\d[a-z]{0,2}-[a-z]+(-[a-z0-9]+)*")
_SIZED: Final = re.compile(r"(?P<family>[a-z0-9]+)-(?P<shape>standard|highmem|highcpu)-(?P<cpu>\d+)")
_ROLE: Final = re.compile(r"(roles|(projects|organizations)/[a-z0-9-]+/roles)/[A-Za-z0-9_.]{3,}")
_SECURITY_GROUP: Final = re.compile(r"gke-security-groups@([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]{2,}")

_SECRET_VERSION: Final = re.compile(r"projects/[a-z0-9-]+/secrets/[\w-]{1,255}/versions/\d+", re.ASCII)
"""By number, so that a new token is a change that a preview shows
(https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions)."""

_LOG_DAYS: Final = 3650
"""https://cloud.google.com/logging/quotas#logs_retention_periods."""

GROUPS_OFF: Final = "off"
"""In place of a group: GKE forgets the one that it has."""

_BASIC_ROLES: Final = ("roles/owner", "roles/editor", "roles/viewer")
_LEADING_TO_OTHERS: Final = ("roles/iam.", "roles/resourcemanager.")
"""Roles by which one becomes another account or grants oneself another role, but for those that only look
(https://cloud.google.com/iam/docs/best-practices-service-accounts)."""

FLOORS: Final = MappingProxyType({"agent_sandbox_addon": "1.35.2-gke.1269000", "pod_snapshots": "1.35.3-gke.1234000"})
"""The oldest GKE version of an add-on
(https://cloud.google.com/kubernetes-engine/docs/how-to/agent-sandbox and .../pod-snapshots)."""

_HYPERDISK_ONLY: Final = ("c4", "c4a", "c4d", "n4", "n4a", "n4d")
"""Machine families without persistent disks (https://cloud.google.com/compute/docs/machine-resource)."""

_GIB_PER_CPU: Final = MappingProxyType({"standard": 4, "highmem": 8, "highcpu": 2})
"""The most memory per vCPU of any family; some have a little less."""

SYSTEM_DISK_TYPE: Final = "pd-balanced"
SYSTEM_DISK_GB: Final = 50
"""Boot disk of a node of the system pool: images and logs of agents and of GKE's own pods."""

_DISK_TYPES: Final = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
MIN_DISK_GB: Final = 30
"""Below this the images of GKE's own pods leave no room for a sandbox image."""


def place(project: str, region: str) -> None:
    """Refuse a project id or region that cannot exist."""
    if not project:
        raise ConfigError(f"{full_key('project')} is not set", repair("project", "my-project"))
    if not _PROJECT.fullmatch(project):
        raise ConfigError(
            f"{shown('project', project)} is not the id of a project",
            "Use the id that `gcloud projects list` prints in its first column, not the name or the number",
        )
    if not region:
        raise ConfigError(f"{full_key('region')} is not set", repair("region", "europe-west4"))
    if zone := _ZONE.fullmatch(region):
        raise ConfigError(
            f"{shown('region', region)} is a zone: the cluster would have one control plane, and none while it is "
            "upgraded",
            repair("region", zone[1]),
        )
    if not _REGION.fullmatch(region):
        raise ConfigError(f"{shown('region', region)} is not a region", repair("region", "europe-west4"))


def existing(settings: GkeSettings) -> None:
    """Refuse names of what there is already that cannot be, or that do not go together."""
    for name, (pattern, example) in _EXISTING.items():
        if (value := getattr(settings, name)) and not pattern.fullmatch(value):
            raise ConfigError(f"{shown(name, value)} is not {example[0]}", repair(name, example[1]))
    for name, needs in (
        ("subnetwork", "network"),
        ("subnetwork", "pods_range"),
        ("subnetwork", "services_range"),
        ("pods_range", "subnetwork"),
        ("services_range", "subnetwork"),
        # In the project of somebody else nothing is made.
        ("network_project", "subnetwork"),
    ):
        if getattr(settings, name) and not getattr(settings, needs):
            raise ConfigError(
                f"{shown(name, getattr(settings, name))} without {full_key(needs)}",
                repair(needs, _EXISTING[needs][1][1]),
            )
    if settings.subnetwork and settings.pods_range == settings.services_range:
        raise ConfigError(
            f"{full_key('pods_range')} and {full_key('services_range')} are both {settings.pods_range!r}",
            "Name a range for each",
        )
    for entry in fields(settings):
        if settings.subnetwork and entry.name.endswith("_cidr") and getattr(settings, entry.name) != entry.default:
            raise ConfigError(
                f"{shown(entry.name, getattr(settings, entry.name))} has no effect with "
                f"{shown('subnetwork', settings.subnetwork)}, which has its own ranges",
                f"Remove it with `pulumi config rm {key(entry.name)}`",
            )
    if settings.kms_key and (where := settings.kms_key.split("/")[3]) != settings.region:
        # https://cloud.google.com/kubernetes-engine/docs/how-to/encrypting-secrets#creating_a_key
        raise ConfigError(
            f"{shown('kms_key', settings.kms_key)} is in {where}, and the cluster in {settings.region}",
            "Name a key in the cluster's region",
        )


def pools(settings: GkeSettings) -> None:
    """Refuse sizes, machines and disks that a node pool cannot have."""
    for low, high, least in (
        ("system_nodes_min", "system_nodes_max", 1),
        ("sandbox_nodes_min", "sandbox_nodes_max", 0),
    ):
        fewest, most = getattr(settings, low), getattr(settings, high)
        if fewest < least:
            why = "GKE's own pods need a node without gVisor. " if least else ""
            raise ConfigError(f"{shown(low, fewest)} is out of range", f"{why}Give {least} or more")
        if not max(1, fewest) <= most <= 1000:
            raise ConfigError(
                f"{shown(high, most)} does not fit {shown(low, fewest)}", f"Give {max(1, fewest)} to 1000"
            )
    for name in ("system_machine_type", "sandbox_machine_type"):
        if not _MACHINE_TYPE.fullmatch(machine := getattr(settings, name)):
            raise ConfigError(f"{shown(name, machine)} is not a machine type", repair(name, "n2d-standard-4"))
    if not 8 <= settings.sandbox_pods_per_node <= 256:
        raise ConfigError(
            f"{shown('sandbox_pods_per_node', settings.sandbox_pods_per_node)} is out of range", "Give 8 to 256"
        )
    if settings.sandbox_disk_type not in _DISK_TYPES:
        raise ConfigError(
            f"{shown('sandbox_disk_type', settings.sandbox_disk_type)} is none of {', '.join(_DISK_TYPES)}",
            repair("sandbox_disk_type", "pd-balanced"),
        )
    if not MIN_DISK_GB <= settings.sandbox_disk_gb <= 65_536:
        raise ConfigError(
            f"{shown('sandbox_disk_gb', settings.sandbox_disk_gb)} is out of range", f"Give {MIN_DISK_GB} to 65536"
        )
    if _family(settings.system_machine_type) in _HYPERDISK_ONLY:
        raise ConfigError(
            f"{shown('system_machine_type', settings.system_machine_type)} takes no {SYSTEM_DISK_TYPE} disk, "
            "which system nodes have",
            repair("system_machine_type", "e2-standard-4"),
        )
    persistent = not settings.sandbox_disk_type.startswith("hyperdisk")
    if persistent and _family(settings.sandbox_machine_type) in _HYPERDISK_ONLY:
        raise ConfigError(
            f"{shown('sandbox_machine_type', settings.sandbox_machine_type)} takes no "
            f"{settings.sandbox_disk_type} disk",
            repair("sandbox_disk_type", "hyperdisk-balanced"),
        )


def _family(machine_type: str) -> str:
    return machine_type.partition("-")[0]


def versions(settings: GkeSettings) -> None:
    """Refuse an add-on that the control plane would be too old for."""
    floor = settings.min_version
    if floor and not _VERSION.fullmatch(floor):
        raise ConfigError(
            f"{shown('min_version', floor)} is not a GKE version",
            "Use one that `gcloud container get-server-config --region REGION` lists, such as 1.35.3-gke.1234000",
        )
    for name, oldest in FLOORS.items():
        if getattr(settings, name) and _numbers(floor) < _numbers(oldest):
            raise ConfigError(
                f"{shown(name, True)} takes GKE {oldest} or later, and {shown('min_version', floor)}",
                repair("min_version", oldest) + f", or `pulumi config set {key(name)} false`",
            )
    if settings.pod_snapshots and settings.sandbox_machine_type.startswith("e2-"):
        raise ConfigError(
            f"{shown('pod_snapshots', True)} does not work with "
            f"{shown('sandbox_machine_type', settings.sandbox_machine_type)}: E2 machines have different processors",
            repair("sandbox_machine_type", "n2d-standard-4"),
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def roles(wanted: Iterable[str]) -> None:
    """Refuse what is no role, and roles that would hand the project to whoever writes a prompt."""
    seen = set()
    for role in wanted:
        if role in seen:
            raise ConfigError(f"{full_key('agent_roles')} has {role!r} twice", "Remove one of them")
        seen.add(role)
        if not _ROLE.fullmatch(role):
            raise ConfigError(
                f"{full_key('agent_roles')} has {role!r}, which is not an IAM role",
                "Write for example roles/aiplatform.user",
            )
        if leads_to_others(role):
            what = (
                "is for everything in the project" if role in _BASIC_ROLES else "leads to every account of the project"
            )
            raise ConfigError(
                f"{full_key('agent_roles')} has {role!r}, which {what}",
                "Name the roles of the services that agents call, such as roles/aiplatform.user",
            )


def leads_to_others(role: str) -> bool:
    """Whether an account that has the role on a project can do what others can."""
    return role in _BASIC_ROLES or (role.startswith(_LEADING_TO_OTHERS) and not role.endswith(("iewer", "rowser")))


def security_group(group: str) -> None:
    """Refuse a group that GKE does not take."""
    if group not in ("", GROUPS_OFF) and not _SECURITY_GROUP.fullmatch(group):
        raise ConfigError(
            f"{shown('rbac_security_group', group)} is not called gke-security-groups@DOMAIN",
            "GKE takes a group of this name only; nest the groups that RBAC names in it "
            "(https://cloud.google.com/kubernetes-engine/docs/how-to/google-groups-rbac)",
        )


def logs_and_mirror(settings: GkeSettings) -> None:
    """Refuse a retention that Cloud Logging does not have, and half a login to Docker Hub."""
    if not 1 <= settings.sandbox_log_days <= _LOG_DAYS:
        raise ConfigError(
            f"{shown('sandbox_log_days', settings.sandbox_log_days)} is out of range", f"Give 1 to {_LOG_DAYS}"
        )
    if bool(settings.docker_hub_user) != bool(settings.docker_hub_token):
        given, absent = ("docker_hub_user", "docker_hub_token")[:: 1 if settings.docker_hub_user else -1]
        raise ConfigError(f"{full_key(given)} is set without {full_key(absent)}", "Set both or none")
    if settings.docker_hub_token and not _SECRET_VERSION.fullmatch(settings.docker_hub_token):
        raise ConfigError(
            f"{shown('docker_hub_token', settings.docker_hub_token)} is not the name of a version in Secret Manager",
            repair("docker_hub_token", "projects/123456789012/secrets/docker-hub/versions/1")
            + "; the token itself does not belong into a stack file",
        )


def production(settings: GkeSettings) -> None:
    """Refuse what people who depend on a stack should not find there."""
    if not settings.production:
        return
    if settings.sandbox_spot:
        raise ConfigError(
            f"{shown('sandbox_spot', True)} in a production stack: every execution on a machine that Google takes "
            "back is lost",
            repair("sandbox_spot", "false") + ", or `pulumi config set production false`",
        )
    if settings.release_channel == "RAPID":
        raise ConfigError(
            f"{shown('release_channel', 'RAPID')} in a production stack: its versions have no service level agreement",
            repair("release_channel", "REGULAR") + ", or `pulumi config set production false`",
        )


def machine(machine_type: str) -> tuple[int, int] | None:
    """Return vCPUs and, at the most, bytes of memory of a machine type; ``None`` where its name does not tell."""
    found = _SIZED.fullmatch(machine_type)
    if not found:
        return None
    cpus = int(found["cpu"])
    return cpus, cpus * _GIB_PER_CPU[found["shape"]] * math.prod((1024,) * 3)
