"""Executions on the real cluster, as the agents' ServiceAccount."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from kubernetes import client, config

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.execution import Reason, failure_line
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import processes
from infra.local.layout import Layout

pytestmark = pytest.mark.cluster


def test_phases_add_up_to_the_time_on_the_clock(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    outcome = sandbox.run("print('hello')")
    took = time.monotonic() - begin
    assert outcome.timings.run > 0
    assert outcome.timings.total == pytest.approx(took, rel=0.1, abs=0.3)


@pytest.fixture
def stopped_policy_controller(layout: Layout) -> Iterator[None]:
    """kube-router does not learn of new pods: what counts is what holds before any policy is in force."""
    pid = processes.running(layout)["kube-router"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def try_to_send(sandbox: Sandbox, layout: Layout, recorder: tuple[int, subprocess.Popen[str]]) -> None:
    """Let a program try to send bytes for some seconds, and check that only the control's arrive."""
    port, process = recorder
    outcome = sandbox.run(
        "import socket, time\n"
        "end = time.monotonic() + 3\n"
        "while time.monotonic() < end:\n"
        "    s = socket.socket(); s.settimeout(0.3)\n"
        "    try:\n"
        f"        s.connect(({layout.node_address!r}, {port})); s.sendall(b'escaped'); print('open')\n"
        "    except OSError:\n"
        "        pass\n"
        "    s.close()\n"
    )
    assert outcome.reason is Reason.COMPLETED
    assert outcome.stdout == b""
    with socket.create_connection((layout.node_address, port)) as control:
        control.sendall(b"control")
    assert process.stdout
    assert process.stdout.readline() == "control\n"


def test_d23_no_byte_leaves_the_pod(
    sandbox: Sandbox, layout: Layout, recorder: tuple[int, subprocess.Popen[str]]
) -> None:
    try_to_send(sandbox, layout, recorder)


@pytest.mark.usefixtures("stopped_policy_controller")
def test_d23_no_byte_leaves_the_pod_before_its_policy_is_in_force(
    sandbox: Sandbox, layout: Layout, recorder: tuple[int, subprocess.Popen[str]]
) -> None:
    try_to_send(sandbox, layout, recorder)


def test_d23_no_token_and_no_service_links_inside(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "import os\nprint(os.path.exists('/var/run/secrets/kubernetes.io'), 'KUBERNETES_SERVICE_HOST' in os.environ)"
    )
    assert outcome.stdout == b"False False\n"


class TestTrouble:
    """Each is one line that says what is wrong and what to do; nothing is left."""

    def test_missing_namespace(self, sandbox: Sandbox) -> None:
        sandbox.config = sandbox.config.model_copy(update={"namespace": "absent"})
        outcome = sandbox.run("print(1)")
        assert outcome.reason is Reason.FORBIDDEN
        assert "Check that the namespace 'absent' is the stack's own" in failure_line(outcome)

    def test_missing_namespace_as_administrator(self, layout, contract: Contract) -> None:
        made = Sandbox(ExecutorConfig(namespace="absent", kubeconfig_path=str(layout.kubeconfig)))
        outcome = made.run("print(1)")
        assert outcome.reason is Reason.API_UNAVAILABLE
        assert "Check that the namespace 'absent' exists: `pulumi up` makes it" in outcome.message

    def test_what_the_contract_does_not_describe_is_refused_with_the_name_of_the_rule(self, sandbox: Sandbox) -> None:
        sandbox.config = sandbox.config.model_copy(update={"service_account": "absent"})
        outcome = sandbox.run("print(1)")
        assert outcome.reason is Reason.ADMISSION_DENIED
        assert "service-account: " in outcome.message
        assert "found: absent" in outcome.message

    def test_token_whose_service_account_is_gone(self, layout, contract, admin, tmp_path: Path) -> None:
        from infra.local import credentials

        core = client.CoreV1Api(admin)
        core.create_namespaced_service_account(contract.agents_namespace, {"metadata": {"name": "short-lived"}})
        kubeconfig = tmp_path / "kubeconfig"
        try:
            credentials.service_account_kubeconfig(
                layout.kubeconfig, contract.agents_namespace, "short-lived", kubeconfig
            )
        finally:
            core.delete_namespaced_service_account("short-lived", contract.agents_namespace)
        api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
        for _ in range(100):  # the API server may remember the token for some seconds
            try:
                api.list_namespaced_pod(contract.namespace)
            except client.ApiException as error:
                if error.status == 401:
                    break
            time.sleep(0.2)
        outcome = Sandbox(ExecutorConfig.from_contract(contract, kubeconfig_path=str(kubeconfig))).run("print(1)")
        assert outcome.reason is Reason.API_UNAVAILABLE
        assert "its ServiceAccount is gone" in outcome.message


class TestCommandLine:
    def run(self, kubeconfig: Path, contract: Contract, tmp_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
        path = tmp_path / "contract.json"
        path.write_text(contract.to_json())
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "adk-gke-sandbox"), "run", *arguments],
            env={**os.environ, "ADK_GKE_SANDBOX_CONTRACT": str(path), "KUBECONFIG": str(kubeconfig)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def test_runs_a_file_with_arguments(self, agent_kubeconfig: Path, contract: Contract, tmp_path: Path) -> None:
        (tmp_path / "script.py").write_text("import sys; print(sys.argv[1:])")
        out, err = self.run(agent_kubeconfig, contract, tmp_path, "script.py", "--", "a", "-b").communicate()
        assert out == b"['a', '-b']\n", err

    def test_interrupt_deletes_the_job(
        self,
        agent_kubeconfig: Path,
        contract: Contract,
        tmp_path: Path,
        admin: client.ApiClient,
        leftovers: Callable[[], list[str]],
    ) -> None:
        (tmp_path / "script.py").write_text("import time; print('on', flush=True); time.sleep(600)")
        process = self.run(agent_kubeconfig, contract, tmp_path, "script.py")
        pods = partial(client.CoreV1Api(admin).list_namespaced_pod, contract.namespace)
        while process.poll() is None and not any(pod.status.phase == "Running" for pod in pods().items):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 130, err
        assert b"Traceback" not in err
