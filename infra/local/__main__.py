"""The local cluster and the `local` stack on it: `python infra/local VERB`."""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Run as a folder, Python has only this folder on its path.
_ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(_ROOT)

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from adk_gke_sandbox.errors import SandboxError  # noqa: E402
from infra.local import cluster, credentials, images, ownership, prerequisites, processes, stack, toolchain  # noqa: E402
from infra.local.layout import Layout, cache_root  # noqa: E402

UNHEALTHY = 3
_AS_ROOT = ("build", "up", "down")
_console = Console(highlight=False, soft_wrap=True)
_progress = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run one verb; return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        prerequisites.check_platform()
        layout = Layout(name=given.name)
        if given.verb in _AS_ROOT and os.geteuid() != 0:
            return _with_sudo(arguments)
        try:
            return int(_VERBS[given.verb](layout, given))
        finally:
            ownership.hand_over(layout)
    except (SandboxError, stack.StackError, credentials.CredentialsError) as error:
        _progress.print(f"infra/local: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        _progress.print("interrupted; run the same command again to go on", style="red")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python infra/local", description=__doc__)
    parser.add_argument("--name", default="local", help="name of the cluster (default: local)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="build what `up` and `stack up` need, start nothing")
    verbs.add_parser("up", help="bring the cluster up")
    verbs.add_parser("down", help="remove the cluster and all that it has put on the machine")
    verbs.add_parser("status", help="show each component; exit code 3 if one is not healthy")
    kubeconfig = verbs.add_parser("kubeconfig", help="print the path of a kubeconfig")
    kubeconfig.add_argument("--service-account", metavar="NAMESPACE/NAME", help="mint one for a ServiceAccount")
    stacks = verbs.add_parser("stack", help="the Pulumi stack on the cluster")
    stacks.add_argument("action", choices=["up", "preview", "destroy", "output"])
    for verb in verbs.choices.values():
        # Also accepted behind the verb.
        verb.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _report(line: str) -> None:
    _progress.print(line, markup=False)


def _build(_layout: Layout, _given: argparse.Namespace) -> int:
    _install_missing()
    toolchain.ensure(["cluster", "pulumi"], cache_root(), _report)
    images.ensure(cluster.VARIANTS, cache_root(), _report)
    return 0


def _up(layout: Layout, _given: argparse.Namespace) -> int:
    _install_missing()
    cluster.up(layout, _report)
    return 0


def _install_missing() -> None:
    missing = prerequisites.missing_packages()
    if missing:
        for command in prerequisites.install_commands(missing):
            _report(f"installing with: {shlex.join(command)}")
            subprocess.run(
                command, check=True, stdout=sys.stderr, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            )


def _down(layout: Layout, _given: argparse.Namespace) -> int:
    cluster.down(layout, _report)
    return 0


def _status(layout: Layout, _given: argparse.Namespace) -> int:
    alive = processes.running(layout)
    table = Table(title=f"cluster {layout.name}")
    for column in ("component", "version", "source", "process"):
        table.add_column(column)
    binaries = toolchain.present(["cluster", "pulumi"], cache_root())
    for name in ("supervisor", *cluster.DAEMONS):
        binary = binaries.get(name)
        state = f"[green]{alive[name]}[/]" if name in alive else "[red]not running[/]"
        table.add_row(name, binary.version if binary else "", binary.source if binary else "", state)
    for name, binary in binaries.items():
        if name not in cluster.DAEMONS:
            table.add_row(name, binary.version, binary.source, "[dim]tool[/]")
    healthy = bool(alive) and cluster.healthy(layout)
    _console.print(table)
    _console.print("[green]healthy[/]" if healthy else "[red]not healthy[/]: `python infra/local up` starts it")
    return 0 if healthy else UNHEALTHY


def _kubeconfig(layout: Layout, given: argparse.Namespace) -> int:
    _require_cluster(layout)
    path = layout.kubeconfig
    if given.service_account:
        namespace, slash, name = given.service_account.partition("/")
        if not slash or not namespace or not name:
            raise SandboxError(
                f"--service-account {given.service_account!r} is not NAMESPACE/NAME", "Write agents/agent"
            )
        path = layout.state / f"{namespace}-{name}.kubeconfig"
        credentials.service_account_kubeconfig(layout.kubeconfig, namespace, name, path)
    print(path)
    return 0


def _stack(layout: Layout, given: argparse.Namespace) -> int:
    _require_cluster(layout)
    if given.action == "up":
        stack.publish(layout, stack.up(layout, report=_report))
        _report(f"contract and the agents' kubeconfig: {layout.state}")
    elif given.action == "preview":
        stack.preview(layout, report=_report)
    elif given.action == "destroy":
        layout.contract.unlink(missing_ok=True)
        stack.destroy(layout, report=_report)
    else:
        print(json.dumps(stack.output(layout), indent=2))
    return 0


def _require_cluster(layout: Layout) -> None:
    if not layout.kubeconfig.exists():
        raise SandboxError(f"cluster {layout.name} is not up", "Run `python infra/local up` first")


def _with_sudo(arguments: Sequence[str]) -> int:
    """Run the same command as root, after saying so."""
    kept = "HOME,PATH,XDG_CACHE_HOME,XDG_STATE_HOME,PULUMI_HOME,GOPROXY,GOSUMDB,GOFLAGS,SSL_CERT_FILE"
    kept += ",PYTHONDONTWRITEBYTECODE"
    command = ["sudo", f"--preserve-env={kept}", sys.executable, str(Path(__file__).parent), *arguments]
    _report(f"namespaces, cgroups and containerd need root: {shlex.join(command)}")
    # Root's bytecode in the virtual environment could not be removed by the user.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, check=False, env=environment).returncode
    except FileNotFoundError:
        raise SandboxError("there is no sudo", "Run the command above as root") from None


_VERBS = {"build": _build, "up": _up, "down": _down, "status": _status, "kubeconfig": _kubeconfig, "stack": _stack}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
