"""The Kubernetes API as one call: a verb, a path, a document.

It sends and receives. What to send is decided by the callers and ``manifests``, what an answer means in ``diagnosis``,
which server is asked and as whom in ``credentials``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import urllib3

from adk_gke_sandbox import errors
from adk_gke_sandbox.cluster import credentials
from adk_gke_sandbox.cluster.streams import Stream, Watch

log: Final = logging.getLogger("adk_gke_sandbox")

T = TypeVar("T")
Answer = urllib3.BaseHTTPResponse
Body = Mapping[str, Any] | None
Query = Mapping[str, str] | None
Use = Callable[[Answer], T]

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
VERSION: Final = "/version/"
"""Path of the API server's version, which everybody may read."""

_METHODS: Final[Mapping[str, str]] = {"create": "POST", "delete": "DELETE", "patch": "PATCH"}
"""HTTP methods of the verbs that are not ``GET``."""

_JSON: Final = "application/json"
_BY_STATUS: Final[Mapping[int, type[errors.ClusterError]]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Gone,
}


class Cluster:
    """A connection to one API server, with credentials and TLS state of its own. Thread-safe."""

    def __init__(self, api_client: credentials.ApiClient, renew: Callable[[], None], read_seconds: float) -> None:
        """Wrap a client.

        Args:
            api_client: The client; nobody else uses it.
            renew: Reads the credentials again, into the client's configuration.
            read_seconds: How long an answer may be silent; a stream only until it begins.
        """
        self._client = api_client
        self._timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds)
        self._renew = renew
        self._renewing = threading.Lock()
        self._renewals = 0

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def request(
        self, verb: str, path: str, *, body: Body = None, query: Query = None, accept: str = _JSON
    ) -> dict[str, Any]:
        """Make one call and return the answer's document.

        Args:
            verb: Kubernetes verb: ``get``, ``list``, ``create``, ``patch`` or ``delete``.
            path: What it is about; see ``resource``.
            body: The object to create, or the merge patch.
            query: Parameters as the API names them, for example ``labelSelector``.
            accept: Media type of the answer.

        Raises:
            ClusterError: the server refused the call, or gave no whole answer.
        """
        return self._call(_document, verb, path, body, query, accept)

    def delete(self, path: str) -> None:
        """Delete an object with all that it owns; one that is gone already is no error."""
        # Without a policy the API server orphans the pod of a Job
        # (https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup).
        with contextlib.suppress(errors.NotFound):
            self.request("delete", path, query={"propagationPolicy": "Background"})

    def stream(self, verb: str, path: str, *, query: Query = None, wake: Callable[[], None] = lambda: None) -> Stream:
        """Open an answer that arrives piece by piece, byte for byte: ``get`` of a log, or ``watch``.

        Args:
            verb: Kubernetes verb.
            path: What it is about; see ``resource``.
            query: Parameters as the API names them, for example ``follow``.
            wake: Called when something has arrived.

        Raises:
            ClusterError: the server refused the call, or did not begin to answer.
        """
        return self._call(lambda answer: Stream(answer, wake), verb, path, None, query, "*/*")

    def watch(self, path: str, *, query: Mapping[str, str], wake: Callable[[], None] = lambda: None) -> Watch:
        """Watch the objects of a list that ``query`` selects.

        Raises:
            ClusterError: the server refused the call, or did not begin to answer.
        """

        def open_from(version: str) -> Stream:
            start = {"resourceVersion": version} if version else {}
            return self.stream("watch", path, query={**query, "watch": "true", **start}, wake=wake)

        return Watch(lambda: self.request("list", path, query=query), open_from)

    def now(self) -> datetime:
        """Return the time on the API server's clock, which stamps all objects; this machine's may be wrong."""
        try:
            return parsedate_to_datetime(self._call(_date, "get", VERSION)).astimezone(UTC)
        except ValueError:
            return datetime.now(UTC)

    def close(self) -> None:
        """Close idle connections."""
        self._client.rest_client.pool_manager.clear()

    def _call(self, use: Use[T], verb: str, path: str, *given: Any) -> T:
        """Return what is made of the answer to a call; refused credentials are renewed once.

        Kubeconfig plugins and mounted tokens live shorter than executors.
        """
        renewals = self._renewals
        try:
            return self._call_once(use, verb, path, *given)
        except (errors.Unauthorized, errors.Forbidden) as error:
            # A plugin that failed gave no token at all.
            if isinstance(error, errors.Forbidden) and "system:anonymous" not in error.message:
                raise
            self._renew_once(renewals)
            return self._call_once(use, verb, path, *given)

    def _renew_once(self, renewals: int) -> None:
        """Read the credentials again, unless another thread has done so since this many renewals."""
        with self._renewing:
            if self._renewals != renewals:
                return
            try:
                self._renew()
            except errors.ConfigError as error:
                log.warning("the credentials could not be read again: %s", error)
            self._renewals += 1

    def _call_once(
        self, use: Use[T], verb: str, path: str, body: Body = None, query: Query = None, accept: str = _JSON
    ) -> T:
        target = _target(path, body)
        settings = self._client.configuration
        content = "application/merge-patch+json" if verb == "patch" else _JSON
        headers = {"Accept": accept, "Content-Type": content, "User-Agent": self._client.user_agent}
        if token := settings.auth_settings().get("BearerToken"):
            headers["Authorization"] = value = token["value"].strip()
            if not (value.isascii() and value.isprintable()):
                # The HTTP library would quote it.
                message = f"{verb} {target}: the token has characters that cannot be sent"
                raise errors.ClusterError(message, "Write it anew", verb=verb, target=target, status=None)
        try:
            # Below the client's own calls: they differ between its releases, and some repeat what is told to wait.
            answer: Answer = self._client.rest_client.pool_manager.request(
                _METHODS.get(verb, "GET"),
                f"{settings.host}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=self._timeout,
                preload_content=False,
                redirect=False,  # neither code nor token goes where another server points
            )
            if 200 <= answer.status <= 299:
                return use(answer)
            raise _refused(verb, target, answer)
        except urllib3.exceptions.SSLError as error:
            # Another try would meet the same certificate.
            message = f"{verb} {target}: {errors.cause(error)}"
            raise errors.ClusterError(message, verb=verb, target=target, status=None) from error
        # Text that is no JSON is an answer that is not whole.
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            message = f"the API server {self.host} does not answer ({verb} {target}): {errors.cause(error)}"
            remedy = "Check that the cluster runs and that the kubeconfig names it"
            raise errors.Unreachable(message, remedy, verb=verb, target=target, status=None) from error


def resource(group_version: str, plural: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the path of an object, of all objects of a kind, or of an object's subresource.

    Args:
        group_version: For example ``batch/v1``; the core group is ``v1``.
        plural: The kind in lower case and plural, for example ``jobs``.
        namespace: Namespace; empty for a kind of the cluster, or for all namespaces.
        name: Name of the object.
        sub: Subresource, for example ``log``.
    """
    root = "apis" if "/" in group_version else "api"
    parts = ("namespaces", namespace, plural, name, sub) if namespace else (plural, name, sub)
    return f"/{root}/{group_version}/" + "/".join(quote(part, safe="") for part in parts if part)


_PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)


def _target(path: str, body: Mapping[str, Any] | None = None) -> str:
    """Return what a call is about as people write it, for example ``jobs.batch box/x`` or ``pods/log box/x``."""
    if (found := _PATH.fullmatch(path)) is None:
        return path.strip("/")
    kind = "/".join(filter(None, (found["plural"], found["sub"]))) + (f".{found['group']}" if found["group"] else "")
    name = found["name"] or ((body or {}).get("metadata") or {}).get("name")
    return " ".join(filter(None, (kind, "/".join(filter(None, (found["namespace"], name))))))


def connect(
    kubeconfig_path: str | None = None, context: str | None = None, *, read_seconds: float = READ_SECONDS
) -> Cluster:
    """Return a connection to the API server that ``credentials.resolve`` names.

    Raises:
        ConfigError: no kubeconfig there, or no such context in it.
    """
    return Cluster(*credentials.resolve(kubeconfig_path, context), read_seconds)


def _date(answer: Answer) -> str:
    """Return when an answer was given; a connection goes back to the pool only once all of it is read."""
    answer.drain_conn()
    return answer.headers.get("Date", "")


def _document(answer: Answer) -> dict[str, Any]:
    found = json.loads(answer.data)
    return found if isinstance(found, dict) else {}


def _refused(verb: str, target: str, answer: Answer) -> errors.ClusterError:
    """Return the error for an answer that is no success, with the API server's own sentence.

    The sentence names the quota, the policy or the verb.
    """
    status: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        status = _document(answer)
    kind = _BY_STATUS.get(answer.status, errors.ClusterError)
    wait = answer.headers.get("Retry-After") or ""
    return (errors.AlreadyExists if status.get("reason") == "AlreadyExists" else kind)(
        f"{verb} {target}: {status.get('message') or f'HTTP {answer.status} {answer.reason}'}",
        verb=verb,
        target=target,
        status=answer.status,
        # HTTP knows dates here, too; no API server sends one.
        retry_after_seconds=float(wait) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", wait) else None,
    )
