"""The "cloud": one project in one file, shared by the short-lived processes of the plugin."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "GCP_STANDIN_FOLDER"
"""Environment variable: folder of the cloud's file, its calls and its faults."""

KUBECONFIG: Final = "GCP_STANDIN_KUBECONFIG"
"""Environment variable: admin kubeconfig of the cluster that plays the GKE cluster."""

PROJECT_NUMBER: Final = "123456789012"

ALWAYS_ON: Final = ("serviceusage.googleapis.com", "cloudresourcemanager.googleapis.com")
"""Services of a project in which somebody has prepared no more than what Pulumi needs to enable others."""

Json = dict[str, Any]


class CloudError(Exception):
    """Google's refusal; the message is what the provider would print."""


@dataclass(slots=True)
class World:
    """Everything there is.

    Attributes:
        resources: Resource id -> type, logical name, inputs, outputs.
        services: Services that were enabled outside the stack.
        version: GKE version that new control planes get.
        changes: How many there have been: what takes time on Google Cloud takes changes here.
        allowed: Project -> permissions with which look-ups are made; everything if there is none.
    """

    resources: dict[str, Json] = field(default_factory=dict)
    services: list[str] = field(default_factory=lambda: list(ALWAYS_ON))
    version: str = "1.36.3-gke.1767000"
    changes: int = 0
    allowed: dict[str, list[str]] | None = None

    def of(self, kind: str) -> list[Json]:
        """Return the resources of a type, such as ``gcp:container/cluster:Cluster``."""
        return [resource for resource in self.resources.values() if resource["type"] == kind]

    def outputs(self, kind: str) -> list[Json]:
        """Return the outputs of the resources of a type."""
        return [resource["outputs"] for resource in self.of(kind)]

    def enabled(self, service: str) -> bool:
        """Whether a service of Google's may be called."""
        enabled = [made["service"] for made in self.outputs("gcp:projects/service:Service")]
        return service in (*self.services, *enabled)


@dataclass(frozen=True, slots=True)
class Cloud:
    """The file, and the log of what was done to it."""

    folder: Path

    _threads = threading.Lock()

    @classmethod
    def of_environment(cls) -> Cloud:
        """Return the cloud that the environment names."""
        return cls(Path(os.environ[FOLDER]))

    @property
    def faults(self) -> Path:
        """File of the failures to come."""
        return self.folder / "faults.json"

    def read(self) -> World:
        """Return the world as it is."""
        try:
            return World(**json.loads((self.folder / "cloud.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return World()

    @contextlib.contextmanager
    def change(self) -> Iterator[World]:
        """Return the world to be changed by nobody else meanwhile; an exception changes nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._threads, (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            world = self.read()
            world.changes += 1
            yield world
            temporary = self.folder / "cloud.json.new"
            temporary.write_text(json.dumps(asdict(world), indent=1), encoding="utf-8")
            temporary.replace(self.folder / "cloud.json")

    def record(self, verb: str, kind: str, name: str, identity: str) -> None:
        """Add one line to the log of calls."""
        line = json.dumps({"verb": verb, "type": kind, "name": name, "id": identity})
        with (self.folder / "calls.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def calls(self) -> list[tuple[str, str, str]]:
        """Return verb, type without its module, and logical name of every call that changed something."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        return [(entry["verb"], entry["type"].rsplit(":", 1)[1], entry["name"]) for entry in entries]
