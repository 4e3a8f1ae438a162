"""A fake API server on which a program runs well, unless a test says otherwise; waits are short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.paths import job, patience
from tests.unit.fake_api import OK, RUNNING, FakeApi, added, kubeconfig, serving


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    monkeypatch.setattr(patience, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(patience, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(job, "REOPEN_SECONDS", 0.02)
    monkeypatch.setattr(job, "LOG_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(job, "EVENTS_AFTER_SECONDS", 0.05)
    with serving() as found:
        found.kubeconfig = kubeconfig(tmp_path / "kubeconfig", found.url)
        # The client imports its models at the first connection of a process, for up to a second.
        kube.connect(found.kubeconfig).close()
        found.watches["pods"] = [[added(RUNNING)]]
        found.logs = [OK]
        yield found
