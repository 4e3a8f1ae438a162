"""Preflight: what only the live cluster can tell, before agents run on it.

Who may do what (``access``), what the API server lets in (``dry_run``), what one sandbox is from inside
(``probe``), and what agents reach (``agents``). What others tell is left to them: ``pulumi preview --refresh
--expect-no-changes`` whether objects are as the program says, the policy pack whether the program follows the rules.

It runs under whatever identity it is given; what that may not look at is ``unknown`` and never counts as good.
Nothing is changed: the offers are dry runs, the probe is an execution like any other, and the agents' pod is gone
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from adk_gke_sandbox.cluster import api
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.preflight import access, agents, dry_run, probe, reached
from adk_gke_sandbox.preflight.checks import Report, Status, make_checks
from adk_gke_sandbox.sandbox import Sandbox

__all__ = ["run"]

CLUSTER_CHECKS: Final = (*reached.CHECKS, *access.CHECKS, *dry_run.CHECKS)
"""Made by asking the API server, in this order."""

SANDBOX_CHECKS: Final = probe.CHECKS
"""Made with one program in a sandbox."""

AGENTS_CHECKS: Final = agents.CHECKS
"""Made with one pod under the agents' identity."""


def run(
    contract: Contract,
    *,
    model_endpoint: str = "",
    report: Callable[[str], None] = lambda _: None,
    **overrides: Any,
) -> Report:
    """Check a cluster against a contract; trouble with the cluster is a result, too.

    Args:
        contract: What the cluster should be.
        model_endpoint: Host and port of the agents' models; empty is Google Cloud's own, where the cluster is there.
        report: Is told what is being done.
        **overrides: As of ``ExecutorConfig.from_contract``, for example ``kubeconfig_path``.

    Raises:
        ConfigError: no such kubeconfig or context, or a contract that no executor can work with.
    """
    overrides["timeout_seconds"] = min(probe.TIMEOUT_SECONDS, contract.ceilings.timeout_seconds)
    config = ExecutorConfig.from_contract(contract, **overrides)
    with (
        closing(api.connect(config.kubeconfig_path, config.kubeconfig_context)) as connection,
        closing(Sandbox(config)) as sandbox,
    ):
        cluster = agents.AgentsCluster(
            contract=contract, config=config, api=connection, sandbox=sandbox, model_endpoint=model_endpoint
        )
        results = make_checks((*CLUSTER_CHECKS, *SANDBOX_CHECKS, *AGENTS_CHECKS), cluster, report)
        identity = cluster.identity if results[0].status is Status.PASS else ""
    return Report(stack=contract.stack, server=connection.host, identity=identity, checks=tuple(results))
