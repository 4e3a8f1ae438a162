"""The calls that executions make: as few as promised, and exactly those that the Role allows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.cluster.streams import Stream
from adk_gke_sandbox.contract import EXECUTOR_RULES, Contract
from adk_gke_sandbox.errors import Unreachable
from adk_gke_sandbox.execution import Reason
from adk_gke_sandbox.sandbox import Sandbox

pytestmark = pytest.mark.cluster

Call = tuple[str, str, str]
"""API group, resource, verb."""

CUTS = 8
"""Streams that are cut: enough that the one of the events, which is opened after 0.7 s, is among them."""

BUSY_MAX = 20
"""Executions that may meet a busy node before one of them has to do with five calls."""

FIVE_CALLS: list[Call] = [
    ("batch", "jobs", "create"),
    ("", "configmaps", "create"),
    ("", "pods", "watch"),
    ("", "pods/log", "get"),
    ("batch", "jobs", "delete"),
]

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def call_of(method: str, url: str) -> Call:
    """Return what RBAC sees of a request."""
    path, _, query = url.partition("?")
    found = re.search(r"/(?:api|apis/([^/]+))/v1/namespaces/[^/]+/([^/]+)(?:/([^/]+))?(?:/([^/]+))?$", path)
    assert found, url
    group, resource, name, subresource = found.groups()
    verb = VERBS.get(method) or ("get" if name else "watch" if "watch=true" in query.lower() else "list")
    return group or "", f"{resource}/{subresource}" if subresource else resource, verb


@pytest.fixture
def calls(sandbox: Sandbox) -> list[Call]:
    """Every request that the sandbox sends, in order."""
    manager: Any = sandbox._connected()._client.rest_client.pool_manager
    recorded: list[Call] = []
    send = manager.request

    def request(method: str, url: str, **arguments: Any) -> Any:
        recorded.append(call_of(method, url))
        return send(method, url, **arguments)

    manager.request = request
    return recorded


@pytest.fixture
def no_room_for_pods(admin: client.ApiClient, contract: Contract) -> AbstractContextManager[None]:
    """While it is entered, Jobs are accepted and their pods are not."""

    @contextmanager
    def quota() -> Iterator[None]:
        core = client.CoreV1Api(admin)
        given = {"metadata": {"name": "no-room"}, "spec": {"hard": {"pods": "0"}}}
        core.create_namespaced_resource_quota(contract.namespace, given)
        try:
            while not core.read_namespaced_resource_quota("no-room", contract.namespace).status.hard:
                time.sleep(0.05)
            yield
        finally:
            core.delete_namespaced_resource_quota("no-room", contract.namespace)

    return quota()


def test_an_execution_takes_five_calls(sandbox: Sandbox, calls: list[Call]) -> None:
    seen: list[list[Call]] = []
    # Where other work keeps the cluster busy it takes more: the events of a Job whose pod is not there after 0.7 s, a
    # create that its quota was busy for, a log that was not there yet.
    while len(seen) < BUSY_MAX and FIVE_CALLS not in seen:
        calls.clear()
        assert sandbox.run("print(1)").reason is Reason.COMPLETED
        seen.append(list(calls))
    assert FIVE_CALLS in seen


def test_all_calls_together_are_exactly_the_executors_rules(
    sandbox: Sandbox, calls: list[Call], monkeypatch: pytest.MonkeyPatch, no_room_for_pods: AbstractContextManager[None]
) -> None:
    cluster = sandbox._connected()
    send, read = cluster.request, Stream.read
    lost: list[str] = []

    def lose_the_first_answer(verb: str, path: str, **given: Any) -> dict[str, Any]:
        answer = send(verb, path, **given)
        if not lost:
            lost.append(path)
            raise Unreachable("the answer was lost", verb=verb, target=path, status=None)
        return answer

    # A create whose answer is lost is repeated, and finds the Job of the first try.
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "request", lose_the_first_answer)
        assert sandbox.run("print(1)").reason is Reason.COMPLETED

    # Streams that the server cuts are opened again from a list; without a pod, the Job's events are watched.
    seen: list[Stream] = []

    def read_and_cut(stream: Stream) -> bytes | None:
        if stream in seen or len(seen) == CUTS:
            return read(stream)
        seen.append(stream)
        return None

    with no_room_for_pods, monkeypatch.context() as patch:
        patch.setattr(Stream, "read", read_and_cut)
        sandbox.config = sandbox.config.model_copy(update={"schedule_timeout_seconds": 5})
        assert sandbox.run("print(1)").reason is Reason.QUOTA_EXCEEDED

    allowed = {(rule.api_group, rule.resource, verb) for rule in EXECUTOR_RULES for verb in rule.verbs}
    assert set(calls) == allowed
