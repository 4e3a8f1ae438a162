"""Runs the programs of the selected tests ahead of them, a few at a time, so that the suite does not wait for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from adk_gke_sandbox.execution import Outcome
from tests.conformance import paths
from tests.conformance.programs import summary

AT_ONCE = 4
"""Executions that run at the same time."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "program(code, **given): what the execution of this test runs")


@pytest.fixture(scope="package", params=sorted(paths.PATHS))
def execution_path(request: pytest.FixtureRequest) -> str:
    """Name of the path."""
    return str(request.param)


@pytest.fixture(scope="package")
def execute(execution_path: str, request: pytest.FixtureRequest) -> Iterator[paths.Execute]:
    """Runs a program on the execution path; for tests that must do something meanwhile."""
    with paths.PATHS[execution_path](request.getfixturevalue) as opened:
        yield opened


@pytest.fixture(scope="package")
def ahead(
    execution_path: str, execute: paths.Execute, request: pytest.FixtureRequest
) -> Iterator[Mapping[str, Future[Outcome]]]:
    """The outcomes to come of all selected tests of this path, by program."""
    found: dict[str, Future[Outcome]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for item in request.session.items:
                mark = item.get_closest_marker("program")
                # Tests of other folders are in the session, too.
                if mark is None or not isinstance(item, pytest.Function):
                    continue
                here = item.callspec.params["execution_path"] == execution_path
                if here and key(mark) not in found:
                    found[key(mark)] = pool.submit(execute, *mark.args, **mark.kwargs)
            yield found
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.fixture
def outcome(ahead: Mapping[str, Future[Outcome]], request: pytest.FixtureRequest) -> Outcome:
    """What came of the program that the mark of this test names; pytest shows it when the test fails."""
    found = ahead[key(request.node.get_closest_marker("program"))].result()
    print(summary(found))
    return found


def key(mark: pytest.Mark) -> str:
    """Tests that ask for the same share one execution."""
    return repr((mark.args, sorted(mark.kwargs.items())))
