"""An ``Outcome`` as the result that ADK knows, and ADK's files as ours."""

from __future__ import annotations

import base64
import re
from typing import Final

from google.adk.code_executors.code_execution_utils import CodeExecutionResult
from google.adk.code_executors.code_execution_utils import File as AdkFile

from adk_gke_sandbox.execution import CODE_REASONS, File, Outcome, Reason
from adk_gke_sandbox.sandbox import failure_line

STDOUT_TAIL: Final = 4000
"""Characters of standard output that a failure repeats: the model sees nothing else of it."""

_TIMEOUT_EXIT: Final = 124
"""Exit code of a program that was killed for its time, as of coreutils' timeout(1)."""

_BAD_NAME: Final = re.compile(r"^\.?$|(^|/)\.\.(/|$)|^/|[\x00-\x1f:\\]")
"""ADK uses a file's name as it is for an artifact."""


def to_result(outcome: Outcome) -> CodeExecutionResult:
    """Return ADK's result for an outcome.

    ADK shows the model ``stdout`` alone when ``stderr`` is empty, and ``stderr`` alone otherwise; so a success
    has no ``stderr``, and a failure repeats the end of ``stdout`` in it.
    """
    stdout, stderr = outcome.stdout.decode("utf-8", "replace"), outcome.stderr.decode("utf-8", "replace")
    safe = [file for file in outcome.files if len(file.name.encode()) <= 200 and not _BAD_NAME.search(file.name)]
    files = [AdkFile(name=file.name, content=file.content, mime_type=file.mime_type) for file in safe]
    if outcome.reason is Reason.COMPLETED:
        if stderr:
            stdout += ("" if not stdout or stdout.endswith("\n") else "\n") + f"[stderr]\n{stderr}"
        if outcome.files_left_out:
            stdout += f"\n[files left out: {', '.join(outcome.files_left_out)}]\n"
        return CodeExecutionResult(stdout=stdout, stderr="", output_files=files, exit_code=0)
    told = failure_line(outcome) + "\n"
    if stdout:
        part = ", last part" if len(stdout) > STDOUT_TAIL else ""
        told += f"[stdout{part}]\n{stdout[-STDOUT_TAIL:].rstrip()}\n"
    if stderr:
        told += f"[stderr]\n{stderr.rstrip()}\n"
    return CodeExecutionResult(stdout=stdout, stderr=told, output_files=files, exit_code=_exit_code(outcome))


def _exit_code(outcome: Outcome) -> int | None:
    if outcome.reason is Reason.DEADLINE_EXCEEDED:
        return _TIMEOUT_EXIT
    if outcome.reason not in CODE_REASONS and not outcome.started:
        return None
    return outcome.exit_code or 1


def file_in(file: AdkFile) -> File:
    """ADK's flow hands over base64 text, direct callers may give bytes."""
    given: str | bytes = file.content
    try:
        content = base64.b64decode(given, validate=True) if isinstance(given, str) else given
    except ValueError:
        content = str(given).encode("utf-8", "surrogatepass")
    return File(name=file.name, content=content, mime_type=file.mime_type or "text/plain")
