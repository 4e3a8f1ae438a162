"""Load balancers that somebody made from inside the cluster, and that hold the network when the stack is destroyed.

GKE makes them for Services, and takes them away with these; whoever deletes the cluster first leaves them behind
(https://cloud.google.com/kubernetes-engine/docs/how-to/deleting-a-cluster#overview). A destroy runs no program, so the
last one that can tell is the update that lifts the protection. It tells and goes on: a stack that is never protected
may have them and be updated. Rules of the region are seen; global ones, which external Ingresses and Gateways have, are
not: they name neither network nor cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi
import pulumi_gcp as gcp

from infra.gke_settings import GkeSettings

_MADE_BY_GKE: Final = "kubernetes.io/service-name"
"""In the description of a rule that GKE made; an external one names no network, and none its cluster
(`makeServiceDescription`, https://github.com/kubernetes/cloud-provider-gcp/blob/master/providers/gce)."""


def warn(gke: GkeSettings, *, network: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
    """Warn of load balancers of the region that would outlive the cluster.

    Args:
        gke: Project, region, protection.
        network: Self link of the stack's own network.
        opts: Whose parent the look-up has.
    """
    if gke.deletion_protection:
        return
    # Asks by the network, which is there only after Compute Engine is enabled.
    found = pulumi.Output.from_input(network).apply(
        lambda _: (
            gcp.compute.get_forwarding_rules_output(
                project=gke.project, region=gke.region, opts=pulumi.InvokeOutputOptions(parent=opts.parent)
            ).rules
        )
    )
    pulumi.Output.all(network, found).apply(lambda known: _tell(known[0], known[1]))


def _tell(network: str, rules: Sequence[Mapping[str, Any]]) -> None:
    name = network.rpartition("/")[2]
    inside = [rule for rule in rules if str(rule.get("network") or "").rpartition("/")[2] == name]
    perhaps = [rule for rule in rules if not rule.get("network") and _MADE_BY_GKE in str(rule.get("description") or "")]
    for found, what in (
        (inside, f"would outlive the cluster and hold the network {name}"),
        (perhaps, "may be of this cluster, and would then outlive it"),
    ):
        if found:
            pulumi.log.warn(
                f"load balancers {', '.join(sorted(str(rule['name']) for rule in found))} {what}. Before `pulumi "
                "destroy`, delete their Services, Ingresses and Gateways (docs/operations/teardown.md)"
            )
