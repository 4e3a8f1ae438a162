"""Who resolves names, and where: with the policies of a GKE stack, at each address that may be a pod's name server.

The name servers are ours, inside the cluster's own network namespace. Google's addresses are there for the time of
these tests; nothing of the machine's network is touched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.preflight.agents import probe_pod
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import network
from infra.local.layout import Layout
from tests.cluster.identities import namespace, wait_for
from tests.infra.conftest import committed, run_program

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

CLOUD_DNS, NODE_CACHE, SERVICE = "169.254.169.254", "169.254.20.10", "10.72.0.10"
"""The last one is the tenth of staging's range of Services."""

SERVER = """
import socket, sys, threading

def answer(query):
    record = b"\\xc0\\x0c\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x3c\\x00\\x04\\xc0\\x00\\x02\\x01"
    return query[:2] + b"\\x81\\x80\\x00\\x01\\x00\\x01" + bytes(4) + query[12:] + record

def by_udp(server):
    while True:
        query, sender = server.recvfrom(512)
        server.sendto(answer(query), sender)

def by_tcp(server):
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(2)
            try:
                reply = answer(connection.recv(514)[2:])
                connection.sendall(len(reply).to_bytes(2, "big") + reply)
            except OSError:
                pass

for address, port in (each.split(":") for each in sys.argv[1:]):
    tcp = socket.create_server((address, int(port)))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, int(port)))
    threading.Thread(target=by_tcp, args=(tcp,)).start()
    threading.Thread(target=by_udp, args=(udp,)).start()
print("ready", flush=True)
"""

CLIENT = """
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor

QUERY = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"\\x05names\\x04test\\x00\\x00\\x01\\x00\\x01"

def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        connection.sendto(QUERY, (address, int(port)))
        return connection.recv(512)

def tcp(address, port):
    with socket.create_connection((address, int(port)), timeout=1) as connection:
        connection.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
        return connection.recv(512)

def resolves(tried):
    # Some networks enforce a policy a moment after a pod starts.
    until = time.monotonic() + 8
    while time.monotonic() < until:
        try:
            if tried[0](*tried[1].split(":")).endswith(bytes([192, 0, 2, 1])):
                return True
        except OSError:
            time.sleep(0.1)
    return False

tried = [(ask, server) for server in sys.argv[1:] for ask in (udp, tcp)]
with ThreadPoolExecutor(len(tried)) as pool:
    found = list(pool.map(resolves, tried))
print(json.dumps([f"{ask.__name__} {server}" for (ask, server), yes in zip(tried, found) if yes]))
"""


METADATA_SERVER = f"{CLOUD_DNS}:80"

Answers = set[str]
"""Protocol and address of what answered, such as ``udp 169.254.169.254:53``."""


@contextmanager
def addresses_of_google(layout: Layout) -> Iterator[None]:
    """Give the node the addresses, and somebody who answers there."""
    inside, three = network.enter(layout), (CLOUD_DNS, NODE_CACHE, SERVICE)
    with ExitStack() as stack:
        for address in three:
            command = [*inside, "ip", "address", "{}", f"{address}/32", "dev", "lo"]
            subprocess.run([each.format("add") for each in command], check=True, capture_output=True)
            undo = [each.format("delete") for each in command]
            stack.callback(subprocess.run, undo, check=False, capture_output=True)
        listening = [*(f"{address}:53" for address in three), f"{CLOUD_DNS}:80"]
        server = [*inside, sys.executable, "-c", SERVER, *listening]
        process = stack.enter_context(subprocess.Popen(server, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield


@contextmanager
def name_server_pod(core: client.CoreV1Api, image: str, label: str) -> Iterator[str]:
    """Run a name server in a pod of kube-system and return its address."""
    body: dict[str, Any] = {
        "metadata": {"generateName": f"{label}-test-", "labels": {"k8s-app": label}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "names",
                    "image": image,
                    "command": ["python3", "-c", SERVER, "0.0.0.0:53"],
                    "securityContext": {"runAsUser": 0},
                }
            ],
        },
    }
    name = core.create_namespaced_pod("kube-system", body).metadata.name

    def address() -> Any:
        status = core.read_namespaced_pod(name, "kube-system").status
        return status.phase == "Running" and status.pod_ip

    try:
        yield wait_for(address)
    finally:
        core.delete_namespaced_pod(name, "kube-system")


@pytest.fixture(scope="module")
def servers(layout: Layout, admin: client.ApiClient, contract: Contract) -> Iterator[list[str]]:
    """Cloud DNS, the cache of the node, the Service `kube-dns`, and the pods of the two."""
    core = client.CoreV1Api(admin)
    with (
        addresses_of_google(layout),
        name_server_pod(core, contract.image, "kube-dns") as kube_dns,
        name_server_pod(core, contract.image, "node-local-dns") as node_local_dns,
    ):
        yield [f"{address}:53" for address in (CLOUD_DNS, NODE_CACHE, SERVICE, kube_dns, node_local_dns)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walled:
    """Two namespaces with the policies that a GKE stack has, and nothing else."""

    sandboxes: str
    agents: str


@contextmanager
def walled(admin: client.ApiClient, egress: str) -> Iterator[Walled]:
    with namespace(admin, "names") as sandboxes, namespace(admin, "names-agents") as agents:
        given = {"namespace": sandboxes, "agentsNamespace": agents, "egress": egress}
        program = run_program({**committed("staging"), "image": f"x@sha256:{'a' * 64}", **given}, "staging")
        networking = client.NetworkingV1Api(admin)
        for policy in program.of("NetworkPolicy"):
            # On the way to the engine every number is a float.
            body = json.loads(json.dumps(policy.inputs), parse_float=lambda number: int(float(number)))
            networking.create_namespaced_network_policy(body["metadata"]["namespace"], body)
        yield Walled(sandboxes=sandboxes, agents=agents)


@pytest.fixture(scope="module")
def opened(admin: client.ApiClient) -> Iterator[Walled]:
    with walled(admin, "internet") as made:
        yield made


def all_of(servers: list[str]) -> Answers:
    return {f"{how} {server}" for server in servers for how in ("udp", "tcp")}


def from_a_sandbox(layout: Layout, contract: Contract, inside: str, servers: list[str]) -> Answers:
    config = ExecutorConfig(namespace=inside, image=contract.image, kubeconfig_path=str(layout.kubeconfig))
    with closing(Sandbox(config)) as sandbox:
        outcome = sandbox.run(CLIENT, argv=(*servers, METADATA_SERVER))
    assert outcome.kernel.startswith("gVisor "), outcome
    return set(json.loads(outcome.stdout))


def test_sandboxes_with_egress_resolve_at_each_address_and_reach_no_metadata_server(
    layout: Layout, contract: Contract, servers: list[str], opened: Walled
) -> None:
    assert from_a_sandbox(layout, contract, opened.sandboxes, servers) == all_of(servers)


def test_sandboxes_without_egress_resolve_at_none(
    layout: Layout, admin: client.ApiClient, contract: Contract, servers: list[str]
) -> None:
    with walled(admin, "none") as closed:
        assert from_a_sandbox(layout, contract, closed.sandboxes, servers) == set()


def test_agents_resolve_at_each_address_and_reach_the_metadata_server(
    admin: client.ApiClient, contract: Contract, servers: list[str], opened: Walled
) -> None:
    core = client.CoreV1Api(admin)
    core.create_namespaced_service_account(opened.agents, {"metadata": {"name": contract.agent_service_account}})
    body = probe_pod(contract.model_copy(update={"agents_namespace": opened.agents}), ())
    body["spec"]["containers"][0] |= {"command": ["python3", "-c", CLIENT], "args": [*servers, METADATA_SERVER]}
    name = core.create_namespaced_pod(opened.agents, body).metadata.name
    wait_for(lambda: core.read_namespaced_pod(name, opened.agents).status.phase in ("Succeeded", "Failed"), 120)
    answered = json.loads(core.read_namespaced_pod_log(name, opened.agents, _preload_content=False).data)
    assert set(answered) == {*all_of(servers), f"tcp {METADATA_SERVER}"}
