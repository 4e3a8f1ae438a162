"""The page of all settings, ``docs/reference/settings.md``, from the classes that hold them. Pure but for ``main``.

What a setting is for is said once, under its field; nothing is told twice.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from infra.configuration import key, settings_of
from infra.settings import GROUPS

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "reference" / "settings.md"
COMMAND: Final = "python -m infra.settings_reference"

_DAY_0: Final = re.compile(r"\s*Day 0( for the pools?)?\.")
_TITLES: Final = ("Whose cluster", "Inside the cluster", "A cluster that is there", "A cluster that the stack makes")


def page() -> str:
    """Return the page."""
    return "\n".join(_lines()) + "\n"


def documentation(group: type) -> dict[str, str]:
    """Return the docstring under each field of a class, as one paragraph."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        match before, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = re.sub(r"\s+", " ", text).replace("``", "`").strip()
    return found


def day_0(text: str) -> str:
    """Return what a setting stays for, by the words of its documentation; empty if it can change."""
    found = _DAY_0.search(text)
    if not found:
        return ""
    return "node pool" if found[1] else "cluster"


def _lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield f"<!-- Made by `{COMMAND}`; change the fields' docstrings in infra/ and run it again. -->"
    yield ""
    yield (
        "`pulumi config set NAME VALUE` sets one for the selected stack, in `infra/stacks/Pulumi.STACK.yaml`. "
        "A name there has the prefix `adk-gke-sandbox:`, but for those that have one already. Every value is checked "
        "before the first resource is registered; an error names the key, the value and the repair. A key that is "
        "not here is an error."
    )
    yield ""
    yield (
        "*Day 0*: what has to be made anew to change the setting later ([day-0 choices](../operations/day-0.md)). "
        "All else changes in place."
    )
    for title, group in zip(_TITLES, GROUPS, strict=True):
        yield ""
        yield f"## {title}"
        yield ""
        yield from _table(group)


def _table(group: type) -> Iterator[str]:
    texts = documentation(group)
    kinds = get_type_hints(group)
    yield "| Setting | Type | Default | Day 0 | |"
    yield "|---|---|---|---|---|"
    for entry in settings_of(group):
        text = texts[entry.name]
        cells = (
            f"`{key(entry.name)}`",
            _kind(kinds[entry.name]),
            _default(entry),
            day_0(text),
            _DAY_0.sub("", text).replace("|", "\\|"),
        )
        yield f"| {' | '.join(cells)} |"


def _kind(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return "list of strings"
    if get_origin(hint) is Mapping or getattr(get_origin(hint), "__name__", "") == "Mapping":
        return "map of strings"
    return {str: "string", int: "integer", bool: "boolean"}[hint]


def _default(entry: Field[Any]) -> str:
    value = entry.default if entry.default is not MISSING else None
    if entry.default_factory is not MISSING:
        value = entry.default_factory()
    if value is None:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", ()) or value == {}:
        return ""
    return f"`{value}`"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
