"""What sandboxes print, in Cloud Logging: kept out of the project's log, and if wished kept in a bucket of its own.

GKE sends what every container prints to the project's log. What a sandbox prints is its reply, files included, of up to
8 MiB; the executor reads it from the node, by the API server, and does not need the log.
"""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.gke_settings import GkeSettings

_KEY_ROLE: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"


def sandbox_logs(
    name: str,
    *,
    gke: GkeSettings,
    cluster: pulumi.Input[str],
    namespace: str,
    key: pulumi.Input[str],
    service: pulumi.Resource,
    opts: pulumi.ResourceOptions,
) -> None:
    """Create the exclusion, and what keeps the entries elsewhere.

    Args:
        name: What the logical names begin with.
        gke: Project, region, what is kept and how long.
        cluster: Name of the cluster.
        namespace: Namespace of the sandboxes.
        key: Cloud KMS key, in the stack's region. Of one that was there already its owner says who may use it.
        service: What enables Cloud Logging.
        opts: Options of every resource.
    """
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[service]))
    # https://cloud.google.com/logging/docs/api/v2/resource-list
    entries = pulumi.Output.format(
        'resource.type="k8s_container" AND resource.labels.location="{0}" AND resource.labels.cluster_name="{1}" '
        'AND resource.labels.namespace_name="{2}"',
        gke.region,
        cluster,
        namespace,
    )
    # Of the project's own sink (`_Default`) alone
    # (https://cloud.google.com/logging/docs/reference/v2/rest/v2/projects.exclusions/create).
    gcp.logging.ProjectExclusion(
        f"{name}-logs",
        project=gke.project,
        description="What sandboxes print",
        filter=entries,
        opts=after,
    )
    if gke.sandbox_logs == "exclude":
        return
    grants: list[pulumi.Resource] = []
    if not gke.kms_key:
        settings = gcp.logging.get_project_cmek_settings_output(
            project=gke.project, opts=pulumi.InvokeOutputOptions(parent=opts.parent, depends_on=[service])
        )
        grants.append(
            gcp.kms.CryptoKeyIAMMember(
                f"{name}-key-logging",
                crypto_key_id=key,
                role=_KEY_ROLE,
                member=pulumi.Output.concat("serviceAccount:", settings.service_account_id),
                opts=after,
            )
        )
    bucket = gcp.logging.ProjectBucketConfig(
        f"{name}-logs",
        project=gke.project,
        location=gke.region,
        # A bucket that was deleted has its name for a week
        # (https://cloud.google.com/logging/docs/reference/v2/rest/v2/projects.locations.buckets/delete): one of the
        # first cluster's, which no other has.
        bucket_id=pulumi.Output.concat(cluster, "-sandboxes"),
        description="What sandboxes print",
        retention_days=gke.sandbox_log_days,
        cmek_settings=gcp.logging.ProjectBucketConfigCmekSettingsArgs(kms_key_name=key),
        opts=pulumi.ResourceOptions.merge(
            opts,
            pulumi.ResourceOptions(
                depends_on=[service, *grants],
                # With a cluster in place of a lost one the bucket stays, and so does what it holds of that one.
                ignore_changes=["bucketId"],
            ),
        ),
    )
    # Into a bucket of the same project nobody needs a right to write
    # (https://cloud.google.com/logging/docs/export/configure_export_v2#dest-auth).
    gcp.logging.ProjectSink(
        f"{name}-logs",
        project=gke.project,
        description="What sandboxes print",
        destination=pulumi.Output.concat("logging.googleapis.com/", bucket.id),
        filter=entries,
        opts=after,
    )
