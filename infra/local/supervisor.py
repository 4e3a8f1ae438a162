"""The one process above a cluster's daemons: starts them in order, reaps what they orphan, ends with them.

    python supervisor.py PLAN.json

PID 1 of a container or a small machine may reap orphans late or never; this process is their subreaper.
Standard library only. It decides nothing: commands and order are in the plan.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_RESTART_SECONDS = 1.0


def main() -> int:
    """Run the plan until SIGTERM; return 0."""
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    waiting: list[str] = list(plan["commands"])
    running: dict[str, int] = {}
    died: dict[str, float] = {}
    while not ended:
        for name in waiting[:]:
            if time.monotonic() - died.get(name, -_RESTART_SECONDS) >= _RESTART_SECONDS and _ready(plan, name):
                running[name] = _start(plan, name)
                waiting.remove(name)
                _publish(plan, running)
        gone = _reap()
        for name, pid in list(running.items()):
            if pid in gone:
                # A daemon that ended is started again; its log says why it ended.
                del running[name]
                died[name] = time.monotonic()
                waiting.append(name)
                _publish(plan, running)
        time.sleep(_POLL_SECONDS)
    for name in reversed(running):
        os.kill(running[name], signal.SIGTERM)
    return 0


def _start(plan: dict[str, Any], name: str) -> int:
    with (Path(plan["logs"]) / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            plan["commands"][name], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    # The reaper below collects it, not this object.
    process.returncode = 0
    return process.pid


def _reap() -> set[int]:
    gone: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return gone
        if pid == 0:
            return gone
        gone.add(pid)


def _publish(plan: dict[str, Any], running: dict[str, int]) -> None:
    target = Path(plan["processes"])
    temporary = target.with_suffix(".new")
    temporary.write_text(json.dumps({"supervisor": os.getpid(), **running}))
    temporary.replace(target)


def _ready(plan: dict[str, Any], name: str) -> bool:
    """Return whether what a daemon needs answers: a path of the API server, or nothing."""
    path = plan["needs"].get(name)
    if path is None:
        return True
    context = ssl.create_default_context(cafile=plan["authority"])
    context.load_cert_chain(plan["certificate"], plan["key"])
    try:
        # Not through a proxy that the environment names: the address is on this machine.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(plan["server"] + path, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
