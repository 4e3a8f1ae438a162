"""One sandbox from inside: a program runs in it, on the path that agents take, and reports what it is and reaches.

The program is ``pod.probe``. It tries only addresses of the cluster that it runs in, and the metadata server only on
GKE, where there is one.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files as package_files
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from adk_gke_sandbox.contract import SANDBOX_UID
from adk_gke_sandbox.errors import ClusterError
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.preflight.checks import Findings, Problem, check, stack_up
from adk_gke_sandbox.preflight.reached import CheckedCluster, Document
from adk_gke_sandbox.sandbox import Sandbox

TIMEOUT_SECONDS: Final = 60
"""Wall-clock time of the program: some seconds of attempts at once, on a slow node."""

_ATTEMPT_SECONDS: Final = 3.0
"""How long each address is tried, again and again: some networks enforce a policy a moment after a pod starts."""

_KUBELETS: Final = 3
"""Nodes whose kubelet is tried, at the most."""

_METADATA_SERVER: Final = "169.254.169.254"
"""https://cloud.google.com/compute/docs/metadata/overview."""

_NODE_LOCAL_DNS: Final = "169.254.20.10"
"""https://cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache."""

_KEYS: Final = {"uid", "credentials", "name_servers", "opened"}
_PERMISSION: Final = "run programs, as the executor's Role allows"


class Target(NamedTuple):
    """What is tried: by ``tcp`` with a connection, by ``dns`` with a query over UDP, by ``name`` with the resolver."""

    name: str
    address: str
    port: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.name} ({self.address}:{self.port}{'/udp' if self.protocol == 'dns' else ''})"


@dataclass(kw_only=True)
class ProbedCluster(CheckedCluster):
    """A cluster in a sandbox of which the program runs once, when its outcome is first asked for."""

    sandbox: Sandbox

    @cached_property
    def nodes(self) -> list[Document]:
        """The nodes; none where they may not be read."""
        return list(self.find("nodes", unless=ClusterError).get("items") or [])

    @property
    def on_google_cloud(self) -> bool:
        """Whether the cluster is GKE's."""
        machines = any(str(node["spec"].get("providerID")).startswith("gce://") for node in self.nodes)
        return machines or bool(self.contract.cluster.project)

    @property
    def api_server(self) -> list[Target]:
        """The API server at the addresses that the kubeconfig leads to."""
        url = urlsplit(self.api.host)
        port = url.port or 443
        return [Target("API server", address, port) for address in _addresses(url.hostname or "", port)]

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """What the program tries: what a sandbox must not reach, as far as addresses are known."""
        contract = self.contract
        found = [*self.api_server, *self._service("default", "kubernetes", 443)]
        for node in self.nodes[:_KUBELETS]:
            addresses = {entry["type"]: entry["address"] for entry in node["status"].get("addresses") or []}
            if address := addresses.get("InternalIP"):
                found.append(Target(f"kubelet of {node['metadata']['name']}", address, 10250))
        name_servers = self._service("kube-system", "kube-dns", 53)
        if self.on_google_cloud:
            found.append(Target("metadata server", _METADATA_SERVER, 80))
            name_servers.append(Target("Cloud DNS", _METADATA_SERVER, 53))
            name_servers.append(Target("node-local DNS", _NODE_LOCAL_DNS, 53))
        if contract.egress == "none":
            found += [server._replace(protocol=protocol) for server in name_servers for protocol in ("tcp", "dns")]
        else:
            # Name servers and public addresses may answer.
            found = [target for target in found if not ipaddress.ip_address(target.address).is_global]
        # An address may have two names; the first one is kept.
        return tuple({target[1:]: target for target in reversed(found)}.values())[::-1]

    def _service(self, namespace: str, name: str, port: int) -> list[Target]:
        # What may not be read tells no address: then there is less to try.
        found = self.find("services", name, namespace=namespace, unless=ClusterError)
        address = found.get("spec", {}).get("clusterIP", "None")
        return [] if address == "None" else [Target(f"Service {namespace}/{name}", address, port)]

    @cached_property
    def outcome(self) -> Outcome:
        """What came of the program."""
        return self.sandbox.run(program(), argv=arguments(self.targets))

    @property
    def report(self) -> Document:
        """What the program saw."""
        return parse_report(self.outcome.stdout)


def program() -> str:
    """Return the program that runs inside."""
    return package_files("adk_gke_sandbox.pod").joinpath("probe.py").read_text(encoding="utf-8")


def arguments(tried: Iterable[Target], seconds: float = _ATTEMPT_SECONDS) -> tuple[str, ...]:
    """Return the program's arguments."""
    return (json.dumps([target._asdict() for target in tried]), str(seconds))


def parse_report(stdout: bytes) -> Document:
    """Return what the program printed, empty where that is no report; its keys are explained there."""
    try:
        found = json.loads(stdout)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.keys() == _KEYS else {}


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host as this machine knows them; a tunnel's loopback would be the sandbox's own."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError:
        return []
    return [address for address in found if not ipaddress.ip_address(address).is_loopback]


@check("job-admitted", permission=_PERMISSION)
def probe(cluster: ProbedCluster) -> Findings:
    """A program runs in a sandbox to its end, on the path that agents take."""
    outcome, said = cluster.outcome, ""
    fix = "Do what the message says, then run preflight again; `adk-gke-sandbox run` takes the same path"
    if outcome.reason is not Reason.COMPLETED:
        said = f"{outcome.reason.value}: {outcome.message or outcome.stderr.decode('utf-8', 'replace')[-500:]}"
    elif not cluster.report:
        said = f"no report but {outcome.stdout[:200]!r}"
        fix = "Use another image: this one's Python cannot run the probe"
    subject = f"execution {outcome.name} with {cluster.contract.image}"
    ran = f"ran in {outcome.timings.total:.1f} s ({outcome.launch})"
    return ran, [Problem(subject, "runs to its end", said, fix)]


@check("probe", permission=_PERMISSION)
def probe_gvisor(cluster: ProbedCluster) -> Findings:
    """The kernel that it runs on is gVisor's, by the kernel's own log."""
    subject, kernel = f"RuntimeClass {cluster.contract.runtime_class}", cluster.outcome.kernel
    said = "" if kernel.startswith("gVisor ") else kernel or "no kernel was reported"
    fix = "Programs may run on the kernel of the node. Stop agents now. The handler must be runsc, on GKE gvisor"
    return kernel, [Problem(subject, "the kernel is gVisor's", said, fix)]


@check("probe", permission=_PERMISSION)
def probe_network(cluster: ProbedCluster) -> Findings:
    """No address of the cluster answers it: API server, kubelets, name servers, on GKE the metadata server."""
    contract, found, tried = cluster.contract, cluster.report, cluster.targets
    fix = (
        "Programs reach the network. Stop agents now. Delete what the stack has not made of `kubectl get "
        f"networkpolicies -n {contract.namespace}`: policies add up. Check that the cluster enforces them (on GKE: "
        f"Dataplane V2, datapath_provider ADVANCED_DATAPATH), then run {stack_up(contract)}"
    )
    opened = [target for number, target in enumerate(tried) if number in found["opened"]]
    problems = [Problem(str(target), "does not answer a sandbox", "answered", fix) for target in opened]
    if found["name_servers"] and contract.egress == "none":
        subject, fix = "/etc/resolv.conf of a sandbox", "Use the release of this package that made the stack"
        problems.append(Problem(subject, "no name server but its loopback", ", ".join(found["name_servers"]), fix))
    if not tried:
        fix = "Run preflight as an identity that may get the service kubernetes in default"
        problems.append(Problem("addresses of the cluster", "at least one to try from inside", "none is known", fix))
    return f"no answer from {', '.join(str(target) for target in tried)}", problems


@check("probe", permission=_PERMISSION)
def probe_identity(cluster: ProbedCluster) -> Findings:
    """It is not root, and has no token."""
    found, subject = cluster.report, f"execution {cluster.outcome.name}"
    uid = "" if found["uid"] == SANDBOX_UID else f"uid {found['uid']}"
    cause = "Something changes pods on their way in: look at `kubectl get mutatingwebhookconfigurations`"
    fix = f"{cause}, then run {stack_up(cluster.contract)}"
    no_credentials, credentials = "no token and no address of the Kubernetes API", ", ".join(found["credentials"])
    wrong = [Problem(subject, f"uid {SANDBOX_UID}", uid, fix), Problem(subject, no_credentials, credentials, fix)]
    return f"uid {found['uid']}, no token", wrong


CHECKS: Final = (probe, probe_gvisor, probe_network, probe_identity)
