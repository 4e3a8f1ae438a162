"""A fake API server on which a program runs well, unless a test says otherwise, and a clock that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adk_gke_sandbox.cluster.api import connect
from tests.unit.fake_api import OK, RUNNING, FakeApi, added, serving
from tests.unit.loopback import kubeconfig


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with serving() as found:
        found.kubeconfig = kubeconfig(tmp_path / "kubeconfig", "fake", fake=found.url)
        # The client imports its models at the first connection of a process, for up to a second.
        connect(found.kubeconfig).close()
        found.watches["pods"] = [[added(RUNNING)]]
        found.logs = [OK]
        yield found
