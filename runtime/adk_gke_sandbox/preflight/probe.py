"""The addresses that ``pod.probe`` tries from inside a sandbox, and its report. Pure.

It tries addresses of the cluster that it runs in only, and the metadata server only on GKE, where there is one.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from adk_gke_sandbox.execution import Outcome, Reason

TIMEOUT_SECONDS: Final = 60
"""Wall-clock time of the program: some seconds of attempts at once, on a slow node."""

ATTEMPT_SECONDS: Final = 3.0
"""How long each address is tried, again and again: some networks enforce a policy a moment after a pod starts."""

KUBELETS: Final = 3
"""Nodes whose kubelet is tried, at the most."""

_METADATA_SERVER: Final = "169.254.169.254"
"""https://cloud.google.com/compute/docs/metadata/overview."""

_NODE_LOCAL_DNS: Final = "169.254.20.10"
"""https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that must not answer a sandbox.

    Attributes:
        name: What is there.
        address: IP address.
        port: Port.
        protocol: ``tcp`` is open when a connection is made, ``dns`` when a query by UDP is answered.
    """

    name: str
    address: str
    port: int
    protocol: Literal["tcp", "dns"] = "tcp"

    def __str__(self) -> str:
        return f"{self.name} ({self.address}:{self.port}{'/udp' if self.protocol == 'dns' else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Insight:
    """What the program saw.

    Attributes:
        gvisor: Whether the kernel's log is gVisor's.
        kernel: First line of the kernel's log, or why there is none.
        uid: User id of the program.
        credentials: Paths and variables that lead to the Kubernetes API, if any.
        name_servers: Name servers that the resolver asks, beside the sandbox's own loopback.
        opened: The targets that answered, by their number.
    """

    gvisor: bool
    kernel: str
    uid: int
    credentials: tuple[str, ...]
    name_servers: tuple[str, ...]
    opened: tuple[int, ...]


def targets(
    *,
    api_server: Iterable[str],
    port: int,
    services: Mapping[str, Any],
    nodes: Iterable[Mapping[str, Any]],
    gke: bool,
    egress: str = "none",
) -> tuple[Target, ...]:
    """Return what a sandbox must not reach.

    Args:
        api_server: Addresses at which the caller itself reaches the API server.
        port: Port there.
        services: The Services ``kubernetes`` and ``kube-dns``, as far as they are known.
        nodes: Nodes, as far as they are known.
        gke: Whether the cluster is on GKE, where a metadata server and a name server have addresses of their own.
        egress: The contract's; where it is not ``none``, name servers and public addresses may answer.
    """
    found = [Target(name="API server", address=address, port=port) for address in api_server if _is_elsewhere(address)]
    if address := _cluster_ip(services.get("kubernetes")):
        found.append(Target(name="Service default/kubernetes", address=address, port=443))
    for node in list(nodes)[:KUBELETS]:
        found += [
            Target(name=f"kubelet of {node['metadata']['name']}", address=entry["address"], port=10250)
            for entry in (node.get("status") or {}).get("addresses") or []
            if entry.get("type") == "InternalIP"
        ]
    if gke:
        found.append(Target(name="metadata server", address=_METADATA_SERVER, port=80))
    if egress != "none":
        return _distinct(target for target in found if not ipaddress.ip_address(target.address).is_global)
    name_servers = {"Service kube-system/kube-dns": _cluster_ip(services.get("kube-dns"))}
    if gke:
        name_servers["node-local DNS"] = _NODE_LOCAL_DNS
    for name, address in name_servers.items():
        if address:
            found += [
                Target(name=name, address=address, port=53),
                Target(name=name, address=address, port=53, protocol="dns"),
            ]
    return _distinct(found)


def arguments(tried: Iterable[Target]) -> tuple[str, ...]:
    """Return the arguments of ``pod.probe``."""
    return (json.dumps([asdict(target) for target in tried]), str(ATTEMPT_SECONDS))


def insight(outcome: Outcome) -> Insight | None:
    """Return the program's report, or nothing where it made none that can be read."""
    if outcome.reason is not Reason.COMPLETED:
        return None
    try:
        found = json.loads(outcome.stdout)
        return Insight(
            gvisor=bool(found["gvisor"]),
            kernel=str(found["kernel"]),
            uid=int(found["uid"]),
            credentials=tuple(str(item) for item in found["credentials"]),
            name_servers=tuple(str(item) for item in found["name_servers"]),
            opened=tuple(int(item) for item in found["opened"]),
        )
    except (ValueError, LookupError, TypeError):
        return None


def _distinct(found: Iterable[Target]) -> tuple[Target, ...]:
    """Return the first target of each address."""
    known: dict[tuple[str, int, str], Target] = {}
    for target in found:
        known.setdefault((target.address, target.port, target.protocol), target)
    return tuple(known.values())


def _is_elsewhere(address: str) -> bool:
    """Whether an address means another host to a sandbox: a tunnel's loopback would be its own."""
    return not ipaddress.ip_address(address).is_loopback


def _cluster_ip(service: Mapping[str, Any] | None) -> str:
    address = str(((service or {}).get("spec") or {}).get("clusterIP") or "")
    return "" if address == "None" else address
