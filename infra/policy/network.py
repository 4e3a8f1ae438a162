"""Rules for the network that nodes are in, and how many addresses a list of blocks lets in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pulumi_policy import Severity

from infra.address_ranges import NOT_THE_INTERNET, NOT_THE_INTERNET_IPV6
from infra.policy.rule import Finding, Resource, ResourceRule, Rule, StackRule, at, items, shown, wants, wants_some

SUBNETWORK: Final = "gcp:compute/subnetwork:Subnetwork"

INSIDE: Final[tuple[Any, ...]] = (*NOT_THE_INTERNET, *NOT_THE_INTERNET_IPV6)
"""Addresses of nodes, pods, services, the control plane and the metadata server."""

_VPC: Final = "https://cloud.google.com/vpc/docs/"
_FIREWALL: Final = "gcp:compute/firewall:Firewall"
_FIREWALL_POLICY_RULES: Final = tuple(
    f"gcp:compute/{kind[0].lower()}{kind[1:]}:{kind}"
    for kind in (
        "FirewallPolicyRule",
        "FirewallPolicyWithRules",
        "NetworkFirewallPolicyRule",
        "NetworkFirewallPolicyWithRules",
        "RegionNetworkFirewallPolicyRule",
        "RegionNetworkFirewallPolicyWithRules",
    )
)
"""What lets traffic in beside firewall rules (https://cloud.google.com/firewall/docs/firewall-policies-overview)."""

_SOURCES: Final = ("srcAddressGroups", "srcFqdns", "srcNetworks", "srcSecureTags")
"""What a rule of a firewall policy may name instead of addresses."""

_NOBODY_NAMED: Final = ["0.0.0.0/0"]
_TOLD: Final = 5
"""How many blocks a message names."""

_MOST: Final = {4: 2**24, 6: 2**112}
"""Public addresses of all blocks together, by version of IP: a /8 and a /16. No organization's own networks are more,
and everybody cut into pieces is still everybody."""


def is_nearly_everybody(blocks: Iterable[str]) -> bool:
    """Whether blocks, taken together, have more public addresses than somebody in particular can have."""
    networks: list[Any] = [ipaddress.ip_network(block, strict=False) for block in blocks]
    return any(
        sum(map(_public, ipaddress.collapse_addresses(each for each in networks if each.version == version))) > most
        for version, most in _MOST.items()
    )


def _public(network: Any) -> int:
    inside = [each for each in INSIDE if each.version == network.version and each.overlaps(network)]
    return int(network.num_addresses - sum(min(each.num_addresses, network.num_addresses) for each in inside))


def _holds_machines(subnetwork: Resource) -> bool:
    return at(subnetwork.inputs, "purpose") in (None, "PRIVATE")


def _lets_in(resource: Resource) -> Iterator[list[str]]:
    """Yield the blocks of addresses of each rule that lets traffic in; none where it names its sources otherwise."""
    inputs = resource.inputs
    if resource.type == _FIREWALL:
        if at(inputs, "direction") != "EGRESS" and items(inputs, "allows"):
            named = any(items(inputs, key) for key in ("sourceTags", "sourceServiceAccounts"))
            yield items(inputs, "sourceRanges") or ([] if named else _NOBODY_NAMED)
    elif resource.type in _FIREWALL_POLICY_RULES:
        for rule in items(inputs, "rules") or [inputs]:
            if at(rule, "direction") != "EGRESS" and at(rule, "action") != "deny":
                named = any(items(rule, f"match.{key}") for key in _SOURCES)
                yield items(rule, "match.srcIpRanges") or ([] if named else _NOBODY_NAMED)


def _everybody_comes_in(resources: Sequence[Resource]) -> Iterator[Finding]:
    opened = [(resource, blocks) for resource in resources for blocks in _lets_in(resource) if blocks]
    wide = [each for each in opened if is_nearly_everybody(each[1])]
    for resource, blocks in wide:
        more = f" and {len(blocks) - _TOLD} more" if len(blocks) > _TOLD else ""
        who = "everybody" if blocks is _NOBODY_NAMED else f"{shown(blocks[:_TOLD])}{more}, which is nearly everybody"
        yield Finding(f"{resource.kind} {resource.name} lets in {who}", resource)
    if not wide and is_nearly_everybody(block for _, blocks in opened for block in blocks):
        names = dict.fromkeys(resource.name for resource, _ in opened)
        yield Finding(f"{', '.join(names)} together let in nearly everybody")


RULES: Final[tuple[Rule, ...]] = (
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
    StackRule(
        name="open-firewall",
        title="No firewall rule lets everybody reach nodes, and no two or two hundred together do",
        cis=("5.6.6",),
        severity=Severity.CRITICAL,
        remedy="Name the addresses of somebody in particular, or remove the rule: GKE makes the rules that it needs",
        url="https://cloud.google.com/kubernetes-engine/docs/concepts/firewall-rules",
        survey=_everybody_comes_in,
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
