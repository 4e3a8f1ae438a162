"""What breaks each admission rule: changes of what the executor writes, one rule broken by each."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from adk_gke_sandbox.cluster.manifests import Manifest
from adk_gke_sandbox.contract import APP_LABEL, EXECUTION_LABEL, JOBS, PODS

NODE_LABEL = "kubernetes.io/os"
"""What the contract of the tests asks of nodes; every node has it."""

Change = Callable[[Manifest], object]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A change of a pod or a Job that breaks one rule."""

    kind: str
    rule: str
    number: int
    change: Change

    def __str__(self) -> str:
        return f"{self.kind}-{self.rule}-{self.number}"


def code(pod: Manifest) -> Manifest:
    """Return the container of a pod's spec."""
    found: Manifest = pod["containers"][0]
    return found


def volume(**source: Any) -> Change:
    return lambda pod: pod["volumes"].append({"name": "more", **source})


def projected(**source: Any) -> Change:
    return volume(projected={"sources": [source]})


def security(**settings: Any) -> Change:
    return lambda pod: code(pod)["securityContext"].update(settings)


def limit(**limits: str) -> Change:
    return lambda pod: code(pod)["resources"]["limits"].update(
        {resource.replace("_", "-"): amount for resource, amount in limits.items()}
    )


RERUN = {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}}


def another(pod: Manifest, name: str) -> Manifest:
    return {**copy.deepcopy(code(pod)), "name": name}


OF_SPEC: list[tuple[str, Change]] = [
    ("runtime-class", lambda pod: pod.pop("runtimeClassName")),
    ("host-namespaces", lambda pod: pod.update(hostNetwork=True)),
    ("host-namespaces", lambda pod: pod.update(hostPID=True)),
    ("host-namespaces", lambda pod: pod.update(hostIPC=True)),
    ("process-namespace", lambda pod: pod.update(shareProcessNamespace=True)),
    ("host-ports", lambda pod: code(pod).update(ports=[{"containerPort": 80, "hostPort": 80}])),
    ("host-aliases", lambda pod: pod.update(hostAliases=[{"ip": "127.0.0.1", "hostnames": ["example"]}])),
    ("dns-policy", lambda pod: pod.update(dnsPolicy="ClusterFirst")),
    ("dns-policy", lambda pod: pod.update(dnsPolicy="Default")),
    ("connections", lambda pod: code(pod).update(livenessProbe={"httpGet": {"port": 80, "host": "10.0.0.1"}})),
    ("connections", lambda pod: code(pod).update(readinessProbe={"tcpSocket": {"port": 80}})),
    ("connections", lambda pod: code(pod).update(startupProbe={"grpc": {"port": 80}})),
    ("connections", lambda pod: code(pod).update(lifecycle={"preStop": {"httpGet": {"port": 80}}})),
    ("connections", lambda pod: code(pod).update(lifecycle={"postStart": {"tcpSocket": {"port": 80}}})),
    ("token", lambda pod: pod.pop("automountServiceAccountToken")),
    ("service-account", lambda pod: pod.update(serviceAccountName="default")),
    ("service-account", lambda pod: pod.pop("serviceAccountName")),
    ("service-account", lambda pod: pod.update(serviceAccountName="", serviceAccount="default")),
    ("volumes", volume(emptyDir={})),
    ("volumes", volume(hostPath={"path": "/"})),
    ("volumes", volume(secret={"secretName": "any"})),
    ("volumes", volume(persistentVolumeClaim={"claimName": "any"})),
    ("volumes", volume(csi={"driver": "any"})),
    ("volumes", volume(downwardAPI={"items": [{"path": "any", "fieldRef": {"fieldPath": "metadata.name"}}]})),
    ("volumes", projected(serviceAccountToken={"path": "any"})),
    ("volumes", projected(secret={"name": "any"})),
    ("env", lambda pod: code(pod).update(envFrom=[{"configMapRef": {"name": "any"}}])),
    (
        "env",
        lambda pod: code(pod).update(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "a"}}}]),
    ),
    (
        "env",
        lambda pod: code(pod).update(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]),
    ),
    ("service-links", lambda pod: pod.pop("enableServiceLinks")),
    ("privilege-escalation", lambda pod: code(pod)["securityContext"].pop("allowPrivilegeEscalation")),
    ("privilege-escalation", security(allowPrivilegeEscalation=True)),
    ("non-root", lambda pod: pod["securityContext"].pop("runAsNonRoot")),
    ("non-root", lambda pod: pod["securityContext"].update(runAsUser=0)),
    ("non-root", security(runAsNonRoot=False)),
    ("non-root", security(runAsUser=0)),
    ("capabilities", lambda pod: code(pod)["securityContext"].pop("capabilities")),
    ("capabilities", security(capabilities={"drop": ["NET_RAW"]})),
    ("capabilities", security(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]})),
    ("read-only-root", security(readOnlyRootFilesystem=False)),
    ("read-only-root", lambda pod: code(pod)["securityContext"].pop("readOnlyRootFilesystem")),
    ("seccomp", lambda pod: pod["securityContext"].pop("seccompProfile")),
    ("seccomp", security(seccompProfile={"type": "Unconfined"})),
    ("proc-mount", lambda pod: [pod.update(hostUsers=False), security(procMount="Unmasked")(pod)]),
    ("sysctls", lambda pod: pod["securityContext"].update(sysctls=[{"name": "kernel.shm_rmid_forced", "value": "1"}])),
    ("limits", lambda pod: code(pod)["resources"]["limits"].pop("cpu")),
    ("limits", lambda pod: code(pod)["resources"]["limits"].pop("memory")),
    ("limits", lambda pod: code(pod)["resources"]["limits"].pop("ephemeral-storage")),
    ("cpu-ceiling", limit(cpu="4001m")),
    ("memory-ceiling", limit(memory="8193Mi")),
    ("ephemeral-storage-ceiling", limit(ephemeral_storage="1025Mi")),
    ("devices", lambda pod: code(pod)["resources"]["limits"].update({"example.com/gpu": "1"})),
    ("devices", lambda pod: code(pod)["resources"]["limits"].update({"hugepages-2Mi": "2Mi"})),
    ("pod-resources", lambda pod: pod.update(resources={"limits": {"memory": "64Gi"}})),
    ("pod-resources", lambda pod: pod.update(resourceClaims=[{"name": "any", "resourceClaimName": "any"}])),
    ("image-digest", lambda pod: code(pod).update(image=code(pod)["image"].partition("@")[0] + ":latest")),
    ("image-digest", lambda pod: code(pod).update(image=code(pod)["image"][:-1])),
    ("image-registry", lambda pod: code(pod).update(image=f"docker.io/library/python@sha256:{'a' * 64}")),
    ("node-name", lambda pod: pod.update(nodeName="any")),
    ("node-selector", lambda pod: pod["nodeSelector"].pop(NODE_LABEL)),
    ("node-selector", lambda pod: pod["nodeSelector"].update({NODE_LABEL: "windows"})),
    ("node-selector", lambda pod: pod["nodeSelector"].update({"kubernetes.io/hostname": "any"})),
    ("affinity", lambda pod: pod.update(affinity={"podAntiAffinity": {}})),
    (
        "affinity",
        lambda pod: pod.update(
            topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "any", "whenUnsatisfiable": "DoNotSchedule"}]
        ),
    ),
    ("tolerations", lambda pod: pod["tolerations"].append({"key": "any", "operator": "Exists"})),
    ("tolerations", lambda pod: pod["tolerations"].append({"operator": "Exists"})),
    ("scheduler", lambda pod: pod.update(schedulerName="any")),
    ("one-container", lambda pod: pod["containers"].append(another(pod, "more"))),
    ("init-containers", lambda pod: pod.update(initContainers=[another(pod, "more")])),
    ("grace-period", lambda pod: pod.update(terminationGracePeriodSeconds=31)),
]
"""What breaks one rule in the spec of a pod, and in that of a Job's template."""

OF_POD: list[tuple[str, Change]] = [
    ("labels", lambda pod: pod["metadata"]["labels"].pop(APP_LABEL)),
    ("system-priority", lambda pod: pod["spec"].update(priorityClassName="system-node-critical")),
]

OF_JOB: list[tuple[str, Change]] = [
    ("labels", lambda job: job["metadata"]["labels"].pop(APP_LABEL)),
    ("labels", lambda job: job["spec"]["template"]["metadata"]["labels"].update({APP_LABEL: "any"})),
    ("execution-label", lambda job: job["metadata"]["labels"].pop(EXECUTION_LABEL)),
    ("execution-label", lambda job: job["spec"]["template"]["metadata"]["labels"].update({EXECUTION_LABEL: "any"})),
    ("config-maps", lambda job: volume(configMap={"name": "sandbox-other-0"})(job["spec"]["template"]["spec"])),
    ("config-maps", lambda job: projected(configMap={"name": "sandbox-other-0"})(job["spec"]["template"]["spec"])),
    ("config-maps", lambda job: rename(job, "sandbox", mounts="sandbox-other-0")),
    ("config-maps", lambda job: rename(job, "sandbox.other", mounts="sandbox-other-0")),
    ("job-controller", lambda job: job["spec"].update(managedBy="example.com/any")),
    (
        "job-controller",
        lambda job: job["spec"].update(
            manualSelector=True, selector={"matchLabels": job["spec"]["template"]["metadata"]["labels"]}
        ),
    ),
    ("one-pod", lambda job: job["spec"].update(parallelism=2)),
    ("one-pod", lambda job: job["spec"].update(completions=2)),
    ("one-pod", lambda job: job["spec"].pop("completions")),
    ("one-pod", lambda job: job["spec"].update(completionMode="Indexed")),
    ("token", lambda job: job["spec"]["template"]["spec"].update(automountServiceAccountToken=True)),
    ("backoff-limit", lambda job: job["spec"].pop("backoffLimit")),
    ("backoff-limit", lambda job: job["spec"].update(backoffLimit=1)),
    (
        "pod-failure-policy",
        lambda job: job["spec"].update(
            podFailurePolicy={"rules": [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [0]}}]}
        ),
    ),
    ("restart-policy", lambda job: job["spec"]["template"]["spec"].update(restartPolicy="OnFailure")),
    ("restart-policy", lambda job: code(job["spec"]["template"]["spec"]).update(restartPolicy="Always")),
    ("deadline", lambda job: job["spec"].pop("activeDeadlineSeconds")),
    ("deadline", lambda job: job["spec"].update(activeDeadlineSeconds=3600 + 300 + 31)),
    ("ttl", lambda job: job["spec"].pop("ttlSecondsAfterFinished")),
    ("ttl", lambda job: job["spec"].update(ttlSecondsAfterFinished=301)),
    ("suspend", lambda job: job["spec"].update(suspend=True)),
    ("priority-class", lambda job: job["spec"]["template"]["spec"].update(priorityClassName="any")),
]


def rename(job: Manifest, name: str, *, mounts: str) -> None:
    """Give a Job a name and let it mount one ConfigMap."""
    template = job["spec"]["template"]
    job["metadata"]["name"] = name
    for labels in (job["metadata"]["labels"], template["metadata"]["labels"]):
        labels[EXECUTION_LABEL] = name
    template["spec"]["volumes"][0] = {"name": "sandbox", "configMap": {"name": mounts}}


def _cases() -> Iterator[Case]:
    numbers: Counter[tuple[str, str]] = Counter()
    listed = [
        *((PODS, rule, lambda pod, change=change: change(pod["spec"])) for rule, change in OF_SPEC),
        *((JOBS, rule, lambda job, change=change: change(job["spec"]["template"]["spec"])) for rule, change in OF_SPEC),
        *((PODS, rule, change) for rule, change in OF_POD),
        *((JOBS, rule, change) for rule, change in OF_JOB),
    ]
    for kind, rule, change in listed:
        numbers[kind, rule] += 1
        yield Case(kind=kind, rule=rule, number=numbers[kind, rule], change=change)


CASES = tuple(_cases())
"""Every rule but ``ephemeral-containers``: no new pod has any."""

LEFT_TO_THE_API_SERVER: dict[str, tuple[str, Change]] = {
    "cannot set `allowPrivilegeEscalation` to false": (PODS, lambda pod: security(privileged=True)(pod["spec"])),
    "value of priority": (PODS, lambda pod: pod["spec"].update(priority=1000)),
    "value of PreemptionPolicy": (PODS, lambda pod: pod["spec"].update(preemptionPolicy="Never")),
    "pod rejected": (PODS, lambda pod: pod["spec"].update(overhead={"memory": "1Gi"})),
    "restartPolicy": (PODS, lambda pod: code(pod["spec"]).update(restartPolicyRules=[RERUN])),
    "resources.claims": (PODS, lambda pod: code(pod["spec"])["resources"].update(claims=[{"name": "any"}])),
    "volumeDevices": (
        PODS,
        lambda pod: code(pod["spec"]).update(volumeDevices=[{"name": "tmp", "devicePath": "/dev/any"}]),
    ),
    "backoffLimitPerIndex": (JOBS, lambda job: job["spec"].update(backoffLimitPerIndex=1)),
    "maxFailedIndexes": (JOBS, lambda job: job["spec"].update(maxFailedIndexes=1)),
    "successPolicy": (JOBS, lambda job: job["spec"].update(successPolicy={"rules": [{"succeededCount": 1}]})),
    "selector": (JOBS, lambda job: job["spec"].update(selector={"matchLabels": {"any": "any"}})),
}
"""What no rule looks at because the API server itself refuses it beside what the rules ask for, by its words."""
