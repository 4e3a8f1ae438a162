"""What a caller does with an outcome, and what a person sees of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from adk_gke_sandbox.errors import SandboxError
from adk_gke_sandbox.execution import ExecutionFailed, File, Outcome, Output, Reason

DONE = Outcome(name="x-1", reason=Reason.COMPLETED, exit_code=0, stdout=b"one\ntwo\xff", started=True)
FAILED = Outcome(name="x-2", reason=Reason.ERROR, exit_code=3, stderr=b"Traceback", message="no file", started=True)


def test_only_a_completed_execution_is_a_success_and_is_returned_by_its_check() -> None:
    assert DONE.check() is DONE
    assert [reason for reason in Reason if Outcome(name="x", reason=reason).ok] == [Reason.COMPLETED]


def test_a_failure_is_raised_by_its_check_with_its_line_and_the_outcome() -> None:
    with pytest.raises(SandboxError) as raised:
        FAILED.check()
    assert isinstance(raised.value, ExecutionFailed)
    assert str(raised.value) == "your code failed: Error: exit code 3: no file"
    assert raised.value.outcome is FAILED


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_failure_that_was_raised_in_another_process_is_the_same(duplicate: Any) -> None:
    found = duplicate(ExecutionFailed(FAILED))
    assert (str(found), found.outcome) == (str(ExecutionFailed(FAILED)), FAILED)


@pytest.mark.parametrize("text", [DONE.text, Output(stream="stdout", data=DONE.stdout).text])
def test_bytes_that_are_no_text_are_replaced(text: str) -> None:
    assert text == "one\ntwo\ufffd"


def test_an_outcome_is_shown_in_one_line_without_its_bytes() -> None:
    files = (File(name="a.png", content=b"\x89PNG" * 1000, mime_type="image/png"),)
    shown = repr(Outcome(name="x-1", reason=Reason.COMPLETED, stdout=b"one\n" + b"y" * 9000, files=files))
    assert shown == "<Outcome x-1: Completed; stdout 9004 bytes 'one', stderr 0 bytes, 1 files>"
    assert repr(FAILED).startswith("<Outcome x-2: your code failed: Error: exit code 3: no file; stdout 0 bytes ''")
    assert repr(files[0]) == "<File 'a.png': 4000 bytes, image/png>"
