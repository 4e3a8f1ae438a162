"""Rules for pods that the program itself holds, such as idle sandboxes.

Pods that others create are held to the same by the admission policies of the namespace of sandboxes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import Severity

from infra.policy import objects
from infra.policy.rule import Check, Finding, Resource, ResourceRule, Rule, StackRule, at, items, shown

_K8S: Final = "https://kubernetes.io/docs/"
_DIGEST: Final = re.compile(r"[^@]+@sha256:[0-9a-f]{64}")
_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_LIMITS: Final = ("cpu", "memory", "ephemeral-storage")

_Spec = Mapping[str, Any]


def _spec(wrong: Callable[[_Spec], Iterator[str]]) -> Check:
    """Return the check that looks at the pod in an object."""

    def check(resource: Resource) -> Iterator[str]:
        for text in wrong(objects.pod(resource)):
            yield f"the pod of {resource.kind} {objects.name(resource)} {text}"

    return check


def _each(wrong: Callable[[_Spec], Iterator[str]]) -> Check:
    """Return the check that looks at every container of the pod in an object."""

    def check(resource: Resource) -> Iterator[str]:
        for container in objects.containers(objects.pod(resource)):
            for text in wrong(container):
                yield f"container {container.get('name')} of {resource.kind} {objects.name(resource)} {text}"

    return check


def _token(spec: _Spec) -> Iterator[str]:
    if at(spec, "automountServiceAccountToken") is not False:
        yield "gets a token"


def _host(spec: _Spec) -> Iterator[str]:
    for field in _HOST:
        if at(spec, field):
            yield f"has {field}"
    for volume in items(spec, "volumes"):
        if at(volume, "hostPath") is not None:
            yield f"mounts {shown(at(volume, 'hostPath.path'))} of its node"


def _secret_environment(container: _Spec) -> Iterator[str]:
    names = [each.get("name") for each in items(container, "env") if at(each, "valueFrom.secretKeyRef") is not None]
    if any(at(each, "secretRef") is not None for each in items(container, "envFrom")):
        names.append("envFrom")
    if names:
        yield f"has Secrets in its environment: {shown(names)}"


def _seccomp(resource: Resource) -> Iterator[str]:
    path = "securityContext.seccompProfile.type"
    spec = objects.pod(resource)
    for container in objects.containers(spec):
        if (profile := at(container, path) or at(spec, path)) != "RuntimeDefault":
            yield f"{path} of container {container.get('name')} is {shown(profile)}, not RuntimeDefault"


def _privileges(container: _Spec) -> Iterator[str]:
    context = at(container, "securityContext") or {}
    if at(context, "privileged"):
        yield "is privileged"
    if at(context, "allowPrivilegeEscalation") is not False:
        yield "can gain privileges"
    if "ALL" not in items(context, "capabilities.drop") or items(context, "capabilities.add"):
        yield "keeps or adds capabilities"


def _user(resource: Resource) -> Iterator[str]:
    spec = objects.pod(resource)
    for container in objects.containers(spec):
        contexts = [at(each, "securityContext") or {} for each in (container, spec)]
        if not any(at(context, "runAsNonRoot") for context in contexts):
            yield f"container {container.get('name')} of {resource.kind} {objects.name(resource)} may run as root"


def _image(container: _Spec) -> Iterator[str]:
    if not _DIGEST.fullmatch(str(image := at(container, "image"))):
        yield f"has image {shown(image)}, which is not named by digest"


def _limits(container: _Spec) -> Iterator[str]:
    if missing := [name for name in _LIMITS if at(container, f"resources.limits.{name}") is None]:
        yield f"has no limit of {', '.join(missing)}"


def _sandboxes_without_gvisor(resources: Sequence[Resource]) -> Iterator[Finding]:
    sandboxes = objects.sandbox_namespaces(resources)
    for resource in resources:
        if f"kubernetes:{resource.kind}" not in objects.PODS or not objects.is_object(resource):
            continue
        if objects.namespace(resource) in sandboxes:
            runtime = at(objects.pod(resource), "runtimeClassName")
            if runtime != "gvisor":
                yield Finding(
                    f"runtimeClassName of {resource.kind} {objects.name(resource)} is {shown(runtime)}", resource
                )


RULES: Final[tuple[Rule, ...]] = (
    StackRule(
        name="pod-gvisor",
        title="Pods in the namespace of sandboxes run in gVisor",
        cis=("5.10.3",),
        severity=Severity.CRITICAL,
        remedy="Set runtimeClassName to gvisor",
        url="https://cloud.google.com/kubernetes-engine/docs/how-to/sandbox-pods",
        survey=_sandboxes_without_gvisor,
    ),
    ResourceRule(
        name="pod-token",
        title="Pods of the stack get no token of the Kubernetes API",
        cis=("4.1.5",),
        remedy="Set automountServiceAccountToken to false",
        url=f"{_K8S}tasks/configure-pod-container/configure-service-account/#opt-out-of-api-credential-automounting",
        types=objects.PODS,
        checks=(_spec(_token),),
    ),
    ResourceRule(
        name="pod-host",
        title="Pods of the stack share nothing with their node",
        cis=("4.6.3",),
        severity=Severity.CRITICAL,
        remedy="Remove it",
        url=f"{_K8S}concepts/security/pod-security-standards/#baseline",
        types=objects.PODS,
        checks=(_spec(_host),),
    ),
    ResourceRule(
        name="pod-secret-environment",
        title="Pods of the stack have no Secrets in their environment, which every child process inherits",
        cis=("4.4.1",),
        remedy="Mount the Secret as a file, or read it from Secret Manager",
        url=f"{_K8S}concepts/configuration/secret/#using-secrets-as-files-from-a-pod",
        types=objects.PODS,
        checks=(_each(_secret_environment),),
    ),
    ResourceRule(
        name="pod-image",
        title="Images are named by digest, so that what runs does not change by itself",
        cis=("4.5.1", "5.1.4"),
        remedy="Write NAME@sha256:DIGEST",
        url=f"{_K8S}concepts/containers/images/#image-names",
        types=objects.PODS,
        checks=(_each(_image),),
    ),
    ResourceRule(
        name="pod-seccomp",
        title="Pods of the stack make only system calls of the runtime's default profile",
        cis=("4.6.2",),
        remedy="Set securityContext.seccompProfile.type to RuntimeDefault",
        url=f"{_K8S}tutorials/security/seccomp/",
        types=objects.PODS,
        checks=(_seccomp,),
    ),
    ResourceRule(
        name="pod-privileges",
        title="Pods of the stack run without privileges",
        cis=("4.6.3",),
        severity=Severity.CRITICAL,
        remedy='Set runAsNonRoot, allowPrivilegeEscalation: false and capabilities.drop: ["ALL"]',
        url=f"{_K8S}concepts/security/pod-security-standards/#restricted",
        types=objects.PODS,
        checks=(_each(_privileges), _user),
    ),
    ResourceRule(
        name="pod-limits",
        title="Containers of the stack have limits; gVisor holds none of them if one is missing",
        severity=Severity.MEDIUM,
        remedy="Set resources.limits of cpu, memory and ephemeral-storage",
        url="https://cloud.google.com/kubernetes-engine/docs/concepts/sandbox-pods#limitations",
        types=objects.PODS,
        checks=(_each(_limits),),
    ),
)
