"""Objects to offer the API server as a dry run: the executor's own Job, and such as break one rule each. Pure.

What a policy says is one thing, what the API server does with an object another: these ask it. The names are
those of the rules of the stack's admission policies.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Final

from adk_gke_sandbox.cluster.manifests import REQUEST_KEY, Manifest, job
from adk_gke_sandbox.config import ExecutorConfig

OWN: Final = "own"
"""Name of the trial that breaks nothing."""

ELSEWHERE: Final = f"registry.invalid/elsewhere/image@sha256:{'0' * 64}"

_NAME: Final = "sandbox-preflight"
_TOO_LONG_SECONDS: Final = 10_000_000
_TOO_MUCH: Final = "1Pi"

Break = Callable[[Manifest], object]
"""Changes a pod's spec."""


def _security(spec: Manifest, **changes: bool) -> None:
    spec["containers"][0]["securityContext"].update(changes)


def _image(spec: Manifest, image: str) -> None:
    spec["containers"][0]["image"] = image


def _untagged(spec: Manifest) -> str:
    """Return the name of the image without tag and digest; a port of its registry stays."""
    folder, slash, name = spec["containers"][0]["image"].partition("@")[0].rpartition("/")
    return f"{folder}{slash}{name.partition(':')[0]}"


_BREAKS: Final[Mapping[str, Break]] = {
    "runtime-class": lambda spec: spec.pop("runtimeClassName"),
    "host-namespaces": lambda spec: spec.update(hostNetwork=True),
    "dns-policy": lambda spec: spec.update(dnsPolicy="Default", dnsConfig={}),
    "token": lambda spec: spec.update(automountServiceAccountToken=True),
    "service-account": lambda spec: spec.update(serviceAccountName=_NAME),
    "volumes": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "privilege-escalation": lambda spec: _security(spec, allowPrivilegeEscalation=True),
    "non-root": lambda spec: spec["securityContext"].update(runAsNonRoot=False),
    "read-only-root": lambda spec: _security(spec, readOnlyRootFilesystem=False),
    "limits": lambda spec: spec["containers"][0].pop("resources"),
    "memory-ceiling": lambda spec: spec["containers"][0]["resources"]["limits"].update(memory=_TOO_MUCH),
    "image-digest": lambda spec: _image(spec, f"{_untagged(spec)}:latest"),
    "image-registry": lambda spec: _image(spec, ELSEWHERE),
}

IMAGE_RULES: Final = ("image-digest", "image-registry")
JOB_RULES: Final = (*_BREAKS, "deadline")
POD_RULES: Final = ("runtime-class", "dns-policy", "image-digest", "image-registry")
"""Of these only the policy for pods knows; what else it refuses, other parts of the API server may refuse first."""


def jobs(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return the executor's own Job and one for each rule, which breaks that rule alone."""
    own = job(config, _NAME, [{REQUEST_KEY: ""}])
    late = copy.deepcopy(own)
    late["spec"]["activeDeadlineSeconds"] = _TOO_LONG_SECONDS
    broken = {rule: copy.deepcopy(own) for rule in _BREAKS}
    for rule, manifest in broken.items():
        _BREAKS[rule](manifest["spec"]["template"]["spec"])
    return {OWN: own, **broken, "deadline": late}


def pods(config: ExecutorConfig) -> dict[str, Manifest]:
    """Return a pod for each rule, which breaks that rule alone."""
    template = job(config, _NAME, [{REQUEST_KEY: ""}])["spec"]["template"]
    found = {}
    for rule in POD_RULES:
        spec = copy.deepcopy(template["spec"])
        _BREAKS[rule](spec)
        metadata = {**template["metadata"], "name": _NAME, "namespace": config.namespace}
        found[rule] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return found
