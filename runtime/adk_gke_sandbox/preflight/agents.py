"""The agents' side of the network: a pod under their identity resolves names, and connects to what agents call.

The program is ``pod.probe``, as in a sandbox. The pod is the one object that preflight makes itself; it has no token,
and is deleted when it has ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from adk_gke_sandbox.cluster.api import resource
from adk_gke_sandbox.contract import APP_LABEL, APP_NAME, MANAGED_BY_LABEL, SANDBOX_UID, Contract
from adk_gke_sandbox.preflight.checks import Findings, Problem, check, stack_up
from adk_gke_sandbox.preflight.probe import ProbedCluster, Target, arguments, program
from adk_gke_sandbox.preflight.reached import Document

MODEL_ENDPOINT: Final = "aiplatform.googleapis.com:443"
"""Where models answer on Google Cloud, unless another endpoint is named
(https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations#global-endpoint)."""

ENDED_SECONDS: Final = 120.0
"""Within which the pod has started and ended, at the most."""

_RUN_SECONDS: Final = 30.0
"""Of these for the program, which tries everything at once."""

_ATTEMPT_SECONDS: Final = 15.0
"""How long each name and address is tried: a resolver waits 5 s for an answer, and asks again."""

_POLL_SECONDS: Final = 0.5
_PERMISSION: Final = "create, get and delete pods and get pods/log in the agents' namespace"


@dataclass(kw_only=True)
class AgentsCluster(ProbedCluster):
    """A cluster in a pod of the agents of which the program runs once, when its report is first asked for.

    Attributes:
        model_endpoint: Host and port of the agents' models; empty is Google Cloud's own where the cluster is there.
    """

    model_endpoint: str = ""

    @cached_property
    def agents_targets(self) -> tuple[Target, ...]:
        """What the program tries: what agents call, as far as it is known, and the names of it."""
        found, names = self.api_server, []
        # Where nobody resolves names, nobody answers at the addresses of Services either, as on the local cluster.
        if self.on_google_cloud or self._service("kube-system", "kube-dns", 53):
            found, names = self._service("default", "kubernetes", 443), ["kubernetes.default.svc"]
        if endpoint := self.model_endpoint or (MODEL_ENDPOINT if self.on_google_cloud else ""):
            host, _, port = endpoint.rpartition(":")
            names.append(host)
            found.append(Target("model endpoint", host, int(port)))
        return (*(Target("name", name, 0, "name") for name in names), *found)

    @cached_property
    def agents_pod(self) -> Document:
        """The pod once it has ended, or its time is over; ``report`` is what it printed, empty where that is nothing.

        Raises:
            ClusterError: it could not be made, looked at or deleted.
        """
        made = probe_pod(self.contract, self.agents_targets)
        name, namespace = made["metadata"]["name"], made["metadata"]["namespace"]
        self.create(made, namespace=namespace)
        until = time.monotonic() + min(ENDED_SECONDS, self.contract.schedule_timeout_seconds + _RUN_SECONDS)
        try:
            while True:
                pod = self.find("pods", name, namespace=namespace)
                phase = pod.get("status", {}).get("phase")
                if phase == "Succeeded":
                    log = resource("v1", "pods", namespace, name, "log")
                    # A log is no document, but this one is one line of JSON.
                    return {**pod, "report": self.api.request("get", log, accept="*/*")}
                if phase == "Failed" or time.monotonic() > until:
                    return {**pod, "report": {}}
                time.sleep(_POLL_SECONDS)
        finally:
            self.api.delete(resource("v1", "pods", namespace, name))

    def answered(self, protocols: Iterable[str]) -> tuple[list[Target], list[Target]]:
        """Return the targets of some protocols, and those of them that did not answer."""
        opened, wanted = self.agents_pod["report"]["opened"], tuple(protocols)
        tried = [(number, each) for number, each in enumerate(self.agents_targets) if each.protocol in wanted]
        return [each for _, each in tried], [each for number, each in tried if number not in opened]


def probe_pod(contract: Contract, targets: Iterable[Target]) -> Document:
    """Return a pod under the agents' identity that runs the program once."""
    name = f"sandbox-preflight-{secrets.token_hex(4)}"
    labels = {APP_LABEL: APP_NAME, MANAGED_BY_LABEL: APP_NAME}
    little = {"cpu": "100m", "memory": "128Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": contract.agents_namespace, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": int(ENDED_SECONDS),
            "serviceAccountName": contract.agent_service_account,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": SANDBOX_UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": contract.image,
                    "command": ["python3", "-I", "-S", "-B", "-c", program()],
                    "args": list(arguments(targets, _ATTEMPT_SECONDS)),
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "resources": {"requests": little, "limits": little},
                }
            ],
        },
    }


# It has the contract's image, which the cluster must know of first.
@check("job-admitted", permission=_PERMISSION)
def agents_probe(cluster: AgentsCluster) -> Findings:
    """A pod under the agents' identity starts in their namespace, and runs to its end."""
    contract, pod = cluster.contract, cluster.agents_pod
    said = "" if pod["report"] else _state(pod)
    fix = (
        f"Do what `kubectl get events -n {contract.agents_namespace}` says of it, then run preflight again: agents "
        "start on the same nodes"
    )
    subject = f"pod of ServiceAccount {contract.agents_namespace}/{contract.agent_service_account}"
    return f"ran with {contract.image}", [Problem(subject, "runs to its end", said, fix)]


@check("agents-probe", permission=_PERMISSION)
def agents_names(cluster: AgentsCluster) -> Findings:
    """Names resolve for agents: the API server's in the cluster, and the model endpoint's."""
    tried, unanswered = cluster.answered(("name",))
    servers = ", ".join(cluster.agents_pod["report"]["name_servers"]) or "none"
    fix = (
        f"Let agents reach their name server ({servers}) on port 53: the stack's policy names those that GKE uses. "
        f"{_policies(cluster.contract)}"
    )
    problems = [Problem(each.address, "resolves from the agents' namespace", "does not", fix) for each in unanswered]
    names = ", ".join(each.address for each in tried)
    return f"{names} by {servers}" if names else "no name is tried: the cluster has no Service kube-dns", problems


@check("agents-probe", permission=_PERMISSION)
def agents_network(cluster: AgentsCluster) -> Findings:
    """What agents call answers them: the API server and the model endpoint."""
    tried, unanswered = cluster.answered(("tcp",))
    fix = (
        f"{_policies(cluster.contract)}. What is on the internet also takes a way out: `pulumi config set --path "
        "'agentsEgress[0]' HOST:PORT` (Google's APIs take none but Private Google Access of the subnet)"
    )
    problems = [Problem(str(each), "answers agents", "does not answer", fix) for each in unanswered]
    if not tried:
        fix = "Run preflight as an identity that may get the service kubernetes in default"
        problems.append(Problem("what agents call", "at least one address to try", "none is known", fix))
    return f"an answer from {', '.join(map(str, tried))}", problems


CHECKS: Final = (agents_probe, agents_names, agents_network)


def _policies(contract: Contract) -> str:
    return f"Look at `kubectl get networkpolicies -n {contract.agents_namespace}`, then run {stack_up(contract)}"


def _state(pod: Document) -> str:
    """Return how far a pod has come, in Kubernetes' words."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or [{}]
    detail: Document = next(iter((containers[0].get("state") or {}).values()), {})
    words = (status.get("phase", "gone"), status.get("reason"), detail.get("reason"), detail.get("message"))
    return ": ".join(dict.fromkeys(filter(None, words)))
