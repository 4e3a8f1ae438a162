"""How a child of a component gets another logical name without being replaced: by an alias.

Which names were changed is said where the component is; docs/components.md says when they may be.
https://www.pulumi.com/docs/iac/concepts/resources/options/aliases/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pulumi

Transformation = Callable[[pulumi.ResourceTransformationArgs], pulumi.ResourceTransformationResult | None]


def aliased(component: str, former: Mapping[str, str]) -> Transformation:
    """Return the transformation that gives children of a component the names by which old states know them.

    Args:
        component: Name of the component; logical names of its children begin with it.
        former: End of a logical name -> the whole name that it had before.
    """
    names = {f"{component}-{end}": name for end, name in former.items()}

    def with_alias(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if args.name not in names:
            return None
        alias = pulumi.ResourceOptions(aliases=[pulumi.Alias(name=names[args.name])])
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, alias))

    return with_alias
