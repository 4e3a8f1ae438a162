"""What images are called in the stack's repositories, and which registries private nodes reach. Pure."""

from __future__ import annotations

import re
from typing import Final

from infra.naming import resource_id

REPOSITORY_ID_LENGTH: Final = 63

_DOCKER_HUB: Final = "docker.io"
_GOOGLE: Final = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/")
"""Registries that Private Google Access leads to
(https://cloud.google.com/artifact-registry/docs/securing-with-vpc-sc)."""


def own_id(name: str, stack: str) -> str:
    """Return the id of the repository that the platform team pushes to."""
    return resource_id(name, "images", stack, most=REPOSITORY_ID_LENGTH)


def mirror_id(name: str, stack: str) -> str:
    """Return the id of the pull-through repository of a stack."""
    return resource_id(name, "docker-hub", stack, most=REPOSITORY_ID_LENGTH)


def uri(project: str, region: str, repository_id: str) -> str:
    """Return what the names of a repository's images begin with."""
    return f"{region}-docker.pkg.dev/{project}/{repository_id}"


def pulled_through(image: str, mirror: str) -> str:
    """Return an image's name in the pull-through repository; images of other registries keep theirs.

    ``python@sha256:...`` is ``MIRROR/library/python@sha256:...``. What comes before the first slash is a registry
    if it looks like a host (https://pkg.go.dev/github.com/distribution/reference).
    """
    host, slash, rest = image.partition("/")
    if not slash:
        return f"{mirror}/library/{image}"
    if host == _DOCKER_HUB:
        return f"{mirror}/{rest if '/' in rest else f'library/{rest}'}"
    return image if "." in host or ":" in host or host == "localhost" else f"{mirror}/{image}"


def reachable_privately(image: str) -> bool:
    """Whether a node without a way to the internet can pull an image."""
    return bool(_GOOGLE.match(image))
