"""The Kubernetes API as this package uses it; the only module that imports ``kubernetes``.

It sends and receives. What to send is decided in ``manifests`` and ``job``, what an answer means in
``diagnosis``. The process-wide configuration of the Kubernetes client is never touched.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from adk_gke_sandbox.cluster.streams import Stream, Watch
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

log: Final = logging.getLogger("adk_gke_sandbox")

T = TypeVar("T")

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
_KEEP_ALIVE: Final = tuple(
    (level, getattr(socket, option), value)
    for level, option, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    )
    if hasattr(socket, option)
)
"""A stream whose other end has vanished without a word ends after 30 s instead of never."""

_POOL_SIZE: Final = 64
_BY_STATUS: Final[Mapping[int, type[ClusterError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
}


class Cluster:
    """A connection to one API server, with credentials and TLS state of its own. Thread-safe."""

    def __init__(self, api_client: client.ApiClient, renew: Callable[[], None] = lambda: None) -> None:
        """Wrap a client.

        Args:
            api_client: The client; nobody else uses it.
            renew: Reads the credentials again, into the client's configuration.
        """
        self._client = api_client
        self._renew = renew
        self._renewing = threading.Lock()
        self._renewals = 0
        # Untyped: the methods return the raw answer, not the models that they are annotated with.
        self._core: Any = client.CoreV1Api(api_client)
        self._batch: Any = client.BatchV1Api(api_client)
        # Its paths are those of every API group but the core.
        self._others: Any = client.CustomObjectsApi(api_client)

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def create_job(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Job and return it as the server stored it."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        return self._send(
            "create",
            f"jobs.batch {namespace}/{name}",
            lambda: _document(self._batch.create_namespaced_job(namespace, manifest, **_BOUNDED)),
        )

    def get_job(self, namespace: str, name: str) -> dict[str, Any]:
        """Return a Job."""
        return self._send(
            "get",
            f"jobs.batch {namespace}/{name}",
            lambda: _document(self._batch.read_namespaced_job(name, namespace, **_BOUNDED)),
        )

    def delete_object(self, kind: str, namespace: str, name: str) -> None:
        """Delete one of ``jobs``, ``pods``, ``configmaps`` with all it owns; one that is gone already is no error."""
        delete = {
            "jobs": self._batch.delete_namespaced_job,
            "pods": self._core.delete_namespaced_pod,
            "configmaps": self._core.delete_namespaced_config_map,
        }[kind]
        try:
            self._send(
                "delete",
                f"{kind} {namespace}/{name}",
                # Without a policy the API server orphans the pod of a Job
                # (https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup).
                lambda: _read(delete(name, namespace, propagation_policy="Background", **_BOUNDED)),
            )
        except NotFound:
            return

    def create_config_map(self, manifest: Mapping[str, Any]) -> None:
        """Create a ConfigMap."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        self._send(
            "create",
            f"configmaps {namespace}/{name}",
            lambda: _read(self._core.create_namespaced_config_map(namespace, manifest, **_BOUNDED)),
        )

    def list_objects(self, kind: str, namespace: str, **selector: str) -> dict[str, Any]:
        """Return the ``jobs``, ``pods``, ``configmaps`` or ``events`` that a label or field selector names."""
        return self._send(
            "list", f"{kind} {namespace}", lambda: _document(self._lister(kind)(namespace, **selector, **_BOUNDED))
        )

    def watch(self, kind: str, namespace: str, **selector: str) -> Watch:
        """Watch ``pods`` or ``events`` that a ``label_selector`` or ``field_selector`` names."""

        def open_from(version: str) -> Stream:
            given = {**selector, **({"resource_version": version} if version else {})}
            return self._send(
                "watch",
                f"{kind} {namespace}",
                lambda: Stream(self._lister(kind)(namespace, watch=True, **given, **_BOUNDED)),
            )

        return Watch(lambda: self.list_objects(kind, namespace, **selector), open_from)

    def read(self, group: str, resource: str, *, namespace: str = "", name: str = "") -> dict[str, Any]:
        """Return an object of a group's ``v1``, or without a name the list of all.

        Args:
            group: API group; empty for the core.
            resource: Resource in plural, of the core one of ``_CORE``.
            namespace: Namespace; empty for a resource of the cluster.
            name: Name of the object.
        """
        scope = "namespaced" if namespace else "cluster"
        if group:
            method = getattr(self._others, f"{'get' if name else 'list'}_{scope}_custom_object")
            given = [group, "v1", *filter(None, [namespace]), resource, *filter(None, [name])]
        else:
            kind = f"namespaced_{_CORE[resource]}" if namespace else _CORE[resource]
            method = getattr(self._core, f"{'read' if name else 'list'}_{kind}")
            given = [*filter(None, [name]), *filter(None, [namespace])]
        target = " ".join(filter(None, [_qualified(resource, group), "/".join(filter(None, [namespace, name]))]))
        return self._send("get" if name else "list", target, lambda: _document(method(*given, **_BOUNDED)))

    def create(
        self, group: str, resource: str, manifest: Mapping[str, Any], *, namespace: str = "", dry_run: bool = False
    ) -> dict[str, Any]:
        """Create an object of a group's ``v1``, or have the API server only say whether it would; return its answer.

        Args:
            group: API group; empty for the core, where there are pods only.
            resource: Resource in plural.
            manifest: The object.
            namespace: Namespace; empty for a resource of the cluster.
            dry_run: Whether nothing is stored.
        """
        options = {**_BOUNDED, **({"dry_run": "All"} if dry_run else {})}
        if group:
            method = getattr(self._others, f"create_{'namespaced' if namespace else 'cluster'}_custom_object")
            given = [group, "v1", *filter(None, [namespace]), resource, manifest]
        else:
            method, given = self._core.create_namespaced_pod, [namespace, manifest]
        target = " ".join(filter(None, [_qualified(resource, group), namespace]))
        return self._send("create", target, lambda: _document(method(*given, **options)))

    def get_version(self) -> dict[str, Any]:
        """Return the version of the API server."""
        version: Any = client.VersionApi(self._client)
        return self._send("get", "version", lambda: _document(version.get_code(**_BOUNDED)))

    def follow_log(self, namespace: str, pod: str, container: str) -> Stream:
        """Follow a container's log from its beginning, byte for byte."""
        return self._send(
            "get",
            f"pods/log {namespace}/{pod}",
            lambda: Stream(
                self._core.read_namespaced_pod_log(pod, namespace, container=container, follow=True, **_BOUNDED)
            ),
        )

    def now(self) -> datetime:
        """Return the time on the API server's clock, which stamps all objects; this machine's may be wrong."""

        def date() -> str:
            version: Any = client.VersionApi(self._client)
            answer = version.get_code(**_BOUNDED)
            _read(answer)
            return str(answer.headers.get("Date", ""))

        try:
            return parsedate_to_datetime(self._send("get", "version", date)).astimezone(UTC)
        except ValueError:
            return datetime.now(UTC)

    def close(self) -> None:
        """Close idle connections."""
        self._client.rest_client.pool_manager.clear()

    def _lister(self, kind: str) -> Any:
        return {
            "jobs": self._batch.list_namespaced_job,
            "pods": self._core.list_namespaced_pod,
            "events": self._core.list_namespaced_event,
            "configmaps": self._core.list_namespaced_config_map,
        }[kind]

    def _send(self, verb: str, target: str, call: Callable[[], T]) -> T:
        """Make a call; turn the client's and its HTTP library's errors into ours.

        A token that has run out is renewed once: kubeconfig plugins and mounted tokens live shorter than executors.
        """
        renewals = self._renewals
        try:
            return self._send_once(verb, target, call)
        except (Unauthorized, Forbidden) as error:
            # A plugin that failed gave no token at all.
            if isinstance(error, Forbidden) and "system:anonymous" not in error.message:
                raise
            self._renew_once(renewals)
            return self._send_once(verb, target, call)

    def _renew_once(self, renewals: int) -> None:
        """Read the credentials again, unless another thread has done so since this many renewals."""
        with self._renewing:
            if self._renewals != renewals:
                return
            try:
                self._renew()
            except ConfigError as error:
                log.warning("the credentials could not be read again: %s", error)
            self._renewals += 1

    def _send_once(self, verb: str, target: str, call: Callable[[], T]) -> T:
        try:
            return call()
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


_CORE: Final[Mapping[str, str]] = {
    "configmaps": "config_map",
    "limitranges": "limit_range",
    "namespaces": "namespace",
    "nodes": "node",
    "resourcequotas": "resource_quota",
    "serviceaccounts": "service_account",
    "services": "service",
}
"""What the client's methods call the resources of the core group."""

_BOUNDED: Final[Mapping[str, Any]] = {
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
    load = _source(kubeconfig_path, context)
    load(settings)
    # The retries of urllib3 would repeat calls that are not safe to repeat, and wait without looking at the clock.
    settings.retries = False
    settings.connection_pool_maxsize = _POOL_SIZE
    settings.socket_options = list(_KEEP_ALIVE)
    return Cluster(client.ApiClient(settings), lambda: load(settings))


def _source(kubeconfig_path: str | None, context: str | None) -> Callable[[client.Configuration], None]:
    """Return what reads server and credentials into settings, now and whenever they have to be renewed."""
    loader: Any = config
    in_cluster = kubeconfig_path is None and context is None and _in_cluster()

    def load(settings: client.Configuration) -> None:
        try:
            if in_cluster:
                loader.load_incluster_config(client_configuration=settings)
            else:
                # The client reads KUBECONFIG once, at its import.
                file = kubeconfig_path or os.environ.get("KUBECONFIG") or "~/.kube/config"
                loader.load_kube_config(
                    config_file=file,
                    context=context or _current_context(file),
                    client_configuration=settings,
                    persist_config=False,
                )
        # A broken file makes the loader raise whatever its lines run into.
        except Exception as error:
            where = f"kubeconfig {kubeconfig_path}" if kubeconfig_path else "the default kubeconfig"
            what = f", context {context!r}" if context else ""
            raise ConfigError(
                f"cannot use {'the token of this pod' if in_cluster else where}{what}: {_cause(error)}",
                "Give kubeconfig_path and kubeconfig_context of a cluster you can reach",
            ) from error
        # The client's own hook would run the kubeconfig's plugin before each call in a token's last five minutes;
        # a 401 renews it once, for all threads.
        settings.refresh_api_key_hook = None

    return load


def _current_context(file: str) -> str | None:
    """Return the current context of several kubeconfigs: the first one's, where the client takes the last one's.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    loader: Any = config
    for path in file.split(os.pathsep) if os.pathsep in file else ():
        try:
            return str(loader.list_kube_config_contexts(config_file=path)[1]["name"])
        except ConfigException:
            continue
    return None


def _in_cluster() -> bool:
    """Return whether this is a pod with a ServiceAccount's token."""
    loader: Any = config
    try:
        loader.load_incluster_config(client_configuration=client.Configuration())
    except ConfigException:
        return False
    except OSError:
        return True  # and that it cannot be read is the error to show
    return True


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


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
    value = str((error.headers or {}).get("Retry-After") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    text = " ".join(str(reason or error).split())[:300]
    return text.rpartition(": ")[2] if "Errno" in text or "NewConnectionError" in text else text
