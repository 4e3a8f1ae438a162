"""Settings and a request become Kubernetes objects. Pure: no I/O, no Kubernetes client."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.values import SecretKey

Manifest = dict[str, Any]

CONTAINER: Final = "code-runner"
"""Name of the container, the one that ADK's own executor uses."""

POD_FILES: Final = ("supervisor.py", "frames.py", "processes.py", "worker.py", "files.py", "figures.py", "hints.py")
"""The programs of this package that travel with the request."""

SUPERVISOR_PATH: Final = "/etc/sandbox/supervisor.py"
REQUEST_KEY: Final = "request.json"

CONFIG_MAP_BYTES: Final = 900 * 1024
"""Bytes of data in one ConfigMap.

The API server refuses more than 1 MiB per object
(https://kubernetes.io/docs/concepts/configuration/configmap/#motivation); the rest is room for metadata.
"""

CONFIG_MAPS_MAX: Final = 32
"""ConfigMaps of one execution at the most; the namespace's quota is sized for it."""

REQUEST_BYTES: Final = (CONFIG_MAPS_MAX - 1) * CONFIG_MAP_BYTES
"""The longest request document; beyond one ConfigMap the runner has one of its own."""

DEADLINE_MARGIN_SECONDS: Final = 30
"""How long after the last moment at which the client itself acts the Job controller does."""

TTL_SECONDS: Final = 60
"""When the TTL controller removes a finished Job that its client did not delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the caller adds to the objects of an execution.

    Attributes:
        labels: Labels of Job, pod and ConfigMaps, to select and to account by.
        invocation_id: ADK's invocation, an annotation of Job and pod; empty outside of ADK.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    invocation_id: str = ""


NO_TAGS: Final = Tags()


def labels(name: str, tags: Tags) -> dict[str, str]:
    """Return the labels of every object of the execution ``name``; ours cannot be replaced."""
    own = {contracts.APP_LABEL: contracts.APP_NAME, contracts.MANAGED_BY_LABEL: contracts.APP_NAME}
    return {**tags.labels, **own, contracts.EXECUTION_LABEL: name}


def split_request(document: bytes, runner: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the data of the ConfigMaps that carry the runner's files and the request document.

    The document is ASCII (JSON with escapes), so it can be cut anywhere.
    """
    text = document.decode("ascii")
    if len(text) + sum(len(source.encode()) for source in runner.values()) <= CONFIG_MAP_BYTES:
        return [{**runner, REQUEST_KEY: text}]
    parts = [text[at : at + CONFIG_MAP_BYTES] for at in range(0, len(text), CONFIG_MAP_BYTES)]
    return [dict(runner), *({f"{REQUEST_KEY}.{index:03d}": part} for index, part in enumerate(parts))]


def config_map_name(name: str, index: int) -> str:
    """Return the name of the ConfigMap ``index`` of the execution ``name``."""
    return f"{name}-{index}"


def config_map(
    config: ExecutorConfig, name: str, index: int, data: dict[str, str], owner_uid: str, tags: Tags = NO_TAGS
) -> Manifest:
    """Return an immutable ConfigMap that the Job ``name`` owns."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(name, index),
            "namespace": config.namespace,
            "labels": labels(name, tags),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner_uid}],
        },
        "immutable": True,
        "data": data,
    }


def job(config: ExecutorConfig, name: str, parts: list[dict[str, str]], tags: Tags = NO_TAGS) -> Manifest:
    """Return the hardened Job of one execution.

    Args:
        config: Settings of the executor.
        name: Name of the execution.
        parts: Data of the ConfigMaps, from ``split_request``; only their keys matter here.
        tags: Labels and annotations of the caller.
    """
    spent = math.ceil(config.schedule_timeout_seconds + config.timeout_seconds)
    annotations = {contracts.INVOCATION_ANNOTATION: tags.invocation_id} if tags.invocation_id else {}
    metadata = {"labels": labels(name, tags), "annotations": annotations}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": config.namespace, **metadata},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": spent + DEADLINE_MARGIN_SECONDS,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {"metadata": metadata, "spec": _pod_spec(config, name, parts, spent)},
        },
    }


def _pod_spec(config: ExecutorConfig, name: str, parts: list[dict[str, str]], spent: int) -> Manifest:
    limits = {"cpu": config.cpu_limit, "memory": config.mem_limit, "ephemeral-storage": config.ephemeral_storage}
    requests = {**limits, "cpu": config.cpu_requested, "memory": config.mem_requested}
    user = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), contracts.SANDBOX_UID)
    scratch = {"medium": "Memory", "sizeLimit": str(config.scratch_bytes)}
    return {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": spent + DEADLINE_MARGIN_SECONDS // 2,
        # The program has ended or must end: nothing in the pod is worth waiting for.
        "terminationGracePeriodSeconds": 1,
        **({"runtimeClassName": config.runtime_class} if config.runtime_class else {}),
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
        "dnsPolicy": config.dns_policy,
        # The API server wants a name server with the policy None; nothing answers at this address, the
        # discard-only one would be IPv6.
        **({"dnsConfig": {"nameservers": ["127.0.0.1"]}} if config.dns_policy == "None" else {}),
        "nodeSelector": dict(config.node_selector),
        "tolerations": [
            {key: value for key, value in toleration.model_dump().items() if value} for toleration in config.tolerations
        ],
        "securityContext": {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": config.image,
                "imagePullPolicy": config.image_pull_policy,
                "command": ["python3", "-I", "-S", "-B", SUPERVISOR_PATH],
                "workingDir": "/workspace",
                # All else travels in the request.
                "env": [
                    {"name": variable, "valueFrom": {"secretKeyRef": {"name": value.secret, "key": value.key}}}
                    for variable, value in config.env.items()
                    if isinstance(value, SecretKey)
                ],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "privileged": False,
                    "readOnlyRootFilesystem": True,
                },
                "resources": {"limits": limits, "requests": requests},
                "volumeMounts": [
                    {"name": "sandbox", "mountPath": "/etc/sandbox", "readOnly": True},
                    {"name": "workspace", "mountPath": "/workspace"},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the path inside the sandbox
                ],
            }
        ],
        "volumes": [
            {"name": "sandbox", "projected": {"sources": _sources(name, parts), "defaultMode": 0o444}},
            {"name": "workspace", "emptyDir": scratch},
            {"name": "tmp", "emptyDir": scratch},
        ],
    }


def _sources(name: str, parts: list[dict[str, str]]) -> list[Manifest]:
    files = [[{"key": key, "path": key if key in POD_FILES else f"request/{key}"} for key in data] for data in parts]
    return [{"configMap": {"name": config_map_name(name, index), "items": items}} for index, items in enumerate(files)]
