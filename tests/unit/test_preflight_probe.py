"""What is tried from inside, what is offered as a dry run, and the program that looks."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import (
    JOBS,
    PODS,
    Contract,
)
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.pod import probe as program
from adk_gke_sandbox.preflight import probe, trials
from infra.admission_rules import rules

CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")


class TestTrials:
    CONFIG = ExecutorConfig.from_contract(CONTRACT)

    @pytest.mark.parametrize(("kind", "names"), [(JOBS, trials.JOB_RULES), (PODS, trials.POD_RULES)])
    def test_each_is_for_a_rule_that_the_stack_has(self, kind: str, names: tuple[str, ...]) -> None:
        assert set(names) <= {rule.id for rule in rules(CONTRACT) if kind in rule.on}

    def test_each_differs_from_the_executors_own_job_and_from_the_others(self) -> None:
        offered = trials.jobs(self.CONFIG)
        assert set(offered) == {trials.OWN, *trials.JOB_RULES}
        texts = {json.dumps(manifest, sort_keys=True) for manifest in offered.values()}
        assert len(texts) == len(offered)

    def test_image_of_a_registry_with_a_port_keeps_it(self) -> None:
        contract = CONTRACT.model_copy(update={"image": f"localhost:1/data:7@sha256:{'0' * 64}"})
        pod = trials.pods(ExecutorConfig.from_contract(contract))["image-digest"]
        assert pod["spec"]["containers"][0]["image"] == "localhost:1/data:latest"


KUBERNETES: Final = {"kubernetes": {"spec": {"clusterIP": "10.96.0.1"}}}
SERVICES: Final = {**KUBERNETES, "kube-dns": {"spec": {"clusterIP": "10.96.0.10"}}}


class TestTargets:
    def targets(self, **changes: Any) -> list[str]:
        given = {"api_server": ["10.0.0.1"], "port": 6443, "services": SERVICES, "nodes": [], "gke": False}
        return [str(target) for target in probe.targets(**{**given, **changes})]

    def test_api_server_and_name_server_are_tried(self) -> None:
        assert self.targets() == [
            "API server (10.0.0.1:6443)",
            "Service default/kubernetes (10.96.0.1:443)",
            "Service kube-system/kube-dns (10.96.0.10:53)",
            "Service kube-system/kube-dns (10.96.0.10:53/udp)",
        ]

    def test_metadata_server_and_node_local_dns_are_tried_on_gke_only(self) -> None:
        more = set(self.targets(gke=True)) - set(self.targets())
        assert more == {
            "metadata server (169.254.169.254:80)",
            "node-local DNS (169.254.20.10:53)",
            "node-local DNS (169.254.20.10:53/udp)",
        }

    def test_where_egress_is_allowed_name_servers_and_public_addresses_may_answer_and_nothing_else(self) -> None:
        assert self.targets(api_server=["8.8.8.8", "10.0.0.1"], gke=True, egress="internet") == [
            "API server (10.0.0.1:6443)",
            "Service default/kubernetes (10.96.0.1:443)",
            "metadata server (169.254.169.254:80)",
        ]

    def test_loopback_of_a_tunnel_is_not_tried(self) -> None:
        assert self.targets(api_server=["127.0.0.1", "::1"], services={}) == []

    def test_address_is_tried_once_even_where_two_things_have_it(self) -> None:
        assert self.targets(api_server=["10.96.0.1"], port=443, services=KUBERNETES) == ["API server (10.96.0.1:443)"]

    def test_kubelets_of_some_nodes_are_tried(self) -> None:
        nodes = [
            {
                "metadata": {"name": f"n{number}"},
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": f"10.1.0.{number}"},
                        {"type": "Hostname", "address": f"n{number}"},
                    ]
                },
            }
            for number in range(9)
        ]
        assert self.targets(api_server=[], services={}, nodes=nodes) == [
            f"kubelet of n{number} (10.1.0.{number}:10250)" for number in range(3)
        ]

    @pytest.mark.parametrize("stdout", [b"", b"[]", b"{}", b'{"gvisor": true}', b"\xff"])
    def test_report_that_cannot_be_read_is_none(self, stdout: bytes) -> None:
        assert probe.insight(Outcome(name="x", reason=Reason.COMPLETED, stdout=stdout)) is None


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
                probe.Target(name="closed", address="127.0.0.1", port=unused.getsockname()[1]),
                probe.Target(name="open", address="127.0.0.1", port=server),
                probe.Target(name="open", address="127.0.0.1", port=server, protocol="dns"),
            )
            arguments, _ = probe.arguments(targets)
            done = subprocess.run(
                [sys.executable, "-W", "error", self.SOURCE, arguments, "0.5"], capture_output=True, check=True
            )
        found = probe.insight(Outcome(name="x", reason=Reason.COMPLETED, stdout=done.stdout))
        assert found is not None
        assert found.opened == (1, 2)
        assert not found.gvisor
        assert found.kernel
