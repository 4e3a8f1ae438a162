"""`SandboxCluster`: a GKE cluster made for running model-written Python, with everything around it that it needs.

What is inside the cluster is the business of ``environment``. RuntimeClass, node label and taint of gVisor are
GKE's own, and made by nobody here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_gcp as gcp

from infra import control_plane, encryption, network, node_identity, node_pools, project_services, registry
from infra.address_ranges import Addresses
from infra.gke import load_balancers, logs, refusals
from infra.gke_settings import GkeSettings
from infra.kubeconfig import context_name, kubeconfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxClusterArgs:
    """What a `SandboxCluster` is made from.

    Attributes:
        stack: Name of the stack; ids that must be unique in a project carry it.
        mode: Whose business the nodes are: ours, or GKE's.
        gke: Project, region, versions, pools, protection.
        way_out: Whether nodes get a way to the internet, by Cloud NAT.
        fqdn_policies: Whether network policies of the cluster may name hosts.
        sandbox_namespace: Namespace of the sandboxes, whose output is kept out of the project's log.
        agents_namespace: Namespace of the agents.
        agent_service_account: Their ServiceAccount, which gets the IAM roles in ``gke.agent_roles``.
    """

    stack: str
    mode: Literal["standard", "autopilot"] = "standard"
    gke: GkeSettings
    way_out: bool = False
    fqdn_policies: bool = False
    sandbox_namespace: str = "agent-sandbox"
    agents_namespace: str = "agents"
    agent_service_account: str = "agent"


class SandboxCluster(pulumi.ComponentResource):
    """A hardened GKE cluster with a gVisor node pool, its network, identities, keys and image repositories.

    Attributes:
        cluster: The cluster; depend on ``ready`` before anything is run in it.
        ready: What must exist before pods can run.
        kubeconfig: A kubeconfig without credentials, as a secret.
        context: Name of the context in it.
        endpoint: URL of the API server.
        repository: What the names of images begin with that the platform team pushes.
        addresses: Its ranges of nodes, pods and Services.
    """

    cluster: gcp.container.Cluster
    ready: list[pulumi.Resource]
    kubeconfig: pulumi.Output[str]
    context: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    repository: pulumi.Output[str]
    addresses: Addresses

    def __init__(self, name: str, args: SandboxClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("adk:infra:SandboxCluster", name, None, opts)
        gke = args.gke
        child = pulumi.ResourceOptions(parent=self)
        enabled = project_services.services(name, gke, child)
        services = list(enabled.values())
        agents = project_services.service_agents(name, gke.project, enabled, child)
        after_services = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=services))
        number = gcp.organizations.get_project_output(
            project_id=gke.project,
            # No other: a service that a setting adds would make the number unknown, and replace every grant with it.
            opts=pulumi.InvokeOutputOptions(parent=self, depends_on=[enabled["cloudresourcemanager"]]),
        ).number
        net = network.network(
            name,
            gke=gke,
            pools=args.mode == "standard",
            nat=args.way_out,
            services=enabled,
            opts=child,
        )
        repositories = registry.repositories(
            name,
            stack=args.stack,
            project=gke.project,
            region=gke.region,
            docker_hub_user=gke.docker_hub_user,
            docker_hub_token=gke.docker_hub_token,
            given=gke.repository,
            services=services,
            opts=child,
        )
        nodes = node_identity.node_identity(
            name,
            stack=args.stack,
            project=gke.project,
            region=gke.region,
            repositories=repositories.made,
            given=gke.node_service_account,
            services=services,
            opts=child,
        )
        keys = encryption.encryption(
            name,
            project=gke.project,
            region=gke.region,
            project_number=number,
            boot_disks=gke.encrypt_boot_disks,
            given=gke.kms_key,
            services=services,
            agents=agents,
            opts=child,
        )
        admitted = registry.image_policy(
            name,
            project=gke.project,
            managed=gke.binary_authorization == "manage",
            of=repositories,
            opts=after_services,
        )
        boot_disk_key = keys.key if gke.encrypt_boot_disks else None
        around = control_plane.Surroundings(
            network=net.vpc,
            subnetwork=net.subnet,
            pods_range=net.pods_range,
            services_range=net.services_range,
            key=keys.key,
            boot_disk_key=boot_disk_key,
            node_account=nodes.email,
            fqdn_policies=args.fqdn_policies,
        )
        arguments = control_plane.standard if args.mode == "standard" else control_plane.autopilot
        self.cluster = gcp.container.Cluster(
            f"{name}-cluster",
            arguments(gke, around),
            opts=pulumi.ResourceOptions.merge(
                child,
                pulumi.ResourceOptions(
                    depends_on=[*keys.grants, *nodes.grants, *net.way_out, *admitted],
                    # What GKE tells of it: certificates, and even a key if one was ever issued.
                    additional_secret_outputs=["master_auth"],
                    ignore_changes=control_plane.NOT_OURS[args.mode],
                    # Not `delete_before_replace`: GKE refuses a second cluster on the same range of services
                    # (https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips), and the first one is still
                    # there. The other way round the engine deletes object by object, and loses its Kubernetes
                    # provider before it comes to the end of the namespaces.
                ),
            ),
        )
        pools: list[pulumi.Resource] = []
        if args.mode == "standard":
            pools += node_pools.node_pools(
                name,
                cluster=self.cluster,
                gke=gke,
                account=nodes.email,
                key=boot_disk_key,
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(nodes.grants))),
            )
        self.ready = [self.cluster, *pools]
        if not gke.network:
            # In a network that others use, their load balancers would match.
            load_balancers.warn(gke, network=net.vpc, opts=child)
        logs.sandbox_logs(
            name,
            gke=gke,
            cluster=self.cluster.name,
            namespace=args.sandbox_namespace,
            key=keys.key,
            service=enabled["logging"],
            opts=child,
        )
        node_identity.agent_grants(
            name,
            project=gke.project,
            principal=node_identity.agent_principal(
                gke.project, number, args.agents_namespace, args.agent_service_account
            ),
            roles=gke.agent_roles,
            after=[self.cluster],
            opts=child,
        )
        host = refusals.endpoint(self.cluster, gke, pools=args.mode == "standard")
        self.endpoint = pulumi.Output.concat("https://", host)
        self.context = self.cluster.name.apply(lambda cluster: context_name(gke.project, gke.region, cluster))
        self.kubeconfig = pulumi.Output.secret(
            pulumi.Output.all(self.context, host).apply(lambda found: kubeconfig(context=found[0], endpoint=found[1]))
        )
        self.repository = repositories.own
        self.addresses = net.addresses
        self.register_outputs({"endpoint": self.endpoint, "kubeconfig": self.kubeconfig, "repository": self.repository})
