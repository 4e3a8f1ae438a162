"""`SandboxEnvironment`: everything inside a cluster that makes it safe to run model-written Python there.

Works on any cluster that a Kubernetes provider reaches and that has the contract's RuntimeClass. Creates no
cluster, and nothing outside its two namespaces.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.contract import CONTRACT_KEY, Contract
from infra import access, isolation
from infra.settings import Quota

CONTRACT_CONFIG_MAP: Final = "adk-gke-sandbox"
"""Name of the ConfigMap in the agents' namespace that agents mount at ``/etc/adk-gke-sandbox``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxEnvironmentArgs:
    """What a `SandboxEnvironment` is made from.

    Attributes:
        contract: Names, image, limits; all objects are derived from it.
        quota: What the sandbox namespace may use as a whole.
        pod_security_version: Version of the Pod Security Standards, such as ``v1.36``.
    """

    contract: Contract
    pod_security_version: str
    quota: Quota = field(default_factory=Quota)


class SandboxEnvironment(pulumi.ComponentResource):
    """Namespaces, identities, bounds and policies of one contract, and the contract itself as a ConfigMap.

    Attributes:
        contract: The contract as a JSON-able mapping. It is known before anything exists: depend on the
            component, not on this, to wait for what it describes.
    """

    contract: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: SandboxEnvironmentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("adk:infra:SandboxEnvironment", name, None, opts)
        contract = args.contract
        child = pulumi.ResourceOptions(parent=self)
        created = access.namespaces(contract, args.pod_security_version, child)
        in_agents, in_sandbox = access.inside(created.agents, child), access.inside(created.sandbox, child)

        # Walls before doors: once the binding exists, an agent can start sandboxes.
        walls = [
            *isolation.bounds(contract, args.quota, in_sandbox),
            isolation.deny_all(contract, "sandbox-deny-all", contract.namespace, in_sandbox),
        ]
        isolation.deny_all(contract, "agents-deny-all", contract.agents_namespace, in_agents)
        isolation.agents_egress(contract, in_agents)
        binding = access.identities(contract, created, walls, child)

        kubernetes.core.v1.ConfigMap(
            "contract",
            metadata=access.metadata(contract, CONTRACT_CONFIG_MAP, contract.agents_namespace),
            data={CONTRACT_KEY: contract.to_json()},
            opts=pulumi.ResourceOptions.merge(in_agents, pulumi.ResourceOptions(depends_on=[binding])),
        )
        self.contract = pulumi.Output.from_input(contract.model_dump(mode="json"))
        self.register_outputs({"contract": self.contract})
