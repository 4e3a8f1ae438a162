"""Runs one verb of the real Pulumi engine for one stack: its environment, its output, its failures.

Knows neither what a verb is for nor what must be in place for it; that is `stack`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import yaml

from adk_gke_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from infra.local.layout import Layout

_SILENT: Final = re.compile(
    r"^@ |warning: |\b(creating|updating|deleting|refreshing|refresh|reading|running)\b"  # under way
    r"|^    \w+:[\w:./-]+ [\w-]+\s*(\d+ warnings?)?\s*$"  # unchanged
    r"|^(The resources in the stack|If you want to remove)"  # hints for people who run the engine by hand
)
"""Lines of the engine that go to the log only."""

_HEADING: Final = re.compile(r"^  (?P<type>[\w:./-]+) \((?P<name>.+)\):$")
"""Line of the engine's diagnostics above the messages of one resource."""

_VIOLATION: Final = re.compile(r"^ +- \[mandatory\].*  (?P<rule>[\w-]+)  \((?P<resource>.+)\)$")
"""Line of a policy pack's verdict above the title of the rule and what is wrong."""

_ANNOUNCED: Final = re.compile(r"\d+ errors? occurred:")
_TOLD_AGAIN: Final = re.compile(r"sdk-v2/provider\d*\.go:\d+: sdk\.helper_schema: ")
"""The bridge to Terraform's providers logs an error where it happens, and again in the list of what it returns."""

_PLUGINS: Final = (b"pulumi-resource-", b"pulumi-language-")
"""What the names of plugins begin with; that of the program's interpreter is `pulumi-language-python-exec`."""

_PLUGIN_ENDED: Final = re.compile(r"Detected that .+ exited prematurely")
_CONSEQUENCE: Final = re.compile(
    rf"Program failed with an unhandled exception|{_PLUGIN_ENDED.pattern}|grpc: the client connection is closing"
)
"""What the program and the plugins say that the engine ends because of another error, now before and now after it."""

_VERDICT: Final = re.compile(r"(update|preview|destroy|refresh) failed|resource (creation|update|deletion) failed")

Report = Callable[[str], None]


class StackError(SandboxError):
    """The engine did not do what was asked; the message is one line with the repair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One stack: where its state is and which cluster it is for.

    Attributes:
        name: Name of the stack.
        folder: State, working copies and logs of the engine.
        kubeconfig: Admin kubeconfig of the cluster; its current context is the cluster. ``None`` is for a
            stack that makes its cluster, or names one in its configuration.
        configuration: Name of the committed configuration, `infra/stacks/Pulumi.CONFIGURATION.yaml`; empty
            is the stack's own name.
        providers: Name of a provider -> folder of its plugin, beyond Kubernetes.
        path: Folders that come first on PATH, such as that of a kubeconfig's credential plugin.
        environment: More variables for the engine and its plugins; they win.
        tools: Paths of ``pulumi``, ``pulumi-language-python``, ``pulumi-language-python-exec`` and
            ``pulumi-resource-kubernetes``.
        python: Folder of the interpreter that has Pulumi's SDK and pip.
    """

    name: str = "local"
    folder: Path
    kubeconfig: Path | None
    tools: Mapping[str, Path]
    python: Path = field(default=Path(sys.executable).parent)
    configuration: str = ""
    providers: Mapping[str, Path] = field(default_factory=dict)
    path: Sequence[Path] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, report: Report = print) -> Stack:
        """Return the default stack of a local cluster; builds the engine if it is not there yet."""
        # Here, because who brings tools of their own needs neither module.
        from infra.local import toolchain
        from infra.local.layout import cache_root

        found = toolchain.ensure(["pulumi"], cache_root(), report)
        return cls(
            folder=layout.state / "pulumi",
            kubeconfig=layout.kubeconfig,
            tools={name: tool.path for name, tool in found.items()},
        )

    @property
    def project(self) -> Path:
        """Folder of the working copies."""
        return self.folder / "project"

    @property
    def backend(self) -> Path:
        """Folder of the engine's state."""
        return self.folder / "backend"

    def log(self, verb: str) -> Path:
        """Return the file with the engine's last output for a verb."""
        return self.folder / f"{verb}.log"


def variables(stack: Stack) -> dict[str, str]:
    """Return the environment of the engine: nothing of Pulumi, Python or Kubernetes in ours decides anything."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PULUMI_", "PYTHON")) and name not in ("KUBECONFIG", "VIRTUAL_ENV")
    }
    folders = [*map(str, stack.path), str(stack.python), str(stack.folder / "bin"), str(stack.tools["pulumi"].parent)]
    host = urlsplit(target(stack.kubeconfig).server).hostname if stack.kubeconfig else None
    direct = ",".join(filter(None, [ours.get("NO_PROXY") or ours.get("no_proxy"), "127.0.0.1,localhost", host]))
    return {
        **ours,
        "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
        # The cluster is on this machine; a proxy could not reach it.
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PULUMI_HOME": str(stack.folder / "home"),
        "PULUMI_BACKEND_URL": stack.backend.as_uri(),
        # The state holds nothing secret: the kubeconfig is named, not copied.
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        # The provider that is built here takes over an object that is there already, one of the user's own from 4.30 on
        # only if it is told to. A run that was killed is resumed with both: on this cluster nobody else's are lost.
        "PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true",
        **stack.environment,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a kubeconfig's current context leads."""

    context: str
    server: str


def target(kubeconfig: Path) -> Target:
    """Return context and API server of a kubeconfig."""
    try:
        document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        context = str(document["current-context"])
        name = next(entry["context"]["cluster"] for entry in document["contexts"] if entry["name"] == context)
        server = next(entry["cluster"]["server"] for entry in document["clusters"] if entry["name"] == name)
    except FileNotFoundError:
        raise StackError(f"no file {kubeconfig}. Start the cluster with `python infra/local up`") from None
    except (OSError, ValueError, LookupError, TypeError, StopIteration, yaml.YAMLError) as error:
        raise StackError(
            f"{kubeconfig} is not a usable kubeconfig ({type(error).__name__}). "
            "Write it again with `python infra/local kubeconfig`"
        ) from None
    return Target(context=context, server=str(server))


def _command(stack: Stack, arguments: Sequence[str]) -> list[str]:
    return [
        str(stack.tools["pulumi"]),
        *arguments,
        "--cwd",
        str(stack.project),
        "--non-interactive",
        "--color",
        "never",
    ]


def stream(stack: Stack, verb: str, arguments: Sequence[str], report: Report) -> None:
    """Run a verb with progress on ``report`` and everything in the verb's log.

    It is run once more if nothing went wrong but that plugins ended: on a busy machine the engine takes some that it
    ends itself for crashed (https://github.com/pulumi/pulumi/issues/18238).
    """
    for again in (False, True):
        if not _stream(stack, verb, arguments, report):
            return
        found = causes(stack.log(verb).read_text(encoding="utf-8"))
        if again or not found or not all(map(_PLUGIN_ENDED.match, found)):
            raise _failure(stack, verb, found)
        report("the engine lost a plugin: trying once more")


def _stream(stack: Stack, verb: str, arguments: Sequence[str], report: Report) -> int:
    """Run a verb once; return its exit code."""
    command = _command(stack, [verb, "--stack", stack.name, "--suppress-outputs", *arguments])
    with (
        stack.log(verb).open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command,
            env=variables(stack),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as engine,
    ):
        assert engine.stdout is not None
        diagnostics = False
        try:
            for line in engine.stdout:
                log.write(line)
                # What follows are the errors again, which end up in the exception, and warnings.
                diagnostics = (diagnostics and not line.startswith("Resources:")) or line.startswith("Diagnostics:")
                if _worth_telling(line) and not diagnostics:
                    report(line.rstrip())
        except KeyboardInterrupt:
            # Ctrl-C reached the engine as well; it ends what it has begun and saves its state.
            report("stopping: waiting for the engine to save its state")
            engine.wait()
            raise
    return engine.returncode


def end_plugins(stack: Stack) -> None:
    """End what an engine that was killed has left running; call it when none of this stack is alive.

    Plugins, and the program that one of them runs, are in process groups of their own, and some outlive their engine
    for hours. They have its environment, so that the stack's home in it tells whose they are.
    """
    home = f"PULUMI_HOME={variables(stack)['PULUMI_HOME']}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        # One that has ended meanwhile, or is somebody else's.
        with contextlib.suppress(OSError):
            # An interpreter comes before a plugin that is a script.
            words = (process / "cmdline").read_bytes().split(b"\0")[:3]
            is_plugin = any(word.rpartition(b"/")[2].startswith(_PLUGINS) for word in words)
            if is_plugin and home in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def remove_unfinished(stack: Stack) -> None:
    """Remove what an engine that was killed has left half written; call it when none of this stack is alive.

    The state itself is written beside its place and then moved there. The attributes that lie beside each file are
    written in place; with half of them the engine refuses the file ("failed to load checkpoint: EOF"), and without any
    it reads it (https://github.com/google/go-cloud/blob/master/blob/fileblob/attrs.go).
    """
    for path in stack.backend.rglob("*.tmp"):
        path.unlink()
    for path in stack.backend.rglob("*.attrs"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            path.unlink()


def _worth_telling(line: str) -> bool:
    """Whether a line of the engine tells what was done."""
    return bool(line.strip()) and not _SILENT.search(line)


def run(stack: Stack, verb: str, arguments: Sequence[str]) -> str:
    """Run a short command and return its standard output."""
    result = subprocess.run(
        _command(stack, arguments),
        env=variables(stack),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        stack.log(verb).write_text(result.stdout + result.stderr, encoding="utf-8")
        raise _failure(stack, verb, causes(result.stderr))
    return result.stdout


def causes(text: str) -> list[str]:
    """Return the errors in the engine's output, each as one line.

    Google's provider announces its errors ("1 error occurred:") and then lists them, under the resource in the
    engine's diagnostics; the list is what counts, and which resource it was.
    """
    violations: list[str] = []
    found: list[str] = []
    resource = ""
    listed = False
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if (violation := _VIOLATION.match(line)) and number + 2 < len(lines):
            violations.append(f"{violation['rule']} ({violation['resource']}): {lines[number + 2].strip()}")
        elif heading := _HEADING.match(line):
            resource = f"{heading['name']} ({heading['type']}): "
        elif "error:" in line:
            cause = line.split("error:", 1)[1].strip()
            listed = bool(_ANNOUNCED.fullmatch(cause))
            # The last word is often a mere "update failed".
            if cause and not (listed or _VERDICT.fullmatch(cause) or _TOLD_AGAIN.match(cause)):
                found.append(cause)
        elif listed and (item := line.strip().removeprefix("* ")) and not _ANNOUNCED.fullmatch(item):
            listed = False
            if resource:
                found.append(resource + item)
    # A violation ends everything else, and what ends may say so before the verdict is printed.
    return [*violations, *sorted(found, key=lambda cause: bool(_CONSEQUENCE.match(cause)))]


def _failure(stack: Stack, verb: str, errors: Sequence[str]) -> StackError:
    cause = next(iter(errors), "")
    if "cluster is unreachable" in cause:
        cause += ". Start the cluster with `python infra/local up`"
    return StackError(f"pulumi {verb} of stack {stack.name} failed: {cause or 'see the log'} (log: {stack.log(verb)})")
