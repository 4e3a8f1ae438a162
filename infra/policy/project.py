"""Rules for what surrounds the cluster in its Google Cloud project: IAM, keys, images, Binary Authorization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from pulumi_policy import Severity
from pulumi_policy.proxy import UnknownValueError

from infra.policy.rule import (
    Finding,
    Resource,
    ResourceRule,
    Rule,
    StackRule,
    at,
    items,
    refuses,
    shown,
    wants,
)

REPOSITORY: Final = "gcp:artifactregistry/repository:Repository"
SERVICE: Final = "gcp:projects/service:Service"

_PROJECT_GRANTS: Final = ("gcp:projects/iAMMember:IAMMember", "gcp:projects/iAMBinding:IAMBinding")
_REPOSITORY_GRANTS: Final = (
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
    "gcp:artifactregistry/repositoryIamBinding:RepositoryIamBinding",
)
_OTHER_GRANTS: Final = (
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
    "gcp:kms/cryptoKeyIAMBinding:CryptoKeyIAMBinding",
    "gcp:serviceaccount/iAMMember:IAMMember",
    "gcp:serviceaccount/iAMBinding:IAMBinding",
)
GRANTS: Final = (*_PROJECT_GRANTS, *_REPOSITORY_GRANTS, *_OTHER_GRANTS)
"""Types that give a role to somebody."""

_EVERYBODY: Final = ("allUsers", "allAuthenticatedUsers")
_BASIC_ROLES: Final = ("roles/owner", "roles/editor", "roles/viewer")
_READER: Final = "roles/artifactregistry.reader"
_ROTATION_SECONDS: Final = 90 * 24 * 3600
"""CIS asks for no period; its benchmark of the platform says 90 days
(https://cloud.google.com/kms/docs/key-rotation)."""


def members(grant: Resource) -> list[str]:
    """Return who gets the role.

    An account that is not there yet has no name in a preview; it is left out, for no rule here is about such a one.
    """
    found = []
    with contextlib.suppress(UnknownValueError):
        found.append(at(grant.inputs, "member"))
    with contextlib.suppress(UnknownValueError):
        many = at(grant.inputs, "members") or ()
        for index in range(len(many)):
            with contextlib.suppress(UnknownValueError):
                found.append(many[index])
    return [member for member in found if member]


def _nobody_in_particular(grant: Resource) -> Iterator[str]:
    for member in members(grant):
        if member in _EVERYBODY:
            yield f"{member} gets {shown(at(grant.inputs, 'role'))}"


def _only_reads_images(grant: Resource) -> Iterator[str]:
    if (role := at(grant.inputs, "role")) != _READER:
        yield f"role is {shown(role)}, not {_READER}"


def _is_no_role_on_all_images(grant: Resource) -> Iterator[str]:
    role = str(at(grant.inputs, "role"))
    if role.startswith(("roles/artifactregistry.", "roles/storage.")):
        yield f"role is {role}, which is for every repository of the project"


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
        types=GRANTS,
        checks=(_nobody_in_particular,),
    ),
    ResourceRule(
        name="basic-role",
        title="No account has a basic role, which is thousands of permissions in the whole project",
        cis=("5.2.1",),
        severity=Severity.CRITICAL,
        remedy="Grant a predefined role; nodes need roles/container.defaultNodeServiceAccount",
        url="https://cloud.google.com/iam/docs/roles-overview#basic",
        types=_PROJECT_GRANTS,
        checks=(refuses("role", *_BASIC_ROLES),),
    ),
    ResourceRule(
        name="registry-access",
        title="The stack lets accounts read images, and push none",
        cis=("5.1.2", "5.1.3"),
        remedy=f"Grant {_READER}; who builds images gets the right to push where the build is set up",
        url="https://cloud.google.com/artifact-registry/docs/access-control",
        types=_REPOSITORY_GRANTS,
        checks=(_only_reads_images,),
    ),
    ResourceRule(
        name="registry-scope",
        title="Accounts get images from the repositories that they need, not from all of the project",
        cis=("5.1.3",),
        severity=Severity.MEDIUM,
        remedy=f"Grant {_READER} on the repository, with artifactregistry.RepositoryIamMember",
        url="https://cloud.google.com/artifact-registry/docs/access-control",
        types=_PROJECT_GRANTS,
        checks=(_is_no_role_on_all_images,),
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
