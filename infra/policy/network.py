"""Rules for the network that nodes are in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pulumi_policy import Severity

from infra.policy.rule import Resource, ResourceRule, at, items, wants, wants_some

SUBNETWORK: Final = "gcp:compute/subnetwork:Subnetwork"

_VPC: Final = "https://cloud.google.com/vpc/docs/"
_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")


def _holds_machines(subnetwork: Resource) -> bool:
    return at(subnetwork.inputs, "purpose") in (None, "PRIVATE")


def _lets_not_everybody_in(firewall: Resource) -> Iterator[str]:
    if at(firewall.inputs, "direction") == "EGRESS" or not items(firewall.inputs, "allows"):
        return
    sources = items(firewall.inputs, "sourceRanges")
    named = [items(firewall.inputs, key) for key in ("sourceTags", "sourceServiceAccounts")]
    if open_to := [block for block in sources if block in _EVERYWHERE]:
        yield f"sourceRanges has {', '.join(open_to)}"
    elif not sources and not any(named):
        yield "no source is named, which is everybody"


RULES: Final = (
    ResourceRule(
        name="flow-logs",
        title="The network logs who talks to whom",
        cis=("5.6.1",),
        severity=Severity.MEDIUM,
        remedy="Set log_config of the subnetwork",
        url=f"{_VPC}using-flow-logs",
        types=(SUBNETWORK,),
        checks=(wants_some("logConfig"),),
        applies=_holds_machines,
    ),
    ResourceRule(
        name="private-google-access",
        title="Nodes without public addresses reach Google's APIs and the image registry, and need no NAT for it",
        severity=Severity.MEDIUM,
        remedy="Set private_ip_google_access=True of the subnetwork",
        url=f"{_VPC}private-google-access",
        types=(SUBNETWORK,),
        checks=(wants("privateIpGoogleAccess", True),),
        applies=_holds_machines,
    ),
    ResourceRule(
        name="own-subnetworks",
        title="The network has the subnetworks that the program names, and not one in each region",
        severity=Severity.LOW,
        remedy="Set auto_create_subnetworks=False; it replaces the network",
        url=f"{_VPC}subnets#subnet-types",
        types=("gcp:compute/network:Network",),
        checks=(wants("autoCreateSubnetworks", False),),
    ),
    ResourceRule(
        name="open-firewall",
        title="No firewall rule lets everybody reach nodes",
        cis=("5.6.6",),
        severity=Severity.CRITICAL,
        remedy="Name the addresses in source_ranges, or remove the rule: GKE makes the rules that it needs",
        url="https://cloud.google.com/kubernetes-engine/docs/concepts/firewall-rules",
        types=("gcp:compute/firewall:Firewall",),
        checks=(_lets_not_everybody_in,),
    ),
    ResourceRule(
        name="nat-scope",
        title="Cloud NAT serves the subnetworks that are named, so that others stay without the internet",
        severity=Severity.MEDIUM,
        remedy='Set source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS" and list them',
        url="https://cloud.google.com/nat/docs/overview",
        types=("gcp:compute/routerNat:RouterNat",),
        checks=(wants("sourceSubnetworkIpRangesToNat", "LIST_OF_SUBNETWORKS"),),
    ),
)
