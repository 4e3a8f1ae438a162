"""Executions on the real cluster, as the agents' ServiceAccount."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes import client, config

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.execution import File, Reason
from adk_gke_sandbox.sandbox import Sandbox, failure_line
from infra.local import processes
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def test_runs_under_gvisor(sandbox: Sandbox) -> None:
    outcome = sandbox.run("import subprocess; print(subprocess.run(['dmesg'], capture_output=True, text=True).stdout)")
    assert "Starting gVisor" in outcome.stdout.decode().splitlines()[0]


def test_streams_and_exit_code_are_the_programs_own(sandbox: Sandbox) -> None:
    outcome = sandbox.run("import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(3)")
    assert (outcome.stdout, outcome.stderr) == (b"to out\n", b"to err\n")
    assert (outcome.reason, outcome.exit_code) == (Reason.ERROR, 3)


def test_completed_has_exit_code_0_and_no_message(sandbox: Sandbox) -> None:
    outcome = sandbox.run("print('hello')")
    assert (outcome.reason, outcome.exit_code, outcome.stdout, outcome.message) == (
        Reason.COMPLETED,
        0,
        b"hello\n",
        "",
    )


def test_phases_add_up_to_the_time_on_the_clock(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    outcome = sandbox.run("print('hello')")
    took = time.monotonic() - begin
    assert outcome.timings.run > 0
    assert outcome.timings.total == pytest.approx(took, rel=0.1, abs=0.3)


def test_timeout_kills_the_program_and_keeps_its_output(sandbox: Sandbox) -> None:
    sandbox.config = replace(sandbox.config, timeout_seconds=2)
    outcome = sandbox.run("import time\nprint('before', flush=True)\ntime.sleep(600)")
    assert outcome.reason is Reason.DEADLINE_EXCEEDED
    assert outcome.stdout == b"before\n"
    assert 1.5 < outcome.wall_seconds < 10


def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "open('out.txt', 'w').write(open('in.txt').read().upper())",
        files=(File(name="in.txt", content=b"abc"),),
    )
    assert [(file.name, file.content) for file in outcome.files] == [("out.txt", b"ABC")]


def test_request_larger_than_one_config_map_arrives_whole(sandbox: Sandbox) -> None:
    payload = os.urandom(2 * 1024 * 1024)
    outcome = sandbox.run(
        "import hashlib; print(hashlib.sha256(open('big', 'rb').read()).hexdigest())",
        files=(File(name="big", content=payload),),
    )
    assert outcome.stdout.decode().strip() == hashlib.sha256(payload).hexdigest()


def test_program_cannot_write_into_the_runners_stdout(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "import os\n"
        "for path in ('/proc/1/fd/1', '/proc/1/mem', '/proc/1/environ', f'/proc/{os.getppid()}/fd/1'):\n"
        "    try:\n"
        "        open(path, 'r+b' if path.endswith('mem') else 'rb' if path.endswith('environ') else 'wb').close()\n"
        "        print('opened', path)\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    assert b"opened" not in outcome.stdout


def test_threads_start(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        "import threading\nt = [threading.Thread(target=print, args=('x',)) for _ in range(8)]\n"
        "[x.start() for x in t]; [x.join() for x in t]"
    )
    assert outcome.stdout.count(b"x") == 8, outcome


def test_abort_ends_the_execution(sandbox: Sandbox) -> None:
    aborted = threading.Event()
    threading.Timer(3, aborted.set).start()
    begin = time.monotonic()
    outcome = sandbox.run("import time; time.sleep(600)", aborted=aborted.is_set)
    assert outcome.reason is Reason.ABORTED
    assert time.monotonic() - begin < 3 + 2


def test_eight_at_once_all_complete(sandbox: Sandbox) -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda n=n: results.append(sandbox.run(f"print({n})").stdout)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [f"{n}\n".encode() for n in range(8)]


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

    def test_image_by_tag_is_refused_with_the_name_of_the_rule(self, sandbox: Sandbox) -> None:
        sandbox.config = replace(sandbox.config, image="localhost:1/absent")
        outcome = sandbox.run("print(1)")
        assert outcome.reason is Reason.ADMISSION_DENIED
        assert "image-digest: " in outcome.message
        assert "\n" not in outcome.message

    def test_missing_namespace(self, sandbox: Sandbox) -> None:
        sandbox.config = replace(sandbox.config, namespace="absent")
        outcome = sandbox.run("print(1)")
        assert outcome.reason is Reason.FORBIDDEN
        assert "Check that the namespace 'absent' is the stack's own" in failure_line(outcome)

    def test_missing_namespace_as_administrator(self, layout, contract: Contract) -> None:
        made = Sandbox(ExecutorConfig(namespace="absent", kubeconfig_path=str(layout.kubeconfig)))
        outcome = made.run("print(1)")
        assert outcome.reason is Reason.API_UNAVAILABLE
        assert "Check that the namespace 'absent' exists: `pulumi up` makes it" in outcome.message

    def test_unschedulable_is_named_at_the_schedule_deadline(self, sandbox: Sandbox) -> None:
        sandbox.config = replace(sandbox.config, cpu_requested="4", cpu_limit="4", schedule_timeout_seconds=3)
        outcome = sandbox.run("print(1)")
        assert outcome.reason is Reason.UNSCHEDULABLE
        assert "no node took the pod: 0/1 nodes are available" in outcome.message

    def test_what_the_contract_does_not_describe_is_refused_with_the_name_of_the_rule(self, sandbox: Sandbox) -> None:
        sandbox.config = replace(sandbox.config, service_account="absent")
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
        self, agent_kubeconfig: Path, contract: Contract, tmp_path: Path, leftovers: Callable[[], list[str]]
    ) -> None:
        (tmp_path / "script.py").write_text("import time; print('on', flush=True); time.sleep(600)")
        process = self.run(agent_kubeconfig, contract, tmp_path, "script.py")
        threading.Timer(4, process.send_signal, (signal.SIGINT,)).start()
        _, err = process.communicate()
        assert process.returncode == 130, err
        assert b"Traceback" not in err
