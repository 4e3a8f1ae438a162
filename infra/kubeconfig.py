"""The kubeconfig of a GKE cluster. Pure.

It holds no credential: Google's plugin brings the caller's own
(https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl). It holds no certificate
authority either: the DNS endpoint has a public one
(https://cloud.google.com/kubernetes-engine/docs/concepts/network-isolation#dns-based_endpoint).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import yaml

from adk_gke_sandbox.errors import ConfigError

PLUGIN: Final = "gke-gcloud-auth-plugin"


def context_name(project: str, location: str, name: str) -> str:
    """Return the name that `gcloud container clusters get-credentials` gives the context of a cluster."""
    return f"gke_{project}_{location}_{name}"


def dns_endpoint(endpoints: Iterable[str | None], cluster: str, location: str) -> str:
    """Return the DNS endpoint among what a cluster tells of its control plane.

    Raises:
        ConfigError: it has none.
    """
    for endpoint in endpoints:
        if endpoint:
            return endpoint
    raise ConfigError(
        f"the cluster {cluster} has no DNS endpoint",
        f"Switch it on with `gcloud container clusters update {cluster} --location {location} --enable-dns-access`",
    )


def kubeconfig(*, context: str, endpoint: str) -> str:
    """Return a kubeconfig with one context, for whoever has ``container.clusters.connect`` on the cluster.

    Args:
        context: Name of the context, its cluster and its user.
        endpoint: DNS endpoint of the control plane, without scheme.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": f"https://{endpoint}"}}],
        "users": [
            {
                "name": context,
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1beta1",
                        "command": PLUGIN,
                        "installHint": "Install it with `gcloud components install gke-gcloud-auth-plugin`",
                        "provideClusterInfo": True,
                        "interactiveMode": "Never",
                    }
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)
