"""Checks of who may do what: the executor exactly what it calls, the sandboxes nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adk_gke_sandbox.contract import EXECUTOR_ROLE, Contract
from adk_gke_sandbox.preflight.permissions import NEEDED, REFUSED, Access, Grant, agent_user
from adk_gke_sandbox.preflight.verdicts import Problem, Seen, Verdict, made_anew, stack_up

EXACT: Final = "executor-exact"
"""Name of the check that knows bindings."""


def allowed(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the agents' identity may make every call of the executor."""
    missing = [access for access in sorted(NEEDED) if not seen["reviews"][access]]
    expected = f"may {_listed(NEEDED)}"
    problems = () if not missing else (_of_agent(contract, expected, f"may not {_listed(missing)}", _bound(contract)),)
    return Verdict(summary=f"{len(NEEDED)} of {len(NEEDED)} calls are allowed", problems=problems)


def refused(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the agents' identity may do nothing that reaches beyond its own executions."""
    open_ = [access for access in REFUSED if seen["reviews"][access]]
    fix = f"Look what binds {agent_user(contract)} and its groups; {EXACT} names the bindings and how to remove them"
    problems = () if not open_ else (_of_agent(contract, "may do nothing else", f"may {_listed(open_)}", fix),)
    return Verdict(summary=f"{len(REFUSED)} dangerous calls are refused", problems=problems)


def exact(contract: Contract, seen: Seen) -> Verdict:
    """Judge that the agents' identity is granted the executor's rules, no verb less and no verb more."""
    grants: frozenset[Grant] = seen["agent_grants"]
    granted = {grant.access for grant in grants}
    problems = []
    if missing := [access for access in sorted(NEEDED) if not any(_covers(held, access) for held in granted)]:
        expected = f"is granted {_listed(NEEDED)}"
        problems.append(_of_agent(contract, expected, f"is not granted {_listed(missing)}", _bound(contract)))
    for binding in sorted({grant.binding for grant in grants if grant.access not in NEEDED}):
        more = sorted(grant.access for grant in grants if grant.binding == binding and grant.access not in NEEDED)
        problems.append(
            _of_agent(
                contract,
                f"is granted {_listed(NEEDED)} and nothing else in {contract.namespace}",
                f"{f'{binding} also grants' if binding else 'is also granted'} {_listed(more)}",
                _unbind(contract, binding),
            )
        )
    return Verdict(summary=f"{len(granted)} verbs, exactly the executor's rules", problems=tuple(problems))


def bound_to_nothing(contract: Contract, seen: Seen) -> Verdict:
    """Judge that no binding names a ServiceAccount of the sandbox namespace."""
    problems = [
        Problem(
            object=f"ServiceAccount {contract.namespace}/{name}",
            expected="bound to nothing: a program may run under it",
            found=f"{binding} grants {_listed(sorted(grant.access for grant in grants if grant.binding == binding))}",
            fix=_unbind(contract, binding),
        )
        for name, grants in seen["sandbox_grants"].items()
        for binding in sorted({grant.binding for grant in grants})
    ]
    return Verdict(summary="sandboxes are bound to nothing", problems=tuple(problems))


def _of_agent(contract: Contract, expected: str, found: str, fix: str) -> Problem:
    return Problem(
        object=f"ServiceAccount {contract.agents_namespace}/{contract.agent_service_account}",
        expected=expected,
        found=found,
        fix=fix,
    )


def _bound(contract: Contract) -> str:
    namespace = contract.namespace
    anew = f"`kubectl delete role {EXECUTOR_ROLE} -n {namespace}`, then {stack_up(contract)}"
    return f"Run {stack_up(contract)}; if the Role was changed by hand, {anew}"


def _unbind(contract: Contract, binding: str) -> str:
    """Return how to remove a binding, named as in ``Grant``; what of it is the stack's own is made anew."""
    if not binding:
        return "Run preflight as the platform team, which sees what grants it"
    kind, name, role_kind, role = binding.replace("(", "").replace(")", "").split()
    if kind.startswith("Cluster"):
        return f"`kubectl delete {kind.lower()} {name}`"
    anew = made_anew(contract, kind, name, contract.namespace)
    # A ClusterRole may be many others', too.
    return anew if role_kind == "ClusterRole" else f"`kubectl delete role {role} -n {contract.namespace}` and {anew}"


def _covers(held: Access, access: Access) -> bool:
    return all(mine in ("*", asked) for mine, asked in zip(held[:3], access[:3], strict=True))


def _listed(accesses: Iterable[Access]) -> str:
    """Return accesses as people write them, with the verbs of one resource together."""
    verbs: dict[str, list[str]] = {}
    for access in accesses:
        verbs.setdefault(str(access).partition(" ")[2], []).append(access.verb)
    return ", ".join(f"{'/'.join(sorted(found))} {resource}" for resource, found in sorted(verbs.items()))
