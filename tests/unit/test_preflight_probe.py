"""What is tried from inside a sandbox, and the program that looks."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Cluster, Contract
from adk_gke_sandbox.errors import NotFound
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.pod import probe as program
from adk_gke_sandbox.preflight import probe

CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")
GKE = Cluster(project="project")
SERVICES = {"kubernetes": "10.96.0.1", "kube-dns": "10.96.0.10"}


@dataclass
class Known:
    """What an API server tells of addresses, and a sandbox in which the probe has seen nothing."""

    host: str
    services: dict[str, str]
    nodes: list[dict[str, Any]]

    def request(self, verb: str, path: str) -> dict[str, Any]:
        if verb == "list":
            return {"items": self.nodes}
        if (name := path.rpartition("/")[2]) not in self.services:
            raise NotFound("not found", verb="get", target=name, status=404)
        return {"spec": {"clusterIP": self.services[name]}}

    def run(self, code: str, argv: tuple[str, ...]) -> Outcome:
        seen = {"uid": 1, "credentials": [], "name_servers": [], "opened": []}
        return Outcome(name="x", reason=Reason.COMPLETED, stdout=json.dumps(seen).encode())


def probed(
    host: str = "https://10.0.0.1:6443",
    services: dict[str, str] = SERVICES,
    nodes: list[dict[str, Any]] | None = None,
    **contract: Any,
) -> probe.ProbedCluster:
    changed, known = CONTRACT.model_copy(update=contract), Known(host, services, nodes or [])
    faked: dict[str, Any] = {"api": known, "sandbox": known}
    return probe.ProbedCluster(contract=changed, config=ExecutorConfig.from_contract(changed), **faked)


def tried(*given: Any, **changes: Any) -> list[str]:
    return [str(target) for target in probed(*given, **changes).targets]


class TestTargets:
    def test_api_server_and_name_server_are_tried(self) -> None:
        assert tried() == [
            "API server (10.0.0.1:6443)",
            "Service default/kubernetes (10.96.0.1:443)",
            "Service kube-system/kube-dns (10.96.0.10:53)",
            "Service kube-system/kube-dns (10.96.0.10:53/udp)",
        ]

    @pytest.mark.parametrize(
        "gke",
        [
            {"cluster": GKE},
            {"nodes": [{"metadata": {"name": "n"}, "spec": {"providerID": "gce://project/zone/n"}, "status": {}}]},
        ],
    )
    def test_metadata_server_and_node_local_dns_are_tried_on_gke_only(self, gke: dict[str, Any]) -> None:
        assert set(tried(**gke)) - set(tried()) == {
            "metadata server (169.254.169.254:80)",
            "Cloud DNS (169.254.169.254:53)",
            "Cloud DNS (169.254.169.254:53/udp)",
            "node-local DNS (169.254.20.10:53)",
            "node-local DNS (169.254.20.10:53/udp)",
        }

    def test_where_egress_is_allowed_name_servers_and_public_addresses_may_answer_and_nothing_else(self) -> None:
        assert tried("https://8.8.8.8", cluster=GKE, egress="internet") == [
            "Service default/kubernetes (10.96.0.1:443)",
            "metadata server (169.254.169.254:80)",
        ]

    @pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
    def test_loopback_of_a_tunnel_is_not_tried_and_without_any_address_the_check_fails(self, address: str) -> None:
        alone = probed(f"https://{address}:6443", services={"kubernetes": "None"})
        assert alone.targets == ()
        _, (problem,) = probe.probe_network.look(alone)
        assert problem.found == "none is known"
        assert problem.fix == "Run preflight as an identity that may get the service kubernetes in default"

    def test_address_is_tried_once_even_where_two_things_have_it(self) -> None:
        assert tried("https://10.96.0.1", services={"kubernetes": "10.96.0.1"}) == ["API server (10.96.0.1:443)"]

    def test_kubelets_of_some_nodes_are_tried(self) -> None:
        nodes = [
            {
                "metadata": {"name": f"n{number}"},
                "spec": {},
                "status": {"addresses": [{"type": "InternalIP", "address": f"10.1.0.{number}"}]},
            }
            for number in range(9)
        ]
        assert tried("https://127.0.0.1", services={}, nodes=nodes) == [
            f"kubelet of n{number} (10.1.0.{number}:10250)" for number in range(3)
        ]


@pytest.mark.parametrize("stdout", [b"", b"[]", b"{}", b'{"uid": 1}', b"\xff"])
def test_what_is_no_report_is_none(stdout: bytes) -> None:
    assert probe.parse_report(stdout) == {}


@pytest.fixture
def server() -> Iterator[int]:
    """A port of this machine that takes connections, and sends datagrams back."""
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())

    def answer() -> None:
        data, sender = udp.recvfrom(512)
        udp.sendto(data, sender)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    yield tcp.getsockname()[1]
    thread.join(5)
    tcp.close()
    udp.close()


class TestProgram:
    SOURCE = Path(program.__file__)

    def test_is_python_3_8(self) -> None:
        ast.parse(self.SOURCE.read_text(encoding="utf-8"), feature_version=(3, 8))

    def test_tells_the_open_from_the_closed(self, server: int) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            targets = (
                probe.Target("closed", "127.0.0.1", unused.getsockname()[1]),
                probe.Target("open", "127.0.0.1", server),
                probe.Target("open", "127.0.0.1", server, "dns"),
                probe.Target("open", "localhost", 0, "name"),
            )
            arguments, _ = probe.arguments(targets)
            done = subprocess.run(
                [sys.executable, "-W", "error", self.SOURCE, arguments, "0.5"], capture_output=True, check=True
            )
        found = probe.parse_report(done.stdout)
        assert found["opened"] == [1, 2, 3]
        assert found["uid"] == os.getuid()
