"""What ADK's own executor does in the cases of docs/defects.md, run on the same cluster so that the table stays true.

It runs in namespaces of their own without policies, which would refuse it, as the cluster's administrator. All cases
begin together; each test waits for its own. What they leave behind is removed at the end.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import kubernetes
import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from google.adk.code_executors.code_execution_utils import File as AdkFile
from google.adk.code_executors.gke_code_executor import GkeCodeExecutor as Incumbent
from kubernetes import client
from kubernetes.config import kube_config

from infra.local import credentials
from infra.local.layout import Layout

pytestmark = [pytest.mark.cluster, pytest.mark.long]

WAIT_SECONDS: Final = 100
AT_ONCE: Final = 6
SMALL_ROLE: Final = (
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "delete", "get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create", "delete"]},
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
)
"""The Role of ADK's published sample, which has no ``patch``."""


@dataclass(kw_only=True)
class Seen:
    """What came of one call, and what was in the cluster when it returned."""

    result: CodeExecutionResult | None = None
    raised: BaseException | None = None
    seconds: float = 0.0
    job: Any = None
    pods: list[Any] = field(default_factory=list)
    config_map: Any = None

    @property
    def returned(self) -> CodeExecutionResult:
        assert self.result is not None, self.raised
        return self.result


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Namespaces: without any rule, and each with one of them."""

    core: client.CoreV1Api
    batch: client.BatchV1Api
    open: str
    no_pods: str
    no_jobs: str
    restricted: str
    kubeconfig: str
    small_kubeconfig: str

    def namespaces(self) -> list[str]:
        return [self.open, self.no_pods, self.no_jobs, self.restricted]

    def job(self, namespace: str, case: str) -> Any:
        key = "adk.agent.google.com/invocation-id"
        jobs = self.batch.list_namespaced_job(namespace).items
        return next((job for job in jobs if (job.metadata.annotations or {}).get(key) == case), None)

    def pods(self, namespace: str, job: Any) -> list[Any]:
        selector = f"job-name={job.metadata.name}"
        return list(self.core.list_namespaced_pod(namespace, label_selector=selector).items)

    def config_maps(self, namespace: str) -> list[Any]:
        found = self.core.list_namespaced_config_map(namespace).items
        return [item for item in found if item.metadata.name.startswith("code-src-")]

    def look(self, namespace: str, case: str, seen: Seen) -> None:
        """Note what is there of a case."""
        seen.job = self.job(namespace, case)
        if seen.job is not None:
            seen.pods = self.pods(namespace, seen.job)
        name = f"code-src-{seen.job.metadata.name}" if seen.job is not None else ""
        maps = self.config_maps(namespace)
        seen.config_map = next((item for item in maps if item.metadata.name == name or not name), None)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the incumbent's."""

    code: str = "print(1)"
    room: str = "open"
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[AdkFile, ...] = ()
    aborted: bool = False
    small_role: bool = False
    meanwhile: Callable[[Rooms, str, str], None] = lambda *_: None


def wait_for(what: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def running_pod(rooms: Rooms, namespace: str, case: str) -> Any:
    def look() -> Any:
        job = rooms.job(namespace, case)
        pods = rooms.pods(namespace, job) if job is not None else []
        return next((pod for pod in pods if pod.status.phase == "Running"), None)

    return wait_for(look)


def delete_the_job(rooms: Rooms, namespace: str, case: str) -> None:
    name = wait_for(lambda: rooms.job(namespace, case)).metadata.name
    rooms.batch.delete_namespaced_job(name, namespace, propagation_policy="Background")


def evict_the_pod(rooms: Rooms, namespace: str, case: str) -> None:
    metadata = client.V1ObjectMeta(name=running_pod(rooms, namespace, case).metadata.name, namespace=namespace)
    options = client.V1DeleteOptions(grace_period_seconds=1)
    eviction = client.V1Eviction(metadata=metadata, delete_options=options)
    rooms.core.create_namespaced_pod_eviction(metadata.name, namespace, eviction)


SLEEP = "import time; print('on', flush=True); time.sleep(600)"
JSON = ['{"a": true}', "1e5", '"q"', "null", "hello"]
CASES: Final[Mapping[str, Case]] = {
    # The long ones first.
    "d6": Case(code=SLEEP, settings={"timeout_seconds": 20}),
    "d13": Case(code=SLEEP, settings={"timeout_seconds": 20}, meanwhile=delete_the_job),
    "d14": Case(code=SLEEP, settings={"timeout_seconds": 60}, meanwhile=evict_the_pod),
    "d1a": Case(room="no_pods", settings={"timeout_seconds": 3}),
    "d1b": Case(settings={"timeout_seconds": 3, "cpu_limit": "100", "cpu_requested": "100"}),
    "d1c": Case(settings={"timeout_seconds": 8, "image": "localhost:1/absent"}),
    "d4": Case(small_role=True),
    "d5": Case(room="no_jobs"),
    "d7": Case(code="print('ran')", aborted=True),
    "d9": Case(code="import sys; sys.stdout.buffer.write(b'a\\xffb\\n')"),
    "d15": Case(code="x = b'x' * 2 * 1024**3"),
    "d16": Case(code="import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True)"),
    "d16 failing": Case(code="print('out', flush=True); 1 / 0"),
    "d18": Case(code="#" + "x" * 1536 * 1024 + "\nprint('ran')"),
    "d19": Case(
        code="import os; print(os.path.exists('data.csv'))", files=(AdkFile(name="data.csv", content="MQoyCjMK"),)
    ),
    "d20": Case(
        code="""
import os, pathlib
print(os.getcwd())
for path in ("relative.txt", pathlib.Path.home() / ".cache" / "x"):
    try:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).touch()
        print("written")
    except OSError as error:
        print("refused")
"""
    ),
    "d21": Case(code="import numpy, pandas"),
    "d23": Case(code="import os; print('KUBERNETES_SERVICE_HOST' in os.environ)"),
    "d24": Case(room="restricted", settings={"timeout_seconds": 3}),
    "d28": Case(code="print('a' * 5_000_000)"),
    **{f"d2 {text}": Case(code=f"print({text!r})") for text in JSON},
}


class Records(logging.Handler):
    """Keeps the log records of ADK's executor."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


@pytest.fixture(scope="module")
def records() -> Iterator[list[logging.LogRecord]]:
    handler, log = Records(), logging.getLogger("google_adk.google.adk.code_executors.gke_code_executor")
    log.addHandler(handler)
    yield handler.kept
    log.removeHandler(handler)


@pytest.fixture(scope="module", autouse=True)
def process_wide_settings() -> Iterator[None]:
    """The incumbent sets the Kubernetes client's for the whole process; other tests must not see it."""
    yield
    client.Configuration.set_default(None)


@pytest.fixture(scope="module")
def rooms(layout: Layout, admin: client.ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    core, batch = client.CoreV1Api(admin), client.BatchV1Api(admin)
    names = {room: f"incumbent-{room.replace('_', '-')}-{secrets.token_hex(3)}" for room in Rooms.__annotations__}
    names = {room: names[room] for room in ("open", "no_pods", "no_jobs", "restricted")}
    try:
        for room, name in names.items():
            level = {"pod-security.kubernetes.io/enforce": "restricted"} if room == "restricted" else {}
            core.create_namespace({"metadata": {"name": name, "labels": level}})
        for room, limit in (("no_pods", "pods"), ("no_jobs", "count/jobs.batch")):
            quota = {"metadata": {"name": "tight"}, "spec": {"hard": {limit: "0"}}}
            core.create_namespaced_resource_quota(names[room], quota)
        for name in names.values():
            wait_for(lambda name=name: core.list_namespaced_service_account(name).items)
        for room in ("no_pods", "no_jobs"):
            wait_for(lambda room=room: core.read_namespaced_resource_quota("tight", names[room]).status.hard)
        small = tmp_path_factory.mktemp("small") / "kubeconfig"
        _bind_the_small_role(admin, names["open"])
        credentials.service_account_kubeconfig(layout.kubeconfig, names["open"], "small", small)
        yield Rooms(core=core, batch=batch, kubeconfig=str(layout.kubeconfig), small_kubeconfig=str(small), **names)
    finally:
        _remove(core, list(names.values()))


def _bind_the_small_role(admin: client.ApiClient, namespace: str) -> None:
    metadata = {"metadata": {"name": "small"}}
    client.CoreV1Api(admin).create_namespaced_service_account(namespace, metadata)
    rbac = client.RbacAuthorizationV1Api(admin)
    rbac.create_namespaced_role(namespace, {**metadata, "rules": list(SMALL_ROLE)})
    subject = {"kind": "ServiceAccount", "name": "small", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "small"}
    rbac.create_namespaced_role_binding(namespace, {**metadata, "subjects": [subject], "roleRef": reference})


def _remove(core: client.CoreV1Api, namespaces: list[str]) -> None:
    """Delete the namespaces; their pods would have 30 s to end."""
    for namespace in namespaces:
        with contextlib.suppress(client.ApiException):
            core.delete_namespace(namespace)
        for pod in core.list_namespaced_pod(namespace).items:
            with contextlib.suppress(client.ApiException):
                core.delete_namespaced_pod(pod.metadata.name, namespace, grace_period_seconds=0)
    wait_for(lambda: not {item.metadata.name for item in core.list_namespace().items} & set(namespaces))


@pytest.fixture(scope="module")
def seen(rooms: Rooms, records: list[logging.LogRecord]) -> Iterator[Callable[[str], Seen]]:
    """Begin all cases; return what waits for one of them."""
    del records  # they are kept from here on
    # One at a time: each sets the configuration of the whole process for a moment.
    executors = {name: executor(rooms, case) for name, case in CASES.items()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        calls: dict[str, Future[Seen]] = {
            name: pool.submit(call, rooms, name, case, executors[name]) for name, case in CASES.items()
        }
        yield lambda name: calls[name].result(WAIT_SECONDS)


def executor(rooms: Rooms, case: Case) -> Incumbent:
    kubeconfig = rooms.small_kubeconfig if case.small_role else rooms.kubeconfig
    given = {"namespace": getattr(rooms, case.room), "timeout_seconds": 60, **case.settings}
    return Incumbent(kubeconfig_path=kubeconfig, **given)


def call(rooms: Rooms, name: str, case: Case, made: Incumbent) -> Seen:
    namespace = getattr(rooms, case.room)
    context: Any = SimpleNamespace(invocation_id=name, session=None, is_aborted=case.aborted)
    found = Seen()
    other = threading.Thread(target=case.meanwhile, args=(rooms, namespace, name))
    other.start()
    begin = time.monotonic()
    try:
        found.result = made.execute_code(context, CodeExecutionInput(code=case.code, input_files=list(case.files)))
    except Exception as error:
        found.raised = error
    found.seconds = time.monotonic() - begin
    other.join()
    rooms.look(namespace, name, found)
    return found


Look = Callable[[str], Seen]


# A. Hang and leak


def test_d1a_the_incumbent_waits_all_the_time_for_a_pod_that_is_refused_and_raises(seen: Look) -> None:
    found = seen("d1a")
    assert isinstance(found.raised, RuntimeError)
    assert "Could not find Pod" in str(found.raised)
    assert found.seconds >= 3
    assert found.job is not None, "the Job stays"


def test_d1b_the_incumbent_does_not_say_why_no_node_took_the_pod(seen: Look) -> None:
    found = seen("d1b")
    assert found.returned.stderr.endswith("Pod Logs:\nNone") or found.returned.stderr.endswith("Pod Logs:\n")
    assert "nodes are available" not in found.returned.stderr
    assert found.job is not None, "the Job stays"


def test_d1c_the_incumbent_raises_when_the_image_is_missing(seen: Look) -> None:
    found = seen("d1c")
    assert isinstance(found.raised, RuntimeError)
    assert "absent" not in str(found.raised)
    assert found.seconds >= 8
    assert found.job is not None, "the Job stays"


def test_d4_the_incumbent_leaves_the_code_for_ever_under_the_role_of_its_sample(seen: Look) -> None:
    found = seen("d4")
    assert found.returned.stdout == "1\n"
    assert found.config_map.metadata.owner_references is None


def test_d5_the_incumbent_leaves_the_code_when_its_job_is_refused(seen: Look) -> None:
    found = seen("d5")
    assert found.returned.stderr == "Kubernetes API error: Forbidden"
    assert found.job is None
    assert found.config_map.metadata.owner_references is None


def test_d6_the_incumbent_lets_a_program_run_on_after_its_time(seen: Look, rooms: Rooms) -> None:
    found = seen("d6")
    assert "Executor timed out" in found.returned.stderr
    assert running_pod(rooms, rooms.open, "d6").metadata.deletion_timestamp is None
    assert found.job.metadata.deletion_timestamp is None
    assert found.job.spec.active_deadline_seconds is None
    assert found.job.spec.template.spec.active_deadline_seconds is None


def test_d7_the_incumbent_does_not_look_at_an_abort(seen: Look) -> None:
    assert seen("d7").returned.stdout == "ran\n"


def test_d8_the_incumbent_leaves_job_pod_and_code_for_ten_minutes(seen: Look) -> None:
    found = seen("d7")
    assert found.job.metadata.deletion_timestamp is None
    assert found.job.spec.ttl_seconds_after_finished == 600
    assert len(found.pods) == 1
    assert found.config_map.data == {"code.py": "print('ran')"}


@pytest.mark.parametrize("seconds", [0, -5])
def test_d12_the_incumbent_takes_no_time_at_all_for_a_timeout(rooms: Rooms, seconds: int) -> None:
    assert Incumbent(kubeconfig_path=rooms.kubeconfig, timeout_seconds=seconds).timeout_seconds == seconds


def test_d13_the_incumbent_waits_on_for_a_job_that_was_deleted_and_raises(seen: Look) -> None:
    found = seen("d13")
    assert isinstance(found.raised, RuntimeError)
    assert "Could not find Pod" in str(found.raised)
    assert found.seconds >= 20


# B. Wrong result


def test_d2_the_incumbents_output_depends_on_the_release_of_the_client(seen: Look) -> None:
    found = [seen(f"d2 {text}").returned.stdout for text in JSON]
    if int(kubernetes.__version__.split(".")[0]) >= 37:
        assert found == [f"{text}\n" for text in JSON]
    else:
        assert found[:4] != [f"{text}\n" for text in JSON[:4]]


def test_d9_the_incumbent_loses_all_output_for_one_byte(seen: Look) -> None:
    found = seen("d9").returned
    assert found.stdout == ""
    assert "'utf-8' codec can't decode byte 0xff" in found.stderr


def test_d14_the_incumbent_does_not_say_that_the_pod_was_evicted(seen: Look) -> None:
    found = seen("d14").returned
    assert "evict" not in found.stderr.lower()
    assert found.stderr != ""


def test_d16_the_incumbent_merges_the_streams(seen: Look) -> None:
    found = seen("d16").returned
    assert sorted(found.stdout.splitlines()) == ["err", "out"]
    assert found.stderr == ""


def test_d16_the_incumbent_has_no_stdout_of_a_program_that_fails(seen: Look) -> None:
    found = seen("d16 failing").returned
    assert found.stdout == ""
    assert found.stderr.startswith("Job failed. Logs:\n")
    assert "out" in found.stderr.splitlines(), "somewhere inside the traceback"


# C. Diagnosis


def test_d15_the_incumbent_does_not_name_memory(seen: Look) -> None:
    found = seen("d15").returned
    assert found.stderr.startswith("Job failed. Logs:")
    assert "memory" not in found.stderr.lower()


def test_d17_the_incumbent_drops_what_the_server_says(seen: Look) -> None:
    assert "quota" not in seen("d5").returned.stderr


def test_d31_the_incumbent_logs_a_failing_program_as_an_error(seen: Look, records: list[logging.LogRecord]) -> None:
    name = seen("d16 failing").job.metadata.name
    assert [
        record.levelname for record in records if "failed" in record.getMessage() and name in record.getMessage()
    ] == ["ERROR"]


def test_d32_the_incumbent_labels_nothing_and_annotates_its_job_alone(seen: Look) -> None:
    found = seen("d7")
    assert list(found.job.metadata.annotations) == ["adk.agent.google.com/invocation-id"]
    assert found.config_map.metadata.labels is None
    assert found.pods[0].metadata.annotations is None
    assert all("job" in key or "controller-uid" in key for key in found.pods[0].metadata.labels)


# D. Isolation


def test_d23_the_incumbents_pod_has_service_links_and_no_label_to_select(seen: Look) -> None:
    found = seen("d23")
    assert found.returned.stdout == "True\n"
    assert found.pods[0].spec.enable_service_links is True
    assert found.pods[0].spec.dns_policy == "ClusterFirst"


def test_d24_the_incumbents_pod_is_refused_under_the_restricted_standard(seen: Look) -> None:
    assert isinstance(seen("d24").raised, RuntimeError)


# E. Limits


def test_d18_the_incumbent_refuses_code_above_one_megabyte_without_naming_the_limit(seen: Look) -> None:
    assert seen("d18").returned.stderr == "Kubernetes API error: Unprocessable Entity"


def test_d19_the_incumbent_ignores_input_files(seen: Look) -> None:
    assert seen("d19").returned.stdout == "False\n"


def test_d20_the_incumbents_program_can_write_nothing_where_it_is(seen: Look) -> None:
    assert seen("d20").returned.stdout == "/\nrefused\nrefused\n"


def test_d28_the_incumbent_hands_five_megabytes_to_the_model(seen: Look) -> None:
    assert len(seen("d28").returned.stdout) == 5_000_001


# F. Configuration


def test_d21_the_incumbents_image_has_a_mutable_tag_and_no_numpy(seen: Look, rooms: Rooms) -> None:
    assert Incumbent(kubeconfig_path=rooms.kubeconfig).image == "python:3.11-slim"
    assert "No module named 'numpy'" in seen("d21").returned.stderr


@pytest.mark.parametrize("settings", [{"cpu_limit": "banana"}, {"namespace": ""}, {"no_such": 1}, {"stateful": True}])
def test_d22_the_incumbent_accepts_what_cannot_work(rooms: Rooms, settings: dict[str, Any]) -> None:
    assert Incumbent(kubeconfig_path=rooms.kubeconfig, **settings)


def test_d25_the_incumbent_ignores_a_context_without_a_path(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", rooms.kubeconfig)
    assert Incumbent(kubeconfig_context="no-such-context")


def test_d26_the_incumbent_sets_the_configuration_of_the_whole_process(rooms: Rooms) -> None:
    client.Configuration.set_default(None)
    before = client.Configuration.get_default_copy().host
    Incumbent(kubeconfig_path=rooms.kubeconfig)
    assert client.Configuration.get_default_copy().host != before


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, pickle.dumps, lambda it: it.model_copy(deep=True)],
    ids=["deepcopy", "pickle", "model_copy"],
)
def test_d27_the_incumbent_cannot_be_copied(rooms: Rooms, duplicate: Callable[[Any], Any]) -> None:
    made = Incumbent(kubeconfig_path=rooms.kubeconfig)
    with pytest.raises((TypeError, AttributeError)):
        duplicate(made)
