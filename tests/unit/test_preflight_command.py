"""The report and the command."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from adk_gke_sandbox.preflight.verdicts import Problem, Report, Result, Status
from rich.console import Console
from typer.testing import CliRunner

from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.contract import (
    Contract,
)
from adk_gke_sandbox.preflight import rendering
from adk_gke_sandbox.preflight.checks import CHECKS, INSIDE
from tests.unit.fake_api import kubeconfig

CONTRACT = Contract(stack="test", image=f"registry/project/data@sha256:{'a' * 64}")


def report(*statuses: Status) -> Report:
    problem = Problem(object="Namespace x", expected="a label", found="none\nat all", fix="Make it")
    return Report(
        stack="test",
        server="https://10.0.0.1",
        identity="platform",
        results=tuple(
            Result(
                check=f"check-{number}",
                status=status,
                summary="[bold]as it is[/bold]",
                problems=() if status is Status.PASS else (problem,),
            )
            for number, status in enumerate(statuses)
        ),
    )


class TestRendering:
    @pytest.mark.parametrize(
        ("statuses", "code"),
        [
            ([Status.PASS, Status.PASS], 0),
            ([Status.PASS, Status.FAIL, Status.UNKNOWN], 1),
            ([Status.FAIL, Status.SKIPPED], 1),
            ([Status.PASS, Status.UNKNOWN], 3),
        ],
    )
    def test_exit_code_is_good_only_where_everything_was_seen_to_be(self, statuses: list[Status], code: int) -> None:
        assert rendering.exit_code(report(*statuses)) == code

    def test_problem_is_a_paragraph_with_object_cause_and_fix(self) -> None:
        assert list(rendering.problems(report(Status.PASS, Status.FAIL))) == [
            "check-1 fail: Namespace x\n  expected: a label\n  found:    none at all\n  fix:      Make it"
        ]

    def test_table_shows_what_the_cluster_says_literally(self) -> None:
        console = Console(width=120)
        with console.capture() as capture:
            console.print(rendering.table(report(Status.PASS)))
        assert "[bold]as it is[/bold]" in capture.get()

    def test_conclusion_counts(self) -> None:
        assert rendering.conclusion(report(Status.PASS, Status.PASS, Status.FAIL)) == "2 pass, 1 fail"

    def test_document_is_json_with_all_that_the_table_has(self) -> None:
        found = json.loads(json.dumps(rendering.document(report(Status.FAIL))))
        assert found["exit_code"] == 1
        assert found["checks"][0]["problems"][0]["fix"] == "Make it"


class TestCommand:
    @pytest.fixture
    def contract(self, tmp_path: Path) -> str:
        path = tmp_path / "contract.json"
        path.write_text(CONTRACT.to_json())
        return str(path)

    def test_cluster_that_does_not_answer_fails_one_check_and_skips_the_others(
        self, contract: str, tmp_path: Path
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            path = kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{unused.getsockname()[1]}")
            result = CliRunner().invoke(app, ["preflight", "--json", "--contract", contract, "--kubeconfig", path])
        assert result.exit_code == 1
        checks = {item["check"]: item for item in json.loads(result.stdout)["checks"]}
        assert checks.pop("api-server")["problems"][0]["found"].startswith("the API server http://127.0.0.1:")
        assert {item["status"] for item in checks.values()} == {"skipped"}
        assert len(checks) == len((*CHECKS, *INSIDE)) - 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--contract", "/nonexistent"], "cannot read the contract /nonexistent"),
            (["--kubeconfig", "/nonexistent"], "cannot use kubeconfig /nonexistent"),
        ],
    )
    def test_bad_usage_is_one_line_and_exit_code_2(self, contract: str, arguments: list[str], message: str) -> None:
        given = ["--contract", contract, *arguments] if "--contract" not in arguments else arguments
        result = CliRunner().invoke(app, ["preflight", *given])
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
