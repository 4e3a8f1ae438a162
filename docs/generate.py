"""Writes `docs/reference/` and the tables of `docs/admission.md` from the code: `make docs`.

Says nothing that is not in a docstring, a default or a rule.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.adk import results
from adk_gke_sandbox.cli import exit_codes
from adk_gke_sandbox.cli import main as cli
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONFIG_MAPS, JOBS, PODS, Contract, Toleration
from adk_gke_sandbox.execution import CODE_REASONS, MARKERS, Limits, Outcome, Reason
from infra.admission.fields import rows as decisions
from infra.admission.rules import rules

FOLDER = Path(__file__).parent / "reference"
ADMISSION = Path(__file__).parent / "admission.md"
NOTE = "<!-- Written by `make docs` from the code; edit the docstrings there. -->\n\n"


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    ADMISSION.write_text(admission(), encoding="utf-8")
    print("wrote the tables of docs/admission.md")


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    return {"executor.md": executor(), "cli.md": command_line(), "reasons.md": reasons()}


def executor() -> str:
    """Return the parameters of the executor and of its limits."""
    defaults = {name: field.default for name, field in GkeCodeExecutor.model_fields.items()}
    limits = {field.name: field.default for field in fields(Limits) if field.default is not MISSING}
    return (
        f"{NOTE}# `GkeCodeExecutor`\n\n"
        "The first nine have ADK's names and defaults; `kubeconfig_path` and `kubeconfig_context` may be given by "
        "position. ADK's parameters of every code executor "
        "(`optimize_data_file`, `error_retry_attempts`, `code_block_delimiters`, `execution_result_delimiters`) apply "
        "as they are. An unknown parameter or a value that cannot work is a `ConfigError` at construction.\n\n"
        + table("parameter", defaults, docstrings(ExecutorConfig))
        + "\n## `Limits`\n\n"
        + f"{_markdown(str(inspect.getdoc(Limits)).split(chr(10))[0])} Given as `limits=Limits(...)`.\n\n"
        + table("field", limits, docstrings(Limits))
        + "\n## `GkeCodeExecutor.from_contract`\n\n"
        + sections(str(inspect.getdoc(GkeCodeExecutor.from_contract)))
    )


def command_line() -> str:
    """Return the commands and their options, as Typer describes them."""
    command = typer.main.get_command(cli.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="adk-gke-sandbox")
    return NOTE + text.strip() + "\n\nExit codes: [reasons](reasons.md).\n"


def reasons() -> str:
    """Return the reasons of an outcome, what they mean, and the exit codes that they become."""
    told = docstrings(Reason)
    rows = [
        (
            f"`{reason.value}`",
            told[reason.name],
            "" if reason is Reason.COMPLETED else MARKERS[reason in CODE_REASONS],
            _code(reason, lambda outcome: results.to_result(outcome).exit_code),
            _code(reason, exit_codes.exit_code),
        )
        for reason in Reason
    ]
    return (
        f"{NOTE}# Reasons\n\n{_markdown(str(inspect.getdoc(Reason)))} A failure begins with the words of the third "
        "column; then follow the reason and one sentence of cause and cure.\n\n"
        + rows_of(("reason", "meaning", "begins with", "`exit_code` for ADK", "exit code of the command"), rows)
        + f"\nThe command ends with {exit_codes.EXIT_USAGE} for bad input, before anything was run, and with "
        f"{exit_codes.EXIT_OUTPUT} if the program completed and not all of its output or files could be written here.\n"
    )


def admission() -> str:
    """Return the page of the admission policies with its tables written anew."""
    contract = Contract(stack="staging", image=f"europe-docker.pkg.dev/my-project/sandbox/data@sha256:{'a' * 64}")
    kinds = {PODS: "pod", JOBS: "Job", CONFIG_MAPS: "ConfigMap"}
    made = [
        (f"`{rule.id}`", ", ".join(kinds[kind] for kind in rule.on), rule.refuses, rule.fix) for rule in rules(contract)
    ]
    decided = [
        (
            found.name,
            ", ".join(kinds[kind] for kind in decision.on or found.on),
            ", ".join(f"`{field}`" for field in decision.fields),
            decision.mark,
            f"`{decision.rule}`" if decision.rule else decision.why,
        )
        for found, decision in decisions(contract)
    ]
    text = ADMISSION.read_text(encoding="utf-8")
    for name, written in (
        ("rules", rows_of(("Rule", "Of", "Refused", "What to do"), made)),
        ("fields", rows_of(("Type", "Of", "Fields", "", "Rule, or why"), decided)),
    ):
        text = re.sub(
            rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)",
            lambda at, new=written: at[1] + new + at[2],
            text,
            flags=re.DOTALL,
        )
    return text


def _code(reason: Reason, code_of: Callable[[Outcome], int | None]) -> str:
    """Return the exit code as text, by asking for a program that ended with 7 and for one that never started."""
    ended = code_of(Outcome(name="x", reason=reason, exit_code=7, started=True))
    lost = code_of(Outcome(name="x", reason=reason, started=True))
    never = code_of(Outcome(name="x", reason=reason))
    if never != lost:
        return f"{lost}, or `{never}` if the program never started"
    return str(ended) if ended == lost else "the program's"


def docstrings(described: type) -> dict[str, str]:
    """Return the strings below the fields of a class or the members of an enumeration, which Python itself forgets."""
    (found,) = ast.parse(inspect.getsource(described)).body
    assert isinstance(found, ast.ClassDef)
    texts: dict[str, str] = {}
    for member, text in zip(found.body, found.body[1:], strict=False):
        match member, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(told))),
            ):
                texts[name] = " ".join(told.split())
    return texts


def table(title: str, defaults: Mapping[str, Any], meanings: Mapping[str, str]) -> str:
    """Return a table of parameters: those with a meaning, in its order."""
    rows = [(f"`{name}`", f"`{_default(defaults[name])}`", meaning) for name, meaning in meanings.items()]
    return rows_of((title, "default", "meaning"), rows)


def rows_of(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    lines = [head, *rows]
    text = [f"| {' | '.join(_markdown(cell) for cell in line)} |" for line in lines]
    text.insert(1, "|---" * len(tuple(head)) + "|")
    return "\n".join(text) + "\n"


def sections(docstring: str) -> str:
    """Return a docstring in Google's style as Markdown."""
    text, *rest = docstring.split("\n\n")
    parts = [_markdown(text)]
    for section in rest:
        title, *lines = section.splitlines()
        items = [re.sub(r"^ {4}([\w*]+):", r"\n- `\1`:", line.replace(" " * 8, "")) for line in lines]
        parts.append(f"{title}\n{' '.join(items).replace(' ' + chr(10), chr(10))}")
    return _markdown("\n\n".join(parts)) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], Toleration):
        return ", ".join(f"{found.key}={found.value}:{found.effect}" for found in value)
    if isinstance(value, Limits):
        return "Limits()"
    return repr(value)


def _markdown(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    main()
