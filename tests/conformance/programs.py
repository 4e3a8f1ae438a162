"""How a test says what to run: ``@program("print(1)")`` above it, and ``outcome`` among its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from adk_gke_sandbox.execution import File, Outcome


def program(
    code: str, *, files: Mapping[str, bytes] | None = None, limits: Mapping[str, Any] | None = None, **given: Any
) -> pytest.MarkDecorator:
    """Return the mark of a test that looks at the outcome of one execution.

    Args:
        code: The program.
        files: Input files, by name.
        limits: Fields of ``Limits`` that differ from the default.
        given: Anything else that an ``Execute`` takes: ``argv``, ``env``, settings of an executor.
    """
    inputs = tuple(File(name=name, content=content) for name, content in (files or {}).items())
    return pytest.mark.program(code, files=inputs, limits=limits or {}, **given)


def contents(outcome: Outcome) -> dict[str, bytes]:
    """Return the output files by name."""
    return {file.name: file.content for file in outcome.files}


def summary(outcome: Outcome, most: int = 1500) -> str:
    """Return what a person wants to see of an outcome when a test fails."""
    lines = [
        f"{outcome.reason} (exit code {outcome.exit_code}, signal {outcome.signal or 'none'}) {outcome.message}",
        f"started {outcome.started}, wall {outcome.wall_seconds} s, cpu {outcome.cpu_seconds} s, "
        f"peak {outcome.peak_memory_bytes} bytes, {outcome.timings}",
        f"files {[(file.name, len(file.content)) for file in outcome.files]}, left out {outcome.files_left_out}",
    ]
    for name, data, dropped in (
        ("stdout", outcome.stdout, outcome.stdout_dropped),
        ("stderr", outcome.stderr, outcome.stderr_dropped),
    ):
        shown = data[:most].decode("utf-8", "backslashreplace")
        lines.append(f"{name}, {len(data)} bytes and {dropped} dropped:\n{shown}")
    return "\n".join(lines)
