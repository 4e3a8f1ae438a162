"""Services, identities, grants, keys, registries and logs of a project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from standin.cloud import PROJECT_NUMBER, CloudError, Json, World
from standin.kinds import (
    ACCOUNT,
    KEY,
    KEY_MEMBER,
    LOG_BUCKET,
    LOG_SINK,
    REPOSITORY,
    SERVICE,
    SERVICE_IDENTITY,
    Kind,
    kind,
    short,
    table,
)
from standin.schema import Problem
from standin.wire import UNKNOWN

ROBOTS: Final = MappingProxyType(
    {
        "container-engine-robot": "container.googleapis.com",
        "compute-system": "compute.googleapis.com",
        "gcp-sa-artifactregistry": "artifactregistry.googleapis.com",
    }
)
"""Google's own service accounts in a project, and the service whose they are.

Enabling the service makes each in its own time; a `ServiceIdentity` makes it, and waits for it
(https://cloud.google.com/iam/docs/create-service-agents).
"""

LOGS_ACCOUNT: Final = f"cmek-p{PROJECT_NUMBER}@gcp-sa-logging.iam.gserviceaccount.com"
"""Cloud Logging's own account for keys; asking for its name makes it
(https://cloud.google.com/logging/docs/routing/managed-encryption-storage#service-account)."""

LATE_CALLS: Final = 60
"""How many changes after its service such an account is there by itself; on Google Cloud about 90 s, here no clock."""


def _agent_exists(world: World, service: str) -> bool:
    if service in world.services or any(made["service"] == service for made in world.outputs(SERVICE_IDENTITY)):
        return True
    return any(
        made["inputs"]["service"] == service and world.changes - made["at"] >= LATE_CALLS for made in world.of(SERVICE)
    )


def _admit_identity(world: World, inputs: Json) -> None:
    if not world.enabled(inputs["service"]):
        raise CloudError(
            f"Error creating Service Identity: googleapi: Error 403: {inputs['service']} has not been used in project "
            f"{PROJECT_NUMBER} before or it is disabled., accessNotConfigured"
        )


def _identity_outputs(_world: World, inputs: Json) -> Json:
    robot = next((name for name, service in ROBOTS.items() if service == inputs["service"]), None)
    email = robot_account(robot) if robot else ""
    return {"email": email, "member": f"serviceAccount:{email}" if email else ""}


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


def robot_account(robot: str) -> str:
    """Return the e-mail of one of Google's own accounts, such as ``compute-system``."""
    return f"service-{PROJECT_NUMBER}@{robot}.iam.gserviceaccount.com"


def admit_key(world: World, key: str | None, account: str) -> None:
    """Refuse a key that Google's own service account may not use yet."""
    if key in (None, table("theirs")["key"]):
        return
    agent = f"serviceAccount:{account}"
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
            f"for {account}., badRequest"
        )


def admit_account(world: World, email: str | None) -> None:
    if email in (None, "default", table("theirs")["account"]):
        return
    if email not in [account["email"] for account in world.outputs(ACCOUNT)]:
        raise CloudError(
            f'googleapi: Error 400: The service account "{email}" does not exist or is deleted., badRequest'
        )


def _admit_member(world: World, inputs: Json) -> None:
    """Refuse an identity that does not exist, or not yet."""
    member = inputs["member"]
    kind, _, email = member.partition(":")
    if kind != "serviceAccount":
        return
    name, _, domain = email.partition("@")
    robot = domain.removesuffix(".iam.gserviceaccount.com")
    if robot in ROBOTS:
        exists = name == f"service-{PROJECT_NUMBER}" and _agent_exists(world, ROBOTS[robot])
    else:
        theirs = (LOGS_ACCOUNT, table("theirs")["account"])
        exists = email in [*theirs, *(account["email"] for account in world.outputs(ACCOUNT))]
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


def _admit_bucket(world: World, inputs: Json) -> None:
    admit_key(world, (inputs.get("cmekSettings") or {}).get("kmsKeyName"), LOGS_ACCOUNT)


def _bucket_outputs(_world: World, state: Json) -> Json:
    settings = state.get("cmekSettings")
    return {
        "lifecycleState": "ACTIVE",
        "name": f"projects/{state['project']}/locations/{state['location']}/buckets/{state['bucketId']}",
        **({"cmekSettings": {**settings, "serviceAccountId": LOGS_ACCOUNT}} if settings else {}),
    }


def _admit_sink(world: World, inputs: Json) -> None:
    bucket = inputs["destination"].removeprefix("logging.googleapis.com/")
    if bucket not in world.resources:
        raise CloudError(f"googleapi: Error 404: Log bucket {bucket} does not exist., notFound")


_RULES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        SERVICE_IDENTITY: {"admit": _admit_identity, "outputs": _identity_outputs},
        "gcp:projects/iAMMember:IAMMember": {"admit": _admit_member},
        ACCOUNT: {"check": _check_account, "outputs": _account_outputs},
        "gcp:serviceaccount/iAMMember:IAMMember": {"admit": _admit_member},
        KEY: {"check": _check_key},
        KEY_MEMBER: {"admit": _admit_member},
        LOG_BUCKET: {"admit": _admit_bucket, "outputs": _bucket_outputs},
        LOG_SINK: {"admit": _admit_sink, "outputs": lambda _, __: {"writerIdentity": ""}},
        REPOSITORY: {"check": _check_repository, "outputs": _repository_outputs},
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": {"admit": _admit_repository_member},
    }
)

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {token: kind(group, token, **_RULES.get(token, {})) for group in ("identity", "logs") for token in table(group)}
)
