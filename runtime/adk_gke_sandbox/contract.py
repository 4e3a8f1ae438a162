"""The contract: what ``infra`` provisions and the runtime needs to know of it.

``infra`` builds the contract first and everything else from it; the runtime loads it. This module knows
neither Kubernetes' client nor ADK nor Pulumi.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adk_gke_sandbox.errors import ContractError

SCHEMA_VERSION: Final = 1
CONTRACT_ENV: Final = "ADK_GKE_SANDBOX_CONTRACT"
CONTRACT_MOUNT: Final = Path("/etc/adk-gke-sandbox/contract.json")
CONTRACT_KEY: Final = "contract.json"
"""Key of the contract in the ConfigMap that is mounted into agents, and name of its file."""

LOCAL_KUBECONFIG: Final = "agent.kubeconfig"
"""Name of the file with the local agents' credentials, beside the local stack's contract."""

APP_LABEL: Final = "app.kubernetes.io/name"
APP_NAME: Final = "adk-gke-sandbox"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
EXECUTION_LABEL: Final = "adk-gke-sandbox/execution"
"""Label of every object of one execution; its value is the execution's name."""
ANNOTATION: Final = "adk-gke-sandbox/"
"""Prefix of the labels and annotations that tie objects to an ADK session."""

INVOCATION_ANNOTATION: Final = f"{ANNOTATION}invocation-id"
CREATOR_ANNOTATION: Final = f"{ANNOTATION}creator"
"""Annotation of a Job with a random value, by which the client knows its own Job again."""

STACK_LABEL: Final = "adk-gke-sandbox/stack"
"""Label of everything that a stack makes in a cluster; its value is the stack's name."""

CONTRACT_CONFIG_MAP: Final = "adk-gke-sandbox"
"""Name of the ConfigMap in the agents' namespace that agents mount at ``/etc/adk-gke-sandbox``."""

EXECUTOR_ROLE: Final = "sandbox-executor"
"""Name of the Role with the executor's rules, and of its binding."""

DENY_ALL_POLICY: Final = "deny-all"
"""Name of the NetworkPolicy of each namespace that allows nothing."""

PODS: Final = "pods"
JOBS: Final = "jobs"
CONFIG_MAPS: Final = "configmaps"

SANDBOX_UID: Final = 1001
RUNTIME_NODE_KEY: Final = "sandbox.gke.io/runtime"
"""Node label and taint of GKE Sandbox nodes (https://cloud.google.com/kubernetes-engine/docs/concepts/sandbox-pods)."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Model):
    """One RBAC rule."""

    api_group: str
    resource: str
    verbs: tuple[str, ...]


EXECUTOR_RULES: Final[tuple[Rule, ...]] = (
    Rule(api_group="batch", resource="jobs", verbs=("create", "delete", "get")),
    Rule(api_group="", resource="configmaps", verbs=("create",)),
    Rule(api_group="", resource="pods", verbs=("list", "watch")),
    Rule(api_group="", resource="pods/log", verbs=("get",)),
    Rule(api_group="", resource="events", verbs=("list", "watch")),
)
"""What the executor's identity may do in the sandbox namespace: exactly what the code calls."""


SWEEPER_RULES: Final[tuple[Rule, ...]] = (
    Rule(api_group="batch", resource="jobs", verbs=("list", "delete")),
    Rule(api_group="", resource="pods", verbs=("list", "delete")),
    Rule(api_group="", resource="configmaps", verbs=("list", "delete")),
)
"""What ``adk-gke-sandbox sweep`` calls; an identity of its own has them, because lists show other runs' code."""


class Cluster(_Model):
    """Where the API server is.

    ``context`` names a kubeconfig context; the GKE fields are empty on other clusters.
    """

    context: str = ""
    project: str = ""
    location: str = ""
    name: str = ""
    endpoint: str = ""


class Toleration(_Model):
    """A toleration of sandbox pods."""

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoSchedule", "NoExecute", ""] = "NoSchedule"


GVISOR_TOLERATION: Final = Toleration(key=RUNTIME_NODE_KEY, value="gvisor")


class Resources(_Model):
    """Requests and limits of a sandbox container, as Kubernetes quantities."""

    cpu_requested: str = "200m"
    mem_requested: str = "256Mi"
    cpu_limit: str = "500m"
    mem_limit: str = "512Mi"


class Ceilings(_Model):
    """The most that one execution may ask for."""

    cpu: str = "4"
    memory: str = "8Gi"
    timeout_seconds: int = Field(default=3600, gt=0)


class Contract(_Model):
    """Everything that the runtime needs to know of a provisioned stack."""

    schema_version: Literal[1] = SCHEMA_VERSION
    stack: str = Field(min_length=1)
    cluster: Cluster = Cluster()
    namespace: str = Field(default="agent-sandbox", min_length=1)
    agents_namespace: str = Field(default="agents", min_length=1)
    agent_service_account: str = Field(default="agent", min_length=1)
    sandbox_service_account: str = Field(default="sandbox-runner", min_length=1)
    runtime_class: str = Field(default="gvisor", min_length=1)
    node_selector: Mapping[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = (GVISOR_TOLERATION,)
    image: str = Field(min_length=1)
    resources: Resources = Resources()
    ceilings: Ceilings = Ceilings()
    timeout_seconds: int = Field(default=300, gt=0)
    schedule_timeout_seconds: int = Field(default=300, gt=0)
    egress: Literal["none", "fqdn", "internet"] = "none"
    secret_env: bool = False
    """Whether the environment of a sandbox may have values from Secrets of its namespace."""

    @property
    def dns_policy(self) -> str:
        """The ``dnsPolicy`` of sandbox pods: what may connect nowhere resolves nothing."""
        return "None" if self.egress == "none" else "ClusterFirst"

    def to_json(self) -> str:
        """Return the document with stable key order, as exported and mounted."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def policy_name(contract: Contract, kind: str) -> str:
    """Return the name of the admission policy for a kind of object, and of its binding.

    It carries the namespace, which is one stack's only; two stacks of one name can share a cluster.
    """
    stack = re.sub(r"[^a-z0-9]+", "-", contract.stack.lower()).strip("-")
    return "-".join(filter(None, [APP_NAME, stack, contract.namespace, kind]))


def parse(document: str | bytes | Mapping[str, Any], *, source: str = "contract") -> Contract:
    """Return the contract in a JSON text or an already decoded mapping.

    Raises:
        ContractError: not JSON, an unknown key, a missing or wrong value, an unknown schema version.
    """
    try:
        data = json.loads(document) if isinstance(document, (str, bytes)) else document
        if not isinstance(data, Mapping):
            raise ValueError("there is no object in it")
    # The second one: brackets in brackets in brackets.
    except (ValueError, RecursionError) as error:
        remedy = "Write it with `adk-gke-sandbox contract pull`"
        raise ContractError(f"{source} is not JSON of a contract: {error}", remedy) from error
    if (version := data.get("schema_version")) != SCHEMA_VERSION:
        cause = f"{source} has schema version {version!r}; this package reads version {SCHEMA_VERSION}"
        remedy = "Install the adk-gke-sandbox release that matches the stack, or run `pulumi up` with this one"
        raise ContractError(cause, remedy)
    try:
        return Contract.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        remedy = "The stack and this package do not match: pull the contract again, or install the matching release"
        raise ContractError(f"{source}: {where}: {first['msg']}", remedy) from error


def local_stack() -> Path:
    """Return the folder where ``make up`` leaves the local stack's contract and the agents' kubeconfig."""
    state = os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME") or "/", ".local", "state")
    return Path(state, APP_NAME, "local")


def local_kubeconfig(contract: Contract) -> str | None:
    """Return the agents' kubeconfig on this machine if the contract is the local stack's, and not another's there."""
    folder = local_stack()
    try:
        local = parse((folder / CONTRACT_KEY).read_bytes())
    except (OSError, ContractError):
        return None
    ours = (local.cluster, local.namespace) == (contract.cluster, contract.namespace)
    return str(folder / LOCAL_KUBECONFIG) if ours else None


def find() -> Path:
    """Return the file of the contract when none is named.

    That is the one which ``ADK_GKE_SANDBOX_CONTRACT`` names, else the agents' mount,
    ``/etc/adk-gke-sandbox/contract.json``, else the local stack's of this machine.
    """
    if named := os.environ.get(CONTRACT_ENV):
        return Path(named)
    local = local_stack() / CONTRACT_KEY
    return local if os.access(local, os.R_OK) and not os.access(CONTRACT_MOUNT, os.F_OK) else CONTRACT_MOUNT


def load(source: str | Path | Contract | Mapping[str, Any] | None = None) -> Contract:
    """Return the contract from an argument, else from the file that ``find`` finds.

    Args:
        source: A contract, a decoded document or a path.

    Raises:
        ContractError: nothing found, or what was found cannot be read.
    """
    if isinstance(source, Contract):
        return source
    if isinstance(source, Mapping):
        return parse(source)
    path = Path(source) if source else find()
    try:
        return parse(path.read_bytes(), source=str(path))
    except OSError as error:
        raise ContractError(
            f"cannot read the contract {path}: {error.strerror}",
            f"Name a file in {CONTRACT_ENV}, mount the stack's ConfigMap, run `adk-gke-sandbox contract pull`, "
            "or start the local stack with `make up`",
        ) from error
