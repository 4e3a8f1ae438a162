"""What the command ends with. ``preflight`` has codes of its own, in its report."""

from __future__ import annotations

from typing import Final

from adk_gke_sandbox.execution import CODE_REASONS, Outcome, Reason

EXIT_USAGE: Final = 2
EXIT_OUTPUT: Final = 74
"""The program completed, but not all of its output or files could be written here; ``EX_IOERR`` of sysexits(3)."""

EXIT_TIMEOUT: Final = 124
"""The program ran longer than its timeout; as of timeout(1)."""

EXIT_INFRASTRUCTURE: Final = 125
"""The program did not run; as of docker-run(1)."""

EXIT_SIGNAL: Final = 128
"""Plus the number of the signal that ended the command, as of bash(1): 130 for SIGINT, 143 for SIGTERM."""


def exit_code(outcome: Outcome) -> int:
    """Return the exit code for an execution that no signal has ended."""
    if outcome.reason is Reason.COMPLETED:
        return 0
    if outcome.reason is Reason.DEADLINE_EXCEEDED:
        return EXIT_TIMEOUT
    if outcome.reason in (Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE):
        return EXIT_USAGE
    return outcome.exit_code or 1 if outcome.reason in CODE_REASONS else EXIT_INFRASTRUCTURE
