"""The cluster that is checked, and the first checks: the API server answers, and the contract is of this cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from adk_gke_sandbox.cluster.api import Cluster, resource
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, CONTRACT_KEY, Contract, parse
from adk_gke_sandbox.errors import ClusterError, ContractError, Forbidden, NotFound, Unauthorized
from adk_gke_sandbox.preflight.checks import Findings, Problem, check, delete_object, stack_up

Document = dict[str, Any]


@dataclass(kw_only=True)
class CheckedCluster:
    """A cluster and the contract that it is held against.

    Attributes:
        contract: What the cluster should be.
        config: The executor's settings under this contract.
        api: The connection to it.
    """

    contract: Contract
    config: ExecutorConfig
    api: Cluster

    @cached_property
    def identity(self) -> str:
        """User name of the caller; empty where it may not ask."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            return str(self.create(body)["status"]["userInfo"].get("username", ""))
        except Forbidden:
            return ""

    def find(
        self, plural: str, name: str = "", *, namespace: str = "", unless: type[ClusterError] = NotFound
    ) -> Document:
        """Return an object of the core group, without a name the list of all; empty in place of such an error."""
        try:
            return self.api.request("get" if name else "list", resource("v1", plural, namespace, name))
        except unless:
            return {}

    def create(self, manifest: Document, *, namespace: str = "", **query: str) -> Document:
        """Return the API server's answer to an object."""
        path = resource(manifest["apiVersion"], f"{manifest['kind'].lower()}s", namespace)
        return self.api.request("create", path, body=manifest, query=query)


@check(permission="nothing")
def api_server(cluster: CheckedCluster) -> Findings:
    """The API server answers and accepts the credentials."""
    subject, fix = f"API server {cluster.api.host}", "Log in again; for GKE: `gcloud auth login`"
    try:
        said = "no credentials reached it" if cluster.identity == "system:anonymous" else ""
    except Unauthorized as error:
        said = error.message
    except ClusterError as error:
        fix = "Check that the cluster runs, and name its kubeconfig and context by --kubeconfig and --context"
        said = error.message
    return f"{cluster.api.host} answers", [Problem(subject, "answers and accepts the credentials", said, fix)]


@check("api-server", permission="get namespaces")
def namespaces(cluster: CheckedCluster) -> Findings:
    """The namespaces of sandboxes and of agents exist."""
    contract, problems = cluster.contract, []
    for name in (contract.namespace, contract.agents_namespace):
        found = cluster.find("namespaces", name)
        if not found:
            fix = f"Run {stack_up(contract)}; if the contract is of another cluster, name that by --context"
            problems.append(Problem(f"Namespace {name}", "exists", "no such namespace", fix))
        elif found["metadata"].get("deletionTimestamp"):
            fix = f"Wait until it is gone, then run {stack_up(contract)}"
            problems.append(Problem(f"Namespace {name}", "exists", "being deleted", fix))
    return f"{contract.namespace} and {contract.agents_namespace}", problems


@check("namespaces", permission=f"get configmaps {CONTRACT_CONFIG_MAP} in the agents' namespace")
def contract(cluster: CheckedCluster) -> Findings:
    """Agents mount the contract that is checked; where the API server is may differ."""
    checked, namespace = cluster.contract, cluster.contract.agents_namespace
    subject, expected = f"ConfigMap {namespace}/{CONTRACT_CONFIG_MAP}", "the contract that is checked"
    anew = f"{delete_object('configmap', CONTRACT_CONFIG_MAP, namespace)}, then {stack_up(checked)}"
    found = cluster.find("configmaps", CONTRACT_CONFIG_MAP, namespace=namespace)
    try:
        mounted = parse(found.get("data", {}).get(CONTRACT_KEY, ""), source=subject)
    except ContractError as error:
        return "", [Problem(subject, expected, error.message, anew)]
    here, there = (item.model_dump(mode="json", exclude={"cluster"}) for item in (checked, mounted))
    different = [f"{key} is {there[key]!r}, checked is {here[key]!r}" for key in here if here[key] != there[key]]
    pull = f"Pull the stack's contract with `adk-gke-sandbox contract pull {checked.stack}`"
    fix = f"{pull}; if the ConfigMap was changed by hand, {anew}"
    return "agents mount the contract that is checked", [Problem(subject, expected, "; ".join(different), fix)]


CHECKS: Final = (api_server, namespaces, contract)
