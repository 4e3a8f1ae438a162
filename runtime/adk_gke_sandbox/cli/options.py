"""Options that several commands have, and the executor's settings that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox.cli.output import note
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import Contract

CONTRACT_HELP = f"Contract; default: ${contracts.CONTRACT_ENV}, then the agents' mount, then the local stack."

ContractOption = Annotated[Path | None, typer.Option(help=CONTRACT_HELP)]
NoContractOption = Annotated[bool, typer.Option("--no-contract", help="Use the options alone.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TextOption = Annotated[str | None, typer.Option()]


def contract_in_use(named: Path | None) -> Contract:
    """Return the contract that an option names, else the one that is found; say so if it is the local stack's.

    Raises:
        ContractError: no contract, or one that cannot be read.
    """
    path = named or contracts.find()
    if not named and path.parent == contracts.local_stack():
        note(f"stack local of this machine: {path}")
    return contracts.load(path)


def executor_config(contract: Path | None, no_contract: bool, **options: Any) -> ExecutorConfig:
    """Return the settings: the contract's with the options in place of them, or those of the options alone.

    Args:
        contract: Where the contract is; looked for when ``None``.
        no_contract: Whether there is none.
        **options: Settings; ``None`` where an option was not given.

    Raises:
        ContractError: no contract, or one that cannot be read.
        ConfigError: an option that cannot work.
    """
    given = {name: value for name, value in options.items() if value is not None}
    return ExecutorConfig(**given) if no_contract else ExecutorConfig.from_contract(contract_in_use(contract), **given)
