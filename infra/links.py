"""Pages of Google's console for a cluster. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_CONSOLE: Final = "https://console.cloud.google.com"


def console_links(*, project: str, location: str, name: str, namespace: str) -> dict[str, str]:
    """Return the pages that people on call open, by what they show.

    Args:
        project: Id of the project.
        location: Region or zone of the cluster.
        name: Name of the cluster.
        namespace: Namespace of the sandboxes.
    """
    query = f'resource.labels.cluster_name="{name}"\nresource.labels.namespace_name="{namespace}"'
    return {
        "cluster": f"{_CONSOLE}/kubernetes/clusters/details/{location}/{name}/details?project={project}",
        "nodes": f"{_CONSOLE}/kubernetes/clusters/details/{location}/{name}/nodes?project={project}",
        "logs": f"{_CONSOLE}/logs/query;query={quote(query, safe='')}?project={project}",
        "quotas": f"{_CONSOLE}/iam-admin/quotas?project={project}",
    }
