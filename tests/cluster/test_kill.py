"""A client that dies at any moment: what it leaves expires by itself, within a time that it promised.

Its Job's deadline, counted from the Job's creation, ends what runs or waits; the Job's TTL removes the Job, and the
garbage collector what it owns. Nobody sweeps here.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from kubernetes import client

from adk_gke_sandbox.cluster import api, manifests
from adk_gke_sandbox.cluster.manifests import DEADLINE_MARGIN_SECONDS, TTL_SECONDS
from adk_gke_sandbox.cluster.pod_view import view
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import EXECUTION_LABEL, EXECUTOR_RULES
from infra.local.layout import Layout
from tests.cluster.identities import kubeconfig, namespace

pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.timeout(600)]

AT_ONCE = 3
"""Clients at a time. With more, the pods of the dead keep two cores busy and no client gets as far as its program."""

SPECIAL = 4
"""Kills at each of the moments that chance may miss."""

LATEST_SECONDS = (1.6, 3.2)
"""The latest moment of a kill, at least and at most: a little longer than an execution takes here and now."""

TIMEOUT_SECONDS = 5
SCHEDULE_TIMEOUT_SECONDS = 10
CONTROLLERS_SECONDS = 30
"""What the Job, TTL and garbage collector controllers may take on top."""

PROMISED_SECONDS = (
    SCHEDULE_TIMEOUT_SECONDS + TIMEOUT_SECONDS + DEADLINE_MARGIN_SECONDS + TTL_SECONDS + CONTROLLERS_SECONDS
)
KINDS = ("jobs", "configmaps", "pods")

CLIENTS = """
import json, os, pathlib, sys, time
from adk_gke_sandbox.cluster import api
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.paths.attempt import Attempt, Stage
from adk_gke_sandbox.sandbox import Sandbox

settings = json.loads(sys.argv[1])
reach, request = Attempt.reach, api.Cluster.request

def tell(attempt, stage):
    if stage not in attempt._reached and stage >= Stage.SUBMITTED:
        pathlib.Path(sys.argv[2], asked["name"]).write_text(stage.name)
    reach(attempt, stage)

def stay(cluster, verb, path, **given):
    if verb == "create" and asked["stays_before"] and path.endswith(asked["stays_before"]):
        time.sleep(600)
    return request(cluster, verb, path, **given)

Attempt.reach, api.Cluster.request = tell, stay
api.connect(settings["kubeconfig_path"]).close()  # imports what the first connection imports
for line in sys.stdin:
    asked = json.loads(line)
    pid = os.fork()
    if not pid:
        sandbox = Sandbox(ExecutorConfig(**settings))
        os.write(1, f"{os.getpid()}\\n".encode())
        outcome = sandbox.run(asked["code"], name=asked["name"])
        os._exit(0 if outcome.reason == "Completed" else 1)
    # Not reaped before the other side is done with it: the process id stays its own.
    sys.stdin.readline()
    status = os.waitpid(pid, 0)[1]
    os.write(1, f"{os.waitstatus_to_exitcode(status)}\\n".encode())
"""
"""Starts clients without the time of their imports; each is a process of its own, killed by its own id."""


@contextmanager
def clients(settings: dict[str, Any], number: int, folder: Path) -> Iterator[SimpleQueue[subprocess.Popen[str]]]:
    """Start processes that start clients."""
    pool: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    # A client that is killed cannot remove the certificates that its library has written to temporary files.
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-c", CLIENTS, json.dumps(settings), str(folder)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(number)
    ]
    try:
        for process in started:
            pool.put(process)
        yield pool
    finally:
        for process in started:
            assert process.stdin
            assert process.stdout
            process.stdin.close()
            process.wait()
            process.stdout.close()


def begin(process: subprocess.Popen[str], name: str, code: str, *, stays_before: str = "") -> int:
    """Let a client begin an execution, up to the creation of what is named, and return its process id."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"name": name, "code": code, "stays_before": stays_before}) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> int:
    """Return a client's exit code, or its signal as a negative number."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@dataclass(kw_only=True)
class Observer:
    """What the API server tells of a namespace: all that there is, and whatever there was."""

    cluster: api.Cluster
    namespace: str
    present: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    seen: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in (*KINDS, "started")})
    changed: threading.Condition = field(default_factory=threading.Condition)
    stopped: threading.Event = field(default_factory=threading.Event)

    def watch(self, kind: str) -> None:
        woken = threading.Event()
        path = api.resource("batch/v1" if kind == "jobs" else "v1", kind, self.namespace)
        watch = self.cluster.watch(path, query={"labelSelector": EXECUTION_LABEL}, wake=woken.set)
        while not self.stopped.is_set():
            woken.wait(0.5)
            woken.clear()
            changes = watch.read()
            if changes is None:
                changes = watch.reopen()
            with self.changed:
                for change, item in changes:
                    self._take(kind, change, item)
                self.changed.notify_all()
        watch.close()

    def _take(self, kind: str, change: str, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        if change == "DELETED":
            self.present[kind].discard(name)
            return
        execution = item["metadata"]["labels"][EXECUTION_LABEL]
        self.present[kind].add(name)
        self.seen[kind].add(execution)
        if kind == "pods" and view(item).has_run:
            self.seen["started"].add(execution)

    @property
    def left(self) -> int:
        return sum(len(names) for names in self.present.values())

    def wait_until(self, stage: str, execution: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: execution in self.seen[stage], 60)

    def stage(self, execution: str) -> str:
        """Return how far an execution has come in making its objects."""
        return next((stage for stage in ("configmaps", "jobs") if execution in self.seen[stage]), "nothing")


@pytest.fixture
def place(layout: Layout, admin: client.ApiClient) -> Iterator[str]:
    with namespace(admin, "kill") as name:
        yield name


@pytest.fixture
def observer(layout: Layout, place: str) -> Iterator[Observer]:
    made = Observer(cluster=api.connect(str(layout.kubeconfig)), namespace=place)
    threads = [threading.Thread(target=made.watch, args=(kind,)) for kind in KINDS]
    for thread in threads:
        thread.start()
    yield made
    made.stopped.set()
    for thread in threads:
        thread.join()
    made.cluster.close()


def objects(admin: client.ApiClient, place: str) -> list[str]:
    """Return what is left, as a list tells it."""
    core, batch = client.CoreV1Api(admin), client.BatchV1Api(admin)
    listers = (batch.list_namespaced_job, core.list_namespaced_pod, core.list_namespaced_config_map)
    return [item.metadata.name for lister in listers for item in lister(place, label_selector=EXECUTION_LABEL).items]


@pytest.mark.parametrize(("kills", "while_it_runs"), [(15, SPECIAL), pytest.param(100, 20, marks=pytest.mark.long)])
def test_a_client_that_is_killed_at_any_moment_leaves_only_what_expires(
    kills: int,
    while_it_runs: int,
    layout: Layout,
    admin: client.ApiClient,
    place: str,
    observer: Observer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    settings = {
        "namespace": place,
        "kubeconfig_path": kubeconfig(layout, admin, place, "agent", EXECUTOR_RULES, tmp_path),
        "timeout_seconds": TIMEOUT_SECONDS,
        "schedule_timeout_seconds": SCHEDULE_TIMEOUT_SECONDS,
        # The pods of the dead must leave room on the node for those of the living.
        "cpu_requested": "5m",
        "mem_requested": "16Mi",
    }
    moments = [chance.random() for _ in range(kills)]
    stages: Counter[str] = Counter()
    exits: dict[str, int] = {}

    with clients(settings, AT_ONCE, tmp_path) as pool, ThreadPoolExecutor(AT_ONCE) as threads:

        def kill_while_it_runs(number: int) -> None:
            process, name = pool.get(), f"running-{number}"
            pid = begin(process, name, "import time; time.sleep(600)")
            observer.wait_until("started", name)
            os.kill(pid, signal.SIGKILL)
            exits[name] = end(process)
            pool.put(process)

        def kill_between_the_creates(number: int) -> None:
            process, name = pool.get(), f"between-{number}"
            pid = begin(process, name, "print('hello')", stays_before="configmaps")
            observer.wait_until("pods", name)
            os.kill(pid, signal.SIGKILL)
            exits[name] = end(process)
            pool.put(process)

        def kill_before_the_first_create(number: int) -> None:
            process, name = pool.get(), f"before-{number}"
            pid = begin(process, name, "print('hello')", stays_before="jobs")
            os.kill(pid, signal.SIGKILL)
            exits[name] = end(process)
            pool.put(process)

        def kill(number: int) -> None:
            process, name = pool.get(), f"random-{number}"
            pid = begin(process, name, "print('hello')")
            time.sleep(moments[number] * latest)
            os.kill(pid, signal.SIGKILL)
            stage = observer.stage(name)
            exits[name] = end(process)
            told = tmp_path / name
            stages[(told.exists() and told.read_text()) or stage] += 1
            pool.put(process)

        process, started = pool.get(), time.monotonic()
        begin(process, "undisturbed", "print('hello')")
        assert end(process) == 0
        pool.put(process)
        latest = min(max(1.2 * (time.monotonic() - started), LATEST_SECONDS[0]), LATEST_SECONDS[1])

        list(threads.map(kill_while_it_runs, range(while_it_runs)))
        list(threads.map(kill, range(kills)))
        list(threads.map(kill_before_the_first_create, range(SPECIAL)))
        list(threads.map(kill_between_the_creates, range(SPECIAL)))
        last_kill = time.monotonic()

    with observer.changed:
        expired = observer.changed.wait_for(
            lambda: not observer.left, max(last_kill + PROMISED_SECONDS - time.monotonic(), 0)
        )
        took = time.monotonic() - last_kill
    # A namespace that is going has nothing in it, either.
    assert client.CoreV1Api(admin).read_namespace(place).status.phase == "Active"
    left = objects(admin, place)

    with capsys.disabled():
        print(
            f"\nkill test, KILL_SEED={seed}: {kills} kills at 0 to {latest:.1f} s, {AT_ONCE} clients at a time, "
            f"in {last_kill - started:.0f} s. The last that had happened was: {stages['nothing']} times nothing, "
            f"{stages['jobs']} the Job's creation, {stages['configmaps'] + stages['SUBMITTED']} its ConfigMap's, "
            f"{stages['RUNNING']} the start of the container, {stages['STARTED']} that of the program, "
            f"{stages['EXITED'] + stages['COLLECTED']} its end, {stages['DELETED']} the deletion. "
            f"Also {SPECIAL} kills before the creates, {SPECIAL} between them, {while_it_runs} while a program slept. "
            f"Nothing was left {took:.0f} s after the last kill (promised: {PROMISED_SECONDS} s)"
        )
    assert stages.total() == kills
    assert {code for name, code in exits.items() if not name.startswith("random")} == {-signal.SIGKILL}
    # Otherwise nothing was shown; when chance hits no client early, the special kills do.
    assert kills - stages["nothing"] - stages["DELETED"] > kills / 10
    assert expired, f"left {took:.0f} s after the last kill: {left}"
    assert left == []


def test_the_promise_is_the_deadline_that_every_job_carries() -> None:
    config = ExecutorConfig(timeout_seconds=TIMEOUT_SECONDS, schedule_timeout_seconds=SCHEDULE_TIMEOUT_SECONDS)
    spec = manifests.job(config, "a", [{}])["spec"]
    expires = spec["activeDeadlineSeconds"] + spec["ttlSecondsAfterFinished"]
    assert expires + CONTROLLERS_SECONDS == PROMISED_SECONDS
