"""The Google APIs that a stack needs enabled in its project. Other stacks may need them, too: never disabled."""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.gke_settings import GkeSettings

_ALWAYS: Final = (
    "artifactregistry",
    "cloudkms",
    "cloudresourcemanager",
    "compute",
    "container",
    "containerfilesystem",  # image streaming
    "containerscanning",
    "dns",  # the cluster's names
    "iam",
    "logging",
    "monitoring",
    "secretmanager",
)


def wanted(gke: GkeSettings) -> tuple[str, ...]:
    """Return the names of the services that a cluster with these settings calls, without their domain."""
    names = [*_ALWAYS]
    if gke.binary_authorization != "off":
        names.append("binaryauthorization")
    if any(role.startswith("roles/aiplatform.") for role in gke.agent_roles):
        names.append("aiplatform")
    return tuple(sorted(names))


def services(name: str, gke: GkeSettings, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Enable what the stack calls.

    Args:
        name: What the logical names begin with.
        gke: Project and options.
        opts: Options of every resource.
    """
    return [
        gcp.projects.Service(
            f"{name}-{service}",
            project=gke.project,
            service=f"{service}.googleapis.com",
            disable_on_destroy=False,
            disable_dependent_services=False,
            opts=opts,
        )
        for service in wanted(gke)
    ]
