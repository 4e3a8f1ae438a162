"""Reads Kubernetes objects among a stack's resources: names, namespaces, which of them are for sandboxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from infra.policy.rule import Resource, at, items

_STARTS: Final = ("pods", "jobs")

_POD_SPEC: Final = {
    "Pod": "spec",
    "CronJob": "spec.jobTemplate.spec.template.spec",
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"), "spec.template.spec"
    ),
}
PODS: Final = tuple(f"kubernetes:{kind}" for kind in _POD_SPEC)
"""Types of resources that hold a pod."""


def is_object(resource: Resource) -> bool:
    """Whether a resource is a Kubernetes object, and not a component that holds some."""
    return resource.type.startswith("kubernetes:") and "metadata" in resource.inputs


def of(resources: Sequence[Resource], *kinds: str) -> Iterator[Resource]:
    """Yield the Kubernetes objects of some kinds; a patch counts as what it patches."""
    return (each for each in resources if each.type.startswith("kubernetes:") and each.kind in kinds)


def name(resource: Resource) -> str:
    """Return the name of an object in the cluster."""
    return str(at(resource.inputs, "metadata.name") or "")


def namespace(resource: Resource) -> str:
    """Return the namespace of an object; Kubernetes' own default if it names none."""
    return str(at(resource.inputs, "metadata.namespace") or "default")


def pod(resource: Resource) -> Mapping[str, Any]:
    """Return the pod's spec in an object of `PODS`."""
    return at(resource.inputs, _POD_SPEC[resource.kind]) or {}


def containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the containers of a pod's spec."""
    for field in ("initContainers", "containers"):
        yield from items(spec, field)


def sandbox_namespaces(resources: Sequence[Resource]) -> frozenset[str]:
    """Return the namespaces of sandboxes: where some Role of the stack lets somebody start programs."""
    return frozenset(
        namespace(role)
        for role in of(resources, "Role")
        for rule in items(role.inputs, "rules")
        if "create" in items(rule, "verbs") and any(kind in items(rule, "resources") for kind in _STARTS)
    )
