"""What a sandbox's Job and pod may ask for: one list of rules in CEL, from the contract. Pure.

The rules allow what the contract describes and ``manifests`` writes; all else is refused with a message. They
say nothing of a pod's ``restartPolicy`` and deadline: the pods of a Deployment of idle sandboxes are under them,
too. ``admission`` makes the policies.
"""

from __future__ import annotations

from typing import Final

from adk_gke_sandbox.contract import APP_LABEL, APP_NAME, JOBS, PODS, RUNTIME_NODE_KEY, Contract
from infra.admission_cel import Rule, each, literal, unset, untrue
from infra.admission_job_rules import job_rules

EPHEMERAL_STORAGE_CEILING_MIB: Final = 1024
"""Disk of one sandbox at the most; it holds the container's log and the mounted request, nothing else."""

GRACE_SECONDS_MAX: Final = 30
"""The longest that a sandbox may outlive its deletion; Kubernetes' own default.

A deadline deletes the pod, but the pod ends only when its processes do or its grace period.
"""

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

SCHEDULERS: Final = ("default-scheduler", "gke.io/optimize-utilization-scheduler")
"""GKE gives pods the second one when the cluster's autoscaling profile is ``optimize-utilization``
(https://cloud.google.com/kubernetes-engine/docs/concepts/cluster-autoscaler#autoscaling_profiles)."""

RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def rules(contract: Contract) -> tuple[Rule, ...]:
    """Return all rules, in the order in which they are looked at."""
    return (
        *_isolation(contract),
        *_identity(contract),
        *_inside(contract),
        *_privileges(),
        *_resources(contract),
        *_image(contract),
        *_placement(contract),
        *_shape(),
        *job_rules(contract),
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


def _isolation(contract: Contract) -> tuple[Rule, ...]:
    connections = (
        *(
            f"{probe}.?{way}"
            for probe in ("livenessProbe", "readinessProbe", "startupProbe")
            for way in ("httpGet", "tcpSocket", "grpc")
        ),
        *(f"lifecycle.?{hook}.?{way}" for hook in ("postStart", "preStop") for way in ("httpGet", "tcpSocket")),
    )
    return (
        Rule(
            id="runtime-class",
            refuses=f"runtimeClassName is not {contract.runtime_class}",
            fix=f"Set it to {contract.runtime_class}: without it a program shares the kernel of its node",
            holds=f'variables.spec.?runtimeClassName.orValue("") == {literal(contract.runtime_class)}',
            found='variables.spec.?runtimeClassName.orValue("none")',
        ),
        untrue(
            "hostNetwork",
            "hostPID",
            "hostIPC",
            id="host-namespaces",
            refuses="the pod shares a namespace of its node",
        ),
        untrue("shareProcessNamespace", id="process-namespace", refuses="the containers share their processes"),
        each(
            id="host-ports",
            refuses="a container opens a port of its node",
            fix="Remove hostPort",
            holds="c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)",
        ),
        unset("hostAliases", id="host-aliases", refuses="the pod names hosts, but a sandbox reaches none"),
        Rule(
            id="dns-policy",
            refuses=f"dnsPolicy is not {contract.dns_policy}",
            fix='Set it to None, and dnsConfig.nameservers to ["127.0.0.1"]: a sandbox resolves no names'
            if contract.egress == "none"
            else f"Set it to {contract.dns_policy}",
            holds=f'variables.spec.?dnsPolicy.orValue("") == {literal(contract.dns_policy)}',
            found='variables.spec.?dnsPolicy.orValue("nothing")',
        ),
        each(
            id="connections",
            refuses="a probe or hook makes the kubelet open a connection, which no NetworkPolicy sees",
            fix="Use exec instead of httpGet, tcpSocket and grpc",
            holds=" && ".join(f"!c.?{field}.hasValue()" for field in connections),
        ),
    )


def _identity(contract: Contract) -> tuple[Rule, ...]:
    account = contract.sandbox_service_account
    return (
        Rule(
            id="token",
            refuses="a token of the Kubernetes API would be mounted",
            fix="Set automountServiceAccountToken to false",
            holds="variables.spec.?automountServiceAccountToken.orValue(true) == false",
            found='"automountServiceAccountToken is not false"',
        ),
        Rule(
            id="service-account",
            refuses=f"serviceAccountName is not {account}",
            fix=f"Set it to {account}, as GkeCodeExecutor.from_contract() does",
            holds=f'variables.spec.?serviceAccountName.orValue("default") == {literal(account)}',
            found='variables.spec.?serviceAccountName.orValue("default")',
        ),
    )


def _inside(contract: Contract) -> tuple[Rule, ...]:
    fix, allowed = "Remove envFrom and valueFrom: write the values themselves", ""
    if contract.secret_env:
        fix, allowed = "Remove envFrom, and valueFrom but for secretKeyRef", " || e.?valueFrom.?secretKeyRef.hasValue()"
    volume = (
        "v.?emptyDir.hasValue() ? v.?emptyDir.?sizeLimit.hasValue() : (v.?configMap.hasValue() || "
        "(v.?projected.hasValue() && v.?projected.?sources.orValue([]).all(s, s.?configMap.hasValue())))"
    )
    return (
        Rule(
            id="volumes",
            refuses="a volume is neither an emptyDir with a sizeLimit nor made of ConfigMaps",
            fix="Give the emptyDir a sizeLimit, or remove the volume",
            holds=f"variables.spec.?volumes.orValue([]).all(v, {volume})",
            found=f'variables.spec.?volumes.orValue([]).filter(v, !({volume})).map(v, v.name).join(", ")',
        ),
        each(
            id="env",
            refuses="the environment of a container comes from elsewhere",
            fix=fix,
            holds=f"c.?envFrom.orValue([]).size() == 0 && c.?env.orValue([]).all(e, !e.?valueFrom.hasValue(){allowed})",
        ),
        Rule(
            id="service-links",
            refuses="the environment would list the services of the namespace",
            fix="Set enableServiceLinks to false",
            holds="variables.spec.?enableServiceLinks.orValue(true) == false",
            found='"enableServiceLinks is not false"',
        ),
    )


def _privileges() -> tuple[Rule, ...]:
    def effective(field: str, otherwise: str) -> str:
        # A container's own setting wins over the pod's.
        return f"c.?securityContext.?{field}.orValue(variables.spec.?securityContext.?{field}.orValue({otherwise}))"

    return (
        each(
            # With false the API server itself refuses `privileged` and CAP_SYS_ADMIN.
            id="privilege-escalation",
            refuses="a container can gain privileges",
            fix="Set securityContext.allowPrivilegeEscalation to false",
            holds="c.?securityContext.?allowPrivilegeEscalation.orValue(true) == false",
        ),
        each(
            id="non-root",
            refuses="a container may run as root",
            fix="Set securityContext.runAsNonRoot to true, and runAsUser to a number above 0",
            holds=f"{effective('runAsNonRoot', 'false')} && {effective('runAsUser', '1')} != 0",
        ),
        each(
            id="capabilities",
            refuses="a container keeps or adds capabilities",
            fix='Set securityContext.capabilities to {"drop": ["ALL"]}',
            holds='c.?securityContext.?capabilities.?drop.orValue([]).exists(d, d == "ALL") && '
            "c.?securityContext.?capabilities.?add.orValue([]).size() == 0",
        ),
        each(
            id="read-only-root",
            refuses="a container can write to its image's files",
            fix="Set securityContext.readOnlyRootFilesystem to true, and mount an emptyDir where programs write",
            holds="c.?securityContext.?readOnlyRootFilesystem.orValue(false)",
        ),
        each(
            id="seccomp",
            refuses="the seccomp profile of a container is not RuntimeDefault",
            fix="Set securityContext.seccompProfile.type to RuntimeDefault",
            holds=f'{effective("seccompProfile.?type", literal(""))} == "RuntimeDefault"',
        ),
        each(
            id="proc-mount",
            refuses="a container sees what is hidden of /proc",
            fix="Remove securityContext.procMount",
            holds='c.?securityContext.?procMount.orValue("Default") == "Default"',
        ),
        unset("sysctls", id="sysctls", refuses="the pod sets kernel parameters", of="variables.spec.?securityContext"),
    )


def _resources(contract: Contract) -> tuple[Rule, ...]:
    known = literal(RESOURCES)
    ceilings = contract.ceilings
    most = (ceilings.cpu, ceilings.memory, f"{EPHEMERAL_STORAGE_CEILING_MIB}Mi")
    return (
        each(
            id="limits",
            refuses=f"a container has no limit of {', '.join(RESOURCES[:-1])} or {RESOURCES[-1]}",
            fix="Set all three in resources.limits",
            holds=f"{known}.all(r, c.?resources.?limits[?r].hasValue())",
        ),
        *(
            each(
                id=f"{resource}-ceiling",
                refuses=f"the {resource} limit of a container is above {ceiling}",
                fix="Lower it, or have the platform team raise the ceiling in the stack's settings",
                holds=f'quantity(c.?resources.?limits[?"{resource}"].orValue("0"))'
                f".compareTo(quantity({literal(ceiling)})) <= 0",
            )
            for resource, ceiling in zip(RESOURCES, most, strict=True)
        ),
        each(
            id="devices",
            refuses="a container asks for a device",
            fix=f"Ask for {', '.join(RESOURCES)} only",
            holds=f"c.?resources.?limits.orValue({{}}).all(r, r in {known})",
        ),
        # The limits of a pod as a whole win over those of its container.
        unset(
            "resources",
            "resourceClaims",
            id="pod-resources",
            refuses="the pod asks for resources beside those of its container",
        ),
    )


def _image(contract: Contract) -> tuple[Rule, ...]:
    allowed = image_prefixes(contract.image)
    return (
        each(
            id="image-digest",
            refuses="an image is not named by digest, so what runs could change by itself",
            fix="Write NAME@sha256:DIGEST; GkeCodeExecutor.from_contract() has the stack's image",
            holds='c.?image.orValue("").matches("^[^@]+@sha256:[a-f0-9]{64}$")',
            found='c.?image.orValue("none")',
        ),
        each(
            id="image-registry",
            refuses=f"the name of an image does not begin with {' or '.join(allowed)}",
            fix="Push the image there; GkeCodeExecutor.from_contract() has the stack's image",
            holds=f'{literal(allowed)}.exists(p, c.?image.orValue("").startsWith(p))',
            found='c.?image.orValue("none")',
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
    tolerated = f't.?key.orValue("") in {literal(tuple(dict.fromkeys((*own, *GIVEN_TOLERATIONS))))}'
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
        unset(
            "affinity",
            "topologySpreadConstraints",
            id="affinity",
            refuses="the pod has rules of its own for where it runs",
        ),
        Rule(
            id="tolerations",
            refuses="a toleration is for a taint that is not the sandbox pool's",
            fix=f"Tolerate {', '.join(dict.fromkeys(own))} only",
            holds=f"variables.spec.?tolerations.orValue([]).all(t, {tolerated})",
            found=f"variables.spec.?tolerations.orValue([]).filter(t, !({tolerated}))"
            '.map(t, t.?key.orValue("every taint")).join(", ")',
        ),
        Rule(
            id="scheduler",
            refuses="the pod names a scheduler of its own",
            fix="Remove schedulerName",
            holds=f'variables.spec.?schedulerName.orValue("default-scheduler") in {literal(SCHEDULERS)}',
            found='variables.spec.?schedulerName.orValue("")',
        ),
        # A pod has that of the cluster's default class, where there is one, once the API server saw it.
        unset(
            "priorityClassName",
            id="priority-class",
            refuses="the pod names a PriorityClass, so it could push others from their nodes",
            on=(JOBS,),
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


def _shape() -> tuple[Rule, ...]:
    return (
        Rule(
            id="one-container",
            refuses="the pod has more than one container",
            fix="Leave one",
            holds="variables.spec.containers.size() == 1",
            found='variables.spec.containers.map(c, c.name).join(", ")',
        ),
        unset("initContainers", id="init-containers", refuses="the pod has init containers"),
        # The API server takes none in a template.
        unset(
            "ephemeralContainers",
            id="ephemeral-containers",
            refuses="a container would be added to a sandbox",
            fix="Do not debug a sandbox from within: read its log, or run the program elsewhere",
            on=(PODS,),
        ),
        Rule(
            id="grace-period",
            refuses=f"the pod may outlive its deletion by more than {GRACE_SECONDS_MAX} s",
            fix=f"Set terminationGracePeriodSeconds to {GRACE_SECONDS_MAX} or less",
            holds=f"variables.spec.?terminationGracePeriodSeconds.orValue(30) <= {GRACE_SECONDS_MAX}",
            found="string(variables.spec.?terminationGracePeriodSeconds.orValue(30))",
        ),
        Rule(
            id="labels",
            refuses=f"the label {APP_LABEL}={APP_NAME} is missing, so nobody would find the object to clean up",
            fix="Set it on the object, and on the template of a Job",
            holds=f'variables.labels.all(l, l[?{literal(APP_LABEL)}].orValue("") == {literal(APP_NAME)})',
            found=f'variables.labels.map(l, l[?{literal(APP_LABEL)}].orValue("none")).join(", ")',
        ),
    )
