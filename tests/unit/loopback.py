"""HTTP servers in this process that answer as a test says and note what they were asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as a server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    port: int
    """The client's; tells connections apart."""


@dataclass
class Server:
    """A server; ``answer`` returns a status and a document, bytes, or a status, bytes and headers."""

    answer: Callable[[Asked], Any] = lambda _: (200, {})
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def tokens(self) -> list[str]:
        return [asked.headers.get("Authorization", "") for asked in self.asked]


class Handler(BaseHTTPRequestHandler):
    """Keeps connections, and says nothing of what it does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        pass


@contextmanager
def listening(handler: type[Handler], **attributes: Any) -> Iterator[str]:
    """Answer with a handler that has these attributes while the block lasts; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Listening", (handler,), attributes))
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(Handler):
    server_state: Server

    def do_GET(self) -> None:
        url, size = urlsplit(self.path), int(self.headers.get("Content-Length") or 0)
        query, body = dict(parse_qsl(url.query)), self.rfile.read(size)
        asked = Asked(self.command, url.path, query, dict(self.headers), body, self.client_address[1])
        self.server_state.asked.append(asked)
        status, content, headers = (*self.server_state.answer(asked), {})[:3]
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        with contextlib.suppress(OSError):  # a client may have lost its patience
            self.end_headers()
            self.wfile.write(data)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names of the base class


@contextmanager
def serving(answer: Callable[[Asked], Any] = lambda _: (200, {})) -> Iterator[Server]:
    """Serve on a loopback port while the block lasts."""
    state = Server(answer)
    with listening(_Handler, server_state=state) as state.url:
        yield state


def kubeconfig(path: Path, current: str, *, users: dict[str, Any] | None = None, **servers: str) -> str:
    """Write a kubeconfig with a context, a cluster and a user of one name for each server; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {name: {"token": f"token-of-{name}"} for name in servers} | (users or {})
    document = {
        "current-context": current,
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
        "users": [{"name": name, "user": user} for name, user in given.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in servers],
    }
    path.write_text(json.dumps(document))
    return str(path)


def status(code: int, reason: str = "", message: str = "") -> tuple[int, dict[str, Any]]:
    """Return the answer of an API server that refuses."""
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}
