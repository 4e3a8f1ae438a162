from __future__ import annotations

import json
from pathlib import Path

import pytest

from adk_gke_sandbox.contract import CONTRACT_ENV, Contract, load, parse
from adk_gke_sandbox.errors import ContractError

CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)


def test_it_survives_a_round_trip_through_json() -> None:
    assert parse(CONTRACT.to_json()) == CONTRACT


def test_its_text_is_the_same_every_time() -> None:
    assert parse(CONTRACT.to_json()).to_json() == CONTRACT.to_json()


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


def test_it_is_loaded_from_the_file_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "contract.json"
    path.write_text(CONTRACT.to_json())
    monkeypatch.setenv(CONTRACT_ENV, str(path))
    assert load() == CONTRACT


def test_an_argument_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "contract.json"
    path.write_text(CONTRACT.to_json())
    monkeypatch.setenv(CONTRACT_ENV, "/nonexistent")
    assert load(path) == load(CONTRACT) == CONTRACT


def test_a_missing_file_is_named_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTRACT_ENV, "/nonexistent/contract.json")
    with pytest.raises(ContractError) as raised:
        load()
    assert str(raised.value).startswith(
        "cannot read the contract /nonexistent/contract.json: No such file or directory."
    )
