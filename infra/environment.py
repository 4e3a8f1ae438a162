"""`SandboxEnvironment`: everything inside a cluster that makes it safe to run model-written Python there.

Works on any cluster that a Kubernetes provider reaches and that has the contract's RuntimeClass. Creates no
cluster, and nothing outside its two namespaces but the admission policies for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.contract import CONTRACT_CONFIG_MAP, CONTRACT_KEY, Contract
from infra import access, isolation
from infra.address_ranges import NO_ADDRESSES, Addresses
from infra.admission import policies as admission
from infra.environment_settings import Destination, Quota
from infra.former_names import aliased

FORMER_NAMES: Final = MappingProxyType(
    {
        word: word
        for word in (
            "agents-namespace",
            "agents-default",
            "agents-deny-all",
            "agents-egress",
            "agent",
            "executor",
            "contract",
        )
    }
)
"""What children were called before: the end of a logical name, and the whole former name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxEnvironmentArgs:
    """What a `SandboxEnvironment` is made from.

    Attributes:
        contract: Names, image, limits; all objects are derived from it.
        quota: What the sandbox namespace may use as a whole.
        pod_security_version: Version of the Pod Security Standards, such as ``v1.36``.
        egress_hosts: Hosts that sandboxes may connect to, where the contract's egress is ``fqdn``.
        agents_egress: What agents may connect to beyond the APIs.
        addresses: The cluster's own, as far as they are known.
        cluster: Fields of the contract's cluster that are known only once the cluster is made, such as its name.
        deleted_with: The cluster, where the same stack made it: what is inside goes with it. ``None`` where somebody
            else did.
    """

    contract: Contract
    pod_security_version: str
    quota: Quota = field(default_factory=Quota)
    egress_hosts: Sequence[str] = ()
    agents_egress: Sequence[Destination] = ()
    addresses: Addresses = NO_ADDRESSES
    cluster: pulumi.Input[Mapping[str, str]] | None = None
    deleted_with: pulumi.Resource | None = None


class SandboxEnvironment(pulumi.ComponentResource):
    """Namespaces, identities, bounds and policies of one contract, and the contract itself as a ConfigMap.

    Attributes:
        contract: The contract as a JSON-able mapping. It may be known before anything exists: depend on the
            component, not on this, to wait for what it describes.
    """

    contract: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: SandboxEnvironmentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        former = pulumi.ResourceOptions(transformations=[aliased(name, FORMER_NAMES)])
        super().__init__("adk:infra:SandboxEnvironment", name, None, pulumi.ResourceOptions.merge(opts, former))
        contract = args.contract
        child = pulumi.ResourceOptions(parent=self, deleted_with=args.deleted_with)
        complete = pulumi.Output.from_input(args.cluster or {}).apply(lambda found: _completed(contract, found))
        # Before the namespace that they are for: until it is gone again they hold.
        policies = admission.policies(name, contract, child)
        created = access.namespaces(
            name,
            contract,
            args.pod_security_version,
            pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=policies)),
        )
        in_agents, in_sandbox = access.inside(created.agents, child), access.inside(created.sandbox, child)

        # Walls before doors: once the binding exists, an agent can start sandboxes.
        walls = [
            *policies,
            *isolation.bounds(name, contract, args.quota, in_sandbox),
            isolation.deny_all(contract, f"{name}-deny-all", contract.namespace, in_sandbox),
        ]
        isolation.deny_all(contract, f"{name}-agents-deny-all", contract.agents_namespace, in_agents)
        isolation.agents_egress(name, contract, args.agents_egress, args.addresses, in_agents)
        isolation.sandbox_egress(name, contract, args.egress_hosts, args.addresses, in_sandbox)
        binding = access.identities(name, contract, created, walls, child)

        kubernetes.core.v1.ConfigMap(
            f"{name}-contract",
            metadata=access.metadata(contract, CONTRACT_CONFIG_MAP, contract.agents_namespace),
            data={CONTRACT_KEY: complete.apply(Contract.to_json)},
            opts=pulumi.ResourceOptions.merge(in_agents, pulumi.ResourceOptions(depends_on=[binding])),
        )
        self.contract = complete.apply(lambda found: found.model_dump(mode="json"))
        self.register_outputs({"contract": self.contract})


def _completed(contract: Contract, cluster: Mapping[str, str]) -> Contract:
    return contract.model_copy(update={"cluster": contract.cluster.model_copy(update=dict(cluster))})
