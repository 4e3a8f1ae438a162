"""Image repositories in Artifact Registry: one of the stack's own, and one that pulls Docker Hub's images through.

Private nodes without Cloud NAT reach no registry but Google's; through the second one the public images come to
them by digest all the same. Who may read is the business of ``node_identity``. Images are built and pushed by others.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from infra.image_names import mirror_id, own_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Repositories:
    """The two repositories.

    Attributes:
        own: What the names of images begin with that the platform team pushes.
        mirror: Docker Hub's images, kept once they have been asked for.
        made: Those that the stack makes, by what they are for.
    """

    own: pulumi.Output[str]
    mirror: gcp.artifactregistry.Repository
    made: dict[str, gcp.artifactregistry.Repository]


def repositories(
    name: str,
    *,
    stack: str,
    project: str,
    region: str,
    docker_hub_user: str,
    docker_hub_token: str,
    given: str,
    services: list[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> Repositories:
    """Create what is missing of both repositories.

    Args:
        name: What the logical names begin with.
        stack: Name of the stack; the repositories' ids carry it.
        project: Id of the project.
        region: Region of the nodes.
        docker_hub_user: As whom Docker Hub is asked; empty is nobody.
        docker_hub_token: Version in Secret Manager that holds the user's token. Whoever keeps it lets Artifact
            Registry read it: a right to grant that here would be one to read every secret of the project.
        given: Repository of images that is there already; empty for one of the stack's own.
        services: What must be enabled first.
        opts: Options of both.
    """
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=services))
    scanning = gcp.artifactregistry.RepositoryVulnerabilityScanningConfigArgs(enablement_config="INHERITED")
    mirror = gcp.artifactregistry.Repository(
        f"{name}-docker-hub",
        project=project,
        repository_id=mirror_id(name, stack),
        location=region,
        format="DOCKER",
        mode="REMOTE_REPOSITORY",
        description="Images of Docker Hub, for nodes without a way to the internet",
        remote_repository_config=gcp.artifactregistry.RepositoryRemoteRepositoryConfigArgs(
            description="Docker Hub",
            docker_repository=gcp.artifactregistry.RepositoryRemoteRepositoryConfigDockerRepositoryArgs(
                public_repository="DOCKER_HUB"
            ),
            upstream_credentials=_login(docker_hub_user, docker_hub_token) if docker_hub_user else None,
        ),
        vulnerability_scanning_config=scanning,
        opts=after,
    )
    if given:
        return Repositories(own=pulumi.Output.from_input(given), mirror=mirror, made={"docker-hub": mirror})
    own = gcp.artifactregistry.Repository(
        f"{name}-images",
        project=project,
        repository_id=own_id(name, stack),
        location=region,
        format="DOCKER",
        description="Sandbox images",
        # A tag cannot be moved.
        docker_config=gcp.artifactregistry.RepositoryDockerConfigArgs(immutable_tags=True),
        vulnerability_scanning_config=scanning,
        opts=after,
    )
    return Repositories(own=own.registry_uri, mirror=mirror, made={"images": own, "docker-hub": mirror})


def _login(user: str, token: str) -> gcp.artifactregistry.RepositoryRemoteRepositoryConfigUpstreamCredentialsArgs:
    """Return a login: Docker Hub lets nobody in particular pull only so much an hour.

    https://cloud.google.com/artifact-registry/docs/docker/configure-remote-auth-docker-hub
    """
    registry = gcp.artifactregistry
    return registry.RepositoryRemoteRepositoryConfigUpstreamCredentialsArgs(
        username_password_credentials=(
            registry.RepositoryRemoteRepositoryConfigUpstreamCredentialsUsernamePasswordCredentialsArgs(
                username=user, password_secret_version=token
            )
        )
    )


def image_policy(
    name: str, *, project: str, managed: bool, of: Repositories, opts: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """Write the project's Binary Authorization policy, if the stack is told to: it admits the two repositories."""
    if not managed:
        return []
    patterns = [
        gcp.binaryauthorization.PolicyAdmissionWhitelistPatternArgs(
            name_pattern=pulumi.Output.concat(repository, "/**")
        )
        for repository in (of.own, of.mirror.registry_uri)
    ]
    return [
        gcp.binaryauthorization.Policy(
            f"{name}-images",
            project=project,
            default_admission_rule=gcp.binaryauthorization.PolicyDefaultAdmissionRuleArgs(
                evaluation_mode="ALWAYS_DENY", enforcement_mode="ENFORCED_BLOCK_AND_AUDIT_LOG"
            ),
            admission_whitelist_patterns=patterns,
            # Google's own system images.
            global_policy_evaluation_mode="ENABLE",
            opts=opts,
        )
    ]
