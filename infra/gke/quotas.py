"""What a cluster at full size takes of the project's quotas in its region, against what the project has. Pure.

What a project has is not looked up: it is told by a setting, or taken to be what new projects get.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from adk_gke_sandbox.errors import ConfigError
from infra import gke_checks
from infra.configuration import full_key, key

if TYPE_CHECKING:
    from infra.gke_settings import GkeSettings

DISKS: Final = "SSD_TOTAL_GB"
"""Persistent disks of the types `pd-ssd` and `pd-balanced`; `pd-standard` and Hyperdisk have quotas of their own
(https://cloud.google.com/compute/resource-usage#disk_quota)."""

ALL_CPUS: Final = "CPUS_ALL_REGIONS"
"""vCPUs of all families and regions together (https://cloud.google.com/compute/resource-usage#cpu_quota)."""

USUAL: Final = MappingProxyType({DISKS: 250, "CPUS": 24, ALL_CPUS: 12})
"""The least that is reported: 250 or 500 GB, 24 vCPUs, 12 in all regions while the credit of a trial lasts
(https://github.com/terraform-google-modules/terraform-google-kubernetes-engine/issues/1795,
https://github.com/hashicorp/terraform-provider-kubernetes/pull/354,
https://github.com/kelseyhightower/kubernetes-the-hard-way/issues/553)."""

_USUAL_CPUS: Final = 8
"""The same for a machine family that has a quota of its own
(https://github.com/GoogleCloudPlatform/pubsec-declarative-toolkit/pull/627)."""

_CPUS: Final = MappingProxyType(
    {"e2": "CPUS", "n1": "CPUS"} | {each: f"{each.upper()}_CPUS" for each in ("c2", "c2d", "c3", "n2", "n2d", "t2d")}
)
_OTHER_CPUS: Final = "CPUS_PER_VM_FAMILY"
"""By machine family, the quota of its vCPUs (https://cloud.google.com/compute/resource-usage#cpu_quota). Spot machines
count there as well where there is no quota for preemptible ones."""


def check(given: Mapping[str, str]) -> None:
    """Refuse an amount that is no number."""
    for name, text in given.items():
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise ConfigError(
                f"{full_key('project_quotas')} has {name!r}: {text!r}, which is not a whole number",
                f"Set it with {_command(name)}",
            )


def needed(gke: GkeSettings) -> Mapping[str, int]:
    """Return what both pools take of the region at full size, an upgrade's further nodes included, by the quota."""
    found: Counter[str] = Counter()
    system, sandbox = gke.nodes_at_most
    for machine_type, disk_type, disk_gb, nodes in (
        (gke.system_machine_type, gke_checks.SYSTEM_DISK_TYPE, gke_checks.SYSTEM_DISK_GB, system),
        (gke.sandbox_machine_type, gke.sandbox_disk_type, gke.sandbox_disk_gb, sandbox),
    ):
        if disk_type in ("pd-balanced", "pd-ssd"):
            found[DISKS] += nodes * disk_gb
        if size := gke_checks.machine(machine_type):
            found[_CPUS.get(machine_type.partition("-")[0], _OTHER_CPUS)] += nodes * size[0]
    return found


def warning(gke: GkeSettings) -> str | None:
    """Return what to look up before the first update, or where the autoscaler would stop; ``None`` if it all fits."""
    takes_up = dict(needed(gke))
    takes_up[ALL_CPUS] = sum(most for name, most in takes_up.items() if name != DISKS)
    given = {name: int(text) for name, text in gke.project_quotas.items()}
    has = {name: given.get(name, USUAL.get(name, _USUAL_CPUS)) for name in takes_up}
    missing = {name: most for name, most in sorted(takes_up.items()) if most > has[name]}
    if not missing:
        return None
    takes = ", ".join(f"{most} {name} of {has[name]}" for name, most in missing.items())
    return (
        f"at full size the stack takes more of quotas of {gke.region} than "
        f"{'a new project has' if not missing.keys() & given.keys() else 'the project has'}: {takes}. Creations fail "
        "there, and the autoscaler stops. Look yours up and have them raised (docs/operations/bootstrap.md#quotas), "
        f"then tell with {_command(next(iter(missing)))}"
    )


def _command(name: str) -> str:
    return f"`pulumi config set --path '{key('project_quotas')}[\"{name}\"]' NUMBER --type string`"
