"""Address ranges of a VPC-native cluster: whether they are private, apart from each other, and large enough. Pure.

https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips#cluster_sizing
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from adk_gke_sandbox.errors import ConfigError
from infra.configuration import full_key, repair, shown

if TYPE_CHECKING:
    import pulumi

PRIVATE: Final = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
"""What a range of the stack may be part of."""

LINK_LOCAL: Final = IPv4Network("169.254.0.0/16")

METADATA: Final = "169.254.169.254/32"
"""GKE's metadata server. On port 53 of it Cloud DNS answers, and is the name server of every pod where the cache of
the nodes is off (https://github.com/tektoncd/operator/issues/4000)."""

NODE_DNS: Final = "169.254.20.10/32"
"""The cache of the nodes (https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache)."""

NOT_THE_INTERNET: Final = (
    *PRIVATE,
    LINK_LOCAL,
    *map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4")),
)
"""What nobody has on the internet (https://www.iana.org/assignments/iana-ipv4-special-registry), and a VPC may have
inside (https://cloud.google.com/vpc/docs/subnets#valid-ranges); link-local is the metadata server's."""

NOT_THE_INTERNET_IPV6: Final = (IPv6Network("fc00::/7"), IPv6Network("fe80::/10"))
"""The same of IPv6 (https://www.iana.org/assignments/iana-ipv6-special-registry)."""

DOCUMENTATION: Final = tuple(map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
"""A VPC may have these inside as well. Where somebody writes one, as examples do, it stands for the internet."""

_CIDR: Final = re.compile(r"[0-9.]+/[0-9]{1,2}")
"""Python also takes an address alone, and a netmask in place of the length."""

_DOCKER_BRIDGE: Final = IPv4Network("172.17.0.0/16")
"""Nodes have it inside; a pod there is unreachable
(https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips#defaults_limits)."""

_RESERVED: Final = 4
"""Addresses of a primary range that Google keeps
(https://cloud.google.com/vpc/docs/subnets#unusable-ip-addresses-in-every-subnet)."""

OWN_RANGES: Final = (full_key("subnet_cidr"), full_key("pods_cidr"))
"""What messages call the ranges of nodes and of pods that are settings."""

_PREFIXES: Final = {"subnet_cidr": (8, 29), "pods_cidr": (9, 26), "services_cidr": (16, 27)}
"""Largest and smallest range of each kind, as prefix lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPlan:
    """The ranges of a cluster.

    Attributes:
        subnet: Addresses of nodes.
        pods: Addresses of pods.
        services: Addresses of services.
        nodes: For each pool how many nodes there may be at once, and the most pods on each.
        named: What messages call the ranges of nodes and of pods.
    """

    subnet: str
    pods: str
    services: str
    nodes: tuple[tuple[int, int], ...]
    named: tuple[str, str] = OWN_RANGES

    def check(self) -> None:
        """Refuse ranges that cannot work, whatever is in them.

        Raises:
            ConfigError: malformed, public, overlapping, or of a size that GKE does not take.
        """
        ranges = {
            name: _parsed(name, text)
            for name, text in (
                ("subnet_cidr", self.subnet),
                ("pods_cidr", self.pods),
                ("services_cidr", self.services),
            )
        }
        for (this, first), (that, second) in itertools.combinations(ranges.items(), 2):
            if first.overlaps(second):
                raise ConfigError(
                    f"{full_key(that)}={second} overlaps {full_key(this)}={first}",
                    "Give nodes, pods and services a range each, such as the defaults "
                    "10.64.0.0/20, 10.68.0.0/16 and 10.72.0.0/20",
                )

    def check_sizes(self) -> None:
        """Refuse ranges that do not hold the nodes of the pools and their pods; Autopilot has no pools.

        Raises:
            ConfigError: they do not.
        """
        self._check_nodes(IPv4Network(self.subnet))
        self._check_pods(IPv4Network(self.pods))

    @property
    def node_count(self) -> int:
        """All nodes that there may be at once."""
        return sum(count for count, _ in self.nodes)

    def _check_nodes(self, subnet: IPv4Network) -> None:
        wanted = self.node_count
        if subnet.num_addresses - _RESERVED < wanted:
            raise ConfigError(
                f"{self.named[0]}={subnet} has {subnet.num_addresses - _RESERVED} addresses, "
                f"and the pools may grow to {wanted} nodes during an upgrade",
                f"Give a range of /{_prefix(wanted + _RESERVED)} or larger, or lower sandboxNodesMax or systemNodesMax",
            )

    def _check_pods(self, pods: IPv4Network) -> None:
        wanted = sum(count * node_addresses(most) for count, most in self.nodes)
        if pods.num_addresses < wanted:
            raise ConfigError(
                f"{self.named[1]}={pods} has {pods.num_addresses} addresses, and {self.node_count} nodes take {wanted}",
                f"Give a range of /{_prefix(wanted)} or larger, or lower sandboxNodesMax or sandboxPodsPerNode",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What is known of a cluster's own addresses.

    Attributes:
        services: Range of the Services; ``None`` where it is not known, and name servers are told by their pods alone.
        inside: All ranges of nodes, pods and Services that are known, private or not.
    """

    services: pulumi.Input[str] | None = None
    inside: pulumi.Input[Sequence[str]] = ()


NO_ADDRESSES: Final = Addresses()
"""Of a cluster of which no range is known."""


def is_private(cidr: str) -> bool:
    """Whether a range is part of what nobody has on the internet."""
    return any(IPv4Network(cidr).subnet_of(private) for private in NOT_THE_INTERNET)


def name_server(services: str) -> str:
    """Return the address of the Service `kube-dns`: the tenth of the range of Services.

    https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/#why-do-you-need-to-reserve-service-cluster-ips
    and, of GKE, https://github.com/gke-labs/kube-agents/pull/687 (34.118.224.10 of 34.118.224.0/20).
    """
    return f"{IPv4Network(services)[10]}/32"


def node_addresses(pods: int) -> int:
    """Return how many pod addresses a node takes: twice its pods, rounded up to a power of two."""
    return 1 << math.ceil(math.log2(2 * pods))


def _prefix(addresses: int) -> int:
    return 32 - math.ceil(math.log2(addresses))


def _parsed(name: str, text: str) -> IPv4Network:
    example = {"subnet_cidr": "10.64.0.0/20", "pods_cidr": "10.68.0.0/16", "services_cidr": "10.72.0.0/20"}[name]
    try:
        if not _CIDR.fullmatch(text):
            raise ValueError
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise ConfigError(f"{shown(name, text)} is not a range of IPv4 addresses", repair(name, example)) from None
    if text != str(network):
        raise ConfigError(
            f"{shown(name, text)} does not begin at the range's first address", repair(name, str(network))
        )
    if not any(network.subnet_of(private) for private in PRIVATE):
        raise ConfigError(
            f"{full_key(name)}={network} is not a private range",
            f"Take it from {', '.join(map(str, PRIVATE))}",
        )
    if network.overlaps(_DOCKER_BRIDGE):
        raise ConfigError(
            f"{full_key(name)}={network} overlaps {_DOCKER_BRIDGE}, which every node uses inside",
            repair(name, example),
        )
    largest, smallest = _PREFIXES[name]
    if not largest <= network.prefixlen <= smallest:
        raise ConfigError(
            f"{full_key(name)}={network} has a prefix of /{network.prefixlen}",
            f"Give a range between /{largest} and /{smallest}",
        )
    return network
