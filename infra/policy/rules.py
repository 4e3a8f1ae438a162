"""All rules of the policy pack, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from infra.policy import admission, cluster, namespaces, network, node_pools, project, rbac
from infra.policy.rule import Rule

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        rule.name: rule
        for module in (cluster, node_pools, network, project, namespaces, admission, rbac)
        for rule in module.RULES
    }
)
