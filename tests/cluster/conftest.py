"""After every test on the cluster nothing of ours is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that used the sandbox namespace nothing of ours is in it."""
    uses = {"sandbox", "agent_kubeconfig"} & set(request.fixturenames)
    look = request.getfixturevalue("leftovers") if uses else list
    yield
    assert look() == []
