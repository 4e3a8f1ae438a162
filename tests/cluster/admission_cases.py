"""What breaks each admission rule: changes of what the executor writes, one rule broken by each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adk_gke_sandbox.cluster.manifests import CONFIG_MAP_BYTES, Manifest
from adk_gke_sandbox.contract import CONFIG_MAPS, EXECUTION_LABEL, JOBS, PODS, Contract
from infra.admission.config_maps import KEYS_MAX
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
    {"data": {f"any-{index}": "" for index in range(KEYS_MAX + 1)}},
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


_ALL, _PODS, _JOB, _MAP = (PODS, JOBS, CONFIG_MAPS), (PODS, JOBS), (JOBS,), (CONFIG_MAPS,)

PLACES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "ObjectMeta": (_ALL, "metadata"),
    "labels": (_ALL, "metadata labels"),
    "JobSpec": (_JOB, "spec"),
    "ObjectMeta of a Job": (_JOB, "metadata"),
    "ObjectMeta of the template": (_JOB, "spec template metadata"),
    "labels of the template": (_JOB, "spec template metadata labels"),
    "PodSpec": (_PODS, "POD"),
    "PodSpec containers": (_PODS, "POD containers +"),
    "PodSecurityContext": (_PODS, "POD securityContext"),
    "SeccompProfile": (_PODS, "POD securityContext seccompProfile"),
    "nodeSelector": (_PODS, "POD nodeSelector"),
    "Toleration": (_PODS, "POD tolerations +"),
    "Container": (_PODS, "POD containers 0"),
    "SecurityContext": (_PODS, "POD containers 0 securityContext"),
    "SecurityContext of other users": (_PODS, "POD containers 0 securityContext"),
    "Capabilities": (_PODS, "POD containers 0 securityContext capabilities"),
    "ResourceRequirements": (_PODS, "POD containers 0 resources"),
    "limits": (_PODS, "POD containers 0 resources limits"),
    "EnvVar": (_PODS, "POD containers 0 env more"),
    "EnvVarSource": (_PODS, "POD containers 0 env more valueFrom"),
    "VolumeMount": (_PODS, "POD containers 0 volumeMounts 1"),
    "Volume": (_PODS, "POD volumes more"),
    "EmptyDirVolumeSource": (_PODS, "POD volumes 1 emptyDir"),
    "ProjectedVolumeSource": (_PODS, "POD volumes 0 projected"),
    "VolumeProjection": (_PODS, "POD volumes 0 projected sources +"),
    "ConfigMapVolumeSource": (_PODS, "POD volumes more configMap"),
    "ConfigMapProjection": (_PODS, "POD volumes 0 projected sources + configMap"),
    "ConfigMap": (_MAP, ""),
    "OwnerReference": (_MAP, "metadata ownerReferences 0"),
}
"""Where objects of a Kubernetes type are in what the executor writes: kinds of objects, and the way there. ``+`` is a
new member of a list, ``more`` one with that name, ``POD`` the spec of the pod or of the Job's template."""


def place(document: Any, kind: str, where: str) -> Manifest:
    """Return the object that is changed."""
    for step in PLACES[where][1].replace("POD", "spec" if kind == PODS else "spec template spec").split():
        if isinstance(document, dict):
            document = document.setdefault(step, {})
        elif step.isdigit():
            document = document[int(step)]
        else:
            document.append({"name": step} if step == "more" else {})
            document = document[-1]
    found: Manifest = document
    return found


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
    if kind in _PODS:
        names["IMAGE"] = place(document, kind, "Container")["image"].partition("@")[0]
    if where == "SecurityContext of other users":
        place(document, kind, "PodSpec")["hostUsers"] = False
    changed = place(document, kind, where)
    changed.update({name: written(value, names) for name, value in fields.items()})
    for name in [name for name, value in fields.items() if value == "GONE"]:
        del changed[name]


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
            if kind in PLACES[where][0]:
                numbers[rule] += 1
                yield Case(kind=kind, rule=rule, number=numbers[rule], type=where, fields=fields)


CASES = tuple(_cases())
