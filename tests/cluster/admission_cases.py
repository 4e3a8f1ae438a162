"""What breaks each admission rule: changes of what the executor writes, one rule broken by each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adk_gke_sandbox.cluster.manifests import CONFIG_MAP_BYTES, Manifest
from adk_gke_sandbox.contract import CONFIG_MAPS, EXECUTION_LABEL, JOBS, PODS, Contract
from infra.admission.rules import LABELS_MAX, rules

NODE_LABEL = "kubernetes.io/os"
"""What the contract of the tests asks of nodes; every node has it."""

OTHER_IMAGE = f"docker.io/library/python@sha256:{'a' * 64}"

WRONG: dict[str, dict[str, list[dict[str, Any]]]] = yaml.safe_load(
    Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
)
WRONG["ConfigMap"]["config-map-size"] = [
    {"data": {"request.json": "x" * (CONFIG_MAP_BYTES + 1024)}},
    {"data": {"request.json": "\U0001f40d" * (CONFIG_MAP_BYTES // 4 + 256)}},
    {"data": {f"any-{index}": "" for index in range(6)}},
]
for _where in ("labels", "labels of the template"):
    WRONG[_where]["label-count"] = [{f"any-{index}": "" for index in range(LABELS_MAX)}]

ALSO: Mapping[str, set[str]] = {
    "config-map-owner": {"config-map-name", "execution-label"},
    "config-map-name": {"execution-label"},
    "execution-label": {"config-maps"},
    "token": {"volumes"},
}
"""By rule: those that a change may break as well, by another name or by what the API server makes of it."""

NEWER = ("schedulingGroup", "evictionResponders", "scheduling")
"""Fields that are refused and that the local cluster's API server does not take yet."""

LEFT_TO_THE_API_SERVER: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "cannot set `allowPrivilegeEscalation` to false": (PODS, "SecurityContext", {"privileged": True}),
    "value of priority": (PODS, "PodSpec", {"priority": 1000}),
    "value of PreemptionPolicy": (PODS, "PodSpec", {"preemptionPolicy": "Never"}),
    "pod rejected": (PODS, "PodSpec", {"overhead": {"memory": "1Gi"}}),
    "resources.claims": (PODS, "ResourceRequirements", {"claims": [{"name": "any"}]}),
    "volumeDevices": (PODS, "Container", {"volumeDevices": [{"name": "tmp", "devicePath": "/dev/any"}]}),
    "ephemeralContainers": (PODS, "PodSpec", {"ephemeralContainers": [{"name": "any", "image": OTHER_IMAGE}]}),
    "localhostProfile": (PODS, "SeccompProfile", {"localhostProfile": "any"}),
    "backoffLimitPerIndex": (JOBS, "JobSpec", {"backoffLimitPerIndex": 1}),
    "maxFailedIndexes": (JOBS, "JobSpec", {"maxFailedIndexes": 1}),
    "successPolicy": (JOBS, "JobSpec", {"successPolicy": {"rules": [{"succeededCount": 1}]}}),
    "selector": (JOBS, "JobSpec", {"selector": {"matchLabels": {"any": "any"}}}),
}
"""What the API server itself refuses beside what the rules ask for, by its words."""


def pod(document: Manifest) -> Manifest:
    """Return the spec of a pod, or of a Job's template."""
    spec: Manifest = document["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def container(document: Manifest) -> Manifest:
    found: Manifest = pod(document)["containers"][0]
    return found


def more(items: list[Manifest], item: Manifest) -> Manifest:
    items.append(item)
    return item


def source(document: Manifest) -> Manifest:
    found: Manifest = more(pod(document)["volumes"], {"name": "more", "projected": {"sources": [{}]}})
    return found["projected"]["sources"][0]


Place = Callable[[Manifest], Manifest]

OF_ALL: Mapping[str, Place] = {
    "ObjectMeta": lambda document: document["metadata"],
    "labels": lambda document: document["metadata"]["labels"],
}
OF_JOBS: Mapping[str, Place] = {
    "JobSpec": lambda job: job["spec"],
    "ObjectMeta of a Job": lambda job: job["metadata"],
    "ObjectMeta of the template": lambda job: job["spec"]["template"]["metadata"],
    "labels of the template": lambda job: job["spec"]["template"]["metadata"]["labels"],
}
OF_CONFIG_MAPS: Mapping[str, Place] = {
    "ConfigMap": lambda document: document,
    "OwnerReference": lambda document: document["metadata"]["ownerReferences"][0],
}
OF_PODS: Mapping[str, Place] = {
    "PodSpec": pod,
    "PodSecurityContext": lambda document: pod(document)["securityContext"],
    "SeccompProfile": lambda document: pod(document)["securityContext"]["seccompProfile"],
    "nodeSelector": lambda document: pod(document)["nodeSelector"],
    "Toleration": lambda document: more(pod(document)["tolerations"], {"operator": "Exists"}),
    "Container": container,
    "PodSpec containers": lambda document: more(pod(document)["containers"], {}),
    "SecurityContext": lambda document: container(document)["securityContext"],
    "SecurityContext of other users": lambda document: (
        pod(document).update(hostUsers=False) or container(document)["securityContext"]
    ),
    "Capabilities": lambda document: container(document)["securityContext"]["capabilities"],
    "ResourceRequirements": lambda document: container(document)["resources"],
    "limits": lambda document: container(document)["resources"]["limits"],
    "EnvVar": lambda document: more(container(document)["env"], {"name": "A"}),
    "EnvVarSource": lambda document: more(container(document)["env"], {"name": "A", "valueFrom": {}})["valueFrom"],
    "VolumeMount": lambda document: container(document)["volumeMounts"][1],
    "Volume": lambda document: more(pod(document)["volumes"], {"name": "more"}),
    "EmptyDirVolumeSource": lambda document: pod(document)["volumes"][1]["emptyDir"],
    "ProjectedVolumeSource": lambda document: pod(document)["volumes"][0]["projected"],
    "VolumeProjection": source,
    "ConfigMapVolumeSource": lambda document: more(pod(document)["volumes"], {"name": "more", "configMap": {}})[
        "configMap"
    ],
    "ConfigMapProjection": lambda document: source(document).setdefault("configMap", {}),
}
PLACES = {
    PODS: {**OF_ALL, **OF_PODS},
    JOBS: {**OF_ALL, **OF_PODS, **OF_JOBS},
    CONFIG_MAPS: {**OF_ALL, **OF_CONFIG_MAPS},
}
"""By kind: where objects of a Kubernetes type are in what the executor writes, or where one is added."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A change of a pod, a Job or a ConfigMap that breaks one rule."""

    kind: str
    rule: str
    number: int
    type: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind}-{self.rule}-{self.number}-{next(iter(self.fields), 'added')}"

    @property
    def may_break(self) -> set[str]:
        """The rule, and those that the same change may break as well."""
        return {self.rule} | ALSO.get(self.rule, set())


def change(document: Manifest, kind: str, where: str, fields: dict[str, Any]) -> None:
    """Change fields at a place of what the executor wrote."""
    names = {"EXECUTION": document["metadata"]["labels"][EXECUTION_LABEL], "OTHER": OTHER_IMAGE}
    if kind != CONFIG_MAPS:
        names["IMAGE"] = container(document)["image"].partition("@")[0]
    place = PLACES[kind][where](document)
    place.update({name: written(value, names) for name, value in fields.items()})
    for name in [name for name, value in fields.items() if value == "GONE"]:
        del place[name]


def written(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with names in place of the words that stand for them."""
    match value:
        case str():
            for word, name in names.items():
                value = value.replace(word, name)
            return value
        case list():
            return [written(item, names) for item in value]
        case dict():
            return {key: written(item, names) for key, item in value.items()}
    return value


def _cases() -> Iterator[Case]:
    on = {rule.id: rule.on for rule in rules(Contract(stack="any", image="any"))}
    numbers: Counter[str] = Counter()
    listed = [(where, rule, fields) for where in WRONG for rule in WRONG[where] for fields in WRONG[where][rule]]
    for where, rule, fields in listed:
        for kind in on[rule]:
            if where in PLACES[kind]:
                numbers[rule] += 1
                yield Case(kind=kind, rule=rule, number=numbers[rule], type=where, fields=fields)


CASES = tuple(_cases())
