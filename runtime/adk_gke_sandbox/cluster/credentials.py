"""Which API server and whose credentials; the only module that imports ``kubernetes``.

Server, certificate authority, TLS server name, proxy, context and user are decided once, when a connection is made.
What is read again later is the secret of that user alone, from the file that named the user: a connection may outlive
``kubectl config use-context``, an edited file and another ``KUBECONFIG``, and must never take code or a token to a
cluster that it was not made for. The process-wide configuration of the Kubernetes client is never touched.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kubernetes import client
from kubernetes.config import incluster_config, kube_config, load_incluster_config
from kubernetes.config.config_exception import ConfigException

from adk_gke_sandbox.config import in_pod
from adk_gke_sandbox.errors import ConfigError, cause

ApiClient = client.ApiClient

_POOL_SIZE: Final = 64
_KEEP_ALIVE: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items()
        if hasattr(socket, name)
    ),
]
"""A stream whose other end has vanished without a word ends after 30 s instead of never."""

# Untyped in the client.
_incluster: Final[Any] = load_incluster_config
_kube: Final[Any] = kube_config


def resolve(kubeconfig_path: str | None, context: str | None) -> tuple[ApiClient, Callable[[], None]]:
    """Return a client of the API server, and what reads its user's credentials again.

    An explicit path is used with its context, or its current one. A context alone selects one of the default
    kubeconfig (``KUBECONFIG``, else ``~/.kube/config``). With neither, the pod's own ServiceAccount is used where
    there is one, else the default kubeconfig. A path, like ``KUBECONFIG``, may name several files.

    Tokens are renewed, whether they are in the kubeconfig, in a file, or come from a plugin; a client certificate is
    read once.

    Raises:
        ConfigError: no kubeconfig there, or no such context in it. What reads the credentials again raises it if they
            cannot be read, and then leaves the old ones.
    """
    settings = client.Configuration()
    if kubeconfig_path is None and context is None and in_pod(token=Path(incluster_config.SERVICE_TOKEN_FILENAME)):
        source = "the token of this pod"
        read_again: Callable[[client.Configuration], None] = _incluster
        with _naming(source):
            _incluster(settings)
    else:
        source = f"kubeconfig {kubeconfig_path}" if kubeconfig_path else "the default kubeconfig"
        source += f", context {context!r}" if context else ""
        # The client reads KUBECONFIG once, at its import.
        files = kubeconfig_path or os.environ.get("KUBECONFIG") or "~/.kube/config"
        with _naming(source):
            read_again = _read_kubeconfig(files, context, settings)
    # The client's own hook would run the kubeconfig's plugin before each call in a token's last five minutes;
    # a 401 renews it once, for all threads.
    settings.refresh_api_key_hook = None
    # The retries of urllib3 would repeat calls that are not safe to repeat, and wait without looking at the clock.
    settings.retries = False
    settings.connection_pool_maxsize = _POOL_SIZE
    settings.socket_options = _KEEP_ALIVE

    def renew() -> None:
        fresh = client.Configuration()
        with _naming(source):
            read_again(fresh)
        # Of all that was read, only the token; a plugin that failed has given none.
        if fresh.api_key:
            settings.api_key = fresh.api_key

    return client.ApiClient(settings), renew


def _read_kubeconfig(
    files: str, context: str | None, settings: client.Configuration
) -> Callable[[client.Configuration], None]:
    """Read a kubeconfig into settings; return what reads the same user's entry again, into other settings."""
    paths = (Path(path).expanduser().absolute() for path in files.split(os.pathsep) if path)
    merger = _kube.KubeConfigMerger(os.pathsep.join(map(str, paths)))
    if (found := merger.config) is None:
        raise ConfigException("there is no such file")
    # The first file that has a current context decides; the client would take the last one's
    # (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files).
    chosen = context or next(filter(None, (file.get("current-context") for file in merger.config_files.values())), None)
    loader = _loader(found, chosen)
    loader.load_and_set(settings)
    user = loader.current_context["context"].get("user")
    entry = found["users"].get_with_name(user, safe=True)

    def read_again(into: client.Configuration) -> None:
        if entry is None:
            return
        # Not from all files: another one may have a user of the same name, for another cluster.
        now = _kube.KubeConfigMerger(entry.path).config
        if now is None or now["users"].get_with_name(user, safe=True) is None:
            raise ConfigException(f"{entry.path} has no user {user!r} any more")
        # Many tools call every user "default" or "admin": the file may have become another cluster's.
        servers = {cluster["name"]: str(cluster["cluster"]["server"]).rstrip("/") for cluster in now.value["clusters"]}
        used = [item["context"] for item in now.value["contexts"] if item["context"].safe_get("user") == user]
        if used and settings.host not in (servers.get(item["cluster"], settings.host) for item in used):
            raise ConfigException(f"{entry.path} has user {user!r} for another server now")
        pinned = _kube.ConfigNode("kubeconfig", {**found.value, "users": now.value["users"]})
        _loader(pinned, chosen).load_and_set(into)

    return read_again


def _loader(found: Any, context: str | None) -> Any:
    # Without a base path, each file's paths are relative to that file.
    return _kube.KubeConfigLoader(found, active_context=context, config_base_path=None)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Turn what goes wrong in the block into an error that names what could not be read."""
    try:
        yield
    # A broken file makes the client raise whatever its lines run into.
    except Exception as error:
        remedy = "Give kubeconfig_path and kubeconfig_context of a cluster you can reach"
        raise ConfigError(f"cannot use {source}: {cause(error)}", remedy) from error
