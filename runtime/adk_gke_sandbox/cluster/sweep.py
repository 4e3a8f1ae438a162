"""Finds and removes what executions have left behind when nothing else can.

Deadlines, owner references and TTL clean up after a client that dies. What they cannot reach is here: a Job that is
suspended or whose controller was down, a pod or ConfigMap that somebody orphaned. Only objects with this package's
labels, in one namespace, are ever looked at; an execution that may still be running is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from adk_gke_sandbox.cluster.api import Cluster, resource
from adk_gke_sandbox.contract import APP_LABEL, APP_NAME, EXECUTION_LABEL, MANAGED_BY_LABEL
from adk_gke_sandbox.errors import Forbidden, Gone

SELECTOR: Final = f"{APP_LABEL}={APP_NAME},{MANAGED_BY_LABEL}={APP_NAME}"
KINDS: Final = ("jobs", "pods", "configmaps")
METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Lists objects without what is in them: ConfigMaps hold everybody's code.

https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
"""

PAGE: Final = 500
"""Objects per answer, as kubectl asks for them; bounds the memory of both sides."""

GRACE_SECONDS: Final = 30.0
"""How long after its deadline and TTL a Job may still be removed by its controllers."""

ORPHAN_SECONDS: Final = 60.0
"""How old a pod or ConfigMap without its Job must be: the garbage collector comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An object that an execution has left behind.

    Attributes:
        kind: ``jobs``, ``pods`` or ``configmaps``.
        namespace: Where it is.
        name: Its name.
        execution: The execution it belongs to.
        age_seconds: Since its creation, on the API server's clock.
        cause: Why it counts as left behind.
    """

    kind: str
    namespace: str
    name: str
    execution: str
    age_seconds: float
    cause: str


def leftovers(
    objects: Mapping[str, list[dict[str, Any]]], now: datetime, *, older_than_seconds: float | None = None
) -> list[Leftover]:
    """Return what is left behind among listed objects.

    Args:
        objects: Objects with this package's labels, by kind.
        now: Time on the API server's clock.
        older_than_seconds: Counts every Job of this age as left behind, running or not; ``None`` counts only Jobs
            that are past their own deadline and TTL.
    """
    living = {_execution(job) for job in objects.get("jobs", [])}

    def cause(kind: str, item: dict[str, Any], age: float) -> str:
        if kind != "jobs":
            return "its Job is gone" if _execution(item) not in living and age > ORPHAN_SECONDS else ""
        if older_than_seconds is not None and age > older_than_seconds:
            return f"older than {older_than_seconds:g} s"
        spec = item["spec"]
        deadline = spec.get("activeDeadlineSeconds") or 0
        late = age - deadline - (spec.get("ttlSecondsAfterFinished") or 0)
        suspended = ", suspended" if spec.get("suspend") else ""
        return f"{late:.0f} s past its deadline and TTL{suspended}" if deadline and late > GRACE_SECONDS else ""

    found = []
    for kind in KINDS:
        for item in objects.get(kind, []):
            metadata = item["metadata"]
            age = (now - datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds()
            # Another deletion of what is being deleted would add nothing.
            if "deletionTimestamp" not in metadata and (why := cause(kind, item, age)):
                names = {"namespace": metadata["namespace"], "name": metadata["name"], "execution": _execution(item)}
                found.append(Leftover(kind=kind, **names, age_seconds=age, cause=why))
    return found


def find(cluster: Cluster, namespace: str, *, older_than_seconds: float | None = None) -> list[Leftover]:
    """Return what is left behind in a namespace.

    Raises:
        ClusterError: a list was refused; the message names the permission.
    """
    # Jobs last: one that is created meanwhile must not make its pod look like an orphan.
    with _named_permission():
        objects = {kind: _list(cluster, kind, namespace) for kind in reversed(KINDS)}
    return leftovers(objects, cluster.now(), older_than_seconds=older_than_seconds)


def remove(cluster: Cluster, leftover: Leftover) -> None:
    """Delete an object with all it owns; one that is gone already is no error.

    Raises:
        ClusterError: the deletion was refused.
    """
    with _named_permission():
        cluster.delete(_path(leftover.kind, leftover.namespace, leftover.name))


@contextmanager
def _named_permission() -> Iterator[None]:
    """Add what to do to an error that says which permission is missing."""
    try:
        yield
    except Forbidden as error:
        error.remedy = "A sweeper may list and delete jobs, pods and configmaps there; an agent's identity may not"
        raise


def _path(kind: str, namespace: str, name: str = "") -> str:
    return resource("batch/v1" if kind == "jobs" else "v1", kind, namespace, name)


def _list(cluster: Cluster, kind: str, namespace: str) -> list[dict[str, Any]]:
    try:
        return list(_pages(cluster, kind, namespace))
    except Gone:
        # The server forgets after some minutes where a list was left off
        # (https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks).
        return list(_pages(cluster, kind, namespace))


def _pages(cluster: Cluster, kind: str, namespace: str) -> Iterator[dict[str, Any]]:
    query = {"labelSelector": SELECTOR, "limit": str(PAGE)}
    # The deadline of a Job is in its spec.
    accept = "application/json" if kind == "jobs" else METADATA
    while True:
        page = cluster.request("list", _path(kind, namespace), query=query, accept=accept)
        yield from (item for item in page.get("items") or [] if _execution(item))
        if not (more := (page.get("metadata") or {}).get("continue")):
            return
        query["continue"] = more


def _execution(item: Mapping[str, Any]) -> str:
    return str((item["metadata"].get("labels") or {}).get(EXECUTION_LABEL, ""))
