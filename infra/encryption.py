"""The Cloud KMS key of a cluster: for the Secrets in its etcd, and for the boot disks of its nodes.

Google's own service accounts use the key; they must be granted it before the cluster is made.
https://cloud.google.com/kubernetes-engine/docs/how-to/encrypting-secrets
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

ROTATION_SECONDS: Final = 90 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """A key, and the grants without which Google cannot use it.

    Attributes:
        key: Id of the key.
        grants: What must exist before anything is encrypted with it.
    """

    key: pulumi.Input[str]
    grants: tuple[pulumi.Resource, ...]


def encryption(
    name: str,
    *,
    project: str,
    region: str,
    project_number: pulumi.Input[str],
    boot_disks: bool,
    given: str,
    services: list[pulumi.Resource],
    agents: Mapping[str, pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> Encryption:
    """Create key ring, key and grants, unless there is a key: who may use that one is its owner's business.

    Args:
        name: What the logical names begin with.
        project: Id of the project.
        region: Region of the cluster: a key elsewhere is refused.
        project_number: Number of the project, which the names of Google's service accounts have.
        boot_disks: Whether Compute Engine may use the key, too.
        given: Id of a key that is there already; empty for one of the stack's own.
        services: What must be enabled first.
        agents: Google's own accounts by their service, from ``project_services``.
        opts: Options of every resource.
    """
    if given:
        return Encryption(key=given, grants=tuple(agents.values()))
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=services))
    ring = gcp.kms.KeyRing(f"{name}-keys", project=project, location=region, opts=after)
    key = gcp.kms.CryptoKey(
        f"{name}-key",
        key_ring=ring.id,
        purpose="ENCRYPT_DECRYPT",
        rotation_period=f"{ROTATION_SECONDS}s",
        opts=after,
    )
    # Their names are known before they exist, the provider may never learn them
    # (https://github.com/hashicorp/terraform-provider-google/issues/19970).
    robots = {"container-engine-robot": "container", **({"compute-system": "compute"} if boot_disks else {})}
    return Encryption(
        key=key.id,
        grants=tuple(
            gcp.kms.CryptoKeyIAMMember(
                f"{name}-key-{robot}",
                crypto_key_id=key.id,
                role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
                member=pulumi.Output.concat(
                    "serviceAccount:service-", project_number, f"@{robot}.iam.gserviceaccount.com"
                ),
                opts=pulumi.ResourceOptions.merge(after, pulumi.ResourceOptions(depends_on=[agents[service]])),
            )
            for robot, service in robots.items()
        ),
    )
