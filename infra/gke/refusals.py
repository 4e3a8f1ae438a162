"""States of a cluster that an update refuses: what a creation left behind, and what would stay without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import pulumi
import pulumi_gcp as gcp

from infra.configuration import repair
from infra.gke_checks import GROUPS_OFF
from infra.gke_settings import GkeSettings
from infra.kubeconfig import dns_endpoint

_FIRST_POOL: Final = "default-pool"
"""What GKE calls the pool that a cluster begins with; the provider removes it at the end of the creation."""


def endpoint(cluster: gcp.container.Cluster, gke: GkeSettings, *, pools: bool) -> pulumi.Output[str]:
    """Return the DNS endpoint of a cluster, and refuse to go on beside one that the settings do not describe.

    Args:
        cluster: The cluster.
        gke: Region, and the group that RBAC may name.
        pools: Whether its pools are the stack's.
    """
    host = pulumi.Output.all(cluster.name, cluster.control_plane_endpoints_config).apply(
        lambda found: _host(found[0], found[1], gke.region)
    )
    # Each by itself: what GKE does not mention is unknown in every preview, and nothing may hang on it.
    if pools:
        pulumi.Output.all(host, cluster.name, cluster.node_pools).apply(
            lambda found: _refuse_first_pool(found[1], found[2], gke.region)
        )
    if not gke.rbac_security_group:
        pulumi.Output.all(cluster.name, cluster.authenticator_groups_config).apply(
            lambda found: _refuse_group(found[0], found[1])
        )
    return host


def _host(name: str, endpoints: Mapping[str, Any], region: str) -> str:
    """Return the DNS endpoint; in a preview it may not be known yet.

    Raises:
        pulumi.RunError: GKE gave up on the cluster, and an update would not mend it.
    """
    endpoint = (endpoints.get("dns_endpoint_config") or {}).get("endpoint")
    if endpoint == "":
        where = f"{name} --location {region}"
        raise pulumi.RunError(
            f"cluster {name} has no DNS endpoint: its creation ended in an error, which `gcloud container clusters "
            f"describe {where} --format='value(status, statusMessage)'` prints. Delete it with `gcloud container "
            f"clusters delete {where}`, then `pulumi up --refresh` makes another"
        )
    if endpoint is None and pulumi.runtime.is_dry_run():
        return cast(str, pulumi.UNKNOWN)
    return dns_endpoint([endpoint], name, region)


def _refuse_first_pool(name: str, pools: Sequence[Mapping[str, Any]] | None, region: str) -> None:
    """Refuse to go on beside the pool that the end of a creation should have removed."""
    if any(pool["name"] == _FIRST_POOL for pool in pools or ()):
        raise pulumi.RunError(
            f"cluster {name} still has the pool {_FIRST_POOL}, and pays for its machines: the creation of the cluster "
            f"did not come to its end. Remove it with `gcloud container node-pools delete {_FIRST_POOL} --cluster "
            f"{name} --location {region}`, then `pulumi up --refresh`"
        )


def _refuse_group(name: str, groups: Mapping[str, Any] | None) -> None:
    """Refuse to leave out a group that there is: Google's provider would keep it, without a word."""
    if groups and groups["security_group"]:
        raise pulumi.RunError(
            f"cluster {name} has the group {groups['security_group']}, and Google's provider keeps what is left out. "
            f"{repair('rbac_security_group', GROUPS_OFF)}, or set the group again"
        )
