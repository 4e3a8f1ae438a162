"""What breaks each admission rule: changes of what the executor writes, one rule broken by each. Data."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adk_gke_sandbox.cluster.manifests import CONFIG_MAP_BYTES, CONFIG_MAPS_MAX, Manifest
from adk_gke_sandbox.contract import APP_LABEL, CONFIG_MAPS, EXECUTION_LABEL, JOBS, PODS, Contract
from infra.admission.rules import rules

NODE_LABEL = "kubernetes.io/os"
"""What the contract of the tests asks of nodes; every node has it."""

OTHER_IMAGE = f"docker.io/library/python@sha256:{'a' * 64}"
HTTP = {"httpGet": {"port": 80}}
FIELD = {"fieldPath": "spec.nodeName"}
RERUN = {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
SPREAD = {"maxSkew": 1, "topologyKey": "any", "whenUnsatisfiable": "DoNotSchedule"}
PROFILE = {"type": "Unconfined"}
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "any", "uid": "1"}
IGNORE = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [0]}}]}


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


PLACES: Mapping[str, Callable[[Manifest], Manifest]] = {
    "JobSpec": lambda job: job["spec"],
    "ObjectMeta": lambda document: document["metadata"],
    "ObjectMeta of a Job": lambda job: job["metadata"],
    "ObjectMeta of the template": lambda job: job["spec"]["template"]["metadata"],
    "labels": lambda document: document["metadata"]["labels"],
    "labels of the template": lambda job: job["spec"]["template"]["metadata"]["labels"],
    "PodSpec": pod,
    "PodSecurityContext": lambda document: pod(document)["securityContext"],
    "nodeSelector": lambda document: pod(document)["nodeSelector"],
    "Toleration": lambda document: more(pod(document)["tolerations"], {"operator": "Exists"}),
    "Container": container,
    "SecurityContext": lambda document: container(document)["securityContext"],
    "SecurityContext of other users": lambda document: (
        pod(document).update(hostUsers=False) or container(document)["securityContext"]
    ),
    "Capabilities": lambda document: container(document)["securityContext"]["capabilities"],
    "SeccompProfile": lambda document: pod(document)["securityContext"]["seccompProfile"],
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
    "ConfigMap": lambda document: document,
    "OwnerReference": lambda document: document["metadata"]["ownerReferences"][0],
}
"""Where objects of a Kubernetes type are in what the executor writes, or where one is added."""

GONE: Any = object()
"""In place of a value: the field is removed."""

WRONG: Mapping[str, Mapping[str, list[dict[str, Any]]]] = {
    "PodSpec": {
        "runtime-class": [{"runtimeClassName": GONE}],
        "host-namespaces": [{"hostNetwork": True}, {"hostPID": True}, {"hostIPC": True}],
        "process-namespace": [{"shareProcessNamespace": True}, {"shareProcessNamespace": False}],
        "host-aliases": [{"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["example"]}]}],
        "dns-policy": [{"dnsPolicy": "ClusterFirst"}, {"dnsPolicy": "Default"}],
        "token": [{"automountServiceAccountToken": GONE}, {"automountServiceAccountToken": True}],
        "service-account": [
            {"serviceAccountName": "default"},
            {"serviceAccountName": GONE},
            {"serviceAccountName": "", "serviceAccount": "default"},
        ],
        "service-links": [{"enableServiceLinks": GONE}, {"enableServiceLinks": True}],
        "pod-resources": [
            {"resources": {"limits": {"memory": "64Gi"}}},
            {"resourceClaims": [{"name": "any", "resourceClaimName": "any"}]},
        ],
        "node-name": [{"nodeName": "any"}],
        "affinity": [{"affinity": {"podAntiAffinity": {}}}, {"topologySpreadConstraints": [SPREAD]}],
        "scheduler": [{"schedulerName": "any"}],
        "gates": [
            {"schedulingGates": [{"name": "example.com/never"}]},
            {"schedulingGroup": {"podGroupName": "any"}},
            {"readinessGates": [{"conditionType": "example.com/never"}]},
            {"evictionResponders": [{"name": "example.com/never", "priority": 1}]},
        ],
        "priority-class": [{"priorityClassName": "any"}, {"priority": 1}, {"preemptionPolicy": "Never"}],
        "overhead": [{"overhead": {"memory": "1Gi"}}],
        "system-priority": [{"priorityClassName": "system-node-critical"}],
        "restart-policy": [{"restartPolicy": "OnFailure"}],
        "one-container": [{"containers": lambda found: [*found, {"name": "more", "image": OTHER_IMAGE}]}],
        "init-containers": [{"initContainers": [{"name": "more", "image": OTHER_IMAGE}]}],
        "grace-period": [{"terminationGracePeriodSeconds": 31}],
        "pod-name": [
            {"hostname": "any"},
            {"hostnameOverride": "any"},
            {"setHostnameAsFQDN": True},
            {"subdomain": "any"},
        ],
        "volumes": [{"volumes": [{"name": name, "emptyDir": {}} for name in ("sandbox", "workspace", "tmp")]}],
        "tolerations": [{"tolerations": [{"operator": "Exists"}]}],
        "node-selector": [{"nodeSelector": GONE}],
    },
    "PodSecurityContext": {
        "non-root": [{"runAsNonRoot": GONE}, {"runAsUser": 0}],
        "seccomp": [{"seccompProfile": GONE}],
        "node-profiles": [
            {"appArmorProfile": {"type": "RuntimeDefault"}},
            {"seLinuxOptions": {"level": "s0"}},
            {"seLinuxOptions": {"level": "s0"}, "seLinuxChangePolicy": "Recursive"},
            {"windowsOptions": {"runAsUserName": "any"}},
        ],
        "sysctls": [{"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}],
        "groups": [{"supplementalGroups": [0]}, {"supplementalGroupsPolicy": "Strict"}],
    },
    "nodeSelector": {
        "node-selector": [{NODE_LABEL: GONE}, {NODE_LABEL: "windows"}, {"kubernetes.io/hostname": "any"}],
    },
    "Toleration": {"tolerations": [{}, {"key": "any"}]},
    "Container": {
        "image-digest": [{"image": "IMAGE:latest"}, {"image": f"IMAGE@sha256:{'a' * 63}"}],
        "image-registry": [{"image": OTHER_IMAGE}],
        "env": [
            {"envFrom": [{"configMapRef": {"name": "any"}}]},
            {"env": [{"name": "A", "valueFrom": {"fieldRef": FIELD}}]},
        ],
        "probes": [
            {"lifecycle": {"preStop": HTTP}},
            {"lifecycle": {"postStart": {"exec": {"command": ["any"]}}}},
            {"livenessProbe": HTTP},
            {"readinessProbe": {"exec": {"command": ["any"]}}},
            {"startupProbe": {"grpc": {"port": 80}}},
        ],
        "ports": [{"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "hostPort": 80}]}],
        "container-restarts": [
            {"restartPolicy": "Always"},
            {"restartPolicy": "Never", "restartPolicyRules": [RERUN]},
        ],
    },
    "SecurityContext": {
        "privilege-escalation": [{"allowPrivilegeEscalation": GONE}, {"allowPrivilegeEscalation": True}],
        "read-only-root": [{"readOnlyRootFilesystem": GONE}, {"readOnlyRootFilesystem": False}],
        "non-root": [{"runAsNonRoot": False}, {"runAsUser": 0}],
        "seccomp": [{"seccompProfile": PROFILE}],
        "capabilities": [{"capabilities": GONE}],
        "node-profiles": [
            {"appArmorProfile": {"type": "RuntimeDefault"}},
            {"seLinuxOptions": {"level": "s0"}},
            {"windowsOptions": {"runAsUserName": "any"}},
        ],
    },
    "SecurityContext of other users": {"proc-mount": [{"procMount": "Unmasked"}]},
    "Capabilities": {"capabilities": [{"drop": ["NET_RAW"]}, {"add": ["NET_ADMIN"]}]},
    "SeccompProfile": {"seccomp": [{"type": "Unconfined"}]},
    "ResourceRequirements": {"limits": [{"limits": GONE}]},
    "limits": {
        "limits": [{"cpu": GONE}, {"memory": GONE}, {"ephemeral-storage": GONE}],
        "cpu-ceiling": [{"cpu": "4001m"}],
        "memory-ceiling": [{"memory": "8193Mi"}],
        "ephemeral-storage-ceiling": [{"ephemeral-storage": "1025Mi"}],
        "devices": [{"example.com/gpu": "1"}, {"hugepages-2Mi": "2Mi"}],
    },
    "EnvVar": {"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "key": "a"}}}]},
    "EnvVarSource": {
        "env": [
            {"secretKeyRef": {"name": "a", "key": "a"}},
            {"configMapKeyRef": {"name": "a", "key": "a"}},
            {"fieldRef": FIELD},
            {"fileKeyRef": {"volumeName": "tmp", "path": "a", "key": "a"}},
            {"resourceFieldRef": {"resource": "limits.cpu"}},
        ]
    },
    "VolumeMount": {
        "mounts": [{"mountPropagation": "HostToContainer"}, {"subPath": "any"}, {"subPathExpr": "any"}],
    },
    "Volume": {
        "volumes": [
            {"awsElasticBlockStore": {"volumeID": "any"}},
            {"azureDisk": {"diskName": "any", "diskURI": "https://any.blob.core.windows.net/any"}},
            {"azureFile": {"secretName": "any", "shareName": "any"}},
            {"cephfs": {"monitors": ["any"]}},
            {"cinder": {"volumeID": "any"}},
            {"csi": {"driver": "any"}},
            {"downwardAPI": {"items": [{"path": "any", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"emptyDir": {}},
            {"ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}},
            {"fc": {"targetWWNs": ["any"], "lun": 0}},
            {"flexVolume": {"driver": "any/any"}},
            {"flocker": {"datasetName": "any"}},
            {"gcePersistentDisk": {"pdName": "any"}},
            {"gitRepo": {"repository": "any"}},
            {"glusterfs": {"endpoints": "any", "path": "any"}},
            {"hostPath": {"path": "/"}},
            {"image": {"reference": OTHER_IMAGE}},
            {"iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2015-02.com.example:any", "lun": 0}},
            {"nfs": {"server": "any", "path": "/any"}},
            {"persistentVolumeClaim": {"claimName": "any"}},
            {"photonPersistentDisk": {"pdID": "any"}},
            {"portworxVolume": {"volumeID": "any"}},
            {"projected": {"sources": [{"secret": {"name": "any"}}]}},
            {"quobyte": {"registry": "any:1", "volume": "any"}},
            {"rbd": {"monitors": ["any"], "image": "any"}},
            {"scaleIO": {"gateway": "any", "system": "any", "secretRef": {"name": "any"}, "volumeName": "any"}},
            {"secret": {"secretName": "any"}},
            {"storageos": {"volumeName": "any"}},
            {"vsphereVolume": {"volumePath": "any"}},
        ],
        "config-maps": [{"configMap": {"name": "sandbox-other-0"}}],
    },
    "EmptyDirVolumeSource": {"volumes": [{"sizeLimit": GONE}]},
    "ProjectedVolumeSource": {"volumes": [{"sources": [{"secret": {"name": "any"}}]}]},
    "VolumeProjection": {
        "volumes": [
            {"clusterTrustBundle": {"name": "any", "path": "any"}},
            {"downwardAPI": {"items": [{"path": "any", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {
                "podCertificate": {
                    "signerName": "example.com/any",
                    "keyType": "ED25519",
                    "credentialBundlePath": "any",
                }
            },
            {"secret": {"name": "any"}},
            {"serviceAccountToken": {"path": "any"}},
        ],
        "config-maps": [{"configMap": {"name": "sandbox-other-0"}}],
    },
    "ConfigMapVolumeSource": {"config-maps": [{"name": "sandbox-other-0"}]},
    "ConfigMapProjection": {"config-maps": [{"name": "sandbox-other-0"}]},
    "JobSpec": {
        "one-pod": [{"parallelism": 2}, {"completions": 2}, {"completions": GONE}, {"completionMode": "Indexed"}],
        "backoff-limit": [{"backoffLimit": GONE}, {"backoffLimit": 1}],
        "deadline": [{"activeDeadlineSeconds": GONE}, {"activeDeadlineSeconds": 3600 + 300 + 31}],
        "ttl": [{"ttlSecondsAfterFinished": GONE}, {"ttlSecondsAfterFinished": 301}],
        "suspend": [{"suspend": True}],
        "job-failures": [{"podFailurePolicy": IGNORE}],
        "job-controller": [{"managedBy": "example.com/any"}, {"scheduling": {}}],
        "manual-selector": [{"manualSelector": True, "selector": {"matchLabels": {EXECUTION_LABEL: "EXECUTION"}}}],
    },
    "ObjectMeta": {
        "finalizers": [{"finalizers": ["example.com/held"]}, {"finalizers": ["orphan"]}],
        "pod-finalizers": [{"finalizers": ["example.com/held"]}],
        "generated-name": [{"generateName": "any-"}],
        "job-owner": [{"ownerReferences": [OWNER]}],
        "config-map-owner": [
            {"ownerReferences": GONE},
            {"ownerReferences": [OWNER | {"name": "EXECUTION", "uid": str(uid)} for uid in (1, 2)]},
        ],
        "config-map-name": [{"name": f"EXECUTION-{number}"} for number in (CONFIG_MAPS_MAX, "x", "00")]
        + [{"name": "another-0"}],
        "config-map-annotations": [{"annotations": {"adk-gke-sandbox/any": "any"}}],
        "annotations": [
            {"annotations": {key: "any"}}
            for key in (
                *("any", "example.com/any", "kubernetes.io.example.com/any", "evilkubernetes.io/any", "gke.io/any"),
                *("dev.gvisor.flag.network", "dev.gvisor.spec.mount.tmp.share", "dev.gvisor.kubernetes.io/any"),
                *("networking.gke.io/interfaces", "devices.gke.io/container.any", "kubernetes.io/config.source"),
                *("container.apparmor.security.beta.kubernetes.io/code-runner", "k8s.v1.cni.cncf.io/networks"),
            )
        ],
        "managed-fields": [
            {
                "managedFields": [
                    {
                        "manager": "any",
                        "operation": "Apply",
                        "apiVersion": "v1",
                        "fieldsType": "FieldsV1",
                        "fieldsV1": {"f:metadata": {"f:labels": {}}},
                        "time": "2026-01-01T00:00:00Z",
                    }
                ]
            }
        ],
        "labels": [{"labels": {EXECUTION_LABEL: "EXECUTION"}}],
    },
    "ObjectMeta of a Job": {"execution-label": [{"name": "another"}]},
    "ObjectMeta of the template": {
        "finalizers": [{"finalizers": ["example.com/held"]}],
        "generated-name": [{"generateName": "any-"}],
        "job-owner": [{"ownerReferences": [OWNER]}],
        "annotations": [{"annotations": {"dev.gvisor.flag.network": "host"}}],
    },
    "labels": {
        "labels": [{APP_LABEL: GONE}, {APP_LABEL: "any"}],
        "execution-label": [{EXECUTION_LABEL: GONE}, {EXECUTION_LABEL: "any"}],
        "label-count": [{f"any-{index}": "" for index in range(64)}],
    },
    "labels of the template": {
        "labels": [{APP_LABEL: "any"}],
        "execution-label": [{EXECUTION_LABEL: "any"}],
        "label-count": [{f"any-{index}": "" for index in range(64)}],
    },
    "ConfigMap": {
        "immutable": [{"immutable": GONE}, {"immutable": False}],
        "config-map-size": [
            {"data": {"request.json": "x" * (CONFIG_MAP_BYTES + 1024)}},
            {"data": {"request.json": "\U0001f40d" * (CONFIG_MAP_BYTES // 4 + 256)}},
            {"data": {f"any-{index}": "" for index in range(6)}},
        ],
        "binary-data": [{"binaryData": {"any": ""}}],
    },
    "OwnerReference": {
        "config-map-owner": [
            {"apiVersion": "batch/v1beta1"},
            {"kind": "CronJob"},
            {"controller": True},
            {"blockOwnerDeletion": True},
        ],
        "config-map-name": [{"name": "another"}],
    },
}
"""By the type that is changed and the rule that it breaks: the changed fields. EXECUTION is the execution's name, IMAGE
that of the stack's image."""

ALSO: Mapping[str, set[str]] = {
    "config-map-owner": {"config-map-name", "execution-label"},
    "config-map-name": {"execution-label"},
    "execution-label": {"config-maps"},
}
"""By rule: those that another name, or none, may break as well."""

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
    "resourceVersion": (JOBS, "ObjectMeta", {"resourceVersion": "1"}),
}
"""What the API server itself refuses beside what the rules ask for, by its words."""


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

    def change(self, document: Manifest) -> None:
        """Break the rule in what the executor wrote."""
        change(document, self.type, self.fields)


def change(document: Manifest, where: str, fields: dict[str, Any]) -> None:
    """Change fields at a place of what the executor wrote."""
    metadata = document["metadata"]
    names = {"EXECUTION": metadata["labels"][EXECUTION_LABEL]}
    if "spec" in document:
        names["IMAGE"] = container(document)["image"].partition("@")[0]
    place = PLACES[where](document)
    for name, value in fields.items():
        if value is GONE:
            del place[name]
        else:
            place[name] = value(place[name]) if callable(value) else written(value, names)


def written(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with names in place of the words that stand for them."""
    if isinstance(value, str):
        for word, name in names.items():
            value = value.replace(word, name)
        return value
    if isinstance(value, list):
        return [written(item, names) for item in value]
    if isinstance(value, dict):
        return {key: written(item, names) for key, item in value.items()}
    return copy.deepcopy(value)


def has(kind: str, where: str) -> bool:
    """Whether a kind of object has such a place."""
    if where in ("ObjectMeta", "labels"):
        return True
    if where in ("ConfigMap", "OwnerReference"):
        return kind == CONFIG_MAPS
    if where == "JobSpec" or where.endswith(("of a Job", "of the template")):
        return kind == JOBS
    return kind in (PODS, JOBS)


def _cases() -> Iterator[Case]:
    on = {rule.id: rule.on for rule in rules(Contract(stack="any", image="any"))}
    numbers: Counter[str] = Counter()
    for where, broken in WRONG.items():
        for rule, changes in broken.items():
            for fields in changes:
                for kind in on[rule]:
                    if has(kind, where):
                        numbers[rule] += 1
                        yield Case(kind=kind, rule=rule, number=numbers[rule], type=where, fields=fields)


CASES = tuple(_cases())
