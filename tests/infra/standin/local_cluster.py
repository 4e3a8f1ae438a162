"""The Kubernetes cluster that plays the GKE cluster: its address, and how its deletion is acted out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import yaml

if TYPE_CHECKING:
    from kubernetes import client

STACK_LABEL: Final = "adk-gke-sandbox/stack"
_DELETE_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.5


def endpoint(kubeconfig: Path) -> str:
    """Return ``HOST:PORT`` of the API server of the current context."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    context = _named(document["contexts"], document["current-context"])["context"]
    return urlsplit(_named(document["clusters"], context["cluster"])["cluster"]["server"]).netloc


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def wipe(kubeconfig: Path, stack: str) -> None:
    """Delete what carries the stack's label, as the end of a real cluster would.

    Raises:
        TimeoutError: something is still there.
    """
    # Here, because it takes longer to import than most calls of the plugin take.
    from kubernetes import config

    with config.new_client_from_config(str(kubeconfig)) as api:
        deadline = time.monotonic() + _DELETE_SECONDS
        while left := list(_labelled(api, stack)):
            for path in left:
                _call(api, "DELETE", path)
            if time.monotonic() > deadline:
                raise TimeoutError(f"still there after {_DELETE_SECONDS:.0f} s: {', '.join(left)}")
            time.sleep(_POLL_SECONDS)


def left(kubeconfig: Path, stack: str) -> list[str]:
    """Return the paths of all objects outside namespaces, namespaces among them, of a stack."""
    from kubernetes import config

    with config.new_client_from_config(str(kubeconfig)) as api:
        return list(_labelled(api, stack))


def _labelled(api: client.ApiClient, stack: str) -> Iterator[str]:
    groups = _call(api, "GET", "/apis")["groups"]
    versions = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    for version in versions:
        for resource in _call(api, "GET", version).get("resources", []):
            if resource["namespaced"] or not {"list", "delete"} <= set(resource["verbs"]):
                continue
            path = f"{version}/{resource['name']}"
            for item in _call(api, "GET", path, labelSelector=f"{STACK_LABEL}={stack}").get("items") or []:
                yield f"{path}/{item['metadata']['name']}"


def _call(api: client.ApiClient, verb: str, path: str, **query: str) -> dict[str, Any]:
    answer = api.rest_client.pool_manager.request(verb, api.configuration.host + path, fields=query or None)
    return dict(answer.json()) if answer.status == 200 else {}
