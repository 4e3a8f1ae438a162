from __future__ import annotations

import json
from pathlib import Path

import pytest

from adk_gke_sandbox import contract as contracts
from adk_gke_sandbox.contract import CONTRACT_ENV, Contract, find, load, local_stack, parse
from adk_gke_sandbox.errors import ContractError
from infra.local.layout import Layout

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


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff\xfe\xff", "[" * 100_000])
def test_text_that_is_no_contract_is_an_error(text: str | bytes) -> None:
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


def test_the_environment_comes_before_the_agents_mount_and_that_before_the_local_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [
        tmp_path / "named.json",
        tmp_path / "mount.json",
        tmp_path / "adk-gke-sandbox" / "local" / "contract.json",
    ]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(CONTRACT.to_json())
    monkeypatch.setenv(CONTRACT_ENV, str(places[0]))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(contracts, "CONTRACT_MOUNT", places[1])
    assert find() == places[0]
    monkeypatch.delenv(CONTRACT_ENV)
    assert find() == places[1]
    places[1].unlink()
    assert find() == places[2]
    places[2].unlink()
    assert find() == places[1]


@pytest.mark.parametrize("variables", [{"XDG_STATE_HOME": "/state"}, {"HOME": "/home/me"}])
def test_the_local_stack_is_looked_for_where_the_local_cluster_leaves_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert local_stack() == Layout().state
