"""Who may do what: namespaces, ServiceAccounts, and the executor's Role.

Two namespaces, because ``create`` on Jobs is use of every identity and secret of their namespace: agents
live in one, what they run in the other. Limits and network are the business of ``isolation``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.contract import (
    APP_LABEL,
    APP_NAME,
    EXECUTOR_ROLE,
    EXECUTOR_RULES,
    MANAGED_BY_LABEL,
    STACK_LABEL,
    Contract,
    Rule,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The two namespaces, as resources to depend on."""

    agents: kubernetes.core.v1.Namespace
    sandbox: kubernetes.core.v1.Namespace


def labels(contract: Contract) -> dict[str, str]:
    """Return the labels of every object of the stack."""
    return {APP_LABEL: APP_NAME, MANAGED_BY_LABEL: "pulumi", STACK_LABEL: contract.stack}


def metadata(contract: Contract, name: str, namespace: str | None = None) -> kubernetes.meta.v1.ObjectMetaArgs:
    """Return the metadata of an object with a fixed name: the contract and people refer to it."""
    return kubernetes.meta.v1.ObjectMetaArgs(name=name, namespace=namespace, labels=labels(contract))


def pod_security(level: str, version: str) -> dict[str, str]:
    """Return the namespace labels that hold pods to a Pod Security Standard.

    https://kubernetes.io/docs/concepts/security/pod-security-admission/
    """
    prefix = "pod-security.kubernetes.io/"
    return {
        label: value
        for mode in ("enforce", "audit", "warn")
        for label, value in ((f"{prefix}{mode}", level), (f"{prefix}{mode}-version", version))
    }


def namespaces(name: str, contract: Contract, pod_security_version: str, opts: pulumi.ResourceOptions) -> Namespaces:
    """Create both namespaces; logical names begin with ``name``."""

    def namespace(logical: str, called: str, level: str) -> kubernetes.core.v1.Namespace:
        return kubernetes.core.v1.Namespace(
            logical,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=called, labels=labels(contract) | pod_security(level, pod_security_version)
            ),
            opts=opts,
        )

    return Namespaces(
        # Agents are somebody else's pods: root in a container is theirs to decide, the node is not.
        agents=namespace(f"{name}-agents-namespace", contract.agents_namespace, "baseline"),
        sandbox=namespace(f"{name}-namespace", contract.namespace, "restricted"),
    )


def inside(namespace: kubernetes.core.v1.Namespace, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return the options of an object in a namespace: created after it, deleted with it.

    Deleted one by one, the walls would fall while sandboxes still run; Kubernetes deletes a namespace's
    pods first (https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/).
    """
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[namespace], deleted_with=namespace))


def role_rules(rules: Iterable[Rule]) -> list[kubernetes.rbac.v1.PolicyRuleArgs]:
    """Return the contract's rules as Kubernetes writes them."""
    return [
        kubernetes.rbac.v1.PolicyRuleArgs(
            api_groups=[rule.api_group], resources=[rule.resource], verbs=list(rule.verbs)
        )
        for rule in rules
    ]


def identities(
    name: str, contract: Contract, created: Namespaces, walls: list[pulumi.Resource], opts: pulumi.ResourceOptions
) -> kubernetes.rbac.v1.RoleBinding:
    """Create the ServiceAccounts and let the agents' one execute in the sandbox namespace.

    Args:
        name: What the logical names begin with.
        contract: Names of everything.
        created: The namespaces.
        walls: What must exist before an agent may start a sandbox.
        opts: Options of every resource.

    Returns:
        The binding: with it agents can execute.
    """
    in_agents, in_sandbox = inside(created.agents, opts), inside(created.sandbox, opts)
    for logical, namespace, options in (
        (f"{name}-agents-default", contract.agents_namespace, in_agents),
        (f"{name}-default", contract.namespace, in_sandbox),
    ):
        # Kubernetes makes `default` itself; a pod that names no ServiceAccount must get no token either.
        kubernetes.core.v1.ServiceAccountPatch(
            logical,
            metadata=kubernetes.meta.v1.ObjectMetaPatchArgs(name="default", namespace=namespace),
            automount_service_account_token=False,
            opts=options,
        )
    agent = kubernetes.core.v1.ServiceAccount(
        f"{name}-agent",
        metadata=metadata(contract, contract.agent_service_account, contract.agents_namespace),
        opts=in_agents,
    )
    # Bound to nothing and without a token: what runs under it is not trusted.
    runner = kubernetes.core.v1.ServiceAccount(
        f"{name}-runner",
        metadata=metadata(contract, contract.sandbox_service_account, contract.namespace),
        automount_service_account_token=False,
        opts=in_sandbox,
    )
    role = kubernetes.rbac.v1.Role(
        f"{name}-executor",
        metadata=metadata(contract, EXECUTOR_ROLE, contract.namespace),
        rules=role_rules(EXECUTOR_RULES),
        opts=in_sandbox,
    )
    return kubernetes.rbac.v1.RoleBinding(
        f"{name}-executor",
        metadata=metadata(contract, EXECUTOR_ROLE, contract.namespace),
        role_ref=kubernetes.rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=EXECUTOR_ROLE),
        subjects=[
            kubernetes.rbac.v1.SubjectArgs(
                kind="ServiceAccount",
                name=contract.agent_service_account,
                namespace=contract.agents_namespace,
            )
        ],
        opts=pulumi.ResourceOptions.merge(in_sandbox, pulumi.ResourceOptions(depends_on=[role, agent, runner, *walls])),
    )
