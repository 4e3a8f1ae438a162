"""Calls as an API server receives them, and what its answers become."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adk_gke_sandbox import errors
from adk_gke_sandbox.cluster.api import Cluster, connect, resource
from tests.unit.loopback import Server, kubeconfig, serving, status

JOBS = "/apis/batch/v1/namespaces/box/jobs"
LOG = "/api/v1/namespaces/box/pods/x-1/log"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Cluster:
    return connect(kubeconfig(tmp_path / "kubeconfig", "a", a=server.url), read_seconds=0.5)


def refusal(cluster: Cluster, *call: str, **given: Any) -> errors.ClusterError:
    with pytest.raises(errors.ClusterError) as raised:
        cluster.request(*call, **given)
    return raised.value


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (("v1", "nodes"), "/api/v1/nodes"),
        (("v1", "namespaces", "", "box"), "/api/v1/namespaces/box"),
        (("v1", "pods", "box", "x-1", "log"), LOG),
        (("batch/v1", "jobs", "box"), JOBS),
        (("node.k8s.io/v1", "runtimeclasses", "", "a/../b"), "/apis/node.k8s.io/v1/runtimeclasses/a%2F..%2Fb"),
    ],
)
def test_a_path_is_made_of_group_namespace_name_and_subresource(given: tuple[str, ...], path: str) -> None:
    assert resource(*given) == path


@pytest.mark.parametrize(
    ("verb", "method", "body", "content"),
    [
        ("get", "GET", None, "application/json"),
        ("list", "GET", None, "application/json"),
        ("create", "POST", {"metadata": {"name": "ü"}}, "application/json"),
        ("delete", "DELETE", {}, "application/json"),
        ("patch", "PATCH", {"spec": {"suspend": True}}, "application/merge-patch+json"),
    ],
)
def test_a_verb_is_one_request(
    server: Server, cluster: Cluster, verb: str, method: str, body: dict[str, Any] | None, content: str
) -> None:
    server.answer = lambda _: (201, {"kind": "Job"})
    answer = cluster.request(verb, JOBS, body=body, query={"labelSelector": "a=b,c", "limit": "5"}, accept="text/x")
    (asked,) = server.asked
    assert answer == {"kind": "Job"}
    assert (asked.method, asked.path, asked.query) == (method, JOBS, {"labelSelector": "a=b,c", "limit": "5"})
    assert (json.loads(asked.body) if asked.body else None) == body
    headers = [asked.headers[name] for name in ("Accept", "Content-Type", "Authorization")]
    assert headers == ["text/x", content, "Bearer token-of-a"]


def test_calls_one_after_the_other_share_a_connection(server: Server, cluster: Cluster) -> None:
    cluster.request("get", JOBS)
    cluster.now()
    server.answer = lambda _: status(404)
    for _ in range(2):
        refusal(cluster, "get", JOBS)
    assert len({asked.port for asked in server.asked}) == 1


def test_an_object_is_deleted_with_all_it_owns_and_may_be_gone_already(server: Server, cluster: Cluster) -> None:
    server.answer = lambda _: status(404, "NotFound")
    cluster.delete(f"{JOBS}/x")
    assert [(asked.method, asked.query) for asked in server.asked] == [("DELETE", {"propagationPolicy": "Background"})]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.ClusterError),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (429, "TooManyRequests", errors.ClusterError),
        (503, "ServiceUnavailable", errors.ClusterError),
    ],
)
def test_a_refusal_is_an_error_with_the_servers_own_sentence(
    server: Server, cluster: Cluster, code: int, reason: str, kind: type[errors.ClusterError]
) -> None:
    server.answer = lambda _: (*status(code, reason, "why not"), {"Retry-After": "2.5"})
    error = refusal(cluster, "get", f"{JOBS}/x")
    assert type(error) is kind
    assert str(error) == "get jobs.batch box/x: why not"
    assert (error.verb, error.target, error.status, error.retry_after_seconds) == ("get", "jobs.batch box/x", code, 2.5)


@pytest.mark.parametrize(
    ("path", "body", "target"),
    [
        (LOG, None, "pods/log box/x-1"),
        (JOBS, {"metadata": {"name": "x"}}, "jobs.batch box/x"),
        ("/api/v1/namespaces/box/pods", None, "pods box"),
        ("/api/v1/namespaces/box", None, "namespaces box"),
        ("/apis/node.k8s.io/v1/runtimeclasses", None, "runtimeclasses.node.k8s.io"),
        ("/version/", None, "version"),
    ],
)
def test_an_error_names_what_was_asked_for(
    server: Server, cluster: Cluster, path: str, body: dict[str, Any] | None, target: str
) -> None:
    server.answer = lambda _: status(500, message="no")
    assert refusal(cluster, "create", path, body=body).target == target


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"\xff"])
def test_a_refusal_without_a_sentence_is_told_by_its_status(server: Server, cluster: Cluster, content: bytes) -> None:
    server.answer = lambda _: (502, content)
    assert str(refusal(cluster, "list", JOBS)) == "list jobs.batch box: HTTP 502 Bad Gateway"


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_wait_that_makes_no_sense_is_not_waited(server: Server, cluster: Cluster, value: str) -> None:
    server.answer = lambda _: (429, b"{}", {"Retry-After": value})
    assert refusal(cluster, "get", JOBS).retry_after_seconds is None


def test_a_call_that_the_server_wants_later_or_elsewhere_is_left_to_the_caller(
    server: Server, cluster: Cluster
) -> None:
    for code, headers in ((429, {"Retry-After": "0"}), (307, {"Location": f"{server.url}/elsewhere"})):
        server.answer = lambda _, code=code, headers=headers: (code, b"{}", headers)
        assert refusal(cluster, "get", JOBS).status == code
    assert [asked.path for asked in server.asked] == [JOBS, JOBS]


@pytest.mark.parametrize(
    "cut",
    [(200, b'{"metadata": {"ui'), (200, b"{}", {"Content-Length": "9"}), (200, b"")],
    ids=["cut", "short", "empty"],
)
def test_an_answer_that_is_not_whole_is_none(server: Server, cluster: Cluster, cut: Any) -> None:
    server.answer = lambda _: cut
    error = refusal(cluster, "create", JOBS, body={})
    assert isinstance(error, errors.Unreachable)
    assert error.message.startswith(f"the API server {server.url} does not answer (create jobs.batch box): ")


def test_a_certificate_that_cannot_be_trusted_is_not_taken_for_silence(server: Server, tmp_path: Path) -> None:
    cluster = connect(kubeconfig(tmp_path / "tls", "a", a=server.url.replace("http", "https")))
    error = refusal(cluster, "get", JOBS)
    assert (type(error), error.status) == (errors.ClusterError, None)
    assert error.message.startswith("get jobs.batch box: [SSL")


def test_a_stream_is_the_bytes_of_the_answer(server: Server, cluster: Cluster) -> None:
    server.answer = lambda _: (200, b"a\r\n\xff")
    woken = threading.Semaphore(0)
    stream = cluster.stream("get", LOG, query={"follow": "true"}, wake=woken.release)
    assert woken.acquire(timeout=10)
    assert woken.acquire(timeout=10)
    assert (stream.read(), stream.read()) == (b"a\r\n\xff", None)
    assert (server.asked[0].path, server.asked[0].query) == (LOG, {"follow": "true"})


def test_a_stream_that_is_refused_is_an_error(server: Server, cluster: Cluster) -> None:
    server.answer = lambda _: status(400, "BadRequest", "is waiting to start")
    with pytest.raises(errors.ClusterError, match="get pods/log box/x-1: is waiting to start"):
        cluster.stream("get", LOG)


def test_a_watch_starts_anew_from_a_list_of_the_same_objects(server: Server, cluster: Cluster) -> None:
    server.answer = lambda asked: (200, b"" if "watch" in asked.query else {"metadata": {"resourceVersion": "9"}})
    watch = cluster.watch("/api/v1/namespaces/box/pods", query={"labelSelector": "a=b"})
    watch.reopen()
    watch.close()
    selected = {"labelSelector": "a=b"}
    assert [asked.query for asked in server.asked] == [
        {**selected, "watch": "true"},
        selected,
        {**selected, "watch": "true", "resourceVersion": "9"},
    ]


@pytest.mark.parametrize("date", ["", "today"])
def test_the_time_is_the_servers_or_this_machines_where_that_tells_none(
    server: Server, cluster: Cluster, date: str
) -> None:
    server.answer = lambda _: (200, {}, {"Date": "Mon, 02 Jan 2040 03:04:05 GMT"})
    assert cluster.now() == datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    server.answer = lambda _: (200, {}, {"Date": date})
    assert abs((cluster.now() - datetime.now(UTC)).total_seconds()) < 60


def test_a_server_that_is_silent_does_not_answer(server: Server, cluster: Cluster) -> None:
    over = threading.Event()
    server.answer = lambda _: (200, {"waited": over.wait(10)})
    assert isinstance(refusal(cluster, "get", JOBS), errors.Unreachable)
    over.set()
