"""An ``Outcome`` as the result that ADK knows, and ADK's files as ours."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Final

from google.adk.code_executors.code_execution_utils import CodeExecutionResult
from google.adk.code_executors.code_execution_utils import File as AdkFile

from adk_gke_sandbox.adk.names import artifact_names, storable, storable_json
from adk_gke_sandbox.adk.texts import as_shown, cut, listed
from adk_gke_sandbox.config import RESULT_CHARACTERS
from adk_gke_sandbox.decoder import visible
from adk_gke_sandbox.execution import CODE_REASONS, File, Outcome, Reason, failure_line

ONE_LINE_RESULTS: Final = ("__shell_result__", "__ADK_SKILL_GENERATED_FILES__")
"""What programs of ADK's ``SkillToolset`` contain. They print their result as one long line: cut, it would be lost
(https://github.com/google/adk-python/blob/main/src/google/adk/tools/skill_toolset.py)."""

NOTHING_PRINTED: Final = (
    "[nothing was printed: only what a program prints is shown, not the value of its last line. Use print()]\n"
)

_NOT_SHOWN: Final = "[the value of the last line is not shown: only what a program prints is. Use print()]\n"

_ADVICE: Final = "print less, or write it to a file"

_NO_INPUT: Final = "[the program reads standard input, which is empty: input() raises EOFError]\n"

_READS_INPUT: Final = re.compile(r"\binput\s*\(|\bsys\.stdin\b")

_TIMEOUT_EXIT: Final = 124
"""Exit code of a program that was killed for its time, as of coreutils' timeout(1)."""

_VALUE: Final = re.compile(r"(?!pass$)[^\W\d]\w*(\.\w+|\[[^\[\]]*\])*")
"""A last line that is a name, with attributes and items of it. A notebook would show its value; a call may show its own
itself."""

_FRAME_CHARACTERS: Final = 200
"""Room for the lines between the parts of a result."""

_NAME_CHARACTERS: Final = 300
"""What is told of a name that was not kept."""


def to_result(
    outcome: Outcome, *, code: str = "", characters: int = RESULT_CHARACTERS, keep_as: int | None = None
) -> CodeExecutionResult:
    """Return ADK's result for an outcome: texts and names that each of ADK's stores takes.

    ADK shows the model ``stdout`` alone when ``stderr`` is empty, and ``stderr`` alone otherwise; so a success
    has no ``stderr``, and a failure repeats ``stdout`` in it.

    Args:
        outcome: What came of the execution.
        code: The program.
        characters: What the model is shown at the most.
        keep_as: Number under which a stream that is not shown in full becomes a file; ``None`` keeps none.
    """
    if any(mark in code for mark in ONE_LINE_RESULTS):
        return _skill_result(outcome, characters)
    done = outcome.reason is Reason.COMPLETED
    stdout, stderr = (
        as_shown(storable(stream.decode("utf-8", "replace"))) for stream in (outcome.stdout, outcome.stderr)
    )
    names = artifact_names([file.name for file in outcome.files])
    files = [_artifact(file, name) for file, name in zip(outcome.files, names, strict=True)]
    notes = list(_notes(outcome, names, code, stdout + stderr, characters // 8))
    first = "" if done else cut(storable(failure_line(outcome)), characters // 4, "see the log") + "\n"

    room = characters - len(first) - sum(map(len, notes)) - _FRAME_CHARACTERS
    # A failure is told by its traceback, and that by its end.
    most_of_stderr = max(room // 4 if done else room * 2 // 3, room - len(stdout))
    most_of_stdout = max(room - most_of_stderr, room - len(stderr))
    advice = _ADVICE
    if keep_as is not None and len(stdout) + len(stderr) > room:
        printed = [name for name in ("stdout", "stderr") if getattr(outcome, name)]
        kept = artifact_names([*names, *(f"{name}_{keep_as}.txt" for name in printed)])[len(names) :]
        files += [AdkFile(name=name, content=getattr(outcome, of)) for name, of in zip(kept, printed, strict=True)]
        advice = f"all of it is in {' and '.join(kept)}"
    stdout = cut(stdout, most_of_stdout, advice)
    stderr = _part("stderr", cut(stderr, most_of_stderr, advice, head=0.25))
    if done:
        return CodeExecutionResult(stdout=_joined(stdout, stderr, *notes), output_files=files, exit_code=0)
    told = _joined(first, _part("stdout", stdout), stderr, *notes)
    return CodeExecutionResult(stdout=stdout, stderr=told, output_files=files, exit_code=_exit_code(outcome))


def _skill_result(outcome: Outcome, characters: int) -> CodeExecutionResult:
    """Return the result of a script of ADK's ``SkillToolset``, which reads all of ``stdout`` itself."""
    stdout, stderr = (storable(stream.decode("utf-8", "replace")) for stream in (outcome.stdout, outcome.stderr))
    marked = (storable_json(line) if any(m in line for m in ONE_LINE_RESULTS) else line for line in stdout.split("\n"))
    stdout, stderr = "\n".join(marked), _part("stderr", cut(as_shown(stderr), characters // 2, _ADVICE, head=0.25))
    if outcome.reason is Reason.COMPLETED:
        return CodeExecutionResult(stdout=_joined(stdout, stderr), exit_code=0)
    told = storable(failure_line(outcome)) + "\n" + stderr
    return CodeExecutionResult(stdout=stdout, stderr=told, exit_code=_exit_code(outcome))


def _part(title: str, text: str) -> str:
    return f"[{title}]\n{text.rstrip()}\n" if text else ""


def _joined(first: str, *parts: str) -> str:
    """Return the parts one after the other, each on a line of its own."""
    for part in filter(None, parts):
        first += ("" if not first or first.endswith("\n") else "\n") + part
    return first


def _artifact(file: File, name: str) -> AdkFile:
    # ADK takes an empty artifact of the type application/octet-stream for one that was deleted.
    mime_type = file.mime_type if file.content else file.mime_type.replace("application/octet-stream", "text/plain")
    return AdkFile(name=name, content=file.content, mime_type=mime_type)


def _notes(outcome: Outcome, names: Sequence[str], code: str, printed: str, most: int) -> Iterable[str]:
    """Return what output does not tell: what became of files, and what the model may not know of such a program.

    ADK itself names the files of a success, by the names under which they are saved.
    """
    if outcome.reason is Reason.COMPLETED:
        if not printed.strip() and not names:
            yield NOTHING_PRINTED
        elif _VALUE.fullmatch(code.rstrip().rpartition("\n")[2]):
            yield _NOT_SHOWN
    else:
        if outcome.reason in (Reason.DEADLINE_EXCEEDED, Reason.OUTPUT_LIMIT) and _READS_INPUT.search(code):
            yield _NO_INPUT
        if names:
            yield f"[files saved: {listed(names, most)}]\n"
    pairs = zip(outcome.files, names, strict=True)
    renamed = [
        f"{visible(file.name)[-_NAME_CHARACTERS:]} was saved as {name}" for file, name in pairs if file.name != name
    ]
    if renamed:
        yield f"[{listed(renamed, most)}]\n"
    if outcome.files_left_out:
        yield f"[files left out: {storable(listed(outcome.files_left_out, most))}]\n"


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
