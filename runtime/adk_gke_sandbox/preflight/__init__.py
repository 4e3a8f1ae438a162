"""The contract against the live cluster: read, judge, and look at one sandbox from inside.

Runs under whatever identity it is given. What may be read decides how much is shown: the platform team sees all,
the agents' identity what its Role allows; nothing that could not be looked at counts as good. Nothing is changed:
the trials are dry runs, and the probe is an execution like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files as package_files

from adk_gke_sandbox.cluster import api as kube
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract
from adk_gke_sandbox.execution import Outcome
from adk_gke_sandbox.preflight import probe
from adk_gke_sandbox.preflight.checks import CHECKS, INSIDE, PROBE, PROBE_NETWORK
from adk_gke_sandbox.preflight.observation import observe
from adk_gke_sandbox.preflight.verdicts import Problem, Report, Result, Status, Unreadable, blocked, evaluate
from adk_gke_sandbox.sandbox import Sandbox

__all__ = ["Problem", "Report", "Result", "Status", "run"]


def run(
    contract: Contract,
    *,
    kubeconfig_path: str | None = None,
    kubeconfig_context: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Report:
    """Check a cluster against a contract; trouble with the cluster is a result, too.

    Args:
        contract: What the cluster should be.
        kubeconfig_path: As of ``ExecutorConfig``.
        kubeconfig_context: As of ``ExecutorConfig``; ``None`` is the contract's.
        report: Is told what is being done.

    Raises:
        ConfigError: no such kubeconfig or context, or a contract that no executor can work with.
    """
    context = kubeconfig_context or contract.cluster.context or None
    config = ExecutorConfig.from_contract(
        contract,
        kubeconfig_path=kubeconfig_path,
        kubeconfig_context=context,
        timeout_seconds=min(probe.TIMEOUT_SECONDS, contract.ceilings.timeout_seconds),
    )
    cluster = kube.connect(kubeconfig_path, context)
    try:
        report("reading the cluster")
        seen = observe(cluster, contract, config)
    finally:
        cluster.close()
    results = evaluate(CHECKS, contract, seen)
    if not blocked(PROBE, results):
        report("running a program in a sandbox")
        # Where the network is known to be open, nobody should knock.
        tried = seen["targets"] if not blocked(PROBE_NETWORK, results) else ()
        seen = {**seen, "targets": tried, "probe": _run_probe(config, tried)}
    results = evaluate(INSIDE, contract, seen, results)
    identity = seen["identity"]
    return Report(
        stack=contract.stack,
        server=cluster.host,
        identity="" if isinstance(identity, Unreadable) else identity,
        results=results,
    )


def _run_probe(config: ExecutorConfig, tried: tuple[probe.Target, ...]) -> Outcome:
    code = package_files("adk_gke_sandbox.pod").joinpath("probe.py").read_text(encoding="utf-8")
    sandbox = Sandbox(config)
    try:
        return sandbox.run(code, argv=probe.arguments(tried))
    finally:
        sandbox.close()
