"""All resources of each stack with their inputs, as committed documents: a review sees what changes in prod.

UPDATE_GOLDEN=1 pytest tests/infra/test_golden.py writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import Config, Program, Registered, Run

FOLDER = Path(__file__).parent / "golden"
SECRET = "4dabf18193072939515e22adb298388d"
"""Key of a wrapped value (https://www.pulumi.com/docs/iac/concepts/secrets/)."""


def document(program: Program) -> str:
    """Return the resources in a stable order."""
    entries = sorted(map(entry, program.resources), key=lambda found: (found["type"], found["name"]))
    return json.dumps(entries, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def entry(resource: Registered) -> dict[str, Any]:
    request = resource.request
    options = {
        "protect": request.protect,
        "parent": short(request.parent),
        "provider": short(request.provider.rpartition("::")[0]),
        "dependsOn": sorted(map(short, request.dependencies)),
        "deletedWith": short(request.deletedWith),
        "ignoreChanges": list(request.ignoreChanges),
        "additionalSecretOutputs": list(request.additionalSecretOutputs),
        # Those of ours; the SDK adds some for former types.
        "aliases": [name for alias in request.aliases if (name := alias.spec.name or short(alias.urn))],
    }
    return {
        "type": resource.type,
        "name": resource.name,
        "inputs": masked(resource.inputs),
        "options": {key: value for key, value in options.items() if value},
    }


def short(urn: str) -> str:
    """Return type and name of a URN: the rest is the stack's."""
    return "::".join(urn.split("::")[2:]).rpartition("$")[2]


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return "[secret]" if SECRET in value else {key: masked(item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("stack", ["local", "staging", "prod"])
def test_stack_asks_for_what_was_reviewed(run: Run, config: Config, stack: str) -> None:
    found = document(run(stack=stack)).replace(config["kubeconfig"], "KUBECONFIG")
    path = FOLDER / f"{stack}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), (
        "a stack asks for something else than before; if that is meant, "
        "UPDATE_GOLDEN=1 pytest tests/infra/test_golden.py and review the difference"
    )


@pytest.mark.parametrize("stack", ["local", "staging", "prod"])
def test_second_run_in_one_process_asks_for_the_same(run: Run, stack: str) -> None:
    assert document(run(stack=stack)) == document(run(stack=stack))


def test_staging_and_prod_differ_in_settings_only(run: Run) -> None:
    def asked(stack: str) -> set[tuple[str, str]]:
        return {(resource.type, resource.name) for resource in run(stack=stack).resources}

    assert asked("staging") == asked("prod")
