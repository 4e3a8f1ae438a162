"""Names of Google Cloud resources that Pulumi does not name: those whose id is a required argument. Pure."""

from __future__ import annotations

import hashlib
import re


def resource_id(*parts: str, most: int) -> str:
    """Return parts as one id of lower-case letters, digits and hyphens.

    Where it would be too long, its end gives way to a hash of the whole: two stacks never share a name.

    Args:
        parts: What tells the resource from others, the stack's name last.
        most: Characters that the API allows.
    """
    whole = "-".join(parts)
    slug = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    if len(slug) <= most and slug == whole:
        return slug
    digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
    return f"{slug[: most - len(digest) - 1].rstrip('-')}-{digest}"
