"""What is decided of every field that the objects of the sandbox namespace can have. Pure data.

A field is *allowed* with any value, *fixed* to what a rule says, or *refused*. The rules of refused fields, and of
those with one right value, are made from this table (``made``). Its types are those that can be reached from the
metadata and the specs of Jobs and pods, and from ConfigMaps, without passing through a refused field; tests compare it
with the OpenAPI document of an API server and with a newer client library. So a field that Kubernetes adds is decided
here before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from adk_gke_sandbox.contract import CONFIG_MAPS, JOBS, PODS, Contract

SCHEDULERS: Final = ("default-scheduler", "gke.io/optimize-utilization-scheduler")
"""GKE gives pods the second one when the cluster's autoscaling profile is ``optimize-utilization``
(https://cloud.google.com/kubernetes-engine/docs/concepts/cluster-autoscaler#autoscaling_profiles)."""

REFUSALS: Final[Mapping[str, str]] = {
    "host-namespaces": "the pod shares a namespace of its node",
    "process-namespace": "the containers share their processes",
    "host-aliases": "the pod names hosts, but a sandbox reaches none",
    "pod-name": "the pod gives itself a name",
    "probes": "the kubelet would connect to the container or start programs in it, past every NetworkPolicy",
    "ports": "a container opens a port, but nothing may connect to it",
    "affinity": "the pod has rules of its own for where it runs",
    "gates": "somebody else would decide when the pod starts or ends",
    "pod-resources": "the pod asks for resources beside those of its container",
    "node-profiles": "the pod chooses a security profile of its node",
    "sysctls": "the pod sets kernel parameters",
    "groups": "the container gets groups beside its own",
    "init-containers": "the pod has init containers",
    "ephemeral-containers": "a container would be added to a sandbox",
    "container-restarts": "the container has a restart policy beside the pod's",
    "mounts": "a mount shows devices, a part of a volume, or what the node mounts later",
    "priority-class": "the pod names a priority, so it could push others from their nodes",
    "overhead": "the template states the overhead, which the RuntimeClass does",
    "finalizers": "the object would stay when it is deleted, and use up quota",
    "generated-name": "the API server would choose the object's name",
    "job-owner": "the Job belongs to another object",
    "job-controller": "the Job is another controller's",
    "job-failures": "the Job would count failures or successes in a way of its own, and could run a program again",
    "config-map-annotations": "the ConfigMap has annotations, which may take 256 KiB",
    "binary-data": "the ConfigMap has binary data; a request is text",
}
"""What is wrong with refused fields, by the rule that refuses them. A rule that is missing here is not made from the
table: it allows some members of a union, so that those to come are refused as well."""

_EVERYBODY: Final = (PODS, JOBS, CONFIG_MAPS)
_SERVER: Final = "the API server sets it at creation, whatever was sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is decided of some fields of a type.

    Attributes:
        mark: ``allowed``, ``fixed`` or ``refused``.
        fields: Names of the fields.
        rule: The rule that holds them; empty for allowed ones.
        why: Why they are allowed; what to know of the one right value.
        values: The right value of each, where there is one. A tuple: any of its values.
        or_absent: Whether a field with a right value may also be left out.
        on: Kinds of objects that it is decided for; empty for all that have the type.
    """

    mark: Literal["allowed", "fixed", "refused"]
    fields: tuple[str, ...]
    rule: str = ""
    why: str = ""
    values: Mapping[str, Any] | None = None
    or_absent: bool = False
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Type:
    """A Kubernetes type, and what is decided of its fields.

    Attributes:
        name: Its name in Kubernetes' API.
        decisions: One for each field and kind of object.
        path: CEL expression of where it is, empty where only rules of ``rules`` look.
        shown: What messages put before the name of a field.
        many: Whether it is a list of objects that is there.
        on: Kinds of objects that have it.
    """

    name: str
    decisions: tuple[Decision, ...]
    path: str = ""
    shown: str = ""
    many: bool = False
    on: tuple[str, ...] = (PODS, JOBS)

    def present(self, field: str) -> str:
        """Return the CEL expression of whether a field is there."""
        return f"{self.path}.exists(i, i.?{field}.hasValue())" if self.many else f"{self.path}.?{field}.hasValue()"


def allowed(why: str, *fields: str, on: tuple[str, ...] = ()) -> Decision:
    """Return that fields may have any value."""
    return Decision(mark="allowed", fields=fields, why=why, on=on)


def refused(rule: str, *fields: str, on: tuple[str, ...] = ()) -> Decision:
    """Return that fields must be absent."""
    return Decision(mark="refused", fields=fields, rule=rule, on=on)


def held(rule: str, *fields: str, on: tuple[str, ...] = ()) -> Decision:
    """Return that a rule of ``rules`` says what fields may be."""
    return Decision(mark="fixed", fields=fields, rule=rule, on=on)


def fixed(rule: str, why: str, *, on: tuple[str, ...] = (), or_absent: bool = False, **values: Any) -> Decision:
    """Return that each field has one right value."""
    return Decision(mark="fixed", fields=tuple(values), rule=rule, why=why, values=values, or_absent=or_absent, on=on)


def types(contract: Contract) -> tuple[Type, ...]:
    """Return the table."""
    return (
        _object_meta(),
        Type("PodTemplateSpec", (allowed("below", "metadata", "spec"),), on=(JOBS,)),
        _job_spec(),
        _pod_spec(contract),
        _container(),
        *_security(),
        *_of_containers(contract),
        *_of_pods(),
        *_written_by_the_server(),
        Type(
            "ConfigMap",
            (
                fixed("immutable", "what was submitted is what runs", immutable=True),
                held("config-map-size", "data"),
                refused("binary-data", "binaryData"),
                allowed("below", "apiVersion", "kind", "metadata"),
            ),
            "object",
            on=(CONFIG_MAPS,),
        ),
        Type(
            "OwnerReference",
            (
                held("config-map-owner", "apiVersion", "kind", "controller", "blockOwnerDeletion"),
                held("config-map-name", "name"),
                allowed("what has an owner that is not there is collected", "uid"),
            ),
            on=(CONFIG_MAPS,),
        ),
    )


def _object_meta() -> Type:
    ours = (JOBS, CONFIG_MAPS)
    return Type(
        "ObjectMeta",
        (
            held("annotations", "annotations", on=(PODS, JOBS)),
            refused("config-map-annotations", "annotations", on=(CONFIG_MAPS,)),
            held("labels", "labels"),
            held("managed-fields", "managedFields"),
            # Of a template's metadata the Job controller copies labels, annotations and finalizers
            # (https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/controller_utils.go).
            refused("finalizers", "finalizers", on=ours),
            held("pod-finalizers", "finalizers", on=(PODS,)),
            refused("generated-name", "generateName", on=ours),
            held("execution-label", "name", on=(JOBS,)),
            held("config-map-name", "name", on=(CONFIG_MAPS,)),
            allowed("the pod's controller chooses it", "generateName", "name", on=(PODS,)),
            refused("job-owner", "ownerReferences", on=(JOBS,)),
            held("config-map-owner", "ownerReferences", on=(CONFIG_MAPS,)),
            allowed("the pod's controller", "ownerReferences", on=(PODS,)),
            allowed("the call's own", "namespace"),
            allowed(_SERVER, "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "uid"),
            allowed("a number, the API server's in the end", "generation", "resourceVersion"),
            allowed("the API server drops it", "selfLink"),
        ),
        "variables.metadata",
        "metadata.",
        many=True,
        on=_EVERYBODY,
    )


def _job_spec() -> Type:
    return Type(
        "JobSpec",
        (
            held("deadline", "activeDeadlineSeconds"),
            held("ttl", "ttlSecondsAfterFinished"),
            fixed("one-pod", "an execution is one pod", parallelism=1, completions=1, completionMode="NonIndexed"),
            fixed("backoff-limit", "else the Job runs a program again after a failure", backoffLimit=0),
            fixed("suspend", "the deadline of a suspended Job does not run", suspend=False),
            refused("job-failures", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes"),
            refused("job-controller", "managedBy", "scheduling"),
            fixed("manual-selector", "else the Job chooses its pods itself", manualSelector=False, or_absent=True),
            allowed("the Job controller's; the API server takes none without manualSelector", "selector"),
            allowed("there is one pod and no replacement", "podReplacementPolicy"),
            allowed("below", "template"),
        ),
        "object.spec",
        on=(JOBS,),
    )


def _pod_spec(contract: Contract) -> Type:
    account, runtime = contract.sandbox_service_account, contract.runtime_class
    # With the policy None the API server wants a name server.
    resolver = (
        'dnsConfig.nameservers is then ["127.0.0.1"], as a sandbox resolves no names'
        if contract.egress == "none"
        else "a sandbox resolves names"
    )
    return Type(
        "PodSpec",
        (
            fixed("runtime-class", "without it a program shares the kernel of its node", runtimeClassName=runtime),
            refused("host-namespaces", "hostNetwork", "hostPID", "hostIPC"),
            refused("process-namespace", "shareProcessNamespace"),
            refused("host-aliases", "hostAliases"),
            fixed("dns-policy", resolver, dnsPolicy=contract.dns_policy),
            allowed("it names servers that the NetworkPolicy does not let through", "dnsConfig"),
            fixed("token", "else a token of the Kubernetes API is mounted", automountServiceAccountToken=False),
            fixed("service-account", "GkeCodeExecutor.from_contract() does", serviceAccountName=account),
            allowed("the old name of serviceAccountName; the API server makes them equal", "serviceAccount"),
            fixed(
                "service-links", "else the environment lists the services of the namespace", enableServiceLinks=False
            ),
            held("volumes", "volumes"),
            held("one-container", "containers"),
            refused("init-containers", "initContainers"),
            refused("ephemeral-containers", "ephemeralContainers"),
            refused("pod-resources", "resources", "resourceClaims"),
            held("node-name", "nodeName"),
            held("node-selector", "nodeSelector"),
            refused("affinity", "affinity", "topologySpreadConstraints"),
            held("tolerations", "tolerations"),
            fixed("scheduler", "sandboxes are placed by the cluster's own", schedulerName=SCHEDULERS),
            refused("gates", "schedulingGates", "schedulingGroup", "readinessGates", "evictionResponders"),
            # A pod has those of the cluster's default class and of its RuntimeClass once the API server saw it.
            refused("priority-class", "priorityClassName", "priority", "preemptionPolicy", on=(JOBS,)),
            held("system-priority", "priorityClassName", on=(PODS,)),
            allowed("the API server refuses what is not the class's", "priority", "preemptionPolicy", on=(PODS,)),
            refused("overhead", "overhead", on=(JOBS,)),
            allowed("the API server refuses what is not the RuntimeClass's", "overhead", on=(PODS,)),
            fixed(
                "restart-policy",
                "else the kubelet runs a program again after a failure",
                restartPolicy="Never",
                on=(JOBS,),
            ),
            allowed("idle sandboxes belong to a Deployment, whose pods restart", "restartPolicy", on=(PODS,)),
            held("grace-period", "terminationGracePeriodSeconds"),
            allowed("can only end a pod sooner; the Job's own deadline has a rule", "activeDeadlineSeconds"),
            refused("pod-name", "hostname", "hostnameOverride", "setHostnameAsFQDN", "subdomain"),
            allowed("a user namespace takes rights away", "hostUsers"),
            allowed("the kubelet reads them, the sandbox does not; the quota allows no Secret", "imagePullSecrets"),
            allowed("gVisor runs on Linux nodes only", "os"),
            allowed("below", "securityContext"),
        ),
        "variables.spec",
    )


def _container() -> Type:
    return Type(
        "Container",
        (
            held("image-digest", "image"),
            held("env", "env"),
            refused("env", "envFrom"),
            refused("probes", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"),
            refused("ports", "ports"),
            refused("container-restarts", "restartPolicy", "restartPolicyRules"),
            refused("mounts", "volumeDevices"),
            allowed("what runs is not trusted in any case", "args", "command", "workingDir", "name"),
            allowed("who talks to it", "stdin", "stdinOnce", "tty"),
            allowed("the digest says what runs", "imagePullPolicy"),
            allowed("4 KiB that the kubelet reads", "terminationMessagePath", "terminationMessagePolicy"),
            allowed("below", "resizePolicy", "resources", "securityContext", "volumeMounts"),
        ),
        "variables.container",
        "container.",
    )


def _security() -> tuple[Type, ...]:
    return (
        Type(
            "PodSecurityContext",
            (
                held("non-root", "runAsNonRoot", "runAsUser"),
                held("seccomp", "seccompProfile"),
                refused(
                    "node-profiles",
                    *("appArmorProfile", "seLinuxOptions", "seLinuxChangePolicy", "windowsOptions"),
                ),
                refused("sysctls", "sysctls"),
                refused("groups", "supplementalGroups", "supplementalGroupsPolicy"),
                allowed("the group of the pod's own volumes", "fsGroup", "fsGroupChangePolicy", "runAsGroup"),
            ),
            "variables.spec.?securityContext",
            "securityContext.",
        ),
        Type(
            "SecurityContext",
            (
                fixed(
                    "privilege-escalation",
                    "else the container can gain privileges",
                    allowPrivilegeEscalation=False,
                ),
                fixed("privileged", "else the container has its node", privileged=False, or_absent=True),
                fixed(
                    "read-only-root",
                    "programs write where an emptyDir is mounted",
                    readOnlyRootFilesystem=True,
                ),
                fixed("proc-mount", "else it sees what is hidden of /proc", procMount="Default", or_absent=True),
                held("non-root", "runAsNonRoot", "runAsUser"),
                held("capabilities", "capabilities"),
                held("seccomp", "seccompProfile"),
                refused("node-profiles", "appArmorProfile", "seLinuxOptions", "windowsOptions"),
                allowed("a group of the pod's own volumes", "runAsGroup"),
            ),
            "variables.container.?securityContext",
            "container.securityContext.",
        ),
        Type("Capabilities", (held("capabilities", "add", "drop"),)),
        Type(
            "SeccompProfile",
            (held("seccomp", "type"), allowed("the API server takes none beside RuntimeDefault", "localhostProfile")),
        ),
    )


def _of_containers(contract: Contract) -> tuple[Type, ...]:
    from_secret = held if contract.secret_env else refused
    return (
        Type(
            "ResourceRequirements",
            (
                held("limits", "limits"),
                allowed("they are never above the limits; the quota adds them up", "requests"),
                refused("pod-resources", "claims"),
            ),
            "variables.container.?resources",
            "container.resources.",
        ),
        Type(
            "ContainerResizePolicy", (allowed("pods/resize is held to the ceilings", "resourceName", "restartPolicy"),)
        ),
        Type("EnvVar", (held("env", "valueFrom"), allowed("what runs is not trusted in any case", "name", "value"))),
        Type(
            "EnvVarSource",
            (
                from_secret("env", "secretKeyRef"),
                refused("env", "configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef"),
            ),
        ),
        Type(
            "SecretKeySelector",
            (allowed("the platform team puts Secrets there to be read", "key", "name", "optional"),),
        ),
        Type(
            "VolumeMount",
            (
                refused("mounts", "mountPropagation", "subPath", "subPathExpr"),
                allowed("of the volumes of the pod, which have rules", "mountPath", "name"),
                allowed("can only take rights away", "bindMountOptions", "readOnly", "recursiveReadOnly"),
            ),
            "variables.container.?volumeMounts.orValue([])",
            "volumeMounts.",
            many=True,
        ),
    )


def _of_pods() -> tuple[Type, ...]:
    own = "the pod's own volume"
    named = (
        held("config-maps", "name", on=(JOBS,)),
        allowed("the pod's template was looked at with its Job", "name", on=(PODS,)),
    )
    return (
        Type(
            "Volume",
            (
                held("volumes", "emptyDir", "projected"),
                allowed("below", "configMap"),
                refused(
                    "volumes",
                    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "downwardAPI"),
                    *("ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs"),
                    *("hostPath", "image", "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk"),
                    *("portworxVolume", "quobyte", "rbd", "scaleIO", "secret", "storageos", "vsphereVolume"),
                ),
                allowed(own, "name"),
            ),
        ),
        Type("EmptyDirVolumeSource", (held("volumes", "sizeLimit"), allowed(own, "medium", "mode"))),
        Type(
            "ConfigMapVolumeSource",
            (*named, allowed(own, "defaultMode", "defaultUser", "items", "optional")),
        ),
        Type("ProjectedVolumeSource", (held("volumes", "sources"), allowed(own, "defaultMode", "defaultUser"))),
        Type(
            "VolumeProjection",
            (
                allowed("below", "configMap"),
                refused(
                    "volumes", "clusterTrustBundle", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"
                ),
            ),
        ),
        Type("ConfigMapProjection", (*named, allowed(own, "items", "optional"))),
        Type("KeyToPath", (allowed(own, "key", "mode", "path", "user"),)),
        Type(
            "Toleration",
            (
                held("tolerations", "key"),
                allowed("of the taint that the key names", "effect", "operator", "tolerationSeconds", "value"),
            ),
        ),
        Type("PodDNSConfig", (allowed("see dnsConfig", "nameservers", "options", "searches"),)),
        Type("PodDNSConfigOption", (allowed("see dnsConfig", "name", "value"),)),
        Type("LocalObjectReference", (allowed("see imagePullSecrets", "name"),)),
        Type("PodOS", (allowed("see os", "name"),)),
    )


def _written_by_the_server() -> tuple[Type, ...]:
    fields = ("apiVersion", "fieldsType", "fieldsV1", "manager", "operation", "subresource", "time")
    return (
        Type("ManagedFieldsEntry", (allowed("the API server's one entry", *fields),), on=_EVERYBODY),
        Type("LabelSelector", (allowed("see selector", "matchExpressions", "matchLabels"),), on=(JOBS,)),
        Type("LabelSelectorRequirement", (allowed("see selector", "key", "operator", "values"),), on=(JOBS,)),
    )


def rows(contract: Contract) -> Iterator[tuple[Type, Decision]]:
    """Return every decision with its type."""
    for found in types(contract):
        for decision in found.decisions:
            yield found, decision
