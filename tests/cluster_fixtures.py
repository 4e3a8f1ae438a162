"""Fixtures of all tests that run on the local cluster: as the agents' ServiceAccount and as the administrator see it.

A plugin of the folder's conftest. What takes long to import is imported by the fixture that needs it, so that tests
without a cluster do not pay for it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adk_gke_sandbox.contract import APP_LABEL, APP_NAME, Contract, parse
from infra.local.layout import Layout

if TYPE_CHECKING:
    from kubernetes import client

    from adk_gke_sandbox.sandbox import Sandbox

GONE_SECONDS = 60
"""Within which nothing of ours is left after a return."""

RECORDER = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    print(connection.recv(100).decode(), flush=True)
"""


@pytest.fixture(scope="session")
def layout() -> Layout:
    found = Layout(name="local")
    if not found.kubeconfig.exists():
        pytest.fail("the local cluster is not up: run `make up`, or `make test` for everything")
    return found


@pytest.fixture(scope="session")
def contract(layout: Layout) -> Contract:
    from infra.local import stack

    return parse(stack.output(layout))


@pytest.fixture(scope="session")
def agent_kubeconfig(layout: Layout, contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from infra.local import credentials

    out = tmp_path_factory.mktemp("agent") / "kubeconfig"
    credentials.service_account_kubeconfig(
        layout.kubeconfig, contract.agents_namespace, contract.agent_service_account, out
    )
    return out


@pytest.fixture(scope="session")
def admin(layout: Layout) -> Iterator[client.ApiClient]:
    from kubernetes import config

    with config.new_client_from_config(str(layout.kubeconfig)) as api:
        yield api


@pytest.fixture
def sandbox(contract: Contract, agent_kubeconfig: Path) -> Iterator[Sandbox]:
    from adk_gke_sandbox.config import ExecutorConfig
    from adk_gke_sandbox.sandbox import Sandbox

    made = Sandbox(ExecutorConfig.from_contract(contract, kubeconfig_path=str(agent_kubeconfig)))
    yield made
    made.close()


@pytest.fixture(scope="session")
def leftovers(admin: client.ApiClient, contract: Contract) -> Callable[..., list[str]]:
    """Return what is left by our label, or another one, after waiting for deletion to go through."""
    from kubernetes import client

    def look(selector: str = f"{APP_LABEL}={APP_NAME}") -> list[str]:
        core, batch = client.CoreV1Api(admin), client.BatchV1Api(admin)
        until = time.monotonic() + GONE_SECONDS
        while True:
            found = [
                f"{item.kind or type(item).__name__} {item.metadata.name}"
                for listing in (
                    batch.list_namespaced_job,
                    core.list_namespaced_pod,
                    core.list_namespaced_config_map,
                )
                for item in listing(contract.namespace, label_selector=selector).items
            ]
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.2)

    return look


@pytest.fixture
def recorder(layout: Layout) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server of ours at the node's address that prints what it receives."""
    from infra.local import network

    command = [*network.enter(layout), sys.executable, "-c", RECORDER, layout.node_address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
