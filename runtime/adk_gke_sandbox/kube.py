"""The Kubernetes API as this package uses it; the only module that imports ``kubernetes``.

It sends and receives. What to send is decided in ``manifests`` and ``job``, what an answer means in
``diagnosis``. The process-wide configuration of the Kubernetes client is never touched.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from adk_gke_sandbox.errors import (
    AlreadyExists,
    ClusterError,
    ConfigError,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Unauthorized,
    Unreachable,
)

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
STREAM_SECONDS: Final = 86400.0
"""How long a stream may be silent; its consumer looks at the clock meanwhile."""
STREAM_BACKLOG: Final = 64
"""Chunks that a reading thread may be ahead of its consumer; bounds the memory of a flood."""

_CHUNK_BYTES: Final = 64 * 1024
_POOL_SIZE: Final = 64
_BY_STATUS: Final[Mapping[int, type[ClusterError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
}


class Stream:
    """An answer that arrives piece by piece: a watch, or a followed log.

    A daemon thread reads; the consumer waits as long as it likes and no longer, so that a silent
    connection never keeps it from looking at its clock.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        self._chunks: queue.Queue[bytes | None] = queue.Queue(STREAM_BACKLOG)
        self._closed = threading.Event()
        threading.Thread(target=self._pump, name="adk-gke-sandbox-stream", daemon=True).start()

    def _pump(self) -> None:
        try:
            for chunk in self._response.stream(_CHUNK_BYTES, decode_content=False):
                if not self._put(chunk):
                    return
        # A cut stream is an end like any other: the consumer knows from its content whether it was whole.
        # Closing the socket under the reader raises different errors in different releases of urllib3.
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            pass
        finally:
            self._put(None)
            self._response.close()

    def _put(self, chunk: bytes | None) -> bool:
        while not self._closed.is_set():
            try:
                self._chunks.put(chunk, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False

    def read(self, timeout_seconds: float) -> bytes | None:
        """Return what has arrived, ``b""`` if nothing did within the timeout, ``None`` at the end."""
        try:
            return self._chunks.get(timeout=max(timeout_seconds, 0.001))
        except queue.Empty:
            return b""

    def close(self) -> None:
        """End the stream and wake its thread; safe to call twice."""
        self._closed.set()
        connection = getattr(self._response, "connection", None)
        sock = getattr(connection, "sock", None)
        if isinstance(sock, socket.socket):
            try:
                # Not SSLSocket.shutdown, which drops the TLS state that the reading thread is using.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                return


class Watch:
    """Objects of one kind as they change; starts with those that exist.

    A watch that the server ends, cuts or declares too old is opened again from a fresh list, so that
    no deletion in between is missed.
    """

    def __init__(self, cluster: Cluster, kind: str, namespace: str, **selector: str) -> None:
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._selector = selector
        self._known: set[str] = set()
        self._rest = b""
        self._stream = cluster._open_watch(kind, namespace, "", selector)

    def read(self, timeout_seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """Return the changes that have arrived: ``("ADDED" | "MODIFIED" | "DELETED", object)``.

        Raises:
            ClusterError: the watch had to be opened again and the server refused.
        """
        chunk = self._stream.read(timeout_seconds)
        if chunk is None:
            return self._reopen()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        changes: list[tuple[str, dict[str, Any]]] = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except ValueError:
                return changes + self._reopen()
            if event.get("type") == "ERROR":
                return changes + self._reopen()
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                changes.append((event["type"], event["object"]))
                self._note(event["type"], event["object"]["metadata"]["name"])
        return changes

    def _note(self, change: str, name: str) -> None:
        if change == "DELETED":
            self._known.discard(name)
        else:
            self._known.add(name)

    def _reopen(self) -> list[tuple[str, dict[str, Any]]]:
        self.close()
        self._rest = b""
        listed = self._cluster.list_objects(self._kind, self._namespace, **self._selector)
        items = listed.get("items") or []
        version = (listed.get("metadata") or {}).get("resourceVersion", "")
        self._stream = self._cluster._open_watch(self._kind, self._namespace, version, self._selector)
        names = {item["metadata"]["name"] for item in items}
        gone = [("DELETED", {"metadata": {"name": name}}) for name in sorted(self._known - names)]
        self._known = names
        return gone + [("MODIFIED", item) for item in items]

    def close(self) -> None:
        """End the watch."""
        self._stream.close()


class Cluster:
    """A connection to one API server, with credentials and TLS state of its own. Thread-safe."""

    def __init__(self, api_client: client.ApiClient) -> None:
        self._client = api_client
        # Untyped: the methods return the raw answer, not the models that they are annotated with.
        self._core: Any = client.CoreV1Api(api_client)
        self._batch: Any = client.BatchV1Api(api_client)

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def create_job(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Job and return it as the server stored it."""
        metadata = manifest["metadata"]
        with self._mapped("create", f"jobs.batch {metadata['namespace']}/{metadata['name']}"):
            return _document(self._batch.create_namespaced_job(metadata["namespace"], manifest, **_BUFFERED))

    def get_job(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a Job."""
        with self._mapped("get", f"jobs.batch {namespace}/{name}"):
            return _document(self._batch.read_namespaced_job(name, namespace, **_BUFFERED))

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job with all it owns; one that is gone already is no error."""
        try:
            with self._mapped("delete", f"jobs.batch {namespace}/{name}"):
                # Without a policy the API server orphans the pod of a Job
                # (https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup).
                _read(self._batch.delete_namespaced_job(name, namespace, propagation_policy="Background", **_BUFFERED))
        except NotFound:
            return

    def create_config_map(self, manifest: Mapping[str, Any]) -> None:
        """Create a ConfigMap."""
        metadata = manifest["metadata"]
        with self._mapped("create", f"configmaps {metadata['namespace']}/{metadata['name']}"):
            _read(self._core.create_namespaced_config_map(metadata["namespace"], manifest, **_BUFFERED))

    def list_objects(self, kind: str, namespace: str, **selector: str) -> dict[str, Any]:
        """Return the list of ``pods`` or ``events`` that a label or field selector names."""
        with self._mapped("list", f"{kind} {namespace}"):
            return _document(self._lister(kind)(namespace, **selector, **_BUFFERED))

    def watch(self, kind: str, namespace: str, **selector: str) -> Watch:
        """Watch ``pods`` or ``events`` that a ``label_selector`` or ``field_selector`` names."""
        return Watch(self, kind, namespace, **selector)

    def follow_log(self, namespace: str, pod: str, container: str) -> Stream:
        """Follow a container's log from its beginning, byte for byte."""
        with self._mapped("get", f"pods/log {namespace}/{pod}"):
            return Stream(
                self._core.read_namespaced_pod_log(
                    pod,
                    namespace,
                    container=container,
                    follow=True,
                    _preload_content=False,
                    _request_timeout=(CONNECT_SECONDS, STREAM_SECONDS),
                )
            )

    def close(self) -> None:
        """Close idle connections."""
        self._client.rest_client.pool_manager.clear()

    def _lister(self, kind: str) -> Any:
        return {"pods": self._core.list_namespaced_pod, "events": self._core.list_namespaced_event}[kind]

    def _open_watch(self, kind: str, namespace: str, version: str, selector: Mapping[str, str]) -> Stream:
        with self._mapped("watch", f"{kind} {namespace}"):
            given = {**selector, **({"resource_version": version} if version else {})}
            return Stream(
                self._lister(kind)(
                    namespace,
                    watch=True,
                    **given,
                    _preload_content=False,
                    _request_timeout=(CONNECT_SECONDS, STREAM_SECONDS),
                )
            )

    @contextmanager
    def _mapped(self, verb: str, target: str) -> Iterator[None]:
        """Turn the client's and its HTTP library's errors into ours."""
        try:
            yield
        except ApiException as error:
            status = int(error.status or 0)
            kind = (
                AlreadyExists
                if _answer(error).get("reason") == "AlreadyExists"
                else _BY_STATUS.get(status, ClusterError)
            )
            raise kind(
                f"{verb} {target}: {_server_message(error)}",
                verb=verb,
                target=target,
                status=status or None,
                retry_after_seconds=_retry_after(error),
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"the API server {self.host} does not answer ({verb} {target}): {_cause(error)}",
                "Check that the cluster runs and that the kubeconfig names it",
                verb=verb,
                target=target,
                status=None,
            ) from error


_BUFFERED: Final[Mapping[str, Any]] = {
    "_preload_content": False,
    "_request_timeout": (CONNECT_SECONDS, READ_SECONDS),
}


def connect(kubeconfig_path: str | None = None, context: str | None = None) -> Cluster:
    """Return a connection.

    An explicit path is used with its context, or its current one. A context alone selects one of the default
    kubeconfig (``KUBECONFIG``, else ``~/.kube/config``). With neither, the pod's own ServiceAccount is used
    where there is one, else the default kubeconfig.

    Raises:
        ConfigError: no kubeconfig there, or no such context in it.
    """
    settings = client.Configuration()
    loader: Any = config
    # The client reads KUBECONFIG once, at its import.
    default = kubeconfig_path or os.environ.get("KUBECONFIG")
    try:
        if kubeconfig_path is None and context is None:
            try:
                loader.load_incluster_config(client_configuration=settings)
            except ConfigException:
                loader.load_kube_config(config_file=default, client_configuration=settings, persist_config=False)
        else:
            loader.load_kube_config(
                config_file=kubeconfig_path,
                context=context,
                client_configuration=settings,
                persist_config=False,
            )
    except (ConfigException, OSError) as error:
        where = f"kubeconfig {kubeconfig_path}" if kubeconfig_path else "the default kubeconfig"
        what = f", context {context!r}" if context else ""
        raise ConfigError(
            f"cannot use {where}{what}: {_cause(error)}",
            "Give kubeconfig_path and kubeconfig_context of a cluster you can reach",
        ) from error
    # The retries of urllib3 would repeat calls that are not safe to repeat, and wait without looking at the clock.
    settings.retries = False
    settings.connection_pool_maxsize = _POOL_SIZE
    return Cluster(client.ApiClient(settings))


def _read(response: Any) -> bytes:
    """Return the whole answer; a connection goes back to the pool only once it is read."""
    data: bytes = response.data
    return data


def _document(response: Any) -> dict[str, Any]:
    try:
        found = json.loads(_read(response))
    except ValueError as error:
        raise urllib3.exceptions.ProtocolError("the answer is not whole") from error
    return found if isinstance(found, dict) else {}


def _answer(error: ApiException) -> dict[str, Any]:
    """Return the Status object in an error's body, or nothing."""
    body = error.body
    try:
        found = json.loads(body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body or ""))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _server_message(error: ApiException) -> str:
    """Return the API server's own sentence, which names the quota, the policy or the verb."""
    return str(_answer(error).get("message") or f"HTTP {error.status} {error.reason}")


def _retry_after(error: ApiException) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    text = " ".join(str(reason or error).split())[:300]
    return text.rpartition(": ")[2] if "Errno" in text or "NewConnectionError" in text else text
