"""Round trips under arbitrary cuts; garbage and forgeries change nothing and raise nothing."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adk_gke_sandbox import protocol
from adk_gke_sandbox.execution import File, Limits, Reason, Request
from adk_gke_sandbox.protocol import Decoder, End, FilePart, Frame, Output, Ready, Started, Transcript, encode_request

NONCE = "0123456789abcdef"

text_of_any_kind = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text_of_any_kind,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text_of_any_kind, inner, max_size=3),
    max_leaves=6,
)


def line(kind: str, **fields: Any) -> bytes:
    return json.dumps({"n": NONCE, "t": kind, **fields}).encode() + b"\n"


def encode(frame: Frame) -> bytes:
    match frame:
        case Ready():
            return line("ready", pid=frame.pid, python=frame.python, gvisor=frame.gvisor)
        case Started():
            return line("started")
        case Output():
            return line(frame.stream, b=base64.b64encode(frame.data).decode(), skipped=frame.skipped)
        case FilePart():
            return line("file", name=frame.name, b=base64.b64encode(frame.data).decode(), last=frame.last)
        case End():
            fields = {name: getattr(frame, name) for name in End.__dataclass_fields__}
            return line("end", **fields)


size = st.integers(min_value=0, max_value=2**60)
seconds = st.floats(min_value=0, max_value=1e9)
frames = st.lists(
    st.one_of(
        st.builds(Ready, pid=size, python=st.text(max_size=9), gvisor=st.booleans()),
        st.builds(Started),
        st.builds(Output, stream=st.sampled_from(["out", "err"]), data=st.binary(max_size=300), skipped=size),
        st.builds(FilePart, name=st.text(min_size=1, max_size=9), data=st.binary(max_size=300), last=st.booleans()),
        st.builds(
            End,
            reason=st.sampled_from(Reason),
            message=st.text(max_size=30),
            started=st.booleans(),
            exit_code=st.none() | st.integers(),
            signal=st.text(max_size=9),
            left_out=st.lists(st.text(max_size=9), max_size=3).map(tuple),
            wall_seconds=seconds,
            cpu_seconds=seconds,
            peak_memory_bytes=size,
        ),
    ),
    max_size=6,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(frames, st.lists(st.integers(min_value=0), max_size=8))
def test_frames_survive_any_cut(sent: list[Frame], places: list[int]) -> None:
    decoder = Decoder(NONCE)
    received = [frame for chunk in cut(b"".join(map(encode, sent)), places) for frame in decoder.feed(chunk)]
    assert received == sent
    assert decoder.ignored == 0


@given(st.lists(st.binary(max_size=80), max_size=8), frames)
def test_garbage_before_a_line_changes_no_frame(garbage: list[bytes], sent: list[Frame]) -> None:
    decoder = Decoder(NONCE)
    for chunk in [*garbage, b"\n"]:
        assert decoder.feed(chunk) == []
    assert decoder.feed(b"".join(map(encode, sent))) == sent
    assert decoder.ignored >= 1


@given(st.dictionaries(st.sampled_from([*"ntdb", "name", "last", "skipped", *End.__dataclass_fields__]), json_values))
def test_frames_with_fields_of_any_type_never_raise(fields: dict[str, Any]) -> None:
    for kind in ("ready", "started", "out", "err", "file", "end", "other"):
        transcript = Transcript(NONCE)
        transcript.feed(json.dumps({**fields, "n": NONCE, "t": kind}).encode() + b"\n")
        outcome = transcript.outcome("x")
        (outcome.message + outcome.signal + "".join(outcome.files_left_out)).encode()
        "".join(file.name for file in outcome.files).encode()


@given(frames, st.integers(min_value=0))
def test_reply_cut_anywhere_gives_the_beginning_of_its_output(sent: list[Frame], place: int) -> None:
    data = b"".join(encode(frame) for frame in sent if isinstance(frame, Output))
    whole, part = Transcript(NONCE), Transcript(NONCE)
    whole.feed(data)
    part.feed(data[: place % (len(data) + 1)])
    assert whole.outcome("x").stdout.startswith(part.outcome("x").stdout)
    assert whole.outcome("x").stderr.startswith(part.outcome("x").stderr)


@given(
    st.builds(
        Request,
        code=text_of_any_kind,
        files=st.lists(st.builds(File, name=text_of_any_kind, content=st.binary()), max_size=3).map(tuple),
        argv=st.lists(text_of_any_kind, max_size=3).map(tuple),
        env=st.dictionaries(text_of_any_kind, text_of_any_kind, max_size=3),
    )
)
def test_request_document_is_ascii_and_carries_everything(request_: Request) -> None:
    document = json.loads(encode_request(request_, NONCE).decode("ascii"))
    assert (document["version"], document["nonce"], document["code"]) == (1, NONCE, request_.code)
    assert [(file["name"], base64.b64decode(file["content"])) for file in document["files"]] == [
        (file.name, file.content) for file in request_.files
    ]
    assert (document["argv"], document["env"]) == (list(request_.argv), request_.env)
    derived = {name: document["limits"].pop(name) for name in ("timeout_seconds", "memory_bytes", "cpu_count")}
    assert derived == {name: getattr(request_, name) for name in derived}
    assert Limits(**document["limits"]) == request_.limits


@pytest.mark.parametrize(
    "forged",
    [
        b'{"n":"fedcba9876543210","t":"end","exit_code":0,"reason":"Completed"}\n',
        b'{"t":"end","exit_code":0,"reason":"Completed"}\n',
        b'{"n":null,"t":"end"}\n',
        b" " + line("end"),
        b"[" + line("end"),
        b"x" + line("end"),
        line("nonsense"),
        line("file", name=7),
    ],
)
def test_line_that_is_no_frame_of_this_reply_is_counted_and_ignored(forged: bytes) -> None:
    transcript = Transcript(NONCE)
    transcript.feed(forged)
    assert not transcript.ended
    assert transcript.ignored >= 1


def test_endless_line_takes_no_memory_and_what_follows_is_read() -> None:
    decoder = Decoder(NONCE)
    for _ in range(100):
        assert decoder.feed(b'{"' + b"x" * 50_000) == []
        assert len(decoder._rest) <= protocol.LINE_BYTES
    assert decoder.feed(b"\n" + line("started")) == [Started()]
    assert decoder.ignored == 1


def test_deeply_nested_line_is_ignored() -> None:
    assert Decoder(NONCE).feed(b'{"a":' + b"[" * 60_000 + b"\n") == []


def test_reply_without_end_is_a_lost_sandbox_with_what_arrived() -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("started") + line("out", d="so far") + line("file", name="a", b="eA==") + line("end")[:-5])
    outcome = transcript.outcome("x")
    assert (outcome.reason, outcome.started, outcome.stdout) == (Reason.SANDBOX_LOST, True, b"so far")
    assert outcome.files == ()


def test_file_in_parts_is_put_together_and_gets_its_mime_type() -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("file", name="p.png", b="AAEC") + line("file", name="p.png", b="Aw==", last=True))
    assert transcript.outcome("x").files == (File(name="p.png", content=b"\0\1\2\3", mime_type="image/png"),)


def test_gap_is_marked_where_it_is_and_counted() -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("out", d="head") + line("out", d="tail", skipped=7))
    outcome = transcript.outcome("x")
    assert outcome.stdout == b"head\n[... 7 bytes left out ...]\ntail"
    assert outcome.stdout_dropped == 7


def test_nothing_after_the_end_counts() -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("end", reason="Completed", exit_code=0) + line("out", d="late") + line("end", exit_code=1))
    assert (transcript.outcome("x").exit_code, transcript.outcome("x").stdout) == (0, b"")


def test_transcript_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REPLY_BYTES", 10)
    transcript = Transcript(NONCE)
    for _ in range(5):
        transcript.feed(line("out", d="abcd"))
    assert transcript.outcome("x").stdout == b"abcdabcdab"


def test_nonces_differ() -> None:
    assert len({protocol.new_nonce() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "name",
    ["../up", "a/../../up", "/etc/passwd", "a//b", "./a", "a/", "..", ".", "a\nb", "a\x1b[2J", "a\u2028b", "n" * 256],
)
def test_a_file_name_that_leads_elsewhere_or_cannot_be_shown_is_refused_and_named(name: str) -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("file", name=name, b="", last=True) + line("end", reason="Completed", left_out=["x: big"]))
    outcome = transcript.outcome("e1")
    assert outcome.files == ()
    first, refused = outcome.files_left_out
    assert first == "x: big"
    assert refused.isprintable()


@pytest.mark.parametrize(
    "name", ["report: final.png", "Screenshot 10.02\u202fPM.png", "图\u3000一.csv", ".git/hooks/x", "a\\b"]
)
def test_other_names_are_kept_as_they_are(name: str) -> None:
    transcript = Transcript(NONCE)
    transcript.feed(line("file", name=name, b="", last=True))
    assert [file.name for file in transcript.outcome("e1").files] == [name]
