"""What executions tell to OpenTelemetry's own SDK and to the log, and what they never tell."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from google.adk.code_executors.code_execution_utils import File as AdkFile
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from adk_gke_sandbox import GkeCodeExecutor, telemetry
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.execution import CODE_REASONS, Outcome, Reason, Timings
from tests.unit.fake_api import RUNNING, STARTED, FakeApi, Fault, added, frame, pod, run

CONFIG = ExecutorConfig(namespace="box", image="registry:5000/python:3.11@sha256:" + "0" * 64)
TIMINGS = Timings(submit=0.1, schedule=0.2, start=0.3, run=0.4, collect=0.05, delete=0.06)
ENDED_NS = 1_700_000_000_000_000_000
CALLERS = frozenset({Reason.ABORTED, Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE})


@dataclass(frozen=True)
class Exported:
    """What has reached the exporters."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer: trace.Tracer

    def spans(self) -> list[ReadableSpan]:
        """Return the spans by their beginning, parents first."""
        found = self.exporter.get_finished_spans()
        return sorted(found, key=lambda span: (span.start_time or 0, -(span.end_time or 0), span.name))

    def execution(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """Return the span of the only execution and its children."""
        (parent,) = (span for span in self.spans() if span.name == "sandbox.execute")
        assert parent.context
        children = [span for span in self.spans() if span.parent and span.parent.span_id == parent.context.span_id]
        return parent, children

    def points(self) -> dict[str, list[Any]]:
        """Return the data points by the name of their instrument."""
        data = self.reader.get_metrics_data()
        assert data
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def text(self) -> str:
        """Return everything that was exported."""
        data = self.reader.get_metrics_data()
        return "\n".join([*(span.to_json() for span in self.spans()), data.to_json() if data else ""])


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    # A process has one provider for its whole life; this one is a test's.
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    telemetry._instruments.cache_clear()
    yield Exported(exporter, reader, tracers.get_tracer("test"))
    telemetry._instruments.cache_clear()
    meters.shutdown()
    tracers.shutdown()


def outcome(reason: Reason = Reason.COMPLETED, **fields: Any) -> Outcome:
    return Outcome(name="sandbox-1", reason=reason, **{"timings": TIMINGS, **fields})


def record(found: Outcome, **fields: Any) -> None:
    telemetry.record(found, CONFIG, ended_ns=ENDED_NS, **fields)


# Spans


def test_d31_an_execution_is_a_span_with_a_child_per_phase_and_their_times_add_up(exported: Exported) -> None:
    record(outcome())
    parent, children = exported.execution()
    assert [span.name for span in children] == [f"sandbox.{phase}" for phase in telemetry.PHASES]
    assert parent.end_time == ENDED_NS
    edges = [parent.start_time, *(span.end_time for span in children)]
    assert [span.start_time for span in children] == edges[:-1], "each phase begins where the last one ended"
    lengths = [(end or 0) - (begin or 0) for begin, end in pairwise(edges)]
    assert lengths == pytest.approx([seconds * 1e9 for seconds in asdict(TIMINGS).values()], abs=2)
    assert edges[-1] == pytest.approx(ENDED_NS, abs=len(lengths))


def test_an_execution_is_a_child_of_the_span_of_its_agent_in_adks_thread(exported: Exported, api: FakeApi) -> None:
    executor = GkeCodeExecutor(kubeconfig_path=api.kubeconfig, namespace="box")
    context: Any = SimpleNamespace(invocation_id="e-1", is_aborted=False)

    async def agent() -> None:
        with exported.tracer.start_as_current_span("invoke_agent"):
            await asyncio.to_thread(executor.execute_code, context, CodeExecutionInput(code="print('hello')"))

    asyncio.run(agent())
    (agents,) = (span for span in exported.spans() if span.name == "invoke_agent")
    span, children = exported.execution()
    assert agents.context
    assert span.parent == agents.context
    assert span.attributes
    assert span.attributes["gcp.vertex.agent.invocation_id"] == "e-1"
    assert len(children) >= 4


def test_a_phase_that_was_never_reached_is_no_span(exported: Exported) -> None:
    record(outcome(Reason.FORBIDDEN, timings=Timings(submit=0.2)))
    assert [span.name for span in exported.execution()[1]] == ["sandbox.submit"]


@pytest.mark.usefixtures("exported")
def test_waiting_for_a_pod_counts_as_scheduling_even_if_none_came(api: FakeApi) -> None:
    api.watches = {"pods": [[]], "events": [[]]}
    timings = run(api, schedule_timeout_seconds=5).timings
    assert timings.schedule == pytest.approx(timings.total - timings.submit - timings.delete)
    assert timings.schedule > timings.submit


def test_attributes_have_the_names_of_the_semantic_conventions(exported: Exported) -> None:
    record(
        outcome(Reason.ERROR, exit_code=3, cpu_seconds=1.5, peak_memory_bytes=2**20),
        invocation_id="e-1",
    )
    parent, _ = exported.execution()
    assert dict(parent.attributes or {}) == {
        "k8s.namespace.name": "box",
        "k8s.job.name": "sandbox-1",
        "container.image.name": "registry:5000/python",
        "container.image.tags": ("3.11",),
        "container.image.repo_digests": ("registry:5000/python@sha256:" + "0" * 64,),
        "process.exit.code": 3,
        "gcp.vertex.agent.invocation_id": "e-1",
        "adk_gke_sandbox.reason": "Error",
        "adk_gke_sandbox.launch": "cold",
        "adk_gke_sandbox.cpu.time": 1.5,
        "adk_gke_sandbox.memory.peak": 2**20,
    }
    known = {
        value
        for group in ("k8s", "container", "process", "error")
        for value in vars(import_module(f"opentelemetry.semconv._incubating.attributes.{group}_attributes")).values()
        if isinstance(value, str)
    }
    standard = {name for name in parent.attributes or {} if name.split(".")[0] in ("k8s", "container", "process")}
    assert standard <= known


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("python", {"name": "python"}),
        ("python:3.11-slim", {"name": "python", "tags": ("3.11-slim",)}),
        ("host:5000/a/b", {"name": "host:5000/a/b"}),
        ("host/a@sha256:ff", {"name": "host/a", "repo_digests": ("host/a@sha256:ff",)}),
    ],
)
def test_an_image_is_told_as_name_tag_and_digest(exported: Exported, image: str, told: dict[str, Any]) -> None:
    telemetry.record(outcome(), ExecutorConfig(image=image), ended_ns=ENDED_NS)
    attributes = exported.execution()[0].attributes or {}
    prefix = "container.image."
    assert {key.removeprefix(prefix): attributes[key] for key in attributes if key.startswith(prefix)} == told


@pytest.mark.parametrize("reason", Reason)
def test_only_a_failure_of_the_cluster_is_an_error(
    exported: Exported, caplog: pytest.LogCaptureFixture, reason: Reason
) -> None:
    with caplog.at_level(logging.INFO, logger="adk_gke_sandbox"):
        record(outcome(reason))
    span, _ = exported.execution()
    failed = reason not in CODE_REASONS | CALLERS
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert (span.attributes or {}).get("error.type") == (reason.value if failed else None)
    assert caplog.records[0].levelno == (logging.WARNING if failed else logging.INFO)


# Metrics


def test_executions_are_counted_and_timed_by_outcome(exported: Exported) -> None:
    for reason in (Reason.COMPLETED, Reason.COMPLETED, Reason.ERROR):
        record(outcome(reason))
    points = exported.points()
    assert {
        (point.attributes["adk_gke_sandbox.reason"], point.value) for point in points["adk_gke_sandbox.executions"]
    } == {("Completed", 2), ("Error", 1)}
    durations = points["adk_gke_sandbox.execution.duration"]
    assert {(point.attributes["adk_gke_sandbox.reason"], point.count) for point in durations} == {
        ("Completed", 2),
        ("Error", 1),
    }
    assert durations[0].sum == pytest.approx(2 * TIMINGS.total)
    assert durations[0].explicit_bounds == telemetry.BUCKETS_SECONDS
    assert all(point.attributes["k8s.namespace.name"] == "box" for point in durations)


def test_phases_are_timed_one_by_one(exported: Exported) -> None:
    record(outcome())
    points = exported.points()["adk_gke_sandbox.phase.duration"]
    seconds = {point.attributes["adk_gke_sandbox.phase"]: point.sum for point in points}
    assert seconds == pytest.approx(asdict(TIMINGS))
    assert points[0].explicit_bounds == telemetry.BUCKETS_SECONDS


def test_no_attribute_of_a_metric_has_a_value_per_execution(exported: Exported) -> None:
    record(outcome(), invocation_id="e-1")
    for points in exported.points().values():
        for point in points:
            assert not {"sandbox-1", "e-1"} & {str(value) for value in point.attributes.values()}


# Log records


def test_a_log_record_has_the_execution_and_the_invocation_as_fields(
    exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="adk_gke_sandbox"):
        record(outcome(cpu_seconds=0.5, peak_memory_bytes=7), invocation_id="e-1")
    (found,) = caplog.records
    assert found.getMessage() == "execution sandbox-1: Completed in 1.11 s"
    plain = logging.LogRecord("", 0, "", 0, "", None, None)
    fields = {name: value for name, value in vars(found).items() if name not in vars(plain) and name != "message"}
    assert json.loads(json.dumps(fields)) == {
        "execution": "sandbox-1",
        "invocation_id": "e-1",
        "reason": "Completed",
        "launch": "cold",
        "namespace": "box",
        "timings": asdict(TIMINGS),
        "cpu_seconds": 0.5,
        "peak_memory_bytes": 7,
    }


def test_a_log_record_says_what_is_wrong_with_the_cluster(exported: Exported, caplog: pytest.LogCaptureFixture) -> None:
    record(outcome(Reason.FORBIDDEN, message="ask the platform team"))
    assert caplog.messages == ["execution sandbox-1: Forbidden in 1.11 s (ask the platform team)"]


def test_a_mistake_of_the_caller_is_a_result_that_is_counted_and_wakes_nobody(
    exported: Exported, api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    files = [AdkFile(name=name, content="x") for name in (f"{SECRET}", f"{SECRET}/x.csv")]
    executor = GkeCodeExecutor(kubeconfig_path=api.kubeconfig, namespace="box")
    context: Any = SimpleNamespace(invocation_id="e-1", is_aborted=False)
    with caplog.at_level(logging.INFO, logger="adk_gke_sandbox"):
        result = executor.execute_code(context, CodeExecutionInput(code="print('hello')", input_files=files))
    assert result.exit_code is None
    assert f"could not run your code: InvalidRequest: '{SECRET}' is a file, and the folder of" in result.stderr
    (point,) = exported.points()["adk_gke_sandbox.executions"]
    assert (point.attributes["adk_gke_sandbox.reason"], point.value) == ("InvalidRequest", 1)
    (found,) = caplog.records
    assert (found.levelno, vars(found)["invocation_id"]) == (logging.INFO, "e-1")
    assert SECRET not in found.getMessage()
    assert api.calls == []


@pytest.mark.usefixtures("exported")
def test_a_deletion_that_fails_is_logged_with_its_execution_and_invocation(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.faults["delete", "jobs", 0] = Fault(status=403, reason="Forbidden", message="cannot delete")
    executor = GkeCodeExecutor(kubeconfig_path=api.kubeconfig, namespace="box")
    context: Any = SimpleNamespace(invocation_id="e-1", is_aborted=False)
    executor.execute_code(context, CodeExecutionInput(code="print('hello')"))
    (found,) = (found for found in caplog.records if "cannot delete" in found.getMessage())
    assert vars(found)["execution"].startswith("sandbox-")
    assert vars(found)["invocation_id"] == "e-1"


@pytest.mark.usefixtures("exported")
def test_a_fault_of_ours_is_logged_with_its_execution_and_invocation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    executor = GkeCodeExecutor()
    monkeypatch.setattr(executor._sandbox, "run", lambda *_, **__: 1 / 0)
    context: Any = SimpleNamespace(invocation_id="e-1")
    executor.execute_code(context, CodeExecutionInput(code="print(1)"))
    (found,) = caplog.records
    assert (vars(found)["execution"], vars(found)["invocation_id"]) == (vars(found)["args"][0], "e-1")


# What is never told

SECRET = "s3cret"
SAID = STARTED + frame("out", d=f"{SECRET} output\n") + frame("err", d=f"{SECRET} error\n")


def ends(**fields: Any) -> Callable[[FakeApi], None]:
    """Script what the runner says in the end."""

    def script(api: FakeApi) -> None:
        counts = {"err": len(f"{SECRET} error\n")} if "exit_code" in fields else {}
        api.logs = [SAID + frame("end", started=True, **counts, left_out=[f"{SECRET}.bin: too large"], **fields)]

    return script


def is_lost(api: FakeApi) -> None:
    """The program kills its supervisor and leaves a message where Kubernetes looks for one."""
    api.logs = [SAID]
    api.watches["pods"] = [[added(RUNNING)], []]
    last = {"exitCode": 2, "reason": "Error", "message": f"{SECRET} last words"}
    api.lists["pods"] = [pod({"terminated": last}, phase="Failed")]


def loses_its_rest(api: FakeApi) -> None:
    """The same, and the program's end is told, but nothing behind it."""
    is_lost(api)
    api.logs = [SAID + frame("exit", reason="Completed", exit_code=0)]


def cannot_be_deleted(api: FakeApi) -> None:
    ends(reason="Completed", exit_code=0)(api)
    api.faults["delete", "jobs", 0] = Fault(status=403, reason="Forbidden", message="cannot delete")


def is_refused(api: FakeApi) -> None:
    api.faults["create", "jobs", 0] = Fault(status=422, reason="Invalid", message="policy says no")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (ends(reason="Completed", exit_code=0), Reason.COMPLETED),
        (ends(reason="Error", exit_code=1, message=f"{SECRET} message"), Reason.ERROR),
        (
            ends(reason="SandboxLost", message=f"the runner could not run the request: '{SECRET}' is no name"),
            Reason.SANDBOX_LOST,
        ),
        (is_lost, Reason.SANDBOX_LOST),
        (loses_its_rest, Reason.REPLY_INCOMPLETE),
        (cannot_be_deleted, Reason.COMPLETED),
        (is_refused, Reason.ADMISSION_DENIED),
    ],
    ids=["completed", "failed", "refused by the runner", "lost", "cut", "not deleted", "refused by the cluster"],
)
def test_nothing_of_the_program_its_data_or_its_user_is_told(
    exported: Exported,
    api: FakeApi,
    caplog: pytest.LogCaptureFixture,
    script: Callable[[FakeApi], None],
    reason: Reason,
) -> None:
    executor = GkeCodeExecutor(
        kubeconfig_path=api.kubeconfig,
        namespace="box",
        env={f"NAME_{SECRET}": f"{SECRET} value"},
        schedule_timeout_seconds=1,
    )
    session = SimpleNamespace(id=f"{SECRET}-session", user_id=f"{SECRET}-user")
    context: Any = SimpleNamespace(invocation_id="e-1", session=session, is_aborted=False)
    files = [AdkFile(name=f"{SECRET}.csv", content=f"{SECRET} content")]
    code = f"print('{SECRET} code')"
    calls: list[Callable[[], Any]] = [
        lambda: executor.execute_code(context, CodeExecutionInput(code=code, input_files=files)),
        lambda: executor._sandbox.run(code, argv=(SECRET,), env={SECRET: SECRET}),
    ]
    with caplog.at_level(logging.DEBUG, logger="adk_gke_sandbox"):
        for call in calls:
            api.count.clear()
            api.config_maps.clear()
            script(api)
            call()
    records = [found for found in caplog.records if found.name.startswith("adk_gke_sandbox")]
    assert sum(vars(found).get("reason") == reason.value for found in records) == 2
    assert len([span for span in exported.spans() if span.name == "sandbox.execute"]) == 2
    logged = "\n".join(f"{found.getMessage()} {vars(found)}" for found in records)
    assert "e-1" in exported.text()
    assert "e-1" in logged
    assert SECRET not in exported.text()
    assert SECRET not in logged


def test_d32_session_and_user_are_on_the_objects_as_hashes_alone(api: FakeApi) -> None:
    seen: list[Any] = []
    api.on_log = lambda: seen.extend([*api.jobs.values(), *api.config_maps])
    session = SimpleNamespace(id=f"{SECRET}-session", user_id=f"{SECRET}-user")
    context: Any = SimpleNamespace(invocation_id="e-1", session=session, is_aborted=False)
    executor = GkeCodeExecutor(kubeconfig_path=api.kubeconfig, namespace="box")
    executor.execute_code(context, CodeExecutionInput(code="print('hello')"))
    job, config_map = seen
    assert job["metadata"]["annotations"]["adk-gke-sandbox/invocation-id"] == "e-1"
    for found in (job, job["spec"]["template"], config_map):
        labels = found["metadata"]["labels"]
        assert labels["adk-gke-sandbox/session-hash"] == "6f8c447853807638"
        assert labels["adk-gke-sandbox/user-hash"] == "66f18b8e9d1c123f"
    assert SECRET not in json.dumps(seen)
