"""What a ConfigMap of the sandbox namespace may be: the request of one execution, as ``manifests`` writes it. Pure.

Agents may create ConfigMaps, and one that nobody owned would stay for ever. So each is of a Job and goes with it, and
both its data and how many a Job can have are bounded; how many there can be in all is the quota's business.
"""

from __future__ import annotations

from typing import Final

from adk_gke_sandbox.cluster.manifests import CONFIG_MAP_BYTES, CONFIG_MAPS_MAX, POD_FILES
from adk_gke_sandbox.contract import CONFIG_MAPS
from infra.admission.cel import OWNER_NAME, Rule, literal

KEYS_MAX: Final = len(POD_FILES) + 1
"""Keys of one ConfigMap at the most: the runner's files and the request."""

DATA_BYTES_MAX: Final = CONFIG_MAP_BYTES + 1024
"""Bytes of its keys and values together; the executor counts the values alone."""

PUBLISHED: Final = (
    # The cluster's certificate authority, in every namespace
    # (https://kubernetes.io/docs/concepts/configuration/configmap/#auto-generated-configmaps), by its controller, or by
    # the account of all controllers where they share one
    # (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles).
    (
        "kube-root-ca.crt",
        ("system:serviceaccount:kube-system:root-ca-cert-publisher", "system:kube-controller-manager"),
    ),
)
"""ConfigMaps that others put into the namespace: name, and who may create and change it."""

NOT_PUBLISHED: Final = " && ".join(
    f"!(object.metadata.name == {literal(name)} && request.userInfo.username in {literal(users)})"
    for name, users in PUBLISHED
)


def config_map_rules() -> tuple[Rule, ...]:
    """Return the rules that only ConfigMaps are held to."""
    number = f"object.metadata.name.substring(size({OWNER_NAME}) + 1)"
    size = "object.?data.orValue({}).map(k, size(k) + size(bytes(object.data[k]))).sum()"
    return (
        Rule(
            id="config-map-owner",
            refuses="the ConfigMap does not belong to one Job, so nothing would delete it",
            fix="Create the Job first, and set metadata.ownerReferences to it: apiVersion batch/v1, kind, name and uid",
            holds="object.metadata.?ownerReferences.orValue([]).size() == 1 && "
            'object.metadata.ownerReferences.all(o, o.apiVersion == "batch/v1" && o.kind == "Job" && '
            "!o.?controller.hasValue() && !o.?blockOwnerDeletion.hasValue())",
            found='"owners: " + object.metadata.?ownerReferences.orValue([])'
            '.map(o, o.apiVersion + " " + o.kind + " " + o.name).join(", ")',
            on=(CONFIG_MAPS,),
        ),
        Rule(
            id="config-map-name",
            refuses=f"the ConfigMap is not named NAME-NUMBER, with the Job's name and a number below {CONFIG_MAPS_MAX}",
            fix="Name it so: the Job mounts its ConfigMaps by name",
            holds=f'object.metadata.name.startsWith({OWNER_NAME} + "-") && '
            f'{number}.matches("^(0|[1-9][0-9]?)$") && int({number}) < {CONFIG_MAPS_MAX}',
            found="object.metadata.name",
            on=(CONFIG_MAPS,),
        ),
        Rule(
            id="config-map-size",
            refuses=f"the ConfigMap has more than {KEYS_MAX} keys or {DATA_BYTES_MAX} bytes",
            fix=f"Split the request over up to {CONFIG_MAPS_MAX} ConfigMaps",
            # size() of a string counts characters, not bytes.
            holds=f"object.?data.orValue({{}}).size() <= {KEYS_MAX} && {size} <= {DATA_BYTES_MAX}",
            found=f'string(object.?data.orValue({{}}).size()) + " keys, " + string({size}) + " bytes"',
            on=(CONFIG_MAPS,),
        ),
    )
