"""Reads what the checks compare with the contract; judges nothing and changes nothing."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from adk_gke_sandbox.cluster.api import Cluster
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.errors import ClusterError, Forbidden, NotFound, Unauthorized, Unreachable
from adk_gke_sandbox.preflight import probe, trials
from adk_gke_sandbox.preflight.permissions import (
    NEEDED,
    REFUSED,
    Access,
    Grant,
    agent_user,
    grants,
    in_rules,
    review,
)
from adk_gke_sandbox.preflight.readings import OTHER_PERMISSIONS, Reading, readings
from adk_gke_sandbox.preflight.verdicts import Unreadable

T = TypeVar("T")

_AT_ONCE: Final = 8
_AUTHORIZATION: Final = "authorization.k8s.io"


def observe(cluster: Cluster, contract: Contract, config: ExecutorConfig) -> dict[str, Any]:
    """Return what the checks need to know, by name; see ``verdicts.Seen``.

    Where the API server does not answer, that is all there is.
    """
    seen: dict[str, Any] = {"server": cluster.host}
    seen["version"] = _try("get version", cluster.get_version)
    if isinstance(seen["version"], Unreadable):
        return {**seen, "identity": seen["version"]}
    seen["identity"] = _try("create selfsubjectreviews.authentication.k8s.io", lambda: _identity(cluster))
    is_agent = seen["identity"] == agent_user(contract)
    wanted: dict[str, Callable[[], Any]] = {
        **{
            name: lambda reading=reading: _try(reading.permission, lambda: _read(cluster, reading))  # type: ignore[misc]
            for name, reading in readings(contract).items()
        },
        "reviews": lambda: _try(OTHER_PERMISSIONS["reviews"], lambda: _reviews(cluster, contract, is_agent)),
        "job_trials": lambda: _trials(
            cluster, "batch", "jobs", trials.jobs(config), contract, OTHER_PERMISSIONS["job_trials"]
        ),
        "pod_trials": lambda: _trials(
            cluster, "", "pods", trials.pods(config), contract, OTHER_PERMISSIONS["pod_trials"]
        ),
    }
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting: dict[str, Future[Any]] = {name: pool.submit(call) for name, call in wanted.items()}
        seen |= {name: future.result() for name, future in waiting.items()}
    seen |= _grants(cluster, contract, seen, is_agent)
    return {**seen, "targets": _targets(cluster, contract, seen)}


def _try(permission: str, call: Callable[[], T]) -> T | Unreadable:
    try:
        return call()
    except ClusterError as error:
        forbidden = isinstance(error, Forbidden)
        return Unreadable(permission=permission, message=error.message, forbidden=forbidden)


def _read(cluster: Cluster, reading: Reading) -> Any:
    """Return an object, or nothing where there is none; or the items of a list."""
    try:
        found = cluster.read(reading.group, reading.resource, namespace=reading.namespace, name=reading.name)
    except NotFound:
        return None if reading.name else []
    return found if reading.name else found.get("items") or []


def _identity(cluster: Cluster) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = cluster.create("authentication.k8s.io", "selfsubjectreviews", body)
    return str(answer["status"]["userInfo"].get("username", ""))


def _reviews(cluster: Cluster, contract: Contract, is_agent: bool) -> Mapping[Access, bool]:
    """Return what the agents' identity may do, by the API server's own word."""
    resource = "selfsubjectaccessreviews" if is_agent else "subjectaccessreviews"

    def ask(access: Access) -> bool:
        answer = cluster.create(_AUTHORIZATION, resource, review(contract, access, of_agent=not is_agent))
        return bool(answer["status"].get("allowed"))

    asked = (*sorted(NEEDED), *REFUSED)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(asked, pool.map(ask, asked), strict=True))


def _trials(
    cluster: Cluster,
    group: str,
    resource: str,
    manifests: Mapping[str, dict[str, Any]],
    contract: Contract,
    permission: str,
) -> Mapping[str, str] | Unreadable:
    """Return the API server's refusal of each object, empty where it would take it."""

    def offer(manifest: dict[str, Any]) -> str | Unreadable:
        try:
            cluster.create(group, resource, manifest, namespace=contract.namespace, dry_run=True)
        except (Unauthorized, Unreachable) as error:
            return Unreadable(permission=permission, message=error.message, forbidden=False)
        except ClusterError as error:
            if isinstance(error, Forbidden) and f'cannot create resource "{resource}"' in error.message:
                return Unreadable(permission=permission, message=error.message, forbidden=True)
            if error.status is not None and error.status >= 500:
                return Unreadable(permission=permission, message=error.message, forbidden=False)
            return error.message
        return ""

    answers: dict[str, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, answer in zip(manifests, pool.map(offer, manifests.values()), strict=True):
            if isinstance(answer, Unreadable):
                return answer
            answers[name] = answer
    return answers


def _grants(cluster: Cluster, contract: Contract, seen: Mapping[str, Any], is_agent: bool) -> dict[str, Any]:
    """Return what bindings grant to the agents' and to the sandboxes' ServiceAccounts."""
    parts = [seen[name] for name in ("role_bindings", "cluster_role_bindings", "roles", "cluster_roles")]
    unread = next((part for part in parts if isinstance(part, Unreadable)), None)

    def of(namespace: str, name: str) -> frozenset[Grant]:
        return frozenset(
            grants([*parts[0], *parts[1]], [*parts[2], *parts[3]], namespace=namespace, service_account=name)
        )

    return {
        "agent_grants": _own_grants(cluster, contract)
        if is_agent
        else unread or of(contract.agents_namespace, contract.agent_service_account),
        "sandbox_grants": unread
        or {name: of(contract.namespace, name) for name in (contract.sandbox_service_account, "default")},
    }


def _own_grants(cluster: Cluster, contract: Contract) -> frozenset[Grant] | Unreadable:
    """Return what the caller itself may do in the sandbox namespace."""
    body = {
        "apiVersion": f"{_AUTHORIZATION}/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": contract.namespace},
    }
    permission = f"create selfsubjectrulesreviews.{_AUTHORIZATION}"
    answer = _try(permission, lambda: cluster.create(_AUTHORIZATION, "selfsubjectrulesreviews", body))
    if isinstance(answer, Unreadable):
        return answer
    status = answer["status"]
    if status.get("incomplete"):
        said = status.get("evaluationError") or "no reason"
        return Unreadable(
            permission=OTHER_PERMISSIONS["agent_grants"],
            message=f"the API server cannot list what this identity may do: {said}",
            forbidden=True,
        )
    return frozenset(Grant(access, "") for access in in_rules(status.get("resourceRules") or []))


def _targets(cluster: Cluster, contract: Contract, seen: Mapping[str, Any]) -> tuple[probe.Target, ...]:
    """Return what a sandbox must not reach, as far as addresses are known."""
    host, port = urlsplit(cluster.host).hostname or "", urlsplit(cluster.host).port or 443

    def known(name: str) -> Any:
        return None if isinstance(seen[name], Unreadable) else seen[name]

    return probe.targets(
        api_server=_addresses(host, port),
        port=port,
        services={"kubernetes": known("kubernetes_service"), "kube-dns": known("dns_service")},
        nodes=known("nodes") or [],
        gke="-gke." in str(seen["version"].get("gitVersion")),
        egress=contract.egress,
    )


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, as this machine knows them."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
