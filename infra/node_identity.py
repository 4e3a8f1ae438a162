"""Who the nodes are, and who the agents are to Google Cloud. Sandboxes are nobody: nothing is bound to them.

Nodes have a service account of their own with the least that GKE wants and the right to read two image
repositories; agents are named by Workload Identity, without a service account of Google's in between.
https://cloud.google.com/kubernetes-engine/docs/how-to/hardening-your-cluster#use_least_privilege_sa
https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_gcp as gcp

from infra.naming import resource_id

_ACCOUNT_ID_LENGTH: Final = 30
SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
"""All APIs: what a node may do is decided by the roles of its service account
(https://cloud.google.com/kubernetes-engine/docs/how-to/access-scopes)."""

NODE_ROLE: Final = "roles/container.defaultNodeServiceAccount"
READER_ROLE: Final = "roles/artifactregistry.reader"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """The service account of all nodes.

    Attributes:
        email: E-mail of the service account.
        grants: What it may do by the stack; nodes that come before these cannot log or pull.
    """

    email: pulumi.Input[str]
    grants: tuple[pulumi.Resource, ...]


def node_identity(
    name: str,
    *,
    stack: str,
    project: str,
    region: str,
    repositories: Mapping[str, gcp.artifactregistry.Repository],
    given: str,
    services: list[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> NodeIdentity:
    """Create the nodes' service account, unless there is one, and let it read the stack's repositories.

    Args:
        name: What the logical names begin with.
        stack: Name of the stack; the account's id carries it.
        project: Id of the project.
        region: Region of the repositories.
        repositories: What nodes may pull from, by a word for each.
        given: E-mail of a service account that is there already; its role in the project is its owner's business.
        services: What must be enabled first.
        opts: Options of every resource.
    """
    email: pulumi.Input[str] = given
    member: pulumi.Input[str] = f"serviceAccount:{given}"
    roles = []
    if not given:
        account = gcp.serviceaccount.Account(
            f"{name}-nodes",
            project=project,
            account_id=resource_id(name, "nodes", stack, most=_ACCOUNT_ID_LENGTH),
            display_name=f"Nodes of the {stack} sandbox cluster",
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=services)),
        )
        email, member = account.email, account.member
        roles = [gcp.projects.IAMMember(f"{name}-nodes", project=project, role=NODE_ROLE, member=member, opts=opts)]
    readers = [
        gcp.artifactregistry.RepositoryIamMember(
            f"{name}-nodes-{word}",
            project=project,
            repository=repository.name,
            location=region,
            role=READER_ROLE,
            member=member,
            opts=opts,
        )
        for word, repository in repositories.items()
    ]
    return NodeIdentity(email=email, grants=(*roles, *readers))


def agent_principal(
    project: str, project_number: pulumi.Input[str], namespace: str, service_account: str
) -> pulumi.Output[str]:
    """Return what IAM calls a Kubernetes ServiceAccount."""
    return pulumi.Output.concat(
        "principal://iam.googleapis.com/projects/",
        project_number,
        f"/locations/global/workloadIdentityPools/{project}.svc.id.goog/subject/ns/{namespace}/sa/{service_account}",
    )


def agent_grants(
    name: str,
    *,
    project: str,
    principal: pulumi.Input[str],
    roles: Iterable[str],
    after: Iterable[pulumi.Resource],
    opts: pulumi.ResourceOptions,
) -> list[pulumi.Resource]:
    """Give the agents' ServiceAccount roles in the project.

    Args:
        name: What the logical names begin with.
        project: Id of the project.
        principal: The ServiceAccount, from ``agent_principal``.
        roles: IAM roles.
        after: The cluster: the pool of identities comes with the first one of a project.
        opts: Options of every resource.
    """
    return [
        gcp.projects.IAMMember(
            # Of a role of one's own all of it: two may end alike.
            f"{name}-agent-{role.removeprefix('roles/').replace('/', '.')}",
            project=project,
            role=role,
            member=principal,
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(after))),
        )
        for role in roles
    ]
