"""Fixtures of the infra tests: a kubeconfig that leads nowhere, and the whole program under mocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import mocks, rpc
from pulumi.runtime.stack import run_pulumi_func
from standin.kinds import table
from standin.plugin import LOOKUPS

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/adk-gke-sandbox/data@sha256:{'a' * 64}"

Config = dict[str, Any]
Run = Callable[..., "Program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One resource as the program asked for it."""

    type: str
    name: str
    inputs: dict[str, Any]
    request: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a run of the program registered and exported."""

    resources: list[Registered]
    outputs: dict[str, Any]
    lookups: set[tuple[str, str]]
    """What it asked for: permission that this takes, and project."""

    def of(self, kind: str) -> list[Registered]:
        """Return the resources whose type ends in ``kind``."""
        return [resource for resource in self.resources if resource.type.split(":")[-1] == kind]

    def one(self, kind: str, name: str) -> Registered:
        """Return the only resource of a kind with a logical name."""
        (found,) = [resource for resource in self.of(kind) if resource.name == name]
        return found


GKE_STACKS = ("staging", "prod")
PROJECT_NUMBER = "123456789012"
ENDPOINT = "gke-0123456789abcdef.europe-west4.gke.goog"

THEIRS: dict[str, Any] = table("theirs")
"""What a platform team has made before."""

_MADE_UP: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "gcp:container/cluster:Cluster": lambda name, inputs: {
        "name": f"{name}-0a1b2c3",
        "controlPlaneEndpointsConfig": {
            **inputs["controlPlaneEndpointsConfig"],
            "dnsEndpointConfig": {**inputs["controlPlaneEndpointsConfig"]["dnsEndpointConfig"], "endpoint": ENDPOINT},
        },
    },
    "gcp:compute/network:Network": lambda name, _: {"selfLink": f"networks/{name}", "name": name},
    "gcp:compute/subnetwork:Subnetwork": lambda name, _: {"selfLink": f"subnetworks/{name}", "name": name},
    "gcp:compute/router:Router": lambda name, _: {"name": name},
    "gcp:serviceaccount/account:Account": lambda _, inputs: {
        "email": f"{inputs['accountId']}@a-project.iam.gserviceaccount.com",
        "member": f"serviceAccount:{inputs['accountId']}@a-project.iam.gserviceaccount.com",
    },
    "gcp:artifactregistry/repository:Repository": lambda _, inputs: {
        "name": inputs["repositoryId"],
        "registryUri": f"{inputs['location']}-docker.pkg.dev/a-project/{inputs['repositoryId']}",
    },
}
"""What Google would add to the inputs of a resource, as far as the program reads it."""


FORWARDING_RULES: list[dict[str, str]] = []
"""Load balancers that are in the project; a test puts its own here."""


class _Echo(mocks.Mocks):
    def __init__(self, preview: bool) -> None:
        self.preview = preview
        self.lookups: set[tuple[str, str]] = set()

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        made_up = _MADE_UP.get(args.typ)
        added = made_up(args.name, args.inputs) if made_up and not self.preview else {}
        return f"{args.name}-id", {**args.inputs, **added}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        project = args.args.get("project") or args.args["projectId"]
        self.lookups.add((LOOKUPS[args.token][0], project))
        if args.token == "gcp:organizations/getProject:getProject":
            return {"projectId": args.args["projectId"], "number": PROJECT_NUMBER}
        if args.token == "gcp:logging/getProjectCmekSettings:getProjectCmekSettings":
            return {**args.args, "serviceAccountId": f"cmek-p{PROJECT_NUMBER}@gcp-sa-logging.iam.gserviceaccount.com"}
        if args.token == "gcp:compute/getForwardingRules:getForwardingRules":
            return {**args.args, "rules": FORWARDING_RULES}
        if args.token == "gcp:container/getCluster:getCluster":
            endpoints = [{"endpoint": ENDPOINT, "allowExternalTraffic": True}]
            ranges = {"clusterIpv4Cidr": "10.8.0.0/14", "servicesIpv4Cidr": "34.118.224.0/20"}
            return {**args.args, "controlPlaneEndpointsConfigs": [{"dnsEndpointConfigs": endpoints}], **ranges}
        if args.token == "gcp:compute/getSubnetwork:getSubnetwork":
            return {**THEIRS["subnetwork"], **args.args}
        raise AssertionError(f"the program calls {args.token}")


class _Recorder(mocks.MockMonitor):
    def __init__(self, registered: list[Registered], preview: bool) -> None:
        self.echo = _Echo(preview)
        super().__init__(self.echo)
        self.registered = registered

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the monitor's name
        if request.type != "pulumi:pulumi:Stack":
            inputs = rpc.deserialize_properties(request.object)
            self.registered.append(Registered(type=request.type, name=request.name, inputs=inputs, request=request))
        return super().RegisterResource(request)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A kubeconfig with the contexts ``one`` and ``two``."""
    path = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("one", "two")],
        "current-context": "two",
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def config(kubeconfig: Path) -> Config:
    """The least configuration that works, without the project's prefix."""
    return {"kubeconfig": str(kubeconfig), "context": "one", "image": IMAGE}


@pytest.fixture
def run(config: Config) -> Run:
    """Runs the whole program with the configuration of a stack and what is given.

    Of a GKE stack that is the committed file with a real image, of others the least that works.
    """

    def program(*, preview: bool = False, stack: str = "local", **changed: Any) -> Program:
        given = {**committed(stack), "image": IMAGE} if stack in GKE_STACKS else config
        keys = {key.replace("__", ":"): value for key, value in changed.items()}
        with _own_modules():
            return run_program(
                {key: value for key, value in {**given, **keys}.items() if value is not None}, stack, preview
            )

    return program


def previewer() -> list[str]:
    """Return what the account of previews may do, as the page about a new project has it."""
    page = (REPOSITORY / "docs" / "operations" / "bootstrap.md").read_text(encoding="utf-8")
    (role,) = re.findall(r"roles create previewer --project=\$PROJECT(?:.|\\\n)*?--permissions=(\S+)", page)
    return str(role).split(",")


def committed(stack: str) -> Config:
    """Return the configuration in a committed stack file, without the project's prefix."""
    document = yaml.safe_load((REPOSITORY / "infra" / "stacks" / f"Pulumi.{stack}.yaml").read_text())
    return {key.removeprefix("adk-gke-sandbox:"): value for key, value in document["config"].items()}


def _configured(config: Config) -> dict[str, str]:
    """Return configuration as the engine hands it over: prefixed, and as text."""
    return {
        key if ":" in key else f"adk-gke-sandbox:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
    }


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Import the program's modules anew, and leave everybody else's references alone."""

    def of_the_program() -> list[str]:
        return [name for name in sys.modules if name.startswith("infra.") and not name.startswith("infra.local")]

    before = {name: sys.modules.pop(name) for name in of_the_program()}
    try:
        yield
    finally:
        for name in of_the_program():
            del sys.modules[name]
        sys.modules.update(before)


def run_program(
    config: Config, stack: str = "local", preview: bool = False, program: Callable[[], None] | None = None
) -> Program:
    """Run a program under mocks: ours, or one that is given."""
    with _careless_event_loops():
        return _run_once(config, stack, preview, program or _own_program)


def _own_program() -> None:
    runpy.run_path(str(REPOSITORY / "infra" / "__main__.py"), run_name="__main__")


@contextlib.contextmanager
def _careless_event_loops() -> Iterator[None]:
    """The SDK's mocks open an event loop in each worker thread and never close it: collect them in silence."""
    hook = sys.unraisablehook
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            sys.unraisablehook = lambda _: None
            try:
                yield
            finally:
                gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.enable()


def _run_once(config: Config, stack: str, preview: bool, program: Callable[[], None]) -> Program:
    registered: list[Registered] = []
    monitor = _Recorder(registered, preview)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        pulumi.runtime.set_all_config(_configured(config))
        # A run that failed leaves calls behind that nobody answers any more.
        pulumi.runtime.settings.SETTINGS.rpc_manager.clear()
        pulumi.runtime.settings.SETTINGS.outputs.clear()
        # Without it a second run in one process keeps the first one's outputs.
        pulumi.runtime.settings.set_root_resource(None)  # type: ignore[arg-type]
        pulumi.runtime.set_mocks(
            _Echo(preview),
            project="adk-gke-sandbox",
            stack=stack,
            preview=preview,
            monitor=monitor,
        )
        loop.run_until_complete(run_pulumi_func(program))
        root = pulumi.runtime.settings.get_root_resource()
        outputs = {
            name: loop.run_until_complete(pulumi.Output.from_input(value).future())
            for name, value in root.outputs.items()
        }
    finally:
        pulumi.runtime.set_all_config({})
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()
    return Program(resources=registered, outputs=outputs, lookups=monitor.echo.lookups)
