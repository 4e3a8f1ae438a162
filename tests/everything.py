"""`make test`: static checks, the local cluster, the stack, and then every test; ends with pytest's summary.

Arguments go to pytest: `make test` runs all, `python tests/everything.py tests/unit` a part.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOCAL = [sys.executable, str(ROOT / "infra" / "local")]

STEPS: Sequence[tuple[str, Sequence[str]]] = (
    ("format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
    ("lint", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ("types", [str(BIN / "mypy")]),
    ("cluster", [*LOCAL, "up"]),
    ("stack", [*LOCAL, "stack", "up"]),
)
OLDEST: Sequence[str] = (
    *(str(ROOT / ".venv-oldest" / "bin" / "python"), "-m", "pytest", "-q", "-m", ""),
    # What releases of that time warn of is theirs; the newest ones are held to no warnings below.
    *("-o", "filterwarnings=default", "-p", "no:cacheprovider"),
    *("tests/unit/test_adk.py", "tests/cluster/test_agents.py"),
)
"""The tests that drive the executor by ADK, with the oldest release that is supported."""


def main() -> int:
    """Run the steps in turn; stop at the first that fails and return its exit code."""
    took: list[str] = []
    for name, command in (*STEPS, *([] if sys.argv[1:] else [("oldest ADK", OLDEST)])):
        print(f"== {name}: {' '.join(command)}", flush=True)
        begin = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        took.append(f"{name} {time.monotonic() - begin:.1f} s")
        if code:
            print(f"{name} failed with exit code {code}", file=sys.stderr)
            return code
    print(f"== {', '.join(took)}", flush=True)
    # pytest's summary has to be the last thing printed.
    os.execv(BIN / "pytest", [str(BIN / "pytest"), "-m", "", *(sys.argv[1:] or ["tests"])])


if __name__ == "__main__":
    sys.exit(main())
