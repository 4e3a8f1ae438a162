"""The network of a cluster: a VPC of its own or one that is there, one subnet, and a way out where one is asked for.

Private nodes reach Google's APIs by Private Google Access. What pods may connect to is the business of
``isolation``; which addresses there are, of ``address_ranges``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pulumi
import pulumi_gcp as gcp

from adk_gke_sandbox.errors import ConfigError
from infra.address_ranges import Addresses
from infra.configuration import shown
from infra.gke_settings import GkeSettings

PODS_RANGE: Final = "pods"
SERVICES_RANGE: Final = "services"

PORTS_OF_A_NODE: Final = (1024, 32_768)
"""Ports of Cloud NAT that a node begins with and may get: each is one connection to one server. Powers of two; an
address of Cloud NAT has 64,512 (https://cloud.google.com/nat/docs/ports-and-addresses#port-reservation-procedure)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The network that a cluster is in.

    Attributes:
        vpc: Link of the VPC.
        subnet: Link of the subnet of the nodes.
        pods_range: Name of its range of pods.
        services_range: Name of its range of Services.
        addresses: These ranges.
        way_out: Resources that nodes need to reach the internet; empty where none are made.
    """

    vpc: pulumi.Input[str]
    subnet: pulumi.Input[str]
    pods_range: str
    services_range: str
    addresses: Addresses
    way_out: tuple[pulumi.Resource, ...] = ()


def network(
    name: str,
    *,
    gke: GkeSettings,
    pools: bool,
    nat: bool,
    services: Mapping[str, pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> Network:
    """Create what is missing of the network.

    Args:
        name: What the logical names begin with.
        gke: Project, region, ranges, and what there is already.
        pools: Whether the ranges have to hold node pools.
        nat: Whether nodes get a way to the internet, by Cloud NAT; of a subnet that is there its owner decides.
        services: The enabled services, by name.
        opts: Options of every resource.
    """
    if gke.subnetwork:
        return _existing(gke, pools, services, opts)
    if pools:
        gke.addresses.check_sizes()
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(services.values())))
    vpc: pulumi.Input[str] = _vpc(gke)
    if not gke.network:
        vpc = gcp.compute.Network(
            f"{name}-network",
            project=gke.project,
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=after,
        ).self_link
    subnet = gcp.compute.Subnetwork(
        f"{name}-nodes",
        project=gke.project,
        network=vpc,
        region=gke.region,
        ip_cidr_range=gke.subnet_cidr,
        private_ip_google_access=True,
        secondary_ip_ranges=[
            gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=range_name, ip_cidr_range=cidr)
            for range_name, cidr in ((PODS_RANGE, gke.pods_cidr), (SERVICES_RANGE, gke.services_cidr))
        ],
        log_config=gcp.compute.SubnetworkLogConfigArgs(
            aggregation_interval="INTERVAL_10_MIN", flow_sampling=0.5, metadata="INCLUDE_ALL_METADATA"
        ),
        opts=after,
    )
    return Network(
        vpc=vpc,
        subnet=subnet.self_link,
        pods_range=PODS_RANGE,
        services_range=SERVICES_RANGE,
        addresses=Addresses(services=gke.services_cidr, inside=(gke.subnet_cidr, gke.pods_cidr, gke.services_cidr)),
        way_out=_cloud_nat(name, vpc, subnet, gke, after) if nat else (),
    )


def _vpc(gke: GkeSettings) -> str:
    return f"projects/{gke.network_project or gke.project}/global/networks/{gke.network}"


def _existing(
    gke: GkeSettings, pools: bool, services: Mapping[str, pulumi.Resource], opts: pulumi.ResourceOptions
) -> Network:
    """Return a network of which nothing is made, once it is seen that it will do."""
    project = gke.network_project or gke.project
    found = gcp.compute.get_subnetwork_output(
        name=gke.subnetwork,
        region=gke.region,
        project=project,
        opts=pulumi.InvokeOutputOptions(parent=opts.parent, depends_on=[services["compute"]]),
    )
    ranges = pulumi.Output.all(
        network=found.network,
        cidr=found.ip_cidr_range,
        private=found.private_ip_google_access,
        ranges=found.secondary_ip_ranges.apply(lambda each: {entry.range_name: entry.ip_cidr_range for entry in each}),
    ).apply(lambda seen: _usable(gke, pools, **seen))
    return Network(
        # Not what was found: while that is unknown, the cluster would seem to be replaced.
        vpc=_vpc(gke),
        subnet=f"projects/{project}/regions/{gke.region}/subnetworks/{gke.subnetwork}",
        pods_range=gke.pods_range,
        services_range=gke.services_range,
        addresses=Addresses(services=ranges.apply(lambda each: each[2]), inside=ranges),
    )


def _usable(
    gke: GkeSettings, pools: bool, network: str, cidr: str, private: bool, ranges: Mapping[str, str]
) -> Sequence[str]:
    """Return the ranges of nodes, pods and Services of a subnet that is there.

    Raises:
        pulumi.RunError: a cluster in it would not work.
    """
    where = f"{gke.subnetwork} --region {gke.region} --project {gke.network_project or gke.project}"
    if network.rpartition("/")[2] != gke.network:
        raise pulumi.RunError(
            f"{shown('subnetwork', gke.subnetwork)} is in the network {network.rpartition('/')[2]}, not in "
            f"{shown('network', gke.network)}. Set the one that it is in"
        )
    if not private:
        raise pulumi.RunError(
            f"{shown('subnetwork', gke.subnetwork)} has no Private Google Access, without which nodes reach neither "
            "image registry nor APIs. Its owner switches it on with `gcloud compute networks subnets update "
            f"{where} --enable-private-ip-google-access`"
        )
    for setting in ("pods_range", "services_range"):
        if (wanted := getattr(gke, setting)) not in ranges:
            raise pulumi.RunError(
                f"{shown(setting, wanted)} is no secondary range of the subnetwork {gke.subnetwork}, which has: "
                f"{', '.join(sorted(ranges)) or 'none'}. Name one of them; its owner adds one with `gcloud compute "
                f"networks subnets update {where} --add-secondary-ranges NAME=RANGE`"
            )
    plan = replace(gke.addresses, subnet=cidr, pods=ranges[gke.pods_range], services=ranges[gke.services_range])
    try:
        if pools:
            plan.check_sizes()
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error
    return plan.subnet, plan.pods, plan.services


def _cloud_nat(
    name: str,
    vpc: pulumi.Input[str],
    subnet: gcp.compute.Subnetwork,
    gke: GkeSettings,
    opts: pulumi.ResourceOptions,
) -> tuple[pulumi.Resource, ...]:
    router = gcp.compute.Router(f"{name}-router", project=gke.project, network=vpc, region=gke.region, opts=opts)
    nat = gcp.compute.RouterNat(
        f"{name}-nat",
        project=gke.project,
        router=router.name,
        region=gke.region,
        nat_ip_allocate_option="AUTO_ONLY",
        # A node has 64 ports without it, for all of its pods (https://cloud.google.com/nat/docs/ports-and-addresses).
        enable_dynamic_port_allocation=True,
        min_ports_per_vm=PORTS_OF_A_NODE[0],
        max_ports_per_vm=PORTS_OF_A_NODE[1],
        # Excluded by dynamic allocation; left out, it stays as it was.
        enable_endpoint_independent_mapping=False,
        # Only this subnet: nothing that joins the network later gets a way out by itself.
        source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
        subnetworks=[
            gcp.compute.RouterNatSubnetworkArgs(name=subnet.self_link, source_ip_ranges_to_nats=["ALL_IP_RANGES"])
        ],
        log_config=gcp.compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
        opts=opts,
    )
    return (router, nat)
