"""The network of a cluster: a VPC of its own, one subnet, and a way out only where one is asked for.

Private nodes reach Google's APIs by Private Google Access. What pods may connect to is the business of
``isolation``; which addresses there are, of ``address_ranges``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

PODS_RANGE: Final = "pods"
SERVICES_RANGE: Final = "services"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network that a cluster is in.

    Attributes:
        vpc: The VPC.
        subnet: The subnet of the nodes, with ranges for pods and services.
        way_out: Resources that nodes need to reach the internet; empty without egress.
    """

    vpc: gcp.compute.Network
    subnet: gcp.compute.Subnetwork
    way_out: tuple[pulumi.Resource, ...]


def network(
    name: str,
    *,
    project: str,
    region: str,
    subnet_cidr: str,
    pods_cidr: str,
    services_cidr: str,
    nat: bool,
    opts: pulumi.ResourceOptions,
) -> Network:
    """Create the network.

    Args:
        name: What the logical names begin with.
        project: Id of the project.
        region: Region of the subnet.
        subnet_cidr: Addresses of the nodes.
        pods_cidr: Addresses of the pods.
        services_cidr: Addresses of the services.
        nat: Whether nodes get a way to the internet, by Cloud NAT.
        opts: Options of every resource.
    """
    vpc = gcp.compute.Network(
        f"{name}-network",
        project=project,
        auto_create_subnetworks=False,
        routing_mode="REGIONAL",
        opts=opts,
    )
    subnet = gcp.compute.Subnetwork(
        f"{name}-nodes",
        project=project,
        network=vpc.self_link,
        region=region,
        ip_cidr_range=subnet_cidr,
        private_ip_google_access=True,
        secondary_ip_ranges=[
            gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=range_name, ip_cidr_range=cidr)
            for range_name, cidr in ((PODS_RANGE, pods_cidr), (SERVICES_RANGE, services_cidr))
        ],
        log_config=gcp.compute.SubnetworkLogConfigArgs(
            aggregation_interval="INTERVAL_10_MIN", flow_sampling=0.5, metadata="INCLUDE_ALL_METADATA"
        ),
        opts=opts,
    )
    return Network(vpc=vpc, subnet=subnet, way_out=_cloud_nat(name, vpc, subnet, project, region, opts) if nat else ())


def _cloud_nat(
    name: str,
    vpc: gcp.compute.Network,
    subnet: gcp.compute.Subnetwork,
    project: str,
    region: str,
    opts: pulumi.ResourceOptions,
) -> tuple[pulumi.Resource, ...]:
    router = gcp.compute.Router(f"{name}-router", project=project, network=vpc.self_link, region=region, opts=opts)
    nat = gcp.compute.RouterNat(
        f"{name}-nat",
        project=project,
        router=router.name,
        region=region,
        nat_ip_allocate_option="AUTO_ONLY",
        # Only this subnet: nothing that joins the network later gets a way out by itself.
        source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
        subnetworks=[
            gcp.compute.RouterNatSubnetworkArgs(name=subnet.self_link, source_ip_ranges_to_nats=["ALL_IP_RANGES"])
        ],
        log_config=gcp.compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
        opts=opts,
    )
    return (router, nat)
