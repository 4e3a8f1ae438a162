"""`make test`: static checks, the local cluster, the stack, and then every test; ends with pytest's summary.

Parts that do not disturb each other run side by side, in lanes: the tests that look at all of the sandbox namespace are
one lane, those with namespaces of their own another, those without a cluster a third. Tests marked `alone` follow when
all is quiet.
A part that fails does not keep the others from running.

Arguments go to pytest: `make test` runs all, `python tests/everything.py tests/unit` a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "adk-gke-sandbox")
LOCAL = (sys.executable, str(ROOT / "infra" / "local"))
# Two runs at once would overwrite each other's cache.
PYTEST = (str(BIN / "pytest"), "-p", "no:cacheprovider", "-m")
OLDEST = (
    *(str(ROOT / ".venv-oldest" / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", "-m", ""),
    # What releases of that time warn of is theirs; the newest ones are held to no warnings.
    *(
        "-o",
        "filterwarnings=default",
        "tests/unit/test_adk.py",
        "tests/unit/test_stores.py",
        "tests/cluster/test_agents.py",
    ),
)
"""The tests that drive the executor by ADK, with the oldest release that is supported."""

Lane = Sequence[tuple[str, Sequence[str]]]
"""Names and commands of parts that run in turn."""

PREPARE: Sequence[Lane] = (
    # One after the other: the first two may install packages of Debian.
    [
        ("cluster up", [*LOCAL, "up"]),
        ("postgresql", [sys.executable, "tests/postgresql.py"]),
        ("stack up", [*LOCAL, "stack", "up"]),
    ],
    [
        ("format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
        ("lint", [str(BIN / "ruff"), "check", "--quiet", "."]),
    ],
)
TOGETHER = "not alone and not long"
EVERYTHING: Sequence[Sequence[Lane]] = (
    (
        [("cluster", [*PYTEST, TOGETHER, "tests/cluster", "tests/conformance", "tests/cases"]), ("oldest ADK", OLDEST)],
        [
            ("unit and infra", [*PYTEST, f"{TOGETHER} and not cluster", "tests/unit", "tests/infra"]),
            # In the lane that ends first.
            ("types", [str(BIN / "mypy"), "--cache-dir", str(CACHE / "mypy")]),
        ],
        # Mostly waits, for Pulumi's engine and the API server.
        [("engine", [*PYTEST, f"{TOGETHER} and cluster", "tests/unit", "tests/infra"])],
    ),
    ([("alone", [*PYTEST, "alone and not long", "tests"])],),
)

NO_TESTS = 5
"""pytest's exit code when nothing is selected."""

LINE_BYTES = 16 * 1024**2
"""The longest line that a part may print."""

REASONS = 12
"""As many lines of a part are told again at the end, with the tests that failed: what pytest marks as reasons."""


class Run:
    """What has come of the parts so far."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.took: list[str] = []
        self.failures: list[str] = []

    async def lanes(self, lanes: Sequence[Lane]) -> None:
        """Run lanes side by side."""
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._lane(lane))

    async def _lane(self, lane: Lane) -> None:
        for name, command in lane:
            print(f"== {name}: {shlex.join(command)}", flush=True)
            begin = time.monotonic()
            code, counts, failures = await run(name, command)
            self.took.append(f"{name} {time.monotonic() - begin:.1f} s")
            if code not in (0, NO_TESTS) and not counts["failed"] + counts["error"]:
                # It is no test, or pytest did not come to its end.
                failures = [f"== {name} failed with exit code {code}", *failures]
                print(failures[0], flush=True)
                counts["error"] += 1
            self.counts += counts
            self.failures += failures


async def run(name: str, command: Sequence[str]) -> tuple[int, Counter[str], list[str]]:
    """Run a command and pass its lines on.

    Returns:
        Its exit code, the numbers of pytest's summary, and the lines that name what failed and why: CI may show only
        the end of all that is printed.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=LINE_BYTES,
        # Ctrl-C reaches the group below, once: a second one would keep fixtures from cleaning up.
        start_new_session=True,
    )
    assert process.stdout
    counts: Counter[str] = Counter()
    failed: list[str] = []
    reasons: deque[str] = deque(maxlen=REASONS)
    try:
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            print(f"{name} | {text}", flush=True)
            counts = summary(text) or counts
            if text.startswith(("FAILED ", "ERROR ")):
                failed.append(f"{name} | {text}")
            elif re.match(r"E {3,}|\s+\S+: \w*Warning: ", text):
                reasons.append(f"{name} | {text:.300}")
        return await process.wait(), counts, [*reasons, *failed] if failed or counts["warning"] else []
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            await process.wait()


def summary(line: str) -> Counter[str]:
    """Return the numbers of pytest's last line; what a part does not select, another one does."""
    found = re.fullmatch(r"(?:=+ )?(\d+ .+) in [\d.]+s(?: \(.+\))?(?: =+)?", line)
    numbers = re.findall(r"(\d+) ([a-z]+)", found[1]) if found else []
    return Counter({kind.removesuffix("s"): int(number) for number, kind in numbers if kind != "deselected"})


def last_line(counts: Counter[str], seconds: float) -> str:
    """Return the line with which pytest would end if it had run everything itself."""
    order = ("failed", "passed", "skipped", "xfailed", "xpassed", "warning", "error")
    shown = {kind: kind + "s" * (kind in ("warning", "error") and counts[kind] > 1) for kind in order if counts[kind]}
    parts = ", ".join(f"{counts[kind]} {word}" for kind, word in shown.items()) or "no tests ran"
    clock = time.strftime("%H:%M:%S", time.gmtime(seconds)).removeprefix("0")
    return f" {parts} in {seconds:.2f}s ({clock}) ".center(100, "=")


async def main(arguments: Sequence[str]) -> int:
    """Run everything, or what the arguments name; return 0 if all is well."""
    task = asyncio.current_task()
    assert task
    # Ctrl-C is asyncio's own.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    begin = time.monotonic()
    done = Run()
    for lanes in (PREPARE, *([[[("tests", [*PYTEST, "", *arguments])]]] if arguments else EVERYTHING)):
        await done.lanes(lanes)
    print(f"== {', '.join(done.took)}", *done.failures, sep="\n", flush=True)
    # CI closes on this line: it has to be the last thing printed.
    print(last_line(done.counts, time.monotonic() - begin), flush=True)
    return 1 if done.counts["failed"] + done.counts["error"] else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
