"""An execution as OpenTelemetry spans and metrics, and as a log record; docs/observability.md lists them.

Uses the API alone: without an SDK in the application nothing happens. Nothing of the program's code, output, files,
arguments or environment is ever in it, nor who the user is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.trace import Status, StatusCode

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.execution import CODE_REASONS, Outcome, Reason, Timings

SCOPE: Final = "adk_gke_sandbox"
log: Final = logging.getLogger(SCOPE)

PHASES: Final = ("submit", "schedule", "start", "run", "collect", "delete")
"""Children of the span of an execution, in order; fields of ``Timings``."""

BUCKETS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Of both histograms: from one call of the API to the longest program; the SDK's own are made for milliseconds."""


def record(outcome: Outcome, config: ExecutorConfig, *, ended_ns: int, invocation_id: str = "") -> None:
    """Tell of an execution that has just ended, as a child of the current span.

    The span is ``sandbox.execute`` with one child per phase. Attributes follow the semantic conventions of Kubernetes,
    containers and processes where there are any (https://opentelemetry.io/docs/specs/semconv/).

    Args:
        outcome: What came of it.
        config: Settings of its executor.
        ended_ns: When it ended, nanoseconds since the epoch.
        invocation_id: ADK's invocation; empty outside of ADK.
    """
    _trace(outcome, config, ended_ns, invocation_id)
    _measure(outcome, config)
    # What a lost sandbox reports may quote file names, or the program's last words.
    told = outcome.message and _failed(outcome.reason) and outcome.reason is not Reason.SANDBOX_LOST
    log.log(
        logging.WARNING if _failed(outcome.reason) else logging.INFO,
        "execution %s: %s in %.2f s%s",
        outcome.name,
        outcome.reason.value,
        outcome.timings.total,
        f" ({outcome.message})" if told else "",
        extra={
            "execution": outcome.name,
            "invocation_id": invocation_id,
            "reason": outcome.reason.value,
            "launch": outcome.launch,
            "namespace": config.namespace,
            "timings": asdict(outcome.timings),
            "cpu_seconds": outcome.cpu_seconds,
            "peak_memory_bytes": outcome.peak_memory_bytes,
        },
    )


def _trace(outcome: Outcome, config: ExecutorConfig, ended_ns: int, invocation_id: str) -> None:
    tracer = trace.get_tracer(SCOPE)
    at = ended_ns - _ns(outcome.timings.total)
    attributes: dict[str, str | int | float | Sequence[str]] = {
        "k8s.namespace.name": config.namespace,
        "k8s.job.name": outcome.name,
        **_image(config.image),
        f"{SCOPE}.reason": outcome.reason.value,
        f"{SCOPE}.launch": outcome.launch,
        f"{SCOPE}.cpu.time": outcome.cpu_seconds,
        f"{SCOPE}.memory.peak": outcome.peak_memory_bytes,
    }
    if outcome.exit_code is not None:
        attributes["process.exit.code"] = outcome.exit_code
    if _failed(outcome.reason):
        attributes["error.type"] = outcome.reason.value
    if invocation_id:
        # As on ADK's own spans (https://github.com/google/adk-python/blob/main/src/google/adk/telemetry/tracing.py).
        attributes["gcp.vertex.agent.invocation_id"] = invocation_id
    span = tracer.start_span("sandbox.execute", start_time=at, attributes=attributes)
    if _failed(outcome.reason):
        span.set_status(Status(StatusCode.ERROR, outcome.reason.value))
    inside = trace.set_span_in_context(span)
    for phase, seconds in _phases(outcome.timings).items():
        child = tracer.start_span(f"sandbox.{phase}", context=inside, start_time=at)
        at += _ns(seconds)
        child.end(at)
    span.end(ended_ns)


def _measure(outcome: Outcome, config: ExecutorConfig) -> None:
    executions, duration, phase_duration = _instruments()
    by = {
        f"{SCOPE}.reason": outcome.reason.value,
        f"{SCOPE}.launch": outcome.launch,
        "k8s.namespace.name": config.namespace,
    }
    executions.add(1, by)
    duration.record(outcome.timings.total, by)
    for phase, seconds in _phases(outcome.timings).items():
        phase_duration.record(seconds, {**by, f"{SCOPE}.phase": phase})


@cache
def _instruments() -> tuple[metrics.Counter, metrics.Histogram, metrics.Histogram]:
    meter = metrics.get_meter(SCOPE)
    return (
        meter.create_counter(f"{SCOPE}.executions", unit="{execution}", description="Executions by outcome"),
        meter.create_histogram(
            f"{SCOPE}.execution.duration",
            unit="s",
            description="From call to return",
            explicit_bucket_boundaries_advisory=BUCKETS_SECONDS,
        ),
        meter.create_histogram(
            f"{SCOPE}.phase.duration",
            unit="s",
            description="Of one phase",
            explicit_bucket_boundaries_advisory=BUCKETS_SECONDS,
        ),
    )


def _failed(reason: Reason) -> bool:
    """Whether the cluster failed: a program that fails is a result, and an abort is what its caller wanted."""
    return reason not in CODE_REASONS and reason is not Reason.ABORTED


def _phases(timings: Timings) -> Mapping[str, float]:
    """Return the phases that were reached."""
    return {phase: seconds for phase in PHASES if (seconds := getattr(timings, phase)) > 0}


def _image(reference: str) -> Mapping[str, str | Sequence[str]]:
    """Return the attributes of an image (https://opentelemetry.io/docs/specs/semconv/registry/attributes/container/)."""
    named, _, digest = reference.partition("@")
    name, _, tag = named.rpartition(":")
    if not name or "/" in tag:  # the colon is that of a registry's port
        name, tag = named, ""
    return {
        "container.image.name": name,
        **({"container.image.tags": [tag]} if tag else {}),
        **({"container.image.repo_digests": [f"{name}@{digest}"]} if digest else {}),
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
