"""Rules for what surrounds the cluster in its Google Cloud project: IAM, keys, images, Binary Authorization."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from pulumi_policy import Severity
from pulumi_policy.proxy import UnknownValueError

from infra.gke_checks import leads_to_others
from infra.policy.rule import (
    Check,
    Finding,
    Resource,
    ResourceRule,
    Rule,
    StackRule,
    at,
    items,
    present,
    shown,
    wants,
)

REPOSITORY: Final = "gcp:artifactregistry/repository:Repository"
SERVICE: Final = "gcp:projects/service:Service"

_PROJECT: Final = ("projects", "folder", "organizations")
_EVERYBODY: Final = re.compile(r"\b(allUsers|allAuthenticatedUsers|publicRead(Write)?|authenticatedRead)\b")
"""Who is everybody in IAM, and in the access lists of Cloud Storage
(https://cloud.google.com/storage/docs/access-control/lists#predefined-acl)."""

_READER: Final = "roles/artifactregistry.reader"
_ROTATION_SECONDS: Final = 90 * 24 * 3600
"""CIS asks for no period; its benchmark of the platform says 90 days
(https://cloud.google.com/kms/docs/key-rotation)."""


def grants(resource: Resource) -> Iterator[tuple[str, list[str]]]:
    """Yield each role that a resource gives to somebody, and to whom; whatever the role is on.

    An account that is not there yet has no name in a preview; it is left out.
    """
    inputs = resource.inputs
    if not resource.type.startswith("gcp:") or resource.kind.endswith("Remove"):
        return
    if present(inputs, "policyData"):
        for binding in json.loads(at(inputs, "policyData") or "{}").get("bindings", ()):
            yield binding["role"], binding["members"]
    elif present(inputs, "role") and (present(inputs, "member") or present(inputs, "members")):
        found: list[str] = []
        with contextlib.suppress(UnknownValueError):
            found.append(at(inputs, "member"))
        with contextlib.suppress(UnknownValueError):
            many = at(inputs, "members") or ()
            for index in range(len(many)):
                with contextlib.suppress(UnknownValueError):
                    found.append(many[index])
        yield str(at(inputs, "role")), [member for member in found if member]


def _roles(wrong: Callable[[str], bool], says: str) -> Check:
    """Return the check that looks at each role that a resource gives to somebody."""

    def check(resource: Resource) -> Iterator[str]:
        for role, _ in grants(resource):
            if wrong(role):
                yield f"role is {role}{says}"

    return check


def _on(*services: str) -> Callable[[Resource], bool]:
    """Return whether a resource is one of some services, or a grant on one."""
    return lambda resource: resource.type.startswith(tuple(f"gcp:{service}/" for service in services))


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts of an input that a preview knows."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for key in value if isinstance(value, Mapping) else range(len(value)):
            if key != "description":
                with contextlib.suppress(UnknownValueError):
                    yield from _texts(value[key])


def _nobody_in_particular(resource: Resource) -> Iterator[str]:
    found = [who[0] for text in _texts(resource.inputs) for who in _EVERYBODY.finditer(text)]
    for who in dict.fromkeys(found):
        yield f"{resource.kind} {resource.name} names {who}"


def _is_rotated(key: Resource) -> Iterator[str]:
    period = at(key.inputs, "rotationPeriod")
    seconds = str(period or "").removesuffix("s")
    if not seconds.isdigit() or int(seconds) > _ROTATION_SECONDS:
        yield f"rotationPeriod is {shown(period)}, not {_ROTATION_SECONDS}s or less"


def _images_are_scanned(resources: Sequence[Resource]) -> Iterator[Finding]:
    on = {at(resource.inputs, "service") for resource in resources if resource.type == SERVICE}
    for resource in resources:
        if resource.type == REPOSITORY and "containerscanning.googleapis.com" not in on:
            yield Finding("the API that scans images, containerscanning.googleapis.com, is not enabled", resource)


def _holds_our_images(repository: Resource) -> bool:
    return at(repository.inputs, "mode") in (None, "STANDARD_REPOSITORY")


def _lets_not_everything_in(policy: Resource) -> Iterator[str]:
    rule = "defaultAdmissionRule"
    if (mode := at(policy.inputs, f"{rule}.evaluationMode")) not in ("ALWAYS_DENY", "REQUIRE_ATTESTATION"):
        yield f"{rule}.evaluationMode is {shown(mode)}, not ALWAYS_DENY or REQUIRE_ATTESTATION"
    patterns = [each.get("namePattern") for each in items(policy.inputs, "admissionWhitelistPatterns")]
    if wide := [pattern for pattern in patterns if pattern and pattern.startswith("*")]:
        yield f"admissionWhitelistPatterns has {shown(wide)}, which is every image"


RULES: Final[tuple[Rule, ...]] = (
    ResourceRule(
        name="public-grant",
        title="Nothing is granted to everybody",
        cis=("5.1.2",),
        severity=Severity.CRITICAL,
        remedy="Name the accounts or a group",
        url="https://cloud.google.com/iam/docs/principals-overview",
        checks=(_nobody_in_particular,),
        applies=lambda resource: resource.type.startswith("gcp:"),
    ),
    ResourceRule(
        name="basic-role",
        title="No account has a basic role, which is thousands of permissions, or one that leads to all accounts",
        cis=("5.2.1",),
        severity=Severity.CRITICAL,
        remedy="Grant a predefined role of the service that is used; on one account, grant it on that account alone",
        url="https://cloud.google.com/iam/docs/roles-overview#basic",
        checks=(_roles(leads_to_others, ", on all of the project"),),
        applies=_on(*_PROJECT),
    ),
    ResourceRule(
        name="registry-access",
        title="The stack lets accounts read images, and push none",
        cis=("5.1.2", "5.1.3"),
        remedy=f"Grant {_READER}; who builds images gets the right to push where the build is set up",
        url="https://cloud.google.com/artifact-registry/docs/access-control",
        checks=(_roles(lambda role: role != _READER, f", not {_READER}"),),
        applies=_on("artifactregistry"),
    ),
    ResourceRule(
        name="registry-scope",
        title="Accounts get images from the repositories that they need, not from all of the project",
        cis=("5.1.3",),
        severity=Severity.MEDIUM,
        remedy=f"Grant {_READER} on the repository, with artifactregistry.RepositoryIamMember",
        url="https://cloud.google.com/artifact-registry/docs/access-control",
        checks=(
            _roles(
                lambda role: role.startswith(("roles/artifactregistry.", "roles/storage.")),
                ", which is for every repository of the project",
            ),
        ),
        applies=_on(*_PROJECT),
    ),
    ResourceRule(
        name="account-key",
        title="No account has a key, which could be copied and does not expire",
        cis=("5.2.2",),
        severity=Severity.CRITICAL,
        remedy="Use Workload Identity Federation",
        url="https://cloud.google.com/iam/docs/best-practices-for-managing-service-account-keys",
        types=("gcp:serviceaccount/key:Key",),
        checks=(lambda _: iter(("the stack makes a key of an account",)),),
    ),
    ResourceRule(
        name="image-scanning",
        title="Images are scanned for known vulnerabilities",
        cis=("5.1.1",),
        severity=Severity.MEDIUM,
        remedy='Set vulnerability_scanning_config.enablement_config="INHERITED"',
        url="https://cloud.google.com/artifact-analysis/docs/enable-automatic-scanning",
        types=(REPOSITORY,),
        checks=(wants("vulnerabilityScanningConfig.enablementConfig", "INHERITED"),),
    ),
    StackRule(
        name="image-scanning-api",
        title="The project can scan images for known vulnerabilities",
        cis=("5.1.1",),
        severity=Severity.MEDIUM,
        remedy='Enable it with projects.Service(service="containerscanning.googleapis.com")',
        url="https://cloud.google.com/artifact-analysis/docs/enable-automatic-scanning",
        survey=_images_are_scanned,
    ),
    ResourceRule(
        name="immutable-tags",
        title="A pushed image cannot be replaced by another one of the same tag",
        cis=("5.1.4",),
        severity=Severity.MEDIUM,
        remedy="Set docker_config.immutable_tags=True",
        url="https://cloud.google.com/artifact-registry/docs/repositories/create-repos",
        types=(REPOSITORY,),
        checks=(wants("dockerConfig.immutableTags", True),),
        applies=_holds_our_images,
    ),
    ResourceRule(
        name="binary-authorization-policy",
        title="The project's Binary Authorization policy refuses images that nobody vouched for",
        cis=("4.5.1", "5.1.4"),
        remedy='Set default_admission_rule to evaluation_mode="ALWAYS_DENY" and '
        'enforcement_mode="ENFORCED_BLOCK_AND_AUDIT_LOG", and list repositories in admission_whitelist_patterns',
        url="https://cloud.google.com/binary-authorization/docs/policy-yaml-reference",
        types=("gcp:binaryauthorization/policy:Policy",),
        checks=(
            _lets_not_everything_in,
            wants("defaultAdmissionRule.enforcementMode", "ENFORCED_BLOCK_AND_AUDIT_LOG"),
        ),
    ),
    ResourceRule(
        name="key-rotation",
        title="Keys in Cloud KMS are rotated at least every 90 days",
        cis=("5.3.1",),
        severity=Severity.MEDIUM,
        remedy=f'Set rotation_period="{_ROTATION_SECONDS}s"',
        url="https://cloud.google.com/kms/docs/key-rotation",
        types=("gcp:kms/cryptoKey:CryptoKey",),
        checks=(_is_rotated,),
    ),
)
