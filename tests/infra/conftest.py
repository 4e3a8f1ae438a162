"""Fixtures of the infra tests: a kubeconfig that leads nowhere, and the whole program under mocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"localhost/adk-gke-sandbox/data@sha256:{'a' * 64}"

Config = dict[str, str]
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

    def of(self, kind: str) -> list[Registered]:
        """Return the resources whose type ends in ``kind``."""
        return [resource for resource in self.resources if resource.type.split(":")[-1] == kind]

    def one(self, kind: str, name: str) -> Registered:
        """Return the only resource of a kind with a logical name."""
        (found,) = [resource for resource in self.of(kind) if resource.name == name]
        return found


class _Echo(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        raise AssertionError(f"the program calls {args.token}")


class _Recorder(mocks.MockMonitor):
    def __init__(self, registered: list[Registered]) -> None:
        super().__init__(_Echo())
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
    """Runs the whole program with the least configuration and what is given."""

    def program(*, preview: bool = False, stack: str = "local", **changed: str | None) -> Program:
        given = {key: value for key, value in {**config, **changed}.items() if value is not None}
        with _own_modules():
            return _run(given, stack, preview)

    return program


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


def _run(config: Config, stack: str, preview: bool) -> Program:
    with _careless_event_loops():
        return _run_once(config, stack, preview)


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


def _run_once(config: Config, stack: str, preview: bool) -> Program:
    registered: list[Registered] = []
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        pulumi.runtime.set_all_config({f"adk-gke-sandbox:{key}": value for key, value in config.items()})
        # Without it a second run in one process keeps the first one's outputs.
        pulumi.runtime.settings.set_root_resource(None)  # type: ignore[arg-type]
        pulumi.runtime.set_mocks(
            _Echo(), project="adk-gke-sandbox", stack=stack, preview=preview, monitor=_Recorder(registered)
        )
        main = REPOSITORY / "infra" / "__main__.py"
        loop.run_until_complete(run_pulumi_func(lambda: runpy.run_path(str(main), run_name="__main__") and None))
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
    return Program(resources=registered, outputs=outputs)
