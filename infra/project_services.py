"""The Google APIs that a stack needs enabled in its project, and Google's own accounts that come with them.

Other stacks may need the APIs, too: never disabled.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def services(name: str, gke: GkeSettings, opts: pulumi.ResourceOptions) -> dict[str, pulumi.Resource]:
    """Enable what the stack calls, and return it by its name without the domain.

    Args:
        name: What the logical names begin with.
        gke: Project and options.
        opts: Options of every resource.
    """
    return {
        service: gcp.projects.Service(
            f"{name}-{service}",
            project=gke.project,
            service=f"{service}.googleapis.com",
            disable_on_destroy=False,
            disable_dependent_services=False,
            opts=opts,
        )
        for service in wanted(gke)
    }


def service_agents(
    name: str, project: str, enabled: Mapping[str, pulumi.Resource], opts: pulumi.ResourceOptions
) -> dict[str, pulumi.Resource]:
    """Make Google's own accounts of GKE and of Compute Engine exist, and return them by their service.

    In a new project they come some time after their API, and until then nothing can be granted to them
    (https://cloud.google.com/iam/docs/create-service-agents).

    Args:
        name: What the logical names begin with.
        project: Id of the project.
        enabled: The services, from ``services``.
        opts: Options of every resource.
    """
    return {
        service: gcp.projects.ServiceIdentity(
            f"{name}-{service}-agent",
            project=project,
            service=f"{service}.googleapis.com",
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[enabled[service]])),
        )
        for service in ("compute", "container")
    }
