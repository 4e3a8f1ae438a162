"""What the objects of the sandbox namespace may ask for: one list of rules in CEL, from the contract. Pure.

The rules allow what the contract describes and ``manifests`` writes; all else is refused with a message. Most come from
the table of ``fields``; here are those that are more than a value. They say nothing of a pod's ``restartPolicy`` and
deadline: the pods of a Deployment of idle sandboxes are under them, too. The package makes policies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from adk_gke_sandbox.cluster.manifests import DEADLINE_MARGIN_SECONDS
from adk_gke_sandbox.contract import (
    ANNOTATION,
    APP_LABEL,
    APP_NAME,
    CONFIG_MAPS,
    EXECUTION_LABEL,
    JOBS,
    PODS,
    RUNTIME_NODE_KEY,
    Contract,
)
from infra.admission.cel import Rule, broken, literal, told
from infra.admission.config_maps import NOT_PUBLISHED, config_map_rules
from infra.admission.made import made_rules

EPHEMERAL_STORAGE_CEILING_MIB: Final = 1024
"""Disk of one sandbox at the most; it holds the container's log and the mounted request, nothing else."""

GRACE_SECONDS_MAX: Final = 30
"""The longest that a sandbox may outlive its deletion; Kubernetes' own default.

A deadline deletes the pod, but the pod ends only when its processes do or its grace period.
"""

TTL_SECONDS_MAX: Final = 300
"""The longest that a finished Job may stay; the quota counts it until then."""

LABELS_MAX: Final = 64
"""Labels of one object at the most; Kubernetes bounds their size, not their number
(https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set)."""

ANNOTATIONS: Final = (
    ANNOTATION.rstrip("/"),
    # Kubernetes' own (https://kubernetes.io/docs/reference/labels-annotations-taints/).
    r"([a-z0-9-]+\.)*(kubernetes|k8s)\.io",
    # GKE's, which it sets on Jobs and pods before policies see them
    # (https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests). By its others a pod asks
    # for something: more networks, devices of the node, the memory of another pod
    # (https://cloud.google.com/kubernetes-engine/docs/how-to/setup-multinetwork-support-for-pods,
    # https://github.com/GoogleCloudPlatform/container-engine-accelerators/tree/master/nri_device_injector,
    # https://cloud.google.com/kubernetes-engine/docs/how-to/pod-snapshots).
    r"autopilot\.gke\.io",
    r"cloud\.google\.com",
)
"""Regular expressions of what the name of an annotation may begin with, before its slash."""

POWERFUL_ANNOTATIONS: Final = (
    # gVisor takes flags and mounts from them (https://gvisor.dev/docs/user_guide/containerd/configuration/).
    "dev.gvisor",
    # The profile that `node-profiles` refuses
    # (https://kubernetes.io/docs/reference/labels-annotations-taints/#container-apparmor-security-beta-kubernetes-io).
    "container.apparmor.security.beta.kubernetes.io/",
    # A pod that the kubelet takes for a static one of its own
    # (https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror).
    "kubernetes.io/config.",
)
"""What it may not begin with all the same: who sets these gives the pod something."""

JOB_TRACKING: Final = "batch.kubernetes.io/job-tracking"
"""The finalizer of the Job controller
(https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-tracking-with-finalizers)."""

GIVEN_TOLERATIONS: Final = (
    # https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#defaulttolerationseconds
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    # https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtolerationrestriction
    "node.kubernetes.io/memory-pressure",
    # GKE Autopilot's (https://cloud.google.com/kubernetes-engine/docs/how-to/autopilot-arm-workloads).
    "kubernetes.io/arch",
)
"""Keys of tolerations that clusters give to every pod before policies see it; none leads to other nodes than ours."""

RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")

_NEW: Final = 'request.operation == "CREATE"'

CONDITIONS: Final[Mapping[str, Mapping[str, str]]] = {
    # Only a changed spec is looked at. Controllers remove finalizers, and people change labels, of objects that an
    # earlier policy let in; refused, such an object could never be deleted.
    PODS: {"new-or-changed": f"{_NEW} || object.spec != oldObject.spec"},
    JOBS: {"new-or-changed": f"{_NEW} || object.spec != oldObject.spec"},
    CONFIG_MAPS: {
        "new-or-changed": " || ".join(
            [_NEW, *(f"object.?{field} != oldObject.?{field}" for field in ("data", "binaryData", "immutable"))]
        ),
        "not-published": NOT_PUBLISHED,
    },
}
"""By kind of object, when a policy looks at one: its match conditions."""

OBJECTS: Final[Mapping[str, tuple[str, list[str]]]] = {
    # The two others change the spec of a running pod.
    PODS: ("", ["pods", "pods/ephemeralcontainers", "pods/resize"]),
    JOBS: ("batch", ["jobs"]),
    CONFIG_MAPS: ("", ["configmaps"]),
}
"""By kind of object, API group and resources that its policy is for."""

_EVERYBODY: Final = (PODS, JOBS, CONFIG_MAPS)
_SECURITY: Final = "variables.container.?securityContext"


def rules(contract: Contract) -> tuple[Rule, ...]:
    """Return all rules, in the order in which they are looked at."""
    return (
        *made_rules(contract),
        *_inside(contract),
        *_privileges(),
        *_resources(contract),
        *_image(contract),
        *_placement(contract),
        *_one_container(),
        *config_map_rules(),
        *_metadata(),
        *_job(contract),
    )


def image_prefixes(image: str) -> tuple[str, ...]:
    """Return what the names of images beside this one begin with.

    ``registry/project/repository/image@sha256:...`` gives ``registry/project/repository/``. What has one slash or
    none may be in everybody's registry, and stands for itself only.
    """
    folder, _, last = image.partition("@")[0].rpartition("/")
    if "/" in folder:
        return (f"{folder}/",)
    name = "/".join(filter(None, [folder, last.partition(":")[0]]))
    return (f"{name}@", f"{name}:")


def _inside(contract: Contract) -> tuple[Rule, ...]:
    fix, allowed = "Remove envFrom and valueFrom: write the values themselves", ""
    if contract.secret_env:
        fix, allowed = "Remove envFrom, and valueFrom but for secretKeyRef", " || i.?valueFrom.?secretKeyRef.hasValue()"
    foreign = broken("variables.container.?env.orValue([])", f"!i.?valueFrom.hasValue(){allowed}", "i.name")
    volumes = broken(
        "variables.spec.?volumes.orValue([])",
        "i.?emptyDir.hasValue() ? i.?emptyDir.?sizeLimit.hasValue() : (i.?configMap.hasValue() || "
        "(i.?projected.hasValue() && i.?projected.?sources.orValue([]).all(s, s.?configMap.hasValue())))",
        "i.name",
    )
    return (
        Rule(
            id="volumes",
            refuses="a volume is neither an emptyDir with a sizeLimit nor made of ConfigMaps",
            fix="Give the emptyDir a sizeLimit, or remove the volume",
            holds=volumes[0],
            found=volumes[1],
        ),
        Rule(
            id="env",
            refuses="the environment of a container comes from elsewhere",
            fix=fix,
            holds=f"variables.container.?envFrom.orValue([]).size() == 0 && {foreign[0]}",
            found=f'variables.container.?envFrom.hasValue() ? "envFrom" : {foreign[1]}',
        ),
    )


def _privileges() -> tuple[Rule, ...]:
    def effective(field: str, otherwise: str) -> str:
        # A container's own setting wins over the pod's.
        return f"{_SECURITY}.?{field}.orValue(variables.spec.?securityContext.?{field}.orValue({otherwise}))"

    return (
        Rule(
            id="non-root",
            refuses="a container may run as root",
            fix="Set securityContext.runAsNonRoot to true, and runAsUser to a number above 0",
            holds=f"{effective('runAsNonRoot', 'false')} && {effective('runAsUser', '1')} != 0",
            found=f'"runAsNonRoot " + string({effective("runAsNonRoot", "false")}) + ", runAsUser " + '
            f"string({effective('runAsUser', '1')})",
        ),
        Rule(
            id="capabilities",
            refuses="a container keeps or adds capabilities",
            fix='Set securityContext.capabilities to {"drop": ["ALL"]}',
            holds=f'{_SECURITY}.?capabilities.?drop.orValue([]).exists(d, d == "ALL") && '
            f"{_SECURITY}.?capabilities.?add.orValue([]).size() == 0",
            found=f'"drop " + {_SECURITY}.?capabilities.?drop.orValue(["nothing"]).join(", ") + "; add " + '
            f'{_SECURITY}.?capabilities.?add.orValue(["nothing"]).join(", ")',
        ),
        Rule(
            id="seccomp",
            refuses="the seccomp profile of a container is not RuntimeDefault",
            fix="Set securityContext.seccompProfile.type to RuntimeDefault",
            holds=f'{effective("seccompProfile.?type", literal(""))} == "RuntimeDefault"',
            found=effective("seccompProfile.?type", literal("none")),
        ),
    )


def _resources(contract: Contract) -> tuple[Rule, ...]:
    limits, known = "variables.container.?resources.?limits", literal(RESOURCES)
    most = (contract.ceilings.cpu, contract.ceilings.memory, f"{EPHEMERAL_STORAGE_CEILING_MIB}Mi")
    asked = f'{limits}.orValue({{}}).map(r, r).join(", ")'
    return (
        Rule(
            id="limits",
            refuses=f"a container has no limit of {', '.join(RESOURCES[:-1])} or {RESOURCES[-1]}",
            fix="Set all three in resources.limits",
            holds=f"{known}.all(r, {limits}[?r].hasValue())",
            found=f'"limits of " + {asked}',
        ),
        *(
            Rule(
                id=f"{resource}-ceiling",
                refuses=f"the {resource} limit of a container is above {ceiling}",
                fix="Lower it, or have the platform team raise the ceiling in the stack's settings",
                holds=f'quantity({limits}[?"{resource}"].orValue("0")).compareTo(quantity({literal(ceiling)})) <= 0',
                found=f'string({limits}[?"{resource}"].orValue("0"))',
            )
            for resource, ceiling in zip(RESOURCES, most, strict=True)
        ),
        Rule(
            id="devices",
            refuses="a container asks for a device",
            fix=f"Ask for {', '.join(RESOURCES)} only",
            holds=f"{limits}.orValue({{}}).all(r, r in {known})",
            found=asked,
        ),
    )


def _image(contract: Contract) -> tuple[Rule, ...]:
    image, allowed = "variables.container.?image", image_prefixes(contract.image)
    return (
        Rule(
            id="image-digest",
            refuses="an image is not named by digest, so what runs could change by itself",
            fix="Write NAME@sha256:DIGEST; GkeCodeExecutor.from_contract() has the stack's image",
            holds=f'{image}.orValue("").matches("^[^@]+@sha256:[a-f0-9]{{64}}$")',
            found=told(image),
        ),
        Rule(
            id="image-registry",
            refuses=f"the name of an image does not begin with {' or '.join(allowed)}",
            fix="Push the image there; GkeCodeExecutor.from_contract() has the stack's image",
            holds=f'{literal(allowed)}.exists(p, {image}.orValue("").startsWith(p))',
            found=told(image),
        ),
    )


def _placement(contract: Contract) -> tuple[Rule, ...]:
    labels = sorted(contract.node_selector.items())
    selector = " && ".join(
        [
            "variables.spec.?nodeSelector.orValue({})"
            f".all(k, k in {literal((RUNTIME_NODE_KEY, *(key for key, _ in labels)))})",
            *(
                f'variables.spec.?nodeSelector[?{literal(key)}].orValue("") == {literal(value)}'
                for key, value in labels
            ),
        ]
    )
    own = (RUNTIME_NODE_KEY, *(toleration.key for toleration in contract.tolerations))
    tolerated = broken(
        "variables.spec.?tolerations.orValue([])",
        f'i.?key.orValue("") in {literal(tuple(dict.fromkeys((*own, *GIVEN_TOLERATIONS))))}',
        'i.?key.orValue("every taint")',
    )
    return (
        Rule(
            id="node-name",
            refuses="the pod chooses its node by name",
            fix="Remove nodeName",
            # Later every pod has one.
            holds='request.operation != "CREATE" || !variables.spec.?nodeName.hasValue()',
            found='variables.spec.?nodeName.orValue("")',
        ),
        Rule(
            id="node-selector",
            refuses="nodeSelector is not the stack's, which asks for "
            + (", ".join(f"{key}={value}" for key, value in labels) or "nothing"),
            fix="Set exactly that; the RuntimeClass adds the label of the sandbox pool",
            holds=selector,
            found='variables.spec.?nodeSelector.hasValue() ? variables.spec.nodeSelector.map(k, k + "=" + '
            'variables.spec.nodeSelector[k]).join(", ") : "nothing"',
        ),
        Rule(
            id="tolerations",
            refuses="a toleration is for a taint that is not the sandbox pool's",
            fix=f"Tolerate {', '.join(dict.fromkeys(own))} only",
            holds=tolerated[0],
            found=tolerated[1],
        ),
        Rule(
            id="system-priority",
            refuses="the pod has a PriorityClass of the system, so it could push others from their nodes",
            fix="Remove priorityClassName",
            holds='!variables.spec.?priorityClassName.orValue("").startsWith("system-")',
            found='variables.spec.?priorityClassName.orValue("")',
            on=(PODS,),
        ),
    )


def _one_container() -> tuple[Rule, ...]:
    return (
        Rule(
            id="one-container",
            refuses="the pod has more than one container",
            fix="Leave one",
            holds="variables.spec.containers.size() == 1",
            found='variables.spec.containers.map(c, c.name).join(", ")',
        ),
        Rule(
            id="grace-period",
            refuses=f"the pod may outlive its deletion by more than {GRACE_SECONDS_MAX} s",
            fix=f"Set terminationGracePeriodSeconds to {GRACE_SECONDS_MAX} or less",
            holds=f"variables.spec.?terminationGracePeriodSeconds.orValue(30) <= {GRACE_SECONDS_MAX}",
            found="string(variables.spec.?terminationGracePeriodSeconds.orValue(30))",
        ),
    )


def _metadata() -> tuple[Rule, ...]:
    kept = (
        f"k.matches({literal('^(' + '|'.join(ANNOTATIONS) + ')/')}) && "
        f"!{literal(POWERFUL_ANNOTATIONS)}.exists(p, k.startsWith(p))"
    )
    given = "i.?annotations.orValue({})"
    return (
        Rule(
            id="annotations",
            refuses="an annotation is neither this package's nor one that Kubernetes or GKE sets",
            fix=f"Remove it; use {ANNOTATION}NAME, or a label",
            holds=f"variables.metadata.all(i, {given}.all(k, {kept}))",
            found=f'variables.metadata.map(i, {given}.filter(k, !({kept})).map(k, k).join(", "))'
            '.filter(f, f != "").join(", ")',
        ),
        _labels(
            "labels",
            f"the label {APP_LABEL}={APP_NAME} is missing, so nobody would find the object to clean up",
            "Set it on the object, and on the template of a Job",
            lambda all_: f'{all_}[?{literal(APP_LABEL)}].orValue("") == {literal(APP_NAME)}',
            f'i.?labels[?{literal(APP_LABEL)}].orValue("none")',
        ),
        _labels(
            "label-count",
            f"there are more than {LABELS_MAX} labels",
            "Leave some out",
            lambda all_: f"{all_}.orValue({{}}).size() <= {LABELS_MAX}",
            "string(i.?labels.orValue({}).size())",
        ),
        _labels(
            "execution-label",
            f"the label {EXECUTION_LABEL} of the object or its template is not the name of the Job",
            "Set it to the name: the executor finds the pod by it, and others the object",
            lambda all_: f'{all_}[?{literal(EXECUTION_LABEL)}].orValue("") == variables.execution',
            f'i.?labels[?{literal(EXECUTION_LABEL)}].orValue("none")',
            on=(JOBS, CONFIG_MAPS),
        ),
        Rule(
            id="managed-fields",
            refuses="the object brings a history of its own, which could be of any size",
            fix="Remove metadata.managedFields",
            # The API server adds one entry for the creation itself. One that is sent under the same manager's name
            # becomes a part of it, and is not seen: `isolation.OBJECT_MIB` counts it.
            holds='request.operation != "CREATE" || object.metadata.?managedFields.orValue([]).size() <= 1',
            found="string(object.metadata.?managedFields.orValue([]).size() - 1)",
            on=_EVERYBODY,
        ),
        Rule(
            id="pod-finalizers",
            refuses="the pod would stay when it is deleted, and use up quota",
            fix="Remove metadata.finalizers; the Job controller sets its own",
            holds=f"object.metadata.?finalizers.orValue([]).all(f, f == {literal(JOB_TRACKING)})",
            found='object.metadata.?finalizers.orValue([]).join(", ")',
            on=(PODS,),
        ),
    )


def _labels(id: str, refuses: str, fix: str, holds: Callable[[str], str], found: str, **on: Any) -> Rule:  # noqa: A002
    return Rule(
        id=id,
        refuses=refuses,
        fix=fix,
        holds=f"variables.metadata.all(i, {holds('i.?labels')})",
        found=f'variables.metadata.map(i, {found}).join(", ")',
        **({"on": _EVERYBODY} | on),
    )


def _job(contract: Contract) -> tuple[Rule, ...]:
    most = contract.schedule_timeout_seconds + contract.ceilings.timeout_seconds + DEADLINE_MARGIN_SECONDS
    # A regular expression of the Job's name would not do: a dot in it stands for any character.
    name = 's.?configMap.?name.orValue("")'
    own = (
        f'{name} == "" || ({name}.startsWith(object.metadata.name + "-") && '
        f'{name}.substring(object.metadata.name.size() + 1).matches("^[0-9]+$"))'
    )
    # A volume of a ConfigMap looks like a source of a projected one.
    maps = broken(
        "variables.spec.?volumes.orValue([])",
        f"([dyn(i)] + i.?projected.?sources.orValue([])).all(s, {own})",
        "i.name",
    )
    return (
        Rule(
            id="config-maps",
            refuses="a volume shows the ConfigMap of another execution, which holds somebody else's code and files",
            fix="Mount ConfigMaps named NAME-NUMBER, where NAME is the Job's name",
            holds=maps[0],
            found=maps[1],
            on=(JOBS,),
        ),
        Rule(
            id="deadline",
            refuses=f"activeDeadlineSeconds of the Job is above {most}, or not set",
            fix="Lower timeout_seconds or schedule_timeout_seconds, or have the platform team raise them in the "
            "stack's settings",
            holds=f"object.spec.?activeDeadlineSeconds.orValue({most + 1}) <= {most}",
            found=told("object.spec.?activeDeadlineSeconds"),
            on=(JOBS,),
        ),
        Rule(
            id="ttl",
            refuses=f"ttlSecondsAfterFinished is above {TTL_SECONDS_MAX}, or not set: a finished Job uses up quota",
            fix=f"Set it to {TTL_SECONDS_MAX} or less",
            holds=f"object.spec.?ttlSecondsAfterFinished.orValue({TTL_SECONDS_MAX + 1}) <= {TTL_SECONDS_MAX}",
            found=told("object.spec.?ttlSecondsAfterFinished"),
            on=(JOBS,),
        ),
    )
