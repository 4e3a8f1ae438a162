from __future__ import annotations

import json
from pathlib import Path

import pytest

from adk_gke_sandbox.contract import CONTRACT_ENV, Contract, load, parse
from adk_gke_sandbox.errors import ContractError

CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)


def test_it_survives_a_round_trip_through_json_with_the_same_text() -> None:
    again = parse(CONTRACT.to_json())
    assert (again, again.to_json()) == (CONTRACT, CONTRACT.to_json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "contract has schema version 2; this package reads version 1. Install the"),
        ({"surprise": 1}, "contract: surprise: Extra inputs are not permitted"),
        ({"image": ""}, "contract: image: String should have at least 1 character"),
        ({"ceilings": {"cpus": "1"}}, "contract: ceilings.cpus: Extra inputs are not permitted"),
    ],
)
def test_what_it_does_not_know_is_an_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(ContractError) as raised:
        parse({**json.loads(CONTRACT.to_json()), **change})
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_text_that_is_no_contract_is_an_error(text: str) -> None:
    with pytest.raises(ContractError, match="contract pull"):
        parse(text)


def test_it_is_loaded_from_an_argument_or_else_from_the_environments_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "contract.json", CONTRACT.model_copy(update={"stack": "other"})
    path.write_text(CONTRACT.to_json())
    monkeypatch.setenv(CONTRACT_ENV, str(path))
    assert load() == load(path) == CONTRACT
    assert load(other) == load(other.model_dump()) == other


def test_a_missing_file_is_named_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTRACT_ENV, "/nonexistent/contract.json")
    with pytest.raises(ContractError, match=r"cannot read the contract /nonexistent/contract.json: No such file"):
        load()
