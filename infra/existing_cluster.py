"""A GKE cluster that somebody else made: looked up, never changed."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from adk_gke_sandbox.errors import ConfigError
from infra.address_ranges import Addresses
from infra.existing_settings import GkeClusterName
from infra.kubeconfig import context_name, dns_endpoint, kubeconfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingCluster:
    """How a cluster is reached.

    Attributes:
        kubeconfig: A kubeconfig without credentials, as a secret.
        context: Name of the context in it.
        endpoint: URL of the API server.
        addresses: Its ranges of pods and Services.
    """

    kubeconfig: pulumi.Output[str]
    context: str
    endpoint: pulumi.Output[str]
    addresses: Addresses


def existing_gke(named: GkeClusterName, opts: pulumi.InvokeOutputOptions | None = None) -> ExistingCluster:
    """Return how a GKE cluster is reached, by its DNS endpoint."""
    found = gcp.container.get_cluster_output(name=named.name, location=named.location, project=named.project, opts=opts)
    host = found.control_plane_endpoints_configs.apply(
        lambda configs: _endpoint(named, [each.endpoint for config in configs for each in config.dns_endpoint_configs])
    )
    context = context_name(named.project, named.location, named.name)
    return ExistingCluster(
        kubeconfig=pulumi.Output.secret(
            host.apply(lambda endpoint: kubeconfig(context=context, endpoint=endpoint)),
        ),
        context=context,
        endpoint=pulumi.Output.concat("https://", host),
        addresses=Addresses(
            services=found.services_ipv4_cidr,
            inside=pulumi.Output.all(found.cluster_ipv4_cidr, found.services_ipv4_cidr),
        ),
    )


def _endpoint(named: GkeClusterName, endpoints: list[str]) -> str:
    try:
        return dns_endpoint(endpoints, named.name, named.location)
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error
