"""Followed answers over real connections to a server that sends exactly what a test says."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import urllib3

from adk_gke_sandbox.cluster.streams import STREAM_BACKLOG, Stream, Watch
from adk_gke_sandbox.errors import Unreachable

END: Final = "the answer ends"
CUT: Final = "the connection closes in the middle of a chunk"
RESET: Final = "the connection is reset"


class Server:
    """Answers each connection with the pieces that are put into its queue; notes when the client is gone."""

    def __init__(self, connection: str) -> None:
        self._head = f"HTTP/1.1 200 OK\r\nConnection: {connection}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        self.pieces: queue.SimpleQueue[bytes | str] = queue.SimpleQueue()
        self.sent = 0
        self.client_gone = threading.Event()
        self.news = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def open(self, read_seconds: float = 30.0) -> Stream:
        """Return a stream of an answer, as the Kubernetes client would open it."""
        port = self._listener.getsockname()[1]
        timeout = urllib3.Timeout(connect=5.0, read=read_seconds)
        pool = urllib3.HTTPConnectionPool("127.0.0.1", port, retries=False)
        return Stream(pool.request("GET", "/", preload_content=False, timeout=timeout), self.news.set)

    def stop(self) -> None:
        self._stopped.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(self._head)
        connection.settimeout(0.02)
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                if connection.recv(1) == b"":
                    return self.client_gone.set()
            with contextlib.suppress(queue.Empty):
                while True:
                    piece = self.pieces.get_nowait()
                    if piece == END:
                        return connection.sendall(b"0\r\n\r\n")
                    if piece == CUT:
                        return connection.sendall(b"ff\r\nhalf")
                    if piece == RESET:
                        return connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    assert isinstance(piece, bytes)
                    self._send(connection, b"%x\r\n%s\r\n" % (len(piece), piece))
        return None

    def _send(self, connection: socket.socket, data: bytes) -> None:
        while data and not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                size = connection.send(data)
                self.sent += size
                data = data[size:]


@pytest.fixture(params=["keep-alive", "close"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(request.param)
    yield made
    made.stop()


def wait_for(server: Server, seconds: float = 10) -> None:
    server.news.wait(seconds)
    server.news.clear()


def read(server: Server, stream: Stream, seconds: float = 10) -> bytes | None:
    """Return what a stream tells next, waiting for it as long as that."""
    if (found := stream.read()) == b"":
        wait_for(server, seconds)
        found = stream.read()
    return found


def whole(server: Server, stream: Stream) -> bytes:
    """Return all that a stream tells until its end."""
    found = b""
    while (chunk := read(server, stream)) is not None:
        found += chunk
    return found


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "adk-gke-sandbox-stream"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threads():
        thread.join(10)
    assert threads() == []


# Streams


def test_bytes_arrive_as_they_were_sent(server: Server) -> None:
    for piece in (b"a\r\n", b"\xff\x00", b"b" * 200_000, END):
        server.pieces.put(piece)
    assert whole(server, server.open()) == b"a\r\n\xff\x00" + b"b" * 200_000


def test_a_silent_stream_gives_nothing_and_goes_on(server: Server) -> None:
    stream = server.open()
    assert read(server, stream, 0.05) == b""
    server.pieces.put(b"later")
    assert read(server, stream) == b"later"
    stream.close()


def test_a_silent_stream_outlives_the_timeout_of_its_first_byte(server: Server) -> None:
    stream = server.open(read_seconds=0.1)
    assert read(server, stream, 0.4) == b""
    server.pieces.put(b"later")
    assert read(server, stream) == b"later"
    stream.close()


@pytest.mark.parametrize(("end", "cut"), [(END, False), (CUT, True), (RESET, True)], ids=["end", "cut", "reset"])
def test_d11_a_stream_tells_its_end_from_a_cut_after_what_it_had_and_stays_there(
    server: Server, end: str, cut: bool
) -> None:
    stream = server.open()
    server.pieces.put(b"told")
    assert read(server, stream) == b"told"
    server.pieces.put(end)
    assert whole(server, stream) in (b"", b"half")
    assert stream.read() is None
    assert stream.cut is cut


def test_a_stream_that_is_closed_frees_its_thread_and_its_connection(server: Server) -> None:
    stream = server.open()
    server.pieces.put(b"told")
    assert read(server, stream) == b"told"
    stream.close()
    stream.close()
    assert stream.read() is None
    assert server.client_gone.wait(10)


def test_a_flood_that_nobody_reads_is_held_back(server: Server) -> None:
    stream = server.open()
    server.pieces.put(bytes(64 * 2**20))
    until = time.monotonic() + 10
    while not stream._chunks.full():
        assert time.monotonic() < until
        time.sleep(0.01)
    # What is not in the backlog waits in the kernel's buffers, a few MiB each.
    assert sum(len(chunk or b"") for chunk in stream._chunks.queue) <= STREAM_BACKLOG * 64 * 1024
    assert server.sent < 40 * 2**20
    stream.close()


# Watches


class Cluster:
    """Lists in turn, and where each watch was opened from."""

    def __init__(self, server: Server, *lists: Any) -> None:
        self.versions: list[str] = []
        self._lists = iter(lists)
        self._server = server

    def list(self) -> dict[str, Any]:
        found = next(self._lists)
        if isinstance(found, Exception):
            raise found
        return dict(found)

    def watch(self) -> Watch:
        def open_from(version: str) -> Stream:
            self.versions.append(version)
            return self._server.open()

        return Watch(self.list, open_from)


def pod(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **fields}}


def event(change: str, found: Any) -> bytes:
    return json.dumps({"type": change, "object": found}).encode() + b"\n"


def listed(*items: dict[str, Any], version: str = "9") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version}, "items": list(items)}


def read_all(server: Server, watch: Watch) -> list[Any]:
    """Return all changes until the watch is over."""
    found: list[Any] = []
    while (changes := watch.read()) is not None:
        found += changes
        if not changes:
            # Lines that tell nothing may have come together with the end, of which there is no news then.
            wait_for(server, 0.2)
    return found


BOOKMARK = event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "77"}})
CHANGES = [("ADDED", pod("a")), ("MODIFIED", pod("a", labels={"x": "ü"})), ("DELETED", pod("a"))]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_watch_tells_changes_in_order_however_the_lines_are_cut(server: Server, size: int) -> None:
    text = b"".join(event(*change) for change in CHANGES)
    for at in range(0, len(text), size):
        server.pieces.put(text[at : at + size])
    server.pieces.put(END)
    assert read_all(server, Cluster(server).watch()) == CHANGES


@pytest.mark.parametrize("line", [BOOKMARK, event("SOMETHING", {}), b"\n", b"  \n"], ids=repr)
def test_a_line_that_tells_nothing_is_passed_over(server: Server, line: bytes) -> None:
    for piece in (line, event("ADDED", pod("a")), line, END):
        server.pieces.put(piece)
    assert read_all(server, Cluster(server).watch()) == [("ADDED", pod("a"))]


@pytest.mark.parametrize(
    "line",
    [
        event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}),
        b'{"type": "ADDED", "object": {"metad\n',
        b'{"type": "ADDED"}\n',
        b"[]\n",
        b"null\n",
        event("ADDED", 7),
        event("ADDED", {"metadata": None}),
        b"\xff\xfe\n",
    ],
    ids=repr,
)
def test_a_line_that_makes_no_sense_ends_the_watch_after_what_came_before(server: Server, line: bytes) -> None:
    server.pieces.put(event("ADDED", pod("a")) + line + event("ADDED", pod("b")))
    watch = Cluster(server).watch()
    assert read_all(server, watch) == [("ADDED", pod("a"))]


def test_a_watch_begins_with_what_exists(server: Server) -> None:
    cluster = Cluster(server)
    cluster.watch().close()
    assert cluster.versions == [""]


def test_an_event_that_was_cut_is_no_change_and_not_mixed_with_the_next_watch(server: Server) -> None:
    for piece in (b'{"type": "ADDED", "obj', END):
        server.pieces.put(piece)
    watch = Cluster(server, listed()).watch()
    assert read_all(server, watch) == []
    assert watch.reopen() == []
    for piece in (event("ADDED", pod("a")), END):
        server.pieces.put(piece)
    assert read_all(server, watch) == [("ADDED", pod("a"))]


def test_a_watch_that_is_opened_again_tells_what_was_deleted_meanwhile(server: Server) -> None:
    for piece in (*(event("ADDED", pod(name)) for name in "abc"), event("DELETED", pod("b")), END):
        server.pieces.put(piece)
    cluster = Cluster(server, listed(pod("c"), pod("d"), version="41"))
    watch = cluster.watch()
    read_all(server, watch)
    assert watch.reopen() == [("DELETED", pod("a")), ("MODIFIED", pod("c")), ("MODIFIED", pod("d"))]
    assert cluster.versions == ["", "41"]
    watch.close()


def test_an_object_of_a_list_that_is_gone_in_the_next_is_told_deleted(server: Server) -> None:
    cluster = Cluster(server, listed(pod("a")), {"metadata": {}, "items": None}, listed())
    watch = cluster.watch()
    assert watch.reopen() == [("MODIFIED", pod("a"))]
    assert watch.reopen() == [("DELETED", pod("a"))]
    assert watch.reopen() == []
    watch.close()


def test_a_watch_that_is_closed_while_it_is_opened_again_ends(server: Server) -> None:
    def list_now() -> dict[str, Any]:
        watch.close()
        return listed()

    watch = Watch(list_now, lambda _: server.open())
    watch.reopen()
    assert watch.read() is None


@pytest.mark.parametrize("where", ["list", "open"])
def test_a_watch_that_cannot_be_opened_again_may_be_asked_once_more_and_loses_nothing(
    server: Server, where: str
) -> None:
    failure = Unreachable("no", verb="list", target="pods", status=None)
    opened = iter([None, failure] if where == "open" else [None])
    lists: list[Any] = [failure, listed()] if where == "list" else [listed(), listed()]
    cluster = Cluster(server, *lists)

    def open_from(version: str) -> Stream:
        if (found := next(opened, None)) is not None:
            raise found
        return server.open()

    for piece in (event("ADDED", pod("a")), END):
        server.pieces.put(piece)
    watch = Watch(cluster.list, open_from)
    read_all(server, watch)
    with pytest.raises(Unreachable):
        watch.reopen()
    assert watch.reopen() == [("DELETED", pod("a"))]
    watch.close()
