"""Answers of the API server that arrive piece by piece: a followed log, a watch. Knows no Kubernetes client."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

import urllib3

STREAM_BACKLOG: Final = 64
"""Chunks that a reading thread may be ahead of its consumer; bounds the memory of a flood."""

_CHUNK_BYTES: Final = 64 * 1024

Change = tuple[str, dict[str, Any]]
"""``ADDED``, ``MODIFIED`` or ``DELETED``, and the object."""


class Stream:
    """An answer that arrives piece by piece: a watch, or a followed log.

    A daemon thread reads and wakes the consumer, which never blocks on the connection and so can look at its clock.

    Attributes:
        cut: Whether the answer broke off. An orderly end has the last chunk of a chunked answer
            (https://www.rfc-editor.org/rfc/rfc9112#section-8).
    """

    def __init__(self, response: Any, wake: Callable[[], None] = lambda: None) -> None:
        """Read an answer.

        Args:
            response: The answer of the HTTP library, with its body unread.
            wake: Called by the reading thread whenever there is something to read, and at the end.
        """
        self.cut = False
        self._response = response
        self._wake = wake
        self._chunks: queue.Queue[bytes | None] = queue.Queue(STREAM_BACKLOG)
        self._closed = threading.Event()
        if (sock := self._socket()) is not None:
            # The timeout was for the beginning of the answer. A silent stream is nothing unusual; a dead one is found
            # by TCP's keep-alive.
            sock.settimeout(None)
        threading.Thread(target=self._receive, name="adk-gke-sandbox-stream", daemon=True).start()

    def _receive(self) -> None:
        try:
            for chunk in self._response.stream(_CHUNK_BYTES, decode_content=False):
                if not self._put(chunk):
                    return
        # Closing the socket under the reader raises different errors in different releases of urllib3.
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            self.cut = not self._closed.is_set()
        finally:
            self._put(None)
            self._response.close()

    def _put(self, chunk: bytes | None) -> bool:
        while not self._closed.is_set():
            try:
                self._chunks.put(chunk, timeout=0.5)
            except queue.Full:
                continue
            self._wake()
            return True
        return False

    def read(self) -> bytes | None:
        """Return what has arrived, ``b""`` if nothing has, ``None`` once all has been read and the stream is over."""
        found: list[bytes] = []
        while not self._closed.is_set():
            try:
                chunk = self._chunks.get_nowait()
            except queue.Empty:
                return b"".join(found)
            if chunk is None:
                self._closed.set()
            else:
                found.append(chunk)
        return b"".join(found) if found else None

    def close(self) -> None:
        """End the stream and its thread; safe to call twice."""
        self._closed.set()
        if (sock := self._socket()) is not None:
            try:
                # Not SSLSocket.shutdown, which drops the TLS state that the reading thread is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                return

    def _socket(self) -> socket.socket | None:
        sock = getattr(getattr(self._response, "connection", None), "sock", None)
        if sock is None:
            # A connection that the server wants closed has let go of its socket; the answer still reads from it.
            reader = getattr(getattr(self._response, "_fp", None), "fp", None)
            sock = getattr(getattr(reader, "raw", None), "_sock", None)
        return sock if isinstance(sock, socket.socket) else None


class Watch:
    """Objects of one kind as they change; starts with those that exist.

    A watch that the server ends, cuts or declares too old has to be opened again: from a fresh list, so that
    no deletion in between is missed.
    """

    def __init__(self, list_now: Callable[[], dict[str, Any]], open_from: Callable[[str], Stream]) -> None:
        """Open the watch.

        Args:
            list_now: Returns a list of the objects.
            open_from: Opens the stream from a resourceVersion; an empty one begins with what exists.
        """
        self._list = list_now
        self._open = open_from
        self._known: set[str] = set()
        self._rest = b""
        self._closed = False
        self._stream = open_from("")

    def read(self) -> list[Change] | None:
        """Return the changes that have arrived, or ``None`` once the watch is over: ``reopen`` it."""
        chunk = self._stream.read()
        if chunk is None:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        changes: list[Change] = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                change, found = event["type"], event["object"]
                if change not in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
                    continue
                name = found["metadata"]["name"]
            except (ValueError, LookupError, TypeError, AttributeError):
                # An ERROR is among these: what it brings is no object of the list.
                self._stream.close()
                break
            changes.append((change, found))
            (self._known.discard if change == "DELETED" else self._known.add)(name)
        return changes

    def reopen(self) -> list[Change]:
        """Open the watch again and return what has changed meanwhile; if it raises, it may be called again.

        An object that is gone is told ``DELETED`` with its name alone: nobody knows its last state.

        Raises:
            ClusterError: the server does not answer, or refuses.
        """
        self._stream.close()
        self._rest = b""
        listed = self._list()
        items = listed.get("items") or []
        self._stream = self._open((listed.get("metadata") or {}).get("resourceVersion", ""))
        if self._closed:
            # Whoever waited for this call has given it up.
            self._stream.close()
        names = {item["metadata"]["name"] for item in items}
        gone: list[Change] = [("DELETED", {"metadata": {"name": name}}) for name in sorted(self._known - names)]
        self._known = names
        return gone + [("MODIFIED", item) for item in items]

    def close(self) -> None:
        """End the watch, even one that is being opened again; safe to call twice."""
        self._closed = True
        self._stream.close()
