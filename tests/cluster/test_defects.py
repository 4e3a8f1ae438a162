"""What ADK's own executor gets wrong, case by case, on a real cluster; docs/defects.md is the table.

All goes through ``execute_code``, as ADK does it, with the defaults of ``GkeCodeExecutor()``, in a namespace of
its own.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from google.adk.code_executors.code_execution_utils import File as AdkFile
from kubernetes import client

from adk_gke_sandbox import ConfigError, GkeCodeExecutor, Limits
from adk_gke_sandbox.contract import EXECUTOR_RULES, Contract
from adk_gke_sandbox.execution import Output, Reason
from adk_gke_sandbox.sandbox import Sandbox
from infra.local import credentials
from infra.local.layout import Layout
from tests.cluster.identities import wait_for

pytestmark = pytest.mark.cluster


@dataclass(frozen=True, kw_only=True)
class Room:
    """A namespace without bounds of its own, and ADK's view of an executor in it."""

    namespace: str
    kubeconfig: str
    core: client.CoreV1Api
    batch: client.BatchV1Api

    def executor(self, **settings: Any) -> GkeCodeExecutor:
        given = {"namespace": self.namespace, "kubeconfig_path": self.kubeconfig, "timeout_seconds": 60, **settings}
        return GkeCodeExecutor(**given)

    def execute(
        self,
        code: str,
        *,
        files: tuple[AdkFile, ...] = (),
        context: Any = None,
        executor: GkeCodeExecutor | None = None,
        **settings: Any,
    ) -> CodeExecutionResult:
        made = executor or self.executor(**settings)
        asked = CodeExecutionInput(code=code, input_files=list(files))
        return made.execute_code(context or adk_context(), asked)

    def start(self, code: str, **settings: Any) -> tuple[threading.Thread, list[CodeExecutionResult]]:
        """Begin an execution and return once its pod runs."""
        results: list[CodeExecutionResult] = []
        thread = threading.Thread(target=lambda: results.append(self.execute(code, **settings)), daemon=True)
        thread.start()
        wait_for(lambda: any(pod.status.phase == "Running" for pod in self.pods()))
        return thread, results

    @contextmanager
    def running(self, **settings: Any) -> Iterator[None]:
        """Have a program run while the block lasts."""
        context = adk_context()
        thread, _ = self.start("import time; time.sleep(600)", context=context, **settings)
        try:
            yield
        finally:
            context.is_aborted = True
            thread.join()

    def pods(self) -> list[Any]:
        return list(self.core.list_namespaced_pod(self.namespace).items)

    def objects(self) -> list[Any]:
        maps = self.core.list_namespaced_config_map(self.namespace).items
        return [
            *self.batch.list_namespaced_job(self.namespace).items,
            *self.pods(),
            *(found for found in maps if found.metadata.name != "kube-root-ca.crt"),
        ]


def adk_context(**fields: Any) -> Any:
    return SimpleNamespace(
        invocation_id="e-1", session=SimpleNamespace(id="s-1", user_id="lovelace"), is_aborted=False, **fields
    )


@pytest.fixture(scope="module")
def room(layout: Layout, admin: client.ApiClient) -> Iterator[Room]:
    namespace = f"defects-{secrets.token_hex(3)}"
    core = client.CoreV1Api(admin)
    core.create_namespace({"metadata": {"name": namespace}})
    made = Room(namespace=namespace, kubeconfig=str(layout.kubeconfig), core=core, batch=client.BatchV1Api(admin))
    try:
        wait_for(lambda: core.list_namespaced_service_account(namespace).items)
        yield made
    finally:
        core.delete_namespace(namespace)


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_room(room: Room) -> Iterator[None]:
    yield
    wait_for(lambda: not room.objects())


@pytest.fixture
def quota(room: Room) -> Iterator[Callable[..., None]]:
    """Set hard limits on the room while a test lasts."""

    def set_quota(**hard: str) -> None:
        limits = {name.replace("_", "/", 1).replace("_", "."): value for name, value in hard.items()}
        room.core.create_namespaced_resource_quota(
            room.namespace, {"metadata": {"name": "tight"}, "spec": {"hard": limits}}
        )
        wait_for(lambda: room.core.read_namespaced_resource_quota("tight", room.namespace).status.hard)

    yield set_quota
    room.core.delete_namespaced_resource_quota("tight", room.namespace)


# A. Hang and leak


def test_d1a_a_pod_that_is_refused_says_why_long_before_the_timeout(room: Room) -> None:
    result = room.execute("print(1)", service_account="absent")
    assert "the sandbox could not run your code: AdmissionDenied" in result.stderr
    assert 'serviceaccount "absent" not found' in result.stderr
    assert result.exit_code is None


def test_d1a_a_quota_without_room_is_waited_for_and_then_named(room: Room, quota: Callable[..., None]) -> None:
    quota(pods="0")
    result = room.execute("print(1)", schedule_timeout_seconds=3)
    assert "QuotaExceeded: the quota 'tight' has no room for the pod" in result.stderr
    assert "Wait for other executions to end" in result.stderr


def test_d1b_a_pod_that_fits_no_node_is_explained_by_the_scheduler(room: Room) -> None:
    result = room.execute("print(1)", node_selector={"no-such": "label"}, schedule_timeout_seconds=3)
    assert "Unschedulable: no node took the pod: 0/1 nodes are available" in result.stderr


@pytest.mark.parametrize(
    "settings",
    [{"image": "localhost:1/absent", "image_pull_policy": "Never"}, {"image": "NotAName"}],
    ids=["is not on the node", "has no valid name"],
)
def test_d1c_an_image_that_is_not_there_is_named_long_before_the_timeout(room: Room, settings: dict[str, str]) -> None:
    result = room.execute("print(1)", **settings)
    assert f"ImageUnavailable: the node cannot get the image {settings['image']}" in result.stderr


def test_a_registry_that_does_not_answer_is_named_at_the_schedule_deadline(room: Room) -> None:
    result = room.execute("print(1)", image="localhost:1/absent", schedule_timeout_seconds=5)
    assert "ImageUnavailable: the image localhost:1/absent could not be pulled in time" in result.stderr


def test_d3_a_config_map_has_its_owner_from_the_first_moment(room: Room) -> None:
    with room.running():
        (found,) = [item for item in room.core.list_namespaced_config_map(room.namespace).items if item.immutable]
        (job,) = room.batch.list_namespaced_job(room.namespace).items
    (owner,) = found.metadata.owner_references
    assert (owner.kind, owner.uid) == ("Job", job.metadata.uid)
    assert len(found.metadata.managed_fields) == 1, "it was written once, so it had its owner at once"


def test_d4_the_shipped_role_is_enough_and_has_no_patch(sandbox: Sandbox) -> None:
    assert sandbox.run("print(1)").reason is Reason.COMPLETED
    assert not any("patch" in rule.verbs for rule in EXECUTOR_RULES)


def test_d5_a_refused_job_leaves_nothing(room: Room, quota: Callable[..., None]) -> None:
    quota(count_jobs_batch="0")
    result = room.execute("print(1)")
    assert "QuotaExceeded" in result.stderr
    assert "exceeded quota: tight, requested: count/jobs.batch=1" in result.stderr
    assert room.objects() == []


STUBBORN = """
import os, signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
print("begun", flush=True)
time.sleep(600)
"""


def test_d6_a_program_that_runs_too_long_is_killed_with_all_its_children(room: Room) -> None:
    result = room.execute(STUBBORN, timeout_seconds=2)
    assert "your code failed: DeadlineExceeded: the program was killed after 2 s" in result.stderr
    assert result.stdout == "begun\n"
    assert result.exit_code == 124


def test_d6_the_server_has_deadlines_of_its_own(room: Room) -> None:
    with room.running(timeout_seconds=20, schedule_timeout_seconds=40):
        (job,) = room.batch.list_namespaced_job(room.namespace).items
    assert job.spec.active_deadline_seconds == 40 + 20 + 30
    assert job.spec.template.spec.active_deadline_seconds == 40 + 20 + 15


def test_d7_an_abort_ends_the_program_and_deletes_its_job(room: Room) -> None:
    received = threading.Event()
    outcome = room.executor()._sandbox.run(
        "print('on', flush=True)\nimport time; time.sleep(600)",
        on_event=lambda event: received.set() if isinstance(event, Output) else None,
        aborted=received.is_set,
    )
    assert (outcome.reason, outcome.message) == (Reason.ABORTED, "the caller aborted the execution")
    assert outcome.stdout == b"on\n"
    assert all(job.metadata.deletion_timestamp for job in room.batch.list_namespaced_job(room.namespace).items)


def test_d8_the_job_is_deleted_on_return_and_would_expire_otherwise(room: Room) -> None:
    with room.running():
        (job,) = room.batch.list_namespaced_job(room.namespace).items
    assert job.spec.ttl_seconds_after_finished == 60
    left = room.batch.list_namespaced_job(room.namespace).items
    assert all(job.metadata.deletion_timestamp for job in left)


def test_d13_a_job_that_somebody_deletes_ends_the_wait(room: Room) -> None:
    thread, results = room.start("print('on', flush=True)\nimport time; time.sleep(600)", timeout_seconds=300)
    (job,) = room.batch.list_namespaced_job(room.namespace).items
    room.batch.delete_namespaced_job(job.metadata.name, room.namespace, propagation_policy="Background")
    thread.join(30)
    assert "SandboxLost: the pod was deleted by someone else" in results[0].stderr


@pytest.fixture
def suspends_jobs(room: Room, admin: client.ApiClient) -> Iterator[None]:
    """Every new Job of the room is suspended, as Kueue does it."""
    api = client.CustomObjectsApi(admin)
    kind = ("admissionregistration.k8s.io", "v1")
    policy = {
        "apiVersion": "/".join(kind),
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": room.namespace},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
                ],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": room.namespace}},
            },
            "reinvocationPolicy": "Never",
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{spec: Object.spec{suspend: true}}"},
                }
            ],
        },
    }
    binding = {
        "apiVersion": "/".join(kind),
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": room.namespace},
        "spec": {"policyName": room.namespace},
    }
    container = {"name": "c", "image": "i"}
    probe = {
        "metadata": {"name": "probe"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }

    def is_suspended() -> bool:
        return bool(room.batch.create_namespaced_job(room.namespace, probe, dry_run="All").spec.suspend)

    api.create_cluster_custom_object(*kind, "mutatingadmissionpolicies", policy)
    api.create_cluster_custom_object(*kind, "mutatingadmissionpolicybindings", binding)
    try:
        wait_for(is_suspended)
        yield
    finally:
        api.delete_cluster_custom_object(*kind, "mutatingadmissionpolicybindings", room.namespace)
        api.delete_cluster_custom_object(*kind, "mutatingadmissionpolicies", room.namespace)
        wait_for(lambda: not is_suspended())


@pytest.mark.usefixtures("suspends_jobs")
def test_d13_a_job_that_somebody_suspends_is_named_at_the_schedule_deadline(room: Room) -> None:
    result = room.execute("print(1)", schedule_timeout_seconds=3)
    assert "Unschedulable: no pod appeared within schedule_timeout_seconds=3: the Job is suspended" in result.stderr


def test_d29_many_waits_end_at_once_when_they_are_aborted(room: Room) -> None:
    context = adk_context()
    executor = room.executor(timeout_seconds=300)
    results: list[CodeExecutionResult] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                room.execute("import time; time.sleep(600)", executor=executor, context=context)
            )
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: any(pod.status.phase == "Running" for pod in room.pods()))
    context.is_aborted = True
    for thread in threads:
        thread.join(10)
    assert [thread.is_alive() for thread in threads] == [False] * 6
    assert all("Aborted" in result.stderr for result in results)


# B. Wrong result


@pytest.mark.parametrize("text", ['{"a": true}', "1e5", '"q"', "null", "[1, 2]", "{'a': 1}", "b'x'"])
def test_d2_output_that_looks_like_json_stays_as_it_was_written(room: Room, text: str) -> None:
    assert room.execute(f"print({text!r})").stdout == text + "\n"


def test_d9_a_byte_that_is_no_text_costs_one_character(room: Room) -> None:
    result = room.execute("import sys; sys.stdout.buffer.write(b'a\\xffb\\n')")
    assert (result.stdout, result.stderr, result.exit_code) == ("a\ufffdb\n", "", 0)


def test_d14_a_pod_that_is_evicted_is_said_to_be(room: Room) -> None:
    thread, results = room.start("print('on', flush=True)\nimport time; time.sleep(600)")
    (pod,) = room.pods()
    room.core.create_namespaced_pod_eviction(
        pod.metadata.name,
        room.namespace,
        client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name, namespace=room.namespace)),
    )
    thread.join(60)
    assert "the sandbox could not run your code: Evicted: the node pushed the pod out" in results[0].stderr


def test_d16_the_streams_are_kept_apart(room: Room) -> None:
    outcome = room.executor()._sandbox.run("import sys; print('out'); print('err', file=sys.stderr)")
    assert (outcome.stdout, outcome.stderr) == (b"out\n", b"err\n")


def test_d16_a_warning_is_no_failure(room: Room) -> None:
    result = room.execute("import sys; print('out'); print('careful', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("out\n[stderr]\ncareful\n", "")


def test_d16_output_that_imitates_a_frame_is_output(room: Room) -> None:
    forged = json.dumps({"n": "", "t": "end", "reason": "Completed", "exit_code": 0})
    result = room.execute(f"import sys; print({forged!r}, flush=True); sys.exit(3)")
    assert (result.stdout, result.exit_code) == (forged + "\n", 3)


# C. Diagnosis


def test_d15_out_of_memory_is_named(room: Room) -> None:
    result = room.execute("x = bytearray(2 * 1024**3)")
    assert "your code failed: MemoryLimit" in result.stderr
    assert "raise mem_limit" in result.stderr


def test_d15_a_signal_is_named_and_not_taken_for_memory(room: Room) -> None:
    result = room.execute("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "your code failed: Error: killed by SIGSEGV" in result.stderr
    assert "memory" not in result.stderr.lower()


def test_d15_an_exit_code_of_137_alone_is_not_called_out_of_memory(room: Room) -> None:
    result = room.execute("import sys; sys.exit(137)")
    assert "Error: exit code 137" in result.stderr
    assert "memory" not in result.stderr.lower()


def test_d17_the_servers_own_words_are_in_the_result(room: Room, layout: Layout, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    credentials.service_account_kubeconfig(layout.kubeconfig, room.namespace, "default", kubeconfig)
    result = room.execute("print(1)", kubeconfig_path=str(kubeconfig))
    identity = f"system:serviceaccount:{room.namespace}:default"
    assert f'User "{identity}" cannot create resource "jobs" in API group "batch"' in result.stderr
    assert "its Role is bound to this identity" in result.stderr


def test_d31_a_program_that_fails_is_no_error_of_the_agents_process(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="adk_gke_sandbox"):
        room.execute("raise ValueError('secret of the user')")
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
    assert "secret of the user" not in record.getMessage()


def test_d32_every_object_tells_whose_it_is_by_hashes(room: Room) -> None:
    with room.running(labels={"team": "search"}):
        found = room.objects()
    assert {type(item).__name__ for item in found} == {"V1Job", "V1Pod", "V1ConfigMap"}
    for item in found:
        labels = item.metadata.labels
        assert labels["app.kubernetes.io/name"] == "adk-gke-sandbox"
        assert labels["adk-gke-sandbox/execution"]
        assert labels["team"] == "search"
        assert len(labels["adk-gke-sandbox/user-hash"]) == len(labels["adk-gke-sandbox/session-hash"]) == 16
        assert "lovelace" not in json.dumps(client.ApiClient().sanitize_for_serialization(item.metadata))
    jobs = [item for item in found if type(item).__name__ == "V1Job"]
    assert jobs[0].metadata.annotations["adk-gke-sandbox/invocation-id"] == "e-1"


# D. Isolation: D23 is tests/cluster/test_execution.py


def test_d24_the_pod_is_admitted_under_the_restricted_standard(room: Room) -> None:
    standard = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    room.core.patch_namespace(room.namespace, standard)
    try:
        assert room.execute("print('in')").stdout == "in\n"
    finally:
        room.core.patch_namespace(
            room.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}}
        )


# E. Limits


def test_d18_code_of_three_megabytes_runs(room: Room) -> None:
    assert room.execute("#" + "x" * 3 * 1024**2 + "\nprint('ran')").stdout == "ran\n"


def test_d18_sixteen_megabytes_of_files_arrive_whole(room: Room) -> None:
    import hashlib

    content = secrets.token_bytes(16 * 1024**2)
    result = room.execute(
        "import hashlib; print(hashlib.sha256(open('big', 'rb').read()).hexdigest())",
        files=(AdkFile(name="big", content=content),),  # type: ignore[arg-type]
        mem_limit="1Gi",
    )
    assert result.stdout.strip() == hashlib.sha256(content).hexdigest()


def test_d18_a_request_that_is_too_large_is_refused_before_the_first_call(room: Room) -> None:
    result = room.execute("pass", files=(AdkFile(name="big", content=bytes(24 * 1024**2)),))  # type: ignore[arg-type]
    assert "make a request of 32.0 MiB (files count 4/3 of their size) and 27.2 MiB is the most" in result.stderr


def test_d19_input_files_are_in_the_working_directory_and_results_come_back(room: Room) -> None:
    result = room.execute(
        "open('sum.txt', 'w').write(str(sum(map(int, open('data.csv')))))",
        files=(AdkFile(name="data.csv", content="MQoyCjMK"),),
    )
    assert [(file.name, file.content, file.mime_type) for file in result.output_files] == [
        ("sum.txt", b"6", "text/plain")
    ]


def test_d20_a_program_can_write_where_programs_write(room: Room) -> None:
    code = """
import getpass, os, pathlib, tempfile
open("relative.txt", "w").close()
cache = pathlib.Path.home() / ".cache" / "mine"
cache.mkdir(parents=True)
(cache / "x").write_text("x")
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/x", "w").close()
for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME"):
    (pathlib.Path(os.environ[name]) / "x").write_text("x")
print(getpass.getuser(), os.getcwd())
"""
    assert room.execute(code).stdout == "sandbox /workspace\n"


def test_d28_much_output_is_cut_in_the_middle_and_counted(room: Room) -> None:
    outcome = room.executor()._sandbox.run("print('a' * 5_000_000)")
    assert outcome.reason is Reason.COMPLETED
    assert outcome.stdout_dropped == 5_000_001 - Limits().stdout_bytes
    assert f"[... {outcome.stdout_dropped} bytes left out ...]".encode() in outcome.stdout


def test_d28_endless_output_ends_the_program(room: Room) -> None:
    result = room.execute("while True: print('a' * 1000)", limits=Limits(flood_bytes=50_000_000))
    assert "your code failed: OutputLimit: the program was killed after 50000000 bytes of output" in result.stderr
    assert len(result.stdout) < 2 * Limits().stdout_bytes


# F. Configuration


def test_d21_the_default_image_runs(room: Room) -> None:
    assert GkeCodeExecutor().image == "python:3.11-slim"
    assert room.execute("import sys; print(sys.version_info[:2])").stdout == "(3, 11)\n"


def test_d21_a_stack_gives_its_image_by_digest(contract: Contract) -> None:
    assert "@sha256:" in GkeCodeExecutor.from_contract(contract).image


def test_d22_settings_reach_the_pod(room: Room) -> None:
    result = room.execute(
        "import os, shutil; print(os.environ['MODE'], shutil.disk_usage('.').total)",
        env={"MODE": "test"},
        scratch_limit="16Mi",
    )
    assert result.stdout == f"test {16 * 1024**2}\n"


def test_d25_a_context_alone_selects_one_of_the_default_kubeconfig(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load(Path(room.kubeconfig).read_text())
    context = document["contexts"][0]
    document["contexts"] = [
        {"name": "wrong", "context": {**context["context"], "cluster": "nowhere"}},
        {**context, "name": "right"},
    ]
    document["clusters"].append({"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}})
    document["current-context"] = "wrong"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", str(path))
    executor = GkeCodeExecutor(namespace=room.namespace, kubeconfig_context="right")
    assert room.execute("print(1)", executor=executor).stdout == "1\n"


def test_d26_the_process_wide_configuration_of_the_kubernetes_client_stays_as_it_was(room: Room) -> None:
    before = client.Configuration.get_default_copy().host
    room.execute("print(1)")
    assert client.Configuration.get_default_copy().host == before


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"]
)
def test_d27_a_copy_made_after_a_run_runs_too(room: Room, duplicate: Callable[[Any], Any]) -> None:
    executor = room.executor()
    assert room.execute("print(1)", executor=executor).stdout == "1\n"
    assert room.execute("print(2)", executor=duplicate(executor)).stdout == "2\n"


def test_d30_the_other_executor_type_is_refused_at_construction() -> None:
    with pytest.raises(ConfigError, match="executor_type='sandbox': GKE Agent Sandbox is not used here"):
        GkeCodeExecutor(executor_type="sandbox")
