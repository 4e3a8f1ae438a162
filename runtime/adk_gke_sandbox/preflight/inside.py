"""Checks of what a program sees from inside a sandbox, by the report of the probe. Pure."""

from __future__ import annotations

from adk_gke_sandbox.contract import SANDBOX_UID, Contract
from adk_gke_sandbox.execution import Outcome, Reason
from adk_gke_sandbox.preflight.probe import Insight, Target, insight
from adk_gke_sandbox.preflight.verdicts import Problem, Seen, Verdict, stack_up

_RELEASE = "Use another image: this one's Python cannot run the probe"


def ran(contract: Contract, seen: Seen) -> Verdict:
    """Judge that a program ran to its end, on the path that agents take."""
    outcome: Outcome = seen["probe"]
    summary = f"ran in {outcome.timings.total:.1f} s ({outcome.launch})"
    subject, expected = f"execution {outcome.name} with {contract.image}", "runs to its end"
    if outcome.reason is not Reason.COMPLETED:
        found = f"{outcome.reason.value}: {outcome.message or outcome.stderr.decode('utf-8', 'replace')[-500:]}"
        fix = "Do what the message says, then run preflight again; `adk-gke-sandbox run` takes the same path"
        return Verdict(problems=(Problem(object=subject, expected=expected, found=found, fix=fix),))
    if insight(outcome) is None:
        found = f"no report but {outcome.stdout[:200]!r}"
        return Verdict(problems=(Problem(object=subject, expected=expected, found=found, fix=_RELEASE),))
    return Verdict(summary=summary)


def gvisor(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the kernel under a program is gVisor's, by the first line of its log."""
    found = _insight(seen)
    if found.gvisor:
        return Verdict(summary=found.kernel)
    problem = Problem(
        object=f"RuntimeClass {contract.runtime_class}",
        expected="a kernel log that begins with gVisor's banner",
        found=found.kernel,
        fix="Programs run on the kernel of the node. Stop agents now. On GKE the node pool needs GKE Sandbox "
        "(sandbox_config.type GVISOR); elsewhere the RuntimeClass' handler must be runsc",
    )
    return Verdict(problems=(problem,))


def network(contract: Contract, seen: Seen) -> Verdict:
    """Judge that no address of the cluster answers a program, and that nobody resolves names for it without need."""
    found, tried = _insight(seen), tuple(seen["targets"])
    closed: tuple[Target, ...] = tuple(target for number, target in enumerate(tried) if number not in found.opened)
    fix = (
        "Programs reach the network. Stop agents now. Check that the cluster enforces NetworkPolicies (on GKE: "
        f"Dataplane V2, datapath_provider ADVANCED_DATAPATH), then run {stack_up(contract)}"
    )
    problems = [
        Problem(object=str(tried[number]), expected="does not answer a sandbox", found="answered", fix=fix)
        for number in found.opened
    ]
    if found.name_servers and contract.egress == "none":
        problems.append(
            Problem(
                object="/etc/resolv.conf of a sandbox",
                expected="no name server but its own loopback",
                found=", ".join(found.name_servers),
                fix="Use the release of this package that made the stack; its pods have dnsPolicy None",
            )
        )
    if not tried:
        problems.append(
            Problem(
                object="addresses of the cluster",
                expected="at least one to try from inside",
                found="none is known",
                fix="Run preflight as an identity that may get services in default, or with a kubeconfig that names "
                "the API server by its address",
            )
        )
    return Verdict(summary=f"no answer from {', '.join(str(target) for target in closed)}", problems=tuple(problems))


def identity(contract: Contract, seen: Seen) -> Verdict:
    """Judge that a program runs as nobody: not as root, and without a way to the Kubernetes API."""
    found = _insight(seen)
    problems = []
    if found.uid != SANDBOX_UID:
        problems.append((f"uid {SANDBOX_UID}", f"uid {found.uid}"))
    if found.credentials:
        problems.append(("no token and no address of the Kubernetes API", ", ".join(found.credentials)))
    return Verdict(
        summary=f"uid {found.uid}, no token",
        problems=tuple(
            Problem(
                object=f"execution {seen['probe'].name}",
                expected=expected,
                found=said,
                fix=f"Something changes pods on their way in: look at `kubectl get mutatingwebhookconfigurations`, "
                f"then run {stack_up(contract)}",
            )
            for expected, said in problems
        ),
    )


def _insight(seen: Seen) -> Insight:
    found = insight(seen["probe"])
    if found is None:
        raise ValueError("checks of the report need the one that it was made")
    return found
