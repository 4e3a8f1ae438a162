"""What a stack costs, idle and per 1,000 executions: `python infra/cost STACK FILE`."""

import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated

# Run as a folder, Python has only this folder on its path.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import typer  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from adk_gke_sandbox.errors import ConfigError  # noqa: E402
from infra.cost import formula, inputs  # noqa: E402


def estimate(
    stack: Annotated[str, typer.Argument(help="Stack with clusterMode standard or autopilot, such as staging.")],
    file: Annotated[Path, typer.Argument(help="Prices and load, in the form of infra/cost/example.yaml.")],
    executions: Annotated[int | None, typer.Option(min=0, help="Executions per month, for a sum of both.")] = None,
) -> None:
    """Estimate what a stack costs. Prices come from FILE alone: none is built in."""
    try:
        given = inputs.read(file)
        kept = inputs.stack(inputs.settings(stack), given.size)
        idle = formula.idle(given.prices, kept, given.load)
        per_thousand = formula.per_thousand(given.prices, kept, given.load)
    except ConfigError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"infra/cost: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    console = Console(highlight=False)
    console.print(_table(f"{stack}: a month without executions", idle, given.currency))
    console.print(_table(f"{stack}: 1,000 executions", per_thousand, given.currency))
    if executions is not None:
        sum_ = formula.total(idle) + executions * formula.total(per_thousand) / formula.THOUSAND
        console.print(f"a month with {executions:,} executions: {_money(sum_, given.currency)}", markup=False)
    console.print("without agents' model calls, operations on keys and traffic within the region", style="dim")


def _table(title: str, lines: Sequence[formula.Line], currency: str) -> Table:
    table = Table(title=title, show_footer=True)
    table.add_column("", "sum")
    for name in ("quantity", "price"):
        table.add_column(name, justify="right")
    table.add_column("cost", _money(formula.total(lines), currency), justify="right")
    for line in lines:
        table.add_row(line.what, f"{_number(line.quantity)} {line.unit}", str(line.price), _money(line.cost, currency))
    return table


def _money(amount: Decimal, currency: str) -> str:
    return f"{amount:,.2f} {currency}".rstrip()


def _number(value: Decimal) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    typer.run(estimate)
