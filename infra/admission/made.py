"""The rules that the table of fields makes: refused fields are absent, fields with one right value have it. Pure."""

from __future__ import annotations

from typing import Any

from adk_gke_sandbox.contract import Contract
from infra.admission.cel import Rule, listed, literal, told
from infra.admission.fields import REFUSALS, Decision, Type, rows

Part = tuple[Type, Decision]


def made_rules(contract: Contract) -> tuple[Rule, ...]:
    """Return the rules that the table makes, in its order."""
    parts: dict[str, list[Part]] = {}
    for found, decision in rows(contract):
        if decision.values or (decision.mark == "refused" and decision.rule in REFUSALS):
            parts.setdefault(decision.rule, []).append((found, decision))
    return tuple((_right if made[0][1].values else _absent)(rule, made) for rule, made in parts.items())


def _absent(rule: str, made: list[Part]) -> Rule:
    fields = {found.shown + name: found.present(name) for found, decision in made for name in decision.fields}
    *first, last = fields
    return Rule(
        id=rule,
        refuses=REFUSALS[rule],
        fix=f"Remove {', '.join(first)} and {last}" if first else f"Remove {last}",
        holds=" && ".join(f"!{present}" for present in fields.values()),
        found=listed(fields),
        on=_on(rule, made),
    )


def _right(rule: str, made: list[Part]) -> Rule:
    ((found, decision),) = made
    values = {found.shown + name: _text(value) for name, value in (decision.values or {}).items()}
    paths = [f"{found.path}.?{name}" for name in decision.fields]
    tests = [
        _is(path, value, decision.or_absent)
        for path, value in zip(paths, (decision.values or {}).values(), strict=True)
    ]
    several = len(values) > 1
    each = ", ".join(f'"{name} " + {told(path)}' for name, path in zip(values, paths, strict=True))
    right = " and ".join(f"{name if several else 'it'} to {value}" for name, value in values.items())
    return Rule(
        id=rule,
        refuses=" or ".join(f"{name} is not {value}" for name, value in values.items()),
        fix=f"Set {right}: {decision.why}",
        holds=" && ".join(tests),
        found=f'[{each}].join(", ")' if several else told(paths[0]),
        on=_on(rule, made),
    )


def _is(field: str, value: Any, or_absent: bool) -> str:
    """Return that a field has its right value, or one of them."""
    choices = value if isinstance(value, tuple) else (value,)
    # What is left out counts as a value that is not right.
    wrong: Any = "" if isinstance(choices[0], str) else (not value if isinstance(value, bool) else value + 1)
    missing = choices[0] if or_absent else wrong
    operator = "in" if isinstance(value, tuple) else "=="
    return f"{field}.orValue({literal(missing)}) {operator} {literal(value)}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(value)
    return value if isinstance(value, str) else literal(value)


def _on(rule: str, made: list[Part]) -> tuple[str, ...]:
    kinds = {decision.on or found.on for found, decision in made}
    if len(kinds) > 1:
        raise ValueError(f"the fields of {rule} are not held on the same kinds of objects")
    return kinds.pop()
