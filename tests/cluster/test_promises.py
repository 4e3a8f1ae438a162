"""What the executor holds by itself, in a namespace where no policy of a stack helps it."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox import SecretKey
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_KEY, EXECUTION_LABEL, EXECUTOR_RULES, Contract
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox
from infra.local.layout import Layout
from tests.cluster.identities import namespace, service_account, wait_for

pytestmark = pytest.mark.cluster

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
LIBRARIES = sysconfig.get_paths()["purelib"]
ENDED = ("Succeeded", "Failed")

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def place(admin: client.ApiClient) -> Iterator[str]:
    with namespace(admin, "promises") as name:
        yield name


@pytest.fixture
def run(layout: Layout, contract: Contract, admin: client.ApiClient, place: str) -> Iterator[Run]:
    """Runs a program as the administrator; ``contract`` of an execution may have other fields."""

    def execute(code: str, *, of_contract: dict[str, Any] | None = None, name: str = "", **settings: Any) -> Outcome:
        own = {"namespace": place, "sandbox_service_account": "default", **(of_contract or {})}
        made = ExecutorConfig.from_contract(
            contract.model_copy(update=own), kubeconfig_path=str(layout.kubeconfig), **settings
        )
        return Sandbox(made).run(code, name=name or None)

    yield execute
    batch = client.BatchV1Api(admin)
    wait_for(lambda: not batch.list_namespaced_job(place).items)


# -- isolation


@contextmanager
def runtime_class(admin: client.ApiClient, handler: str) -> Iterator[str]:
    api, name = client.NodeV1Api(admin), f"test-{secrets.token_hex(3)}"
    api.create_runtime_class({"metadata": {"name": name}, "handler": handler})
    try:
        yield name
    finally:
        api.delete_runtime_class(name)


def test_a_program_is_not_run_where_the_runtime_class_is_not_gvisors(
    run: Run, admin: client.ApiClient, layout: Layout, recorder: tuple[int, subprocess.Popen[str]]
) -> None:
    port, process = recorder
    escape = f"import socket; print('ran'); socket.create_connection(({layout.node_address!r}, {port})).sendall(b'ran')"
    with runtime_class(admin, "runc") as name:
        outcome = run(escape, runtime_class=name)
    assert (outcome.reason, outcome.started, outcome.stdout) == (Reason.ISOLATION_MISSING, False, b"")
    assert outcome.kernel.startswith("Linux ")
    with socket.create_connection((layout.node_address, port)) as control:
        control.sendall(b"control")
    assert process.stdout
    assert process.stdout.readline() == "control\n"


def test_a_handler_that_is_not_on_the_node_is_told_within_ten_seconds(run: Run, admin: client.ApiClient) -> None:
    with runtime_class(admin, "no-such-handler") as name:
        outcome = run("print(1)", runtime_class=name)
    assert outcome.reason is Reason.ISOLATION_MISSING, outcome.message
    assert name in outcome.message
    assert "no-such-handler" in outcome.message
    assert outcome.timings.total < 10


def test_a_runtime_class_that_does_not_exist_is_told_at_once(run: Run) -> None:
    outcome = run("print(1)", runtime_class="no-such-class")
    assert outcome.reason is Reason.ISOLATION_MISSING, outcome.message
    assert "no-such-class" in outcome.message
    assert outcome.timings.total < 5


# -- a pod that is deleted before its container ran


@pytest.mark.parametrize(("grace", "jobs"), [(None, 2), (0, 1)], ids=["gracefully", "by force"])
def test_a_sandbox_is_replaced_only_if_the_kubelet_says_that_it_never_started(
    run: Run, admin: client.ApiClient, place: str, grace: int | None, jobs: int
) -> None:
    core, batch = client.CoreV1Api(admin), client.BatchV1Api(admin)
    name, outcomes, seen = f"deleted-{secrets.token_hex(3)}", [], set()
    given = {"image": "localhost:1/absent", "schedule_timeout_seconds": 20, "name": name}
    thread = threading.Thread(target=lambda: outcomes.append(run("print(1)", **given)))
    thread.start()

    def waits_for_its_image() -> Any:
        pods = core.list_namespaced_pod(place, label_selector=f"{EXECUTION_LABEL}={name}").items
        states = [(pod, status.state.waiting) for pod in pods for status in pod.status.container_statuses or []]
        return next((pod for pod, waiting in states if waiting and "Pull" in (waiting.reason or "")), None)

    pod = wait_for(waits_for_its_image)
    core.delete_namespaced_pod(pod.metadata.name, place, grace_period_seconds=grace)
    while thread.is_alive():
        seen |= {job.metadata.name for job in batch.list_namespaced_job(place).items}
        thread.join(0.1)
    assert len(seen) == jobs, outcomes
    (outcome,) = outcomes
    assert outcome.reason is (Reason.IMAGE_UNAVAILABLE if jobs == 2 else Reason.SANDBOX_LOST)


# -- values from Secrets

TOKEN = {"env": {"TOKEN": SecretKey(secret="of-a-test", key="token")}}


def test_a_value_comes_from_a_secret_where_the_contract_allows_it(
    run: Run, admin: client.ApiClient, place: str
) -> None:
    secret = {"metadata": {"name": "of-a-test"}, "stringData": {"token": "sesame"}}
    client.CoreV1Api(admin).create_namespaced_secret(place, secret)
    outcome = run("import os; print(os.environ['TOKEN'])", of_contract={"secret_env": True}, **TOKEN)
    assert outcome.stdout == b"sesame\n", outcome.message


def test_the_stack_itself_refuses_a_value_from_a_secret_that_its_contract_does_not_allow(
    contract: Contract, agent_kubeconfig: Path
) -> None:
    forged = contract.model_copy(update={"secret_env": True})
    config = ExecutorConfig.from_contract(forged, kubeconfig_path=str(agent_kubeconfig), **TOKEN)
    outcome = Sandbox(config).run("print(1)")
    assert outcome.reason is Reason.ADMISSION_DENIED
    assert "env: " in outcome.message


# -- in a pod


def test_the_command_line_works_in_a_pod_with_the_mounted_contract(
    admin: client.ApiClient, layout: Layout, contract: Contract, place: str
) -> None:
    core = client.CoreV1Api(admin)
    service_account(admin, place, "cli", EXECUTOR_RULES)
    own = {"namespace": place, "agents_namespace": place, "sandbox_service_account": "default"}
    data = {CONTRACT_KEY: contract.model_copy(update=own).to_json(), "script.py": "print(6 * 7)"}
    core.create_namespaced_config_map(place, {"metadata": {"name": "cli"}, "data": data})
    volumes = {"/etc/adk-gke-sandbox": {"configMap": {"name": "cli"}}}
    volumes |= {path: {"hostPath": {"path": path}} for path in (LIBRARIES, str(RUNTIME))}
    environment = {
        "PYTHONPATH": f"{RUNTIME}:{LIBRARIES}",
        # The local cluster has no service proxy.
        "KUBERNETES_SERVICE_HOST": layout.node_address,
        "KUBERNETES_SERVICE_PORT": "6443",
    }
    command = "from adk_gke_sandbox.cli.main import main; main()"
    container = {
        "name": "cli",
        "image": contract.image,
        "command": [*("python3", "-c", command), "run", "/etc/adk-gke-sandbox/script.py"],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "volumeMounts": [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(volumes)],
    }
    spec = {
        "serviceAccountName": "cli",
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": f"v{number}", **source} for number, source in enumerate(volumes.values())],
    }
    core.create_namespaced_pod(place, {"metadata": {"name": "cli"}, "spec": spec})
    phase = wait_for(lambda: (found := core.read_namespaced_pod("cli", place).status.phase) in ENDED and found)
    log = core.read_namespaced_pod_log("cli", place)
    assert (phase, log) == ("Succeeded", "42\n")
