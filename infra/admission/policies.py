"""ValidatingAdmissionPolicies of the sandbox namespace: the API server refuses what the contract does not describe.

Pod Security knows nothing of RuntimeClasses, images or deadlines; these policies do. What they hold is in ``rules``,
most of it made from the table of ``fields``. All values are literals: a policy that reads a parameter object refuses
everything while that object is being replaced.
https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from typing import Final

import pulumi
import pulumi_kubernetes as kubernetes

from adk_gke_sandbox.contract import Contract, policy_name
from infra.access import metadata
from infra.admission.cel import VARIABLES
from infra.admission.rules import CONDITIONS, OBJECTS, rules

_admission = kubernetes.admissionregistration.v1

KINDS: Final = tuple(OBJECTS)


def policies(name: str, contract: Contract, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Create a policy for each kind of object, with its binding to the sandbox namespace.

    Create them before the namespace: an API server takes a moment to load a policy. Logical names begin with ``name``.
    """
    created: list[pulumi.Resource] = []
    for kind in KINDS:
        policy = _admission.ValidatingAdmissionPolicy(
            f"{name}-{kind}",
            metadata=metadata(contract, policy_name(contract, kind)),
            spec=policy_spec(contract, kind),
            opts=opts,
        )
        binding = _admission.ValidatingAdmissionPolicyBinding(
            f"{name}-{kind}",
            metadata=metadata(contract, policy_name(contract, kind)),
            spec=binding_spec(contract, kind),
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[policy])),
        )
        created += [policy, binding]
    return created


def policy_spec(contract: Contract, kind: str) -> _admission.ValidatingAdmissionPolicySpecArgs:
    """Return the policy for a kind of object."""
    group, resources = OBJECTS[kind]
    return _admission.ValidatingAdmissionPolicySpecArgs(
        failure_policy="Fail",
        match_constraints=_admission.MatchResourcesArgs(
            resource_rules=[
                _admission.NamedRuleWithOperationsArgs(
                    api_groups=[group], api_versions=["v1"], operations=["CREATE", "UPDATE"], resources=resources
                )
            ]
        ),
        match_conditions=[
            _admission.MatchConditionArgs(name=name, expression=expression)
            for name, expression in CONDITIONS[kind].items()
        ],
        variables=[
            _admission.VariableArgs(name=name, expression=expression) for name, expression in VARIABLES[kind].items()
        ],
        validations=[
            _admission.ValidationArgs(
                expression=rule.holds, message=rule.message, message_expression=rule.message_expression
            )
            for rule in rules(contract)
            if kind in rule.on
        ],
    )


def binding_spec(contract: Contract, kind: str) -> _admission.ValidatingAdmissionPolicyBindingSpecArgs:
    """Return what binds the policy to the sandbox namespace: it refuses there, and the audit log says so."""
    return _admission.ValidatingAdmissionPolicyBindingSpecArgs(
        policy_name=policy_name(contract, kind),
        validation_actions=["Deny", "Audit"],
        match_resources=_admission.MatchResourcesArgs(
            namespace_selector=kubernetes.meta.v1.LabelSelectorArgs(
                match_labels={"kubernetes.io/metadata.name": contract.namespace}
            )
        ),
    )
