"""An ``Outcome`` as the result that ADK knows, and ADK's files as ours."""

from __future__ import annotations

import base64
import binascii
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

_BAD_NAME: Final = re.compile(r"(^|/)\.\.(/|$)|^/|[\x00-\x1f:\\]")


def to_result(outcome: Outcome) -> CodeExecutionResult:
    """Return ADK's result for an outcome.

    ADK shows the model ``stdout`` alone when ``stderr`` is empty, and ``stderr`` alone otherwise; so a success
    has no ``stderr``, and a failure repeats the end of ``stdout`` in it.
    """
    stdout, stderr = _text(outcome.stdout), _text(outcome.stderr)
    files = [_file_out(file) for file in outcome.files if _safe(file.name)]
    if outcome.reason is Reason.COMPLETED:
        if stderr:
            stdout += ("" if not stdout or stdout.endswith("\n") else "\n") + f"[stderr]\n{stderr}"
        if outcome.files_left_out:
            stdout += f"\n[files left out: {', '.join(outcome.files_left_out)}]\n"
        return CodeExecutionResult(stdout=stdout, stderr="", output_files=files, exit_code=0)
    parts = [failure_line(outcome)]
    if stdout:
        tail = stdout[-STDOUT_TAIL:]
        parts.append(f"[stdout{', last part' if len(tail) < len(stdout) else ''}]\n{tail.rstrip()}")
    if stderr:
        parts.append(f"[stderr]\n{stderr.rstrip()}")
    return CodeExecutionResult(
        stdout=stdout, stderr="\n".join(parts) + "\n", output_files=files, exit_code=_exit_code(outcome)
    )


def _exit_code(outcome: Outcome) -> int | None:
    if outcome.reason is Reason.DEADLINE_EXCEEDED:
        return _TIMEOUT_EXIT
    if outcome.reason not in CODE_REASONS and not outcome.started:
        return None
    return outcome.exit_code or 1


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def file_in(file: AdkFile) -> File:
    """ADK's flow hands over base64 text, direct callers may give bytes."""
    given: str | bytes = file.content
    if isinstance(given, bytes):
        content = given
    else:
        try:
            content = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            content = given.encode("utf-8", "surrogatepass")
    return File(name=file.name, content=content, mime_type=file.mime_type or "text/plain")


def _file_out(file: File) -> AdkFile:
    return AdkFile(name=file.name, content=file.content, mime_type=file.mime_type)


def _safe(name: str) -> bool:
    """Whether a name is safe as an artifact's: ADK uses it as it is."""
    return bool(name) and name != "." and len(name.encode()) <= 200 and not _BAD_NAME.search(name)
