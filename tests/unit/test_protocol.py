"""Replies cut anywhere are read; what is missing or forged is never taken for success, and nothing raises."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adk_gke_sandbox.decoder import LINE_BYTES, Decoder, End
from adk_gke_sandbox.execution import File, Limits, Outcome, Reason, Request
from adk_gke_sandbox.protocol import Transcript, encode_request, new_nonce

NONCE = "0123456789abcdef"
COMPLETED = {"reason": "Completed", "exit_code": 0}
COUNTS = ("out", "err", "files", "file_bytes")

text_of_any_kind = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text_of_any_kind,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text_of_any_kind, inner, max_size=3),
    max_leaves=6,
)


def line(number: int, kind: str, **fields: Any) -> bytes:
    return json.dumps({"n": NONCE, "i": number, "t": kind, **fields}).encode() + b"\n"


def lines(*frames: tuple[str, dict[str, Any]]) -> list[bytes]:
    return [line(number, kind, **fields) for number, (kind, fields) in enumerate(frames)]


def transcript_of(*chunks: bytes, **settings: int) -> Transcript:
    transcript = Transcript(NONCE, **settings)
    for chunk in chunks:
        transcript.feed(chunk)
    return transcript


def outcome_of(*frames: tuple[str, dict[str, Any]], **settings: int) -> Outcome:
    return transcript_of(*lines(*frames), **settings).outcome("x")


def output(data: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "out", {"d": data, **fields}


def file(name: str, data: bytes = b"", at: int = 0, last: bool = True) -> tuple[str, dict[str, Any]]:
    return "file", {"name": name, "at": at, "b": base64.b64encode(data).decode(), "last": last}


def end(*counts: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "end", {**COMPLETED, **dict(zip(COUNTS, counts, strict=False)), **fields}


WHOLE = lines(
    ("ready", {"kernel": "gVisor 4.19.0-gvisor"}),
    ("started", {}),
    output("one "),
    ("err", {"d": "warned"}),
    ("exit", {**COMPLETED, "wall_seconds": 1.5}),
    output("two", skipped=7),
    file("a/b", b"12", last=False),
    file("a/b", b"345", at=2),
    file("empty"),
    end(7, 6, 2, 5, wall_seconds=1.5, cpu_seconds=0.5, peak_memory_bytes=9, left_out=["big: 9 bytes, 1 were left"]),
)


@given(st.lists(st.integers(min_value=0), max_size=8), st.lists(st.binary(max_size=80), max_size=3))
def test_a_whole_reply_cut_anywhere_and_with_garbage_before_it_is_the_same(
    places: list[int], garbage: list[bytes]
) -> None:
    data = b"".join([*garbage, b"\n", *WHOLE])
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    transcript = transcript_of(*(data[a:b] for a, b in pairwise(edges)))
    assert transcript.outcome("x") == transcript_of(*WHOLE).outcome("x")


FIELDS = ("n", "i", "t", "d", "b", "name", "at", "last", "skipped", *End.model_fields)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_frames_with_fields_of_any_type_never_raise(fields: dict[str, Any]) -> None:
    for kind in ("ready", "started", "out", "err", "file", "exit", "end", "other"):
        frame = {"i": 0, **COMPLETED, **fields, "n": NONCE, "t": kind}
        outcome = transcript_of(json.dumps(frame).encode() + b"\n").outcome("x")
        for text in (outcome.message, outcome.signal, outcome.kernel, *outcome.files_left_out):
            assert "\n" not in text
            text.encode()
        "".join(file.name for file in outcome.files).encode()


def test_a_whole_reply_is_its_programs_outcome() -> None:
    transcript = transcript_of(*WHOLE)
    assert (transcript.gap, transcript.started, transcript.exited, transcript.ended) == ("", True, True, True)
    assert transcript.outcome("x") == Outcome(
        name="x",
        reason=Reason.COMPLETED,
        exit_code=0,
        started=True,
        stdout=b"one \n[... 7 bytes left out ...]\ntwo",
        stderr=b"warned",
        stdout_dropped=7,
        files=(File(name="a/b", content=b"12345"), File(name="empty", content=b"")),
        files_left_out=("big: 9 bytes, 1 were left",),
        wall_seconds=1.5,
        cpu_seconds=0.5,
        peak_memory_bytes=9,
        kernel="gVisor 4.19.0-gvisor",
    )


@given(st.sets(st.sampled_from(range(len(WHOLE))), min_size=1))
def test_a_reply_without_any_of_its_frames_is_never_success(lost: set[int]) -> None:
    outcome = transcript_of(*(frame for number, frame in enumerate(WHOLE) if number not in lost)).outcome("x")
    verdict_known = not {4, len(WHOLE) - 1} <= lost
    assert outcome.reason is (Reason.REPLY_INCOMPLETE if verdict_known else Reason.SANDBOX_LOST)
    assert outcome.exit_code == (0 if verdict_known else None)
    assert {(file.name, file.content) for file in outcome.files} <= {("a/b", b"12345"), ("empty", b"")}


@pytest.mark.parametrize(
    ("lost", "missing", "left_out"),
    [
        ({0, 1, 2}, "3 frames, 4 bytes of standard output", []),
        ({3}, "1 frame, 6 bytes of standard error", []),
        ({6}, "1 frame, 1 file, 5 bytes of files", ["a/b: a part of it did not arrive"]),
        ({7}, "1 frame, 1 file, 5 bytes of files", ["a/b: a part of it did not arrive"]),
        ({5, 9}, "1 frame, its end", []),
    ],
)
def test_what_is_missing_is_named(lost: set[int], missing: str, left_out: list[str]) -> None:
    outcome = transcript_of(*(frame for number, frame in enumerate(WHOLE) if number not in lost)).outcome("x")
    assert outcome.message.startswith(
        f"the program ended with exit code 0, but a part of its reply did not arrive: {missing}. The node may have cut"
    )
    assert list(outcome.files_left_out) == [*([] if 9 in lost else ["big: 9 bytes, 1 were left"]), *left_out]


def test_the_cause_of_the_programs_end_is_kept_beside_what_is_missing() -> None:
    verdict = {"reason": "DeadlineExceeded", "exit_code": 137, "signal": "SIGKILL", "message": "killed after 5 s"}
    outcome = outcome_of(("started", {}), ("exit", verdict))
    assert (outcome.reason, outcome.exit_code, outcome.signal) == (Reason.REPLY_INCOMPLETE, 137, "SIGKILL")
    assert outcome.message.startswith("the program ended with exit code 137 (killed after 5 s), but ")


def test_counts_that_do_not_add_up_are_never_success() -> None:
    for counts, missing in (
        ((4,), "1 byte of standard output"),
        ((2,), "-1 bytes of standard output"),
    ):
        outcome = outcome_of(output("abc"), end(*counts))
        assert (outcome.reason, missing in outcome.message) == (Reason.REPLY_INCOMPLETE, True)


def test_a_frame_that_comes_again_is_ignored() -> None:
    assert transcript_of(*WHOLE[:6], *WHOLE[3:]).outcome("x") == transcript_of(*WHOLE).outcome("x")


def test_without_a_word_on_the_program_the_sandbox_is_lost_with_what_arrived() -> None:
    outcome = transcript_of(*WHOLE[1:4], WHOLE[4][:-5]).outcome("x")
    assert (outcome.reason, outcome.started, outcome.stdout, outcome.exit_code) == (
        Reason.SANDBOX_LOST,
        True,
        b"one ",
        None,
    )


def test_a_refusal_of_the_runner_is_told_as_it_is() -> None:
    outcome = outcome_of(end(reason="IsolationMissing", exit_code=None, message="no gVisor"))
    assert (outcome.reason, outcome.message, outcome.started) == (Reason.ISOLATION_MISSING, "no gVisor", False)


def test_nothing_after_the_end_counts() -> None:
    assert outcome_of(end(), output("late"), end(exit_code=1)) == outcome_of(end())


@given(
    st.builds(
        Request,
        code=text_of_any_kind,
        files=st.lists(st.builds(File, name=text_of_any_kind, content=st.binary()), max_size=3).map(tuple),
        argv=st.lists(text_of_any_kind, max_size=3).map(tuple),
        env=st.dictionaries(text_of_any_kind, text_of_any_kind, max_size=3),
        gvisor=st.booleans(),
    )
)
def test_request_document_is_ascii_and_carries_everything(request_: Request) -> None:
    document = json.loads(encode_request(request_, NONCE).decode("ascii"))
    assert (document.pop("version"), document.pop("nonce")) == (2, NONCE)
    for found in document["files"]:
        found.update(content=base64.b64decode(found["content"]), mime_type="application/octet-stream")
    limits = {name: document["limits"].pop(name) for name in ("timeout_seconds", "memory_bytes", "cpu_count")}
    document.update(limits, argv=tuple(document["argv"]), limits=Limits(**document["limits"]))
    document["files"] = tuple(File(**found) for found in document["files"])
    assert Request(**document) == request_


@pytest.mark.parametrize(
    "forged",
    [
        line(0, "end", **COMPLETED).replace(NONCE.encode(), b"fedcba9876543210"),
        b'{"i":0,"t":"end","exit_code":0,"reason":"Completed"}\n',
        b'{"n":"%s","t":"end","exit_code":0,"reason":"Completed"}\n' % NONCE.encode(),
        *(prefix + line(0, "end", **COMPLETED) for prefix in (b" ", b"[", b"x")),
        b'{"a":' + b"[" * 60_000 + b"\n",
        line(0, "file", name=7),
    ],
)
def test_line_that_is_no_frame_of_this_reply_is_ignored(forged: bytes) -> None:
    transcript = transcript_of(forged)
    assert (transcript.exited, transcript.started) == (False, False)


@pytest.mark.parametrize(
    "claim",
    [
        *(
            {"reason": reason, "exit_code": None}
            for reason in ("Aborted", "ReplyIncomplete", "Evicted", "nonsense", None)
        ),
        *({"exit_code": code} for code in (1, None, "0", False)),
        *({"reason": "Error", "exit_code": code} for code in (256, -1, 10**400, None)),
        {"signal": "SIGKILL"},
        {"reason": "SandboxLost"},
        *({"wall_seconds": value} for value in (1e300, -1, float("nan"), 10**400)),
        {"peak_memory_bytes": 10**400},
        {"left_out": [7]},
    ],
)
def test_a_claim_that_is_not_the_runners_to_make_is_refused(claim: dict[str, Any]) -> None:
    assert not transcript_of(*lines(end(**claim))).ended


def test_texts_of_a_reply_are_bounded_and_one_line_each() -> None:
    long = "\x1b[2J\n" * 9999
    outcome = outcome_of(
        ("ready", {"kernel": long[:20]}),
        (
            "end",
            {"reason": "Error", "exit_code": 1, "message": long[:9000], "signal": long[:90], "left_out": ["\n"] * 99},
        ),
    )
    assert (len(outcome.message), len(outcome.signal), len(outcome.files_left_out)) == (1000, 20, 60)
    for text in (outcome.message, outcome.signal, outcome.kernel, *outcome.files_left_out):
        assert text.isprintable()


def test_endless_line_takes_no_memory_and_what_follows_is_read() -> None:
    decoder = Decoder(NONCE)
    for _ in range(100):
        assert decoder.feed(b'{"' + b"x" * 50_000) == []
        assert len(decoder._rest) <= LINE_BYTES
    assert [frame.kind for frame in decoder.feed(line(0, "started") + line(1, "ready"))] == ["ready"]


def test_bytes_beyond_the_reply_are_not_kept_and_no_success() -> None:
    outcome = outcome_of(output("abcd"), output("efgh"), file("f", b"ij"), end(8, 0, 1, 2), reply_bytes=6)
    assert (outcome.stdout, outcome.files, outcome.reason) == (b"abcdef", (), Reason.REPLY_INCOMPLETE)


def test_a_stream_is_cut_once() -> None:
    outcome = outcome_of(*[output("", skipped=3)] * 1000)
    assert (outcome.stdout_dropped, outcome.stdout.count(b"left out")) == (3, 1)


def test_files_beyond_the_count_are_not_kept_and_the_first_are_named() -> None:
    outcome = outcome_of(*(file(f"f{number}") for number in range(2000)), file_count=3)
    assert [kept.name for kept in outcome.files] == ["f0", "f1", "f2"]
    assert outcome.files_left_out[0] == "f3: more than 3 files"
    assert (len(outcome.files_left_out), outcome.files_left_out[-1]) == (51, "and 1947 more")


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("A/x", "a/X"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE/x")],
)
def test_of_names_that_clash_the_first_is_kept(first: str, second: str) -> None:
    outcome = outcome_of(file(first, b"1"), file(second, b"2"))
    assert [(kept.name, kept.content) for kept in outcome.files] == [(first, b"1")]
    assert outcome.files_left_out == (
        f"{second}: another file has this name, or one that some file systems take for the same",
    )


@given(st.lists(st.text("aA/e\u0301\u00e9.", max_size=4), max_size=12))
def test_the_files_kept_can_be_written_to_one_folder_of_any_file_system(names: list[str]) -> None:
    outcome = outcome_of(*map(file, names), file_count=5)
    keys = [normalize("NFC", kept.name.casefold()) for kept in outcome.files]
    assert len(keys) == len(set(keys)) <= 5
    assert not any(key.startswith(f"{other}/") for key in keys for other in keys)
    assert len(outcome.files) + len(outcome.files_left_out) == len(names)


@pytest.mark.parametrize(
    "name",
    [
        *("", "../up", "a/../../up", "/etc/passwd", "a//b", "./a", "a/", "..", "."),
        *("a\nb", "a\x1b[2J", "a\u2028b", "n" * 256, "n/" * 2048 + "n"),
    ],
)
def test_a_file_name_that_leads_elsewhere_or_cannot_be_shown_is_refused_and_named(name: str) -> None:
    outcome = outcome_of(file(name), end(0, 0, 1, left_out=["x: big"]))
    assert (outcome.files, outcome.reason) == ((), Reason.COMPLETED)
    first, refused = outcome.files_left_out
    assert first == "x: big"
    assert refused.isprintable()


@pytest.mark.parametrize(
    "name",
    ["report: final.png", "Screenshot 10.02\u202fPM.png", "图\u3000一.csv", ".git/hooks/x", "a\\b", "ab/c", "a-/b"],
)
def test_other_names_are_kept_as_they_are(name: str) -> None:
    outcome = outcome_of(file("a/b"), file(name))
    assert outcome.files[1].name == name
    assert (outcome.files[1].mime_type == "image/png") == name.endswith(".png")


def test_nonces_differ() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
