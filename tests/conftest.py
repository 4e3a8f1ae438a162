"""What all tests share: the fixtures of the local cluster, and the time that each folder of tests took."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

import pytest

try:
    import hypothesis
except ImportError:
    pass  # with the oldest ADK only the tests that drive it run
else:
    # A busy machine is no failure of an example.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("patient")

pytest_plugins = ("tests.cluster_fixtures",)

_seconds: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = PurePosixPath(report.nodeid).parts
    _seconds["/".join(parts[:2]) if len(parts) > 2 else parts[0]] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    parts = ", ".join(f"{folder} {seconds:.1f} s" for folder, seconds in _seconds.most_common())
    if parts:
        terminalreporter.write_line(f"time by folder: {parts}")
