"""Kubeconfigs of ServiceAccounts, by the TokenRequest API. Standard library and YAML only.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
Knows client certificates as admin credentials, which is what the local cluster has; grants nothing.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from adk_gke_sandbox.errors import SandboxError

DEFAULT_SECONDS: Final = 8 * 3600
"""How long a token lasts: a working day. The API server may give less, never more."""

_REQUEST_TIMEOUT_SECONDS: Final = 15


class CredentialsError(SandboxError):
    """No kubeconfig was written; the message is one line with the repair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admin:
    """The current context of an admin kubeconfig, decoded."""

    context: str
    cluster_name: str
    cluster: Mapping[str, Any]
    server: str
    authority: str | None
    certificate: bytes
    key: bytes


def service_account_kubeconfig(
    admin_kubeconfig: Path,
    namespace: str,
    name: str,
    out: Path,
    *,
    context: str | None = None,
    seconds: int = DEFAULT_SECONDS,
) -> Path:
    """Write a kubeconfig that authenticates as a ServiceAccount.

    Args:
        admin_kubeconfig: Kubeconfig whose identity may create tokens.
        namespace: Namespace of the ServiceAccount.
        name: Name of the ServiceAccount.
        out: File to write, readable by its owner only; cluster and context have the names they had.
        context: Context to use; ``None`` is the current one.
        seconds: Lifetime of the token, 600 at least.

    Returns:
        ``out``.

    Raises:
        CredentialsError: unreadable kubeconfig, no such ServiceAccount, no answer, not allowed.
    """
    admin = _read(admin_kubeconfig, context)
    token = _token(admin, namespace, name, seconds)
    user = f"{namespace}-{name}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": admin.cluster_name, "cluster": dict(admin.cluster)}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [
            {
                "name": admin.context,
                "context": {"cluster": admin.cluster_name, "user": user, "namespace": namespace},
            }
        ],
        "current-context": admin.context,
    }
    _write_private(out, yaml.safe_dump(document, sort_keys=False))
    return out


def _read(path: Path, context: str | None) -> _Admin:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        chosen = context or document["current-context"]
        names = _named(document["contexts"], chosen)["context"]
        cluster = dict(_named(document["clusters"], names["cluster"])["cluster"])
        user = _named(document["users"], names["user"])["user"]
        authority = _data(path, cluster, "certificate-authority")
        # The copy must work from any folder.
        if authority is not None:
            cluster.pop("certificate-authority", None)
            cluster["certificate-authority-data"] = base64.b64encode(authority).decode("ascii")
        certificate, key = _data(path, user, "client-certificate"), _data(path, user, "client-key")
    except FileNotFoundError as error:
        raise CredentialsError(f"no file {error.filename}. Start the cluster with `python infra/local up`") from None
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise CredentialsError(
            f"{path} is not a usable kubeconfig ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Write it again with `python infra/local kubeconfig`"
        ) from None
    if certificate is None or key is None:
        raise CredentialsError(
            f"{path}: context {chosen!r} has no client certificate. "
            "Use an admin kubeconfig with one, or `kubectl create token`"
        )
    return _Admin(
        context=chosen,
        cluster_name=names["cluster"],
        cluster=cluster,
        server=str(cluster["server"]).rstrip("/"),
        authority=authority.decode("ascii") if authority is not None else None,
        certificate=certificate,
        key=key,
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise LookupError(f"no entry {name!r}")


def _data(kubeconfig: Path, entry: Mapping[str, Any], key: str) -> bytes | None:
    """Return a credential given inline (base64) or by a path relative to the kubeconfig."""
    if inline := entry.get(f"{key}-data"):
        return base64.b64decode(inline, validate=True)
    if path := entry.get(key):
        return (kubeconfig.parent / str(path)).read_bytes()
    return None


def _token(admin: _Admin, namespace: str, name: str, seconds: int) -> str:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked below
        f"{admin.server}/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
        method="POST",
    )
    if request.type != "https":
        raise CredentialsError(f"{admin.server} is not an https address. Use a kubeconfig with one")
    # A proxy of the environment cannot reach the cluster's own network.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_tls(admin))
    )
    try:
        with opener.open(request, timeout=_REQUEST_TIMEOUT_SECONDS) as response:
            return str(json.load(response)["status"]["token"])
    except urllib.error.HTTPError as error:
        with error:
            message = _status_message(error.read())
        if error.code == 404:
            raise CredentialsError(
                f"no ServiceAccount {name} in namespace {namespace}. Create it with `python infra/local stack up`"
            ) from None
        if error.code in (401, 403):
            raise CredentialsError(
                f"{admin.server} refused a token for {namespace}/{name} ({error.code}: {message}). "
                "Use the admin kubeconfig of this cluster"
            ) from None
        raise CredentialsError(
            f"{admin.server} gave no token for {namespace}/{name} ({error.code}: {message}). "
            "Look at `python infra/local status`"
        ) from None
    except (OSError, ValueError, LookupError) as error:
        reason = getattr(error, "reason", error)
        raise CredentialsError(
            f"{admin.server} does not answer ({reason}). Start the cluster with `python infra/local up`"
        ) from None


def _tls(admin: _Admin) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=admin.authority)
    # `load_cert_chain` reads files only; the folder is private (0700) and gone at once.
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "client.pem"
        pair.write_bytes(admin.certificate + b"\n" + admin.key)
        try:
            context.load_cert_chain(pair)
        except ssl.SSLError as error:
            raise CredentialsError(
                f"the client certificate of context {admin.context!r} is unusable ({error.reason}). "
                "Write the kubeconfig again with `python infra/local kubeconfig`"
            ) from None
    return context


def _status_message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode("utf-8", "replace") or "no message"


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
