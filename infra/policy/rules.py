"""All rules of the policy pack, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from infra.policy import cluster, namespaces, network, node_pools, pods, project, rbac
from infra.policy.rule import Rule

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.name: rule
        for module in (cluster, node_pools, network, project, namespaces, rbac, pods)
        for rule in module.RULES
    }
)
