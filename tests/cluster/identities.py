"""Namespaces and ServiceAccounts of a test's own, with exactly the permissions that it names."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from adk_gke_sandbox.contract import Rule
from infra.local import credentials
from infra.local.layout import Layout


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what a question answers, once it is something."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


@contextmanager
def namespace(admin: client.ApiClient, prefix: str) -> Iterator[str]:
    """Make a namespace while the block lasts."""
    core, name = client.CoreV1Api(admin), f"{prefix}-{secrets.token_hex(3)}"
    core.create_namespace({"metadata": {"name": name}})
    try:
        # Pods are refused until the controllers have been there.
        wait_for(lambda: core.list_namespaced_service_account(name).items)
        yield name
    finally:
        core.delete_namespace(name)


def service_account(admin: client.ApiClient, inside: str, name: str, rules: Iterable[Rule]) -> None:
    """Make a ServiceAccount that may do what the rules say in its namespace, and nothing else."""
    core, rbac = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
    metadata = {"name": name, "namespace": inside}
    core.create_namespaced_service_account(inside, {"metadata": metadata})
    given = [{"apiGroups": [rule.api_group], "resources": [rule.resource], "verbs": [*rule.verbs]} for rule in rules]
    rbac.create_namespaced_role(inside, {"metadata": metadata, "rules": given})
    rbac.create_namespaced_role_binding(
        inside,
        {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
    )


def kubeconfig(
    layout: Layout, admin: client.ApiClient, inside: str, name: str, rules: Iterable[Rule], folder: Path
) -> str:
    """Make a ServiceAccount with these rules and return the path of its kubeconfig."""
    service_account(admin, inside, name, rules)
    return str(credentials.service_account_kubeconfig(layout.kubeconfig, inside, name, folder / name))
