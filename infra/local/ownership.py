"""Whose the files are that root makes in somebody's home, when `sudo` was needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from infra.local.layout import Layout, cache_root


def hand_over(layout: Layout, variables: Mapping[str, str] = os.environ) -> None:
    """Give the user who called sudo what root has made in that user's home.

    The Pulumi stack, `make clean` and the package run as that user. Of the state it is what they use and no more: the
    rest belongs to the daemons, and to users of pods.
    """
    if os.geteuid() != 0 or "SUDO_UID" not in variables:
        return
    user, group, home = int(variables["SUDO_UID"]), int(variables["SUDO_GID"]), Path.home()
    # After `sudo -i` it is root's home, and stays so.
    if home.stat().st_uid != user:
        return
    used = [layout.state, layout.kubeconfig, layout.contract, layout.agent_kubeconfig]
    made = [*used, *layout.state.parents, *cache_root().parents, cache_root(), *cache_root().rglob("*")]
    for path in made:
        if home in path.parents and os.path.lexists(path) and path.lstat().st_uid == 0:
            os.chown(path, user, group, follow_symlinks=False)
