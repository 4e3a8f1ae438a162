"""Services, identities, grants, keys and registries of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from standin.cloud import PROJECT_NUMBER, CloudError, Json, World
from standin.kinds import ACCOUNT, EVERY, KEY, KEY_MEMBER, REPOSITORY, Kind, short
from standin.schema import Problem
from standin.wire import UNKNOWN

ROBOTS: Final = MappingProxyType(
    {
        "container-engine-robot": "container.googleapis.com",
        "compute-system": "compute.googleapis.com",
        "gcp-sa-artifactregistry": "artifactregistry.googleapis.com",
    }
)
"""Google's own service accounts in a project, and the service whose activation creates each."""


def _check_account(inputs: Json) -> list[Problem]:
    account = inputs["accountId"]
    if account == UNKNOWN or re.fullmatch(r"[a-z](?:[-a-z0-9]{4,28}[a-z0-9])", account):
        return []
    return [("accountId", f'"account_id" ("{account}") doesn\'t match regexp "^[a-z](?:[-a-z0-9]{{4,28}}[a-z0-9])$"')]


def _account_outputs(_world: World, inputs: Json) -> Json:
    email = f"{inputs['accountId']}@{inputs['project']}.iam.gserviceaccount.com"
    return {
        "email": email,
        "member": f"serviceAccount:{email}",
        "name": f"projects/{inputs['project']}/serviceAccounts/{email}",
        "uniqueId": "100000000000000000001",
    }


def admit_key(world: World, key: str | None, robot: str) -> None:
    """Refuse a key that Google's own service account may not use yet."""
    if key is None:
        return
    agent = f"serviceAccount:service-{PROJECT_NUMBER}@{robot}.iam.gserviceaccount.com"
    granted = any(
        grant["cryptoKeyId"] == key
        and grant["member"] == agent
        and grant["role"] == "roles/cloudkms.cryptoKeyEncrypterDecrypter"
        for grant in world.outputs(KEY_MEMBER)
    )
    if not granted:
        raise CloudError(
            "googleapi: Error 400: Cloud KMS key used for encryption is not usable: Permission "
            f"'cloudkms.cryptoKeyVersions.useToEncrypt' denied on resource '{key}' (or it may not exist) "
            f"for {agent.removeprefix('serviceAccount:')}., badRequest"
        )


def admit_account(world: World, email: str | None) -> None:
    if email is None or email == "default":
        return
    if email not in [account["email"] for account in world.outputs(ACCOUNT)]:
        raise CloudError(
            f'googleapi: Error 400: The service account "{email}" does not exist or is deleted., badRequest'
        )


def _admit_member(world: World, inputs: Json) -> None:
    """Refuse an identity that does not exist; for Google's own ones that is until their service is enabled."""
    member = inputs["member"]
    kind, _, email = member.partition(":")
    if kind != "serviceAccount":
        return
    name, _, domain = email.partition("@")
    robot = domain.removesuffix(".iam.gserviceaccount.com")
    if robot in ROBOTS:
        exists = name == f"service-{PROJECT_NUMBER}" and world.enabled(ROBOTS[robot])
    else:
        exists = email in [account["email"] for account in world.outputs(ACCOUNT)]
    if not exists:
        raise CloudError(
            f"Error applying IAM policy: Error setting IAM policy: googleapi: Error 400: "
            f"Service account {email} does not exist., badRequest"
        )


def _check_key(inputs: Json) -> list[Problem]:
    period = inputs.get("rotationPeriod")
    if period is None or period == UNKNOWN or (re.fullmatch(r"\d+s", period) and int(period[:-1]) >= 86_400):
        return []
    return [("rotationPeriod", "rotation_period must be at least 86400 s (1 day), as in 86400s")]


def _check_repository(inputs: Json) -> list[Problem]:
    name = inputs["repositoryId"]
    if name == UNKNOWN or re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
        return []
    return [("repositoryId", f'"repository_id" ("{name}") may hold letters, digits and dashes, up to 63')]


def _repository_outputs(_world: World, inputs: Json) -> Json:
    return {
        "name": inputs["repositoryId"],
        "registryUri": f"{inputs['location']}-docker.pkg.dev/{inputs['project']}/{inputs['repositoryId']}",
    }


def _admit_repository_member(world: World, inputs: Json) -> None:
    if short(inputs["repository"]) not in [each["name"] for each in world.outputs(REPOSITORY)]:
        raise CloudError(
            f"googleapi: Error 404: Requested entity was not found: repository {short(inputs['repository'])}, notFound"
        )
    _admit_member(world, inputs)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "gcp:projects/service:Service": Kind(
            service="serviceusage.googleapis.com",
            permission="serviceusage.services.enable",
            identity="{project}/{service}",
            replaces=frozenset({"project", "service"}),
        ),
        "gcp:projects/iAMMember:IAMMember": Kind(
            service="cloudresourcemanager.googleapis.com",
            permission="resourcemanager.projects.setIamPolicy",
            identity="{project}/{role}/{member}",
            replaces=EVERY,
            admit=_admit_member,
        ),
        ACCOUNT: Kind(
            service="iam.googleapis.com",
            permission="iam.serviceAccounts.create",
            identity="projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
            replaces=frozenset({"accountId", "project"}),
            check=_check_account,
            outputs=_account_outputs,
        ),
        "gcp:serviceaccount/iAMMember:IAMMember": Kind(
            service="iam.googleapis.com",
            permission="iam.serviceAccounts.setIamPolicy",
            identity="{serviceAccountId}/{role}/{member}",
            replaces=EVERY,
            admit=_admit_member,
        ),
        "gcp:kms/keyRing:KeyRing": Kind(
            service="cloudkms.googleapis.com",
            permission="cloudkms.keyRings.create",
            identity="projects/{project}/locations/{location}/keyRings/{name}",
            naming="name",
            replaces=EVERY,
        ),
        KEY: Kind(
            service="cloudkms.googleapis.com",
            permission="cloudkms.cryptoKeys.create",
            identity="{keyRing}/cryptoKeys/{name}",
            naming="name",
            replaces=frozenset({"name", "keyRing", "purpose", "importOnly", "destroyScheduledDuration"}),
            check=_check_key,
        ),
        KEY_MEMBER: Kind(
            service="cloudkms.googleapis.com",
            permission="cloudkms.cryptoKeys.setIamPolicy",
            identity="{cryptoKeyId}/{role}/{member}",
            replaces=EVERY,
            admit=_admit_member,
        ),
        REPOSITORY: Kind(
            service="artifactregistry.googleapis.com",
            permission="artifactregistry.repositories.create",
            identity="projects/{project}/locations/{location}/repositories/{repositoryId}",
            replaces=frozenset({"repositoryId", "location", "project", "format", "mode", "kmsKeyName"}),
            check=_check_repository,
            outputs=_repository_outputs,
        ),
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": Kind(
            service="artifactregistry.googleapis.com",
            permission="artifactregistry.repositories.setIamPolicy",
            identity="projects/{project}/locations/{location}/repositories/{repository}/{role}/{member}",
            replaces=EVERY,
            admit=_admit_repository_member,
        ),
        "gcp:binaryauthorization/policy:Policy": Kind(
            service="binaryauthorization.googleapis.com",
            permission="binaryauthorization.policy.update",
            identity="projects/{project}/policy",
            replaces=frozenset({"project"}),
        ),
    }
)
