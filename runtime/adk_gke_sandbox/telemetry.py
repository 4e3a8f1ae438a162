"""An execution as OpenTelemetry spans and metrics, and as a log record; docs/observability.md lists them.

Uses the API alone: without an SDK in the application nothing happens. Nothing of the program's code, output, files,
arguments or environment is ever in it, nor who the user is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, partial
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.trace import Status, StatusCode

from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.execution import CALLER_REASONS, CODE_REASONS, Outcome, Reason, Timings

SCOPE: Final = "adk_gke_sandbox"
log: Final = logging.getLogger(SCOPE)

_QUOTING: Final = frozenset({Reason.SANDBOX_LOST, Reason.REPLY_INCOMPLETE})
"""Reasons whose message may quote names of files, or the program's last words; the log does not have it."""

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
    reason, failed = outcome.reason.value, _failed(outcome.reason)
    by = {f"{SCOPE}.reason": reason, f"{SCOPE}.launch": outcome.launch, "k8s.namespace.name": config.namespace}
    _trace(outcome, config, by, ended_ns, invocation_id)
    _measure(outcome, by)
    told = outcome.message and failed and outcome.reason not in _QUOTING
    log.log(
        logging.WARNING if failed else logging.INFO,
        "execution %s: %s in %.2f s%s",
        outcome.name,
        reason,
        outcome.timings.total,
        f" ({outcome.message})" if told else "",
        extra={
            "execution": outcome.name,
            "invocation_id": invocation_id,
            "reason": reason,
            "launch": outcome.launch,
            "namespace": config.namespace,
            "timings": asdict(outcome.timings),
            "cpu_seconds": outcome.cpu_seconds,
            "peak_memory_bytes": outcome.peak_memory_bytes,
        },
    )


def _trace(outcome: Outcome, config: ExecutorConfig, by: Mapping[str, str], ended_ns: int, invocation_id: str) -> None:
    tracer = trace.get_tracer(SCOPE)
    at = ended_ns - _ns(outcome.timings.total)
    failed = _failed(outcome.reason)
    image, tag, digest = _image(config.image)
    attributes: dict[str, str | int | float | list[str] | None] = {
        **by,
        "k8s.job.name": outcome.name,
        # https://opentelemetry.io/docs/specs/semconv/registry/attributes/container/
        "container.image.name": image,
        "container.image.tags": [tag] if tag else None,
        "container.image.repo_digests": [f"{image}@{digest}"] if digest else None,
        "process.exit.code": outcome.exit_code,
        "error.type": outcome.reason.value if failed else None,
        # As on ADK's own spans (https://github.com/google/adk-python/blob/main/src/google/adk/telemetry/tracing.py).
        "gcp.vertex.agent.invocation_id": invocation_id or None,
        f"{SCOPE}.cpu.time": outcome.cpu_seconds,
        f"{SCOPE}.memory.peak": outcome.peak_memory_bytes,
    }
    known = {name: value for name, value in attributes.items() if value is not None}
    span = tracer.start_span("sandbox.execute", start_time=at, attributes=known)
    if failed:
        span.set_status(Status(StatusCode.ERROR, outcome.reason.value))
    inside = trace.set_span_in_context(span)
    for phase, seconds in _phases(outcome.timings).items():
        child = tracer.start_span(f"sandbox.{phase}", context=inside, start_time=at)
        at += _ns(seconds)
        child.end(at)
    span.end(ended_ns)


def _measure(outcome: Outcome, by: Mapping[str, str]) -> None:
    executions, duration, phase_duration = _instruments()
    executions.add(1, by)
    duration.record(outcome.timings.total, by)
    for phase, seconds in _phases(outcome.timings).items():
        phase_duration.record(seconds, {**by, f"{SCOPE}.phase": phase})


@cache
def _instruments() -> tuple[metrics.Counter, metrics.Histogram, metrics.Histogram]:
    meter = metrics.get_meter(SCOPE)
    seconds = partial(meter.create_histogram, unit="s", explicit_bucket_boundaries_advisory=BUCKETS_SECONDS)
    return (
        meter.create_counter(f"{SCOPE}.executions", unit="{execution}", description="Executions by outcome"),
        seconds(f"{SCOPE}.execution.duration", description="From call to return"),
        seconds(f"{SCOPE}.phase.duration", description="Of one phase"),
    )


def _failed(reason: Reason) -> bool:
    """Whether the cluster failed: a program that fails is a result; an abort, or a bad request, is its caller's."""
    return reason not in CODE_REASONS | CALLER_REASONS


def _phases(timings: Timings) -> Mapping[str, float]:
    """Return the phases that were reached."""
    return {phase: seconds for phase in PHASES if (seconds := getattr(timings, phase)) > 0}


def _image(reference: str) -> tuple[str, str, str]:
    """Return name, tag and digest of an image; empty where there is none."""
    named, _, digest = reference.partition("@")
    name, _, tag = named.rpartition(":")
    # Without a tag the colon may be that of a registry's port.
    return (name, tag, digest) if name and "/" not in tag else (named, "", digest)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
