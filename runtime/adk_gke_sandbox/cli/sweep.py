"""``adk-gke-sandbox sweep``: what executions have left behind."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from adk_gke_sandbox.cli.exit_codes import EXIT_USAGE
from adk_gke_sandbox.cli.options import ContractOption, JsonOption, NoContractOption, TextOption, executor_config
from adk_gke_sandbox.cli.output import OUT, fail
from adk_gke_sandbox.cluster import api
from adk_gke_sandbox.cluster.sweep import find, remove
from adk_gke_sandbox.errors import SandboxError


def sweep(
    contract: ContractOption = None,
    no_contract: NoContractOption = False,
    namespace: TextOption = None,
    kubeconfig: TextOption = None,
    context: TextOption = None,
    older_than: Annotated[
        float | None,
        typer.Option(help="Seconds; counts every Job of this age, running or not. Default: past deadline and TTL."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is found; otherwise it is only shown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show, or delete, what executions have left behind in the sandbox namespace."""
    config = executor_config(
        contract, no_contract, namespace=namespace, kubeconfig_path=kubeconfig, kubeconfig_context=context
    )
    cluster = api.connect(config.kubeconfig_path, config.kubeconfig_context)
    found = find(cluster, config.namespace, older_than_seconds=older_than)
    gone = []
    for leftover in found if delete else ():
        try:
            remove(cluster, leftover)
        except SandboxError as error:
            fail(error)
        else:
            gone.append(leftover)
    if as_json:
        typer.echo(json.dumps([{**asdict(leftover), "deleted": leftover in gone} for leftover in found], indent=2))
    else:
        for leftover in found:
            done, age = "deleted " if leftover in gone else "", f"{leftover.age_seconds:.0f} s old"
            OUT.print(f"{done}{leftover.kind} {leftover.name}: {age}, {leftover.cause}", markup=False)
        if not found:
            OUT.print(f"nothing is left behind in {config.namespace}", markup=False)
        elif not delete:
            OUT.print("delete them with --delete", markup=False)
    if delete and gone != found:
        raise typer.Exit(EXIT_USAGE)
