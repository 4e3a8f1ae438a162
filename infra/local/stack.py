"""Drives the real Pulumi engine for a stack: no account, no prompt, no download.

The engine works on a copy of Pulumi.yaml and of the stack file, because a stack with a passphrase writes its
salt into the stack file. State, copies and logs live in one folder. Knows nothing of what the program
creates; picks no cluster: the kubeconfig is given.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from adk_gke_sandbox.contract import parse
from infra.local import credentials, engine
from infra.local.engine import Report, Stack, StackError

if TYPE_CHECKING:
    from infra.local.layout import Layout

__all__ = [
    "PROJECT",
    "Report",
    "Setting",
    "Stack",
    "StackError",
    "destroy",
    "output",
    "outputs",
    "preview",
    "publish",
    "up",
]

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PROJECT: Final = "adk-gke-sandbox"
OUTPUT: Final = "sandbox"
"""Name of the stack output that is the contract."""

_HOST: Final = "pulumi-language-python"
_HOST_SCRIPT: Final = "pulumi-language-python-exec"

_TOKEN_SECONDS: Final = 365 * 24 * 3600
_LOCK_WAIT_SECONDS: Final = 300.0
_LOCK_POLL_SECONDS: Final = 0.2

Setting = str | int | Mapping[str, str] | Sequence[Any]


Where: TypeAlias = "Layout | Stack"


def up(
    where: Where,
    *,
    image: str | None = None,
    settings: Mapping[str, Setting] = MappingProxyType({}),
    preview_first: bool = False,
    report: Report = print,
) -> dict[str, Any]:
    """Create or update everything, and return the contract.

    What somebody deleted behind the engine's back, or with the cluster, is found missing and created again.

    Args:
        where: A local cluster, for its default stack, or a stack.
        image: Sandbox image by digest; ``None`` is the cluster's own one with the data packages.
        settings: More configuration keys, without the project's prefix; a key with a colon has a prefix already.
        preview_first: Whether a change that the preview refuses stops everything before it begins. Nothing is
            precious on a local cluster, where it would only double the time.
        report: Gets each line that the engine prints.

    Raises:
        StackError: the engine failed, or another run holds the stack.
    """
    stack = _resolved(where, report)
    if stack.kubeconfig:
        engine.target(stack.kubeconfig)  # before anything is written
    given = image or _imported_image(where)
    with _held(stack, report):
        _prepare(stack, {"image": given, **settings}, report)
        engine.stream(stack, "up", [*_consent(preview_first), "--refresh"], report)
        return _output(stack)


def publish(layout: Layout, contract: Mapping[str, Any]) -> None:
    """Leave the contract and the agents' kubeconfig where the package finds them (`adk_gke_sandbox.contract.find`).

    The token lasts a year: the cluster goes before it does, and the administrator's certificate beside it lasts longer.

    Raises:
        CredentialsError: the API server gave no token.
    """
    agents = (str(contract["agents_namespace"]), str(contract["agent_service_account"]))
    credentials.service_account_kubeconfig(layout.kubeconfig, *agents, layout.agent_kubeconfig, seconds=_TOKEN_SECONDS)
    # Last: a contract that is found must lead to a cluster that can be used.
    layout.contract.write_text(parse(contract).to_json(), encoding="utf-8")


def preview(
    where: Where,
    *,
    settings: Mapping[str, Setting] = MappingProxyType({}),
    policy_pack: Path | None = None,
    expect_no_changes: bool = False,
    report: Report = print,
) -> None:
    """Print what ``up`` would do with the settings of the last ``up``.

    Args:
        where: A local cluster, for its default stack, or a stack.
        settings: Configuration of a stack that is not there yet; it is created, and nothing in it.
        policy_pack: An executable that judges the program (`infra/policy/pack.py`); a violation is an error.
        expect_no_changes: Whether a change is an error.
        report: Gets each line that the engine prints.

    Raises:
        StackError: no such stack and no settings, or both; the engine failed; a violation or a change that was not
            expected.
    """
    stack = _resolved(where, report)
    if not settings:
        _require(stack)
    elif _exists(stack):
        raise StackError(f"stack {stack.name} is there already, with the settings of its last `up`. Give none")
    with _held(stack, report):
        _prepare(stack, settings, report)
        # Among the details of all changes nobody would find what the policy pack says.
        details = ["--policy-pack", str(policy_pack)] if policy_pack else ["--diff"]
        engine.stream(stack, "preview", [*details, *(["--expect-no-changes"] if expect_no_changes else [])], report)


def destroy(where: Where, *, preview_first: bool = False, report: Report = print) -> None:
    """Delete everything that the stack created, and the stack; a stack that never existed is already destroyed.

    Args:
        where: A local cluster, for its default stack, or a stack.
        preview_first: Whether a protected resource stops everything before it begins. Without it the engine
            deletes what depends on that resource, and stops there.
        report: Gets each line that the engine prints.

    Raises:
        StackError: the engine failed, or another run holds the stack.
    """
    stack = _resolved(where, report)
    if not _exists(stack):
        report(f"stack {stack.name} does not exist: nothing to destroy")
        return
    with _held(stack, report):
        _prepare(stack, {}, report)
        engine.stream(stack, "destroy", [*_consent(preview_first), "--refresh", "--remove"], report)


def output(where: Where) -> dict[str, Any]:
    """Return the contract that the last ``up`` exported.

    Raises:
        StackError: the stack has none.
    """
    stack = _resolved(where, lambda _: None)  # standard output is for the contract
    _require(stack)
    return _output(stack)


def outputs(where: Where) -> dict[str, Any]:
    """Return everything that the last ``up`` exported, secrets in the clear.

    Raises:
        StackError: there is no such stack.
    """
    stack = _resolved(where, lambda _: None)
    _require(stack)
    text = engine.run(stack, "output", ["stack", "output", "--json", "--show-secrets", "--stack", stack.name])
    return dict(json.loads(text))


def _consent(preview_first: bool) -> list[str]:
    return ["--yes"] if preview_first else ["--yes", "--skip-preview"]


def _resolved(where: Where, report: Report) -> Stack:
    return where if isinstance(where, Stack) else Stack.of(where, report)


def _imported_image(where: Where) -> str:
    """Return the image with the data packages, as the cluster's node knows it by digest."""
    try:
        if isinstance(where, Stack):
            raise LookupError
        references = json.loads(where.images.read_text(encoding="utf-8"))["data"]["references"]
        return str(next(reference for reference in references if "@sha256:" in reference))
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise StackError("no sandbox image is known. Import one with `python infra/local up`, or name one") from None


def _output(stack: Stack) -> dict[str, Any]:
    text = engine.run(stack, "output", ["stack", "output", "--json", "--stack", stack.name])
    try:
        return dict(json.loads(text)[OUTPUT])
    except (ValueError, LookupError, TypeError):
        raise StackError(f"stack {stack.name} has no output {OUTPUT!r}. Run `python infra/local stack up`") from None


def _exists(stack: Stack) -> bool:
    return (stack.backend / ".pulumi" / "stacks" / PROJECT / f"{stack.name}.json").exists()


def _require(stack: Stack) -> None:
    if not _exists(stack):
        raise StackError(f"there is no stack {stack.name} yet. Create it with `python infra/local stack up`")


@contextlib.contextmanager
def _held(stack: Stack, report: Report) -> Iterator[None]:
    """Hold the stack against other drivers, and wait for an engine whose driver was killed.

    The engine must not inherit our lock: its plugins would, and one outlived a killed engine by 5 minutes.
    """
    stack.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (stack.folder / "lock").open("a") as file:

        def taken() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        _wait(stack, report, taken)
        _wait(stack, report, lambda: not any(_is_engine(pid) for pid in _lock_holders(stack)))
        yield


def _wait(stack: Stack, report: Report, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    for attempt in itertools.count():
        if done():
            return
        if time.monotonic() > deadline:
            raise StackError(
                f"another run still works on stack {stack.name} after {_LOCK_WAIT_SECONDS:.0f} s. "
                "Wait for it, or end its `pulumi` process, then try again"
            )
        if attempt == 0:
            report(f"waiting for another run on stack {stack.name} to end")
        time.sleep(_LOCK_POLL_SECONDS)


def _locks(stack: Stack) -> list[Path]:
    return list((stack.backend / ".pulumi" / "locks").rglob("*.json"))


def _lock_holders(stack: Stack) -> list[int]:
    """Return the process ids in the engine's own lock files."""
    holders = []
    for path in _locks(stack):
        # Gone, or being written: the engine is at work, and the next look will tell.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            holders.append(int(json.loads(path.read_text(encoding="utf-8"))["pid"]))
    return holders


def _is_engine(pid: int) -> bool:
    """Whether a process lives and is an engine, not another one that got the same id later."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name.startswith("pulumi") and not rest.startswith(" Z")


def _prepare(stack: Stack, settings: Mapping[str, Setting], report: Report) -> None:
    """Write the working copies, create the stack if need be, and take over what a killed run left."""
    engine.end_plugins(stack)
    _pair_language_host(stack)
    _write_project(stack)
    _write_configuration(stack, settings)
    stack.backend.mkdir(exist_ok=True)
    engine.remove_unfinished(stack)
    # No engine is alive that could have written these.
    if stale := _locks(stack):
        report(f"an earlier run on stack {stack.name} was killed: taking its lock over")
        if _exists(stack):
            engine.run(stack, "cancel", ["cancel", "--yes", "--stack", stack.name])
            for line in _interrupted(stack):
                report(line)
        else:
            # Killed while it created the stack, and `cancel` wants one.
            for path in stale:
                path.unlink(missing_ok=True)
    if not _exists(stack):
        engine.run(stack, "init", ["stack", "init", stack.name])


def _interrupted(stack: Stack) -> Iterator[str]:
    """Yield a line for each resource whose creation a kill interrupted, and that may exist unknown to the engine.

    Not for Kubernetes: its provider takes over an object that is already there.
    """
    state = json.loads(engine.run(stack, "export", ["stack", "export", "--stack", stack.name]))
    for operation in state["deployment"].get("pending_operations") or []:
        resource = operation["resource"]
        if operation["type"] == "creating" and not str(resource["type"]).startswith("kubernetes:"):
            name = resource["urn"].rsplit("::", 1)[-1]
            called = resource.get("inputs", {}).get("name")
            yield (
                f"{resource['type']} {name} may exist{f' as {called}' if called else ''} without being in the state: "
                "look for it, and delete it or `pulumi import` it; the next `up` makes another"
            )


def _pair_language_host(stack: Stack) -> None:
    """Lay the language host and its script side by side: it looks for the script nowhere else."""
    for name in (_HOST, _HOST_SCRIPT):
        source, link = stack.tools[name], stack.folder / "bin" / name
        if link.exists() and link.stat().st_size == source.stat().st_size:
            continue
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        # Not a symbolic link: the host resolves its own path.
        try:
            link.hardlink_to(source)
        except OSError:
            shutil.copy2(source, link)


def _write_project(stack: Stack) -> None:
    stacks = stack.project / "stacks"
    stacks.mkdir(parents=True, exist_ok=True)
    document = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text(encoding="utf-8"))
    document["stackConfigDir"] = stacks.name
    document["runtime"]["options"]["virtualenv"] = str(stack.python.parent)
    # Found on PATH, the engine would warn of it on every run.
    folders = {"kubernetes": stack.tools["pulumi-resource-kubernetes"].parent, **stack.providers}
    document["plugins"] = {"providers": [{"name": name, "path": str(path)} for name, path in folders.items()]}
    # `main` must be a folder below Pulumi.yaml; a link to the repository's is.
    link = stack.project / document["main"]
    target = REPOSITORY / document["main"]
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)
    _write(stack.project / "Pulumi.yaml", document)


def _write_configuration(stack: Stack, settings: Mapping[str, Setting]) -> None:
    """Lay the committed configuration under the last one, and that under what is given now."""
    copy = stack.project / "stacks" / f"Pulumi.{stack.name}.yaml"
    committed = REPOSITORY / "infra" / "stacks" / f"Pulumi.{stack.configuration or stack.name}.yaml"
    last = _load(copy)
    given: dict[str, Setting] = dict(settings)
    if stack.kubeconfig:
        given |= {"kubeconfig": str(stack.kubeconfig), "context": engine.target(stack.kubeconfig).context}
    # An `up` names all its settings; the other verbs go by those of the last `up`.
    kept = {} if settings else last.get("config", {})
    document = {
        **{name: value for name, value in last.items() if name != "config"},
        "config": {
            **_load(committed).get("config", {}),
            **kept,
            **{
                # A name with a colon is another namespace's, such as a provider's.
                key if ":" in key else f"{PROJECT}:{key}": dict(value) if isinstance(value, Mapping) else value
                for key, value in given.items()
            },
        },
    }
    _write(copy, document)


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def _write(path: Path, document: Mapping[str, Any]) -> None:
    # In one step: a driver killed in the middle must not lose the stack's salt.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    temporary.replace(path)
