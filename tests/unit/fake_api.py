"""A Kubernetes API server in this process, for the faults that a real cluster cannot be asked for.

It speaks HTTP/1.1 to the real client, answers exactly the calls of the cold path, and records each one. It
is no model of Kubernetes: a test scripts what the "pod" does and which call fails how.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from adk_gke_sandbox.cluster.manifests import CONTAINER
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.execution import Outcome
from adk_gke_sandbox.paths.attempt import Clock
from adk_gke_sandbox.sandbox import Sandbox
from tests.unit.loopback import Handler, listening, status
from tests.unit.virtual_clock import VirtualClock

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>batch)/v1)/namespaces/[^/]+/(?P<resource>[a-z]+)(?:/[^/]+(?P<sub>/log)?)?"
)

Call = tuple[str, str, str]


@dataclass(kw_only=True)
class Fault:
    """An answer in place of the real one. ``effect`` stores the object first, then fails."""

    status: int = 0
    reason: str = ""
    message: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    truncate: bool = False
    hang_seconds: float = 0
    effect: bool = False


@dataclass
class FakeApi:
    """What the server knows, what it shall do, and what it was asked."""

    watches: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    """Per resource: the events of the first, second ... watch; the last one stays open."""
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: list[bytes] = field(default_factory=list)
    """Bytes of the first, second ... log; ``NONCE`` becomes the request's nonce."""
    faults: dict[tuple[str, str, int], Fault] = field(default_factory=dict)
    """By verb, resource and number of that call, from 1; 0 means every one."""
    hold_log: bool = False
    flow: bool = False
    """Whether a log that is held goes on with output."""
    flow_ends: Callable[[], bool] = lambda: False
    """When it does so no more, and ends well."""
    aborted: Callable[[], bool] = lambda: False
    cut_logs: int = 0
    """How many logs break off after their bytes."""
    jobs: dict[str, Any] = field(default_factory=dict)
    config_maps: list[Any] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    deletions: list[dict[str, list[str]]] = field(default_factory=list)
    pushed: dict[str, queue.SimpleQueue[dict[str, Any]]] = field(
        default_factory=lambda: {"pods": queue.SimpleQueue(), "events": queue.SimpleQueue()}
    )
    """Events for the watch that is open, by resource."""
    times: list[float] = field(default_factory=list)
    date: str = ""
    hangs_over: int = 0
    watches_stay: bool = False
    """Whether a watch stays open after its events, although others follow it."""
    on_call: dict[tuple[str, str], Callable[[], None]] = field(default_factory=dict)
    """Called when a call of this verb and resource arrives."""
    on_log: Callable[[], None] = lambda: None
    stopped: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    kubeconfig: str = ""
    clock: Clock = field(default_factory=VirtualClock)
    lock: threading.Lock = field(default_factory=threading.Lock)
    count: Counter[tuple[str, str]] = field(default_factory=Counter)

    def nonce(self) -> bytes:
        data = {key: text for found in self.config_maps for key, text in found["data"].items()}
        document = "".join(data[key] for key in sorted(data) if key.startswith("request.json"))
        return str(json.loads(document)["nonce"]).encode()

    def verbs(self, resource: str) -> list[str]:
        return [verb for _, name, verb in self.calls if name == resource]


class _Handler(Handler):
    api: FakeApi

    def do_GET(self) -> None:  # noqa: N802 - the name of the base class
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match = _PATH.fullmatch(url.path)
        if match is None:
            return self._answer(*status(404, "NotFound", f"unknown path {url.path}"))
        resource = match["resource"] + (match["sub"] or "")
        single = match[0].rpartition("/")[2] != match["resource"]
        verb = {"POST": "create", "DELETE": "delete"}.get(self.command) or (
            "get" if single else "watch" if query.get("watch", [""])[0].lower() == "true" else "list"
        )
        with self.api.lock:
            self.api.calls.append((match["group"] or "", resource, verb))
            self.api.times.append(time.monotonic())
            self.api.count[verb, resource] += 1
            number = self.api.count[verb, resource]
        self.api.on_call.get((verb, resource), lambda: None)()
        fault = self.api.faults.get((verb, resource, number)) or self.api.faults.get((verb, resource, 0))
        if fault and not fault.effect:
            return self._fail(fault)
        code, answer = self._store(verb, resource, body, query, url.path)
        if fault:
            return self._fail(fault)
        if answer is not None:
            return self._answer(code, answer)
        return self._stream(verb, resource, number)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names of the base class

    def _store(
        self, verb: str, resource: str, body: bytes, query: dict[str, list[str]], path: str
    ) -> tuple[int, dict[str, Any] | None]:
        name = path.rpartition("/")[2]
        match verb, resource:
            case "create", "jobs":
                job = json.loads(body)
                if job["metadata"]["name"] in self.api.jobs:
                    return status(409, "AlreadyExists", "jobs.batch already exists")
                job["metadata"]["uid"] = "uid-1"
                self.api.jobs[job["metadata"]["name"]] = job
                return 201, job
            case "create", "configmaps":
                found = json.loads(body)
                if any(known["metadata"] == found["metadata"] for known in self.api.config_maps):
                    return status(409, "AlreadyExists", "configmaps already exists")
                self.api.config_maps.append(found)
                return 201, found
            case "get", "jobs":
                return 200, self.api.jobs[name]
            case "delete", "jobs":
                self.api.deletions.append(query)
                if self.api.jobs.pop(name, None) is None:
                    return status(404, "NotFound", f'jobs.batch "{name}" not found')
                return status(200, "", "")
            case "list", _:
                return 200, {"metadata": {"resourceVersion": "9"}, "items": self.api.lists.get(resource, [])}
        return 200, None

    def _stream(self, verb: str, resource: str, number: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if verb == "watch":
            script = self.api.watches.get(resource, [])
            for event in script[number - 1] if number <= len(script) else []:
                self._chunk(json.dumps(event).encode() + b"\n")
            stays = self.api.watches_stay or number >= len(script)
            while stays and resource in ("pods", "events") and not self.api.stopped.is_set():
                with contextlib.suppress(queue.Empty):
                    self._chunk(json.dumps(self.api.pushed[resource].get(timeout=0.05)).encode() + b"\n")
        else:
            at = min(number, len(self.api.logs)) - 1
            reply = Reply(self.api.nonce())
            self._chunk(reply.of(self.api.logs[at]) if self.api.logs else b"")
            self.api.on_log()
            if number <= self.api.cut_logs:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            while self.api.flow and not self.api.stopped.wait(0.05):
                self._chunk(reply.of(frame("out", d="more")))
                if self.api.flow_ends():
                    return self._chunk(reply.of(END))
            stays = self.api.hold_log
        if stays:
            self.api.stopped.wait(15)
        self._chunk(b"", last=True)

    def _chunk(self, data: bytes, *, last: bool = False) -> None:
        if not data and not last:
            return
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _fail(self, fault: Fault) -> None:
        if fault.reset:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if fault.hang_seconds:
            self.api.stopped.wait(fault.hang_seconds)
            self.api.hangs_over += 1
            self.close_connection = True
            return None
        if fault.truncate:
            return self._raw(200, b'{"metadata": {"ui', {})
        if fault.body:
            return self._raw(fault.status, fault.body, fault.headers)
        return self._raw(
            fault.status, json.dumps(status(fault.status, fault.reason, fault.message)[1]).encode(), fault.headers
        )

    def _answer(self, code: int, document: dict[str, Any]) -> None:
        self._raw(code, json.dumps(document).encode(), {})

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.api.date or super().date_time_string(timestamp)  # type: ignore[arg-type]

    def _raw(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[FakeApi]:
    """Serve a fake API on a loopback port while the block lasts."""
    api = FakeApi()
    with listening(_Handler, api=api) as api.url:
        try:
            yield api
        finally:
            api.stopped.set()


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until something is true that goes on behind a return."""
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def frame(kind: str, **fields: Any) -> bytes:
    """Return a frame of a reply."""
    return json.dumps({"n": "NONCE", "i": None, "t": kind, **fields}).encode() + b"\n"


class Reply:
    """Gives frames the nonce, their numbers, and to the last one the count of what was sent."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._next = 0
        self._sent = 0

    def of(self, log: bytes) -> bytes:
        lines = log.split(b"\n")
        for at, line in enumerate(lines):
            if b'"i": null' in line:
                lines[at] = line.replace(b"NONCE", self._nonce).replace(b'"i": null', b'"i": %d' % self._next)
                self._next += 1
                found = json.loads(lines[at]) if line.endswith(b"}") else {}
                self._sent += len(found.get("d", "")) if found.get("t") == "out" else 0
                if found.get("t") == "end":
                    lines[at] = json.dumps({**found, "out": self._sent}).encode()
        return b"\n".join(lines)


def pod(state: dict[str, Any], **status: Any) -> dict[str, Any]:
    """Return a pod on a node whose container is in a state; its kubelet has told of none if the state is empty."""
    containers = [{"name": CONTAINER, "state": state}] if state else []
    spec = {"nodeName": "node-1"}
    return {"metadata": {"name": "pod-1"}, "spec": spec, "status": {"containerStatuses": containers, **status}}


def going(found: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that is being deleted."""
    return {**found, "metadata": {**found["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}


def added(found: dict[str, Any], change: str = "ADDED") -> dict[str, Any]:
    """Return the event of a watch that brings an object."""
    return {"type": change, "object": found}


WAITING = pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending")
NEVER_MADE = pod({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}, phase="Failed")
"""The last word of a kubelet on a container that it never had."""

ENDED = pod({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}}, phase="Succeeded")
NO_CONTAINER = Fault(status=400, reason="BadRequest", message="container is waiting to start: ContainerCreating")
RUNNING = pod({"running": {}}, phase="Running")
STARTED = frame("started") + frame("out", d="hello\n")
END = frame("end", reason="Completed", exit_code=0, started=True)
OK = STARTED + END
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}


def run(
    api: FakeApi, *, aborted: Callable[[], bool] | None = None, name: str | None = None, **settings: Any
) -> Outcome:
    """Run a program against the fake."""
    given = {"namespace": "box", "kubeconfig_path": api.kubeconfig, "schedule_timeout_seconds": 60, **settings}
    sandbox = Sandbox(ExecutorConfig(**given), clock=api.clock)
    try:
        return sandbox.run("print('hello')", name=name, aborted=aborted or api.aborted)
    finally:
        sandbox.close()
