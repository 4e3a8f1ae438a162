"""The local cluster and its stack, as the agents' ServiceAccount and as the administrator see them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import APP_LABEL, APP_NAME, Contract, parse
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import credentials, stack
from infra.local.layout import Layout

GONE_SECONDS = 60
"""Within which nothing of ours is left after a return."""


@pytest.fixture(scope="session")
def layout() -> Layout:
    found = Layout(name="local")
    if not found.kubeconfig.exists():
        pytest.fail("the local cluster is not up: run `make up`, or `make test` for everything")
    return found


@pytest.fixture(scope="session")
def contract(layout: Layout) -> Contract:
    return parse(stack.output(layout))


@pytest.fixture(scope="session")
def agent_kubeconfig(layout: Layout, contract: Contract, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent") / "kubeconfig"
    credentials.service_account_kubeconfig(
        layout.kubeconfig, contract.agents_namespace, contract.agent_service_account, out
    )
    return out


@pytest.fixture(scope="session")
def admin(layout: Layout) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(layout.kubeconfig)) as api:
        yield api


@pytest.fixture
def sandbox(contract: Contract, agent_kubeconfig: Path) -> Iterator[Sandbox]:
    made = Sandbox(ExecutorConfig.from_contract(contract, kubeconfig_path=str(agent_kubeconfig)))
    yield made
    made.close()


@pytest.fixture
def leftovers(admin: client.ApiClient, contract: Contract) -> Callable[[], list[str]]:
    """Return what is left by our label, after waiting for deletion to go through."""

    def look() -> list[str]:
        selector = f"{APP_LABEL}={APP_NAME}"
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


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that used the sandbox namespace nothing of ours is in it."""
    uses = {"sandbox", "agent_kubeconfig"} & set(request.fixturenames)
    look = request.getfixturevalue("leftovers") if uses else list
    yield
    assert look() == []
