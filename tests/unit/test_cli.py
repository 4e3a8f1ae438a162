from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.contract import CONTRACT_ENV, Contract
from adk_gke_sandbox.execution import File, Outcome, Reason
from adk_gke_sandbox.sandbox import Sandbox

CONTRACT = Contract(stack="test", image="registry/python@sha256:" + "0" * 64)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    contract = tmp_path / "contract.json"
    contract.write_text(CONTRACT.to_json())
    monkeypatch.setenv(CONTRACT_ENV, str(contract))
    path = tmp_path / "script.py"
    path.write_text("print(1)")
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.py"], "cannot read nope.py: No such file or directory. Name a file that exists"),
        (["--cpu-limit", "banana"], "cpu_limit='banana' is not a Kubernetes quantity"),
        (["--contract", "/nonexistent"], "cannot read the contract /nonexistent"),
        (["--file", "/nonexistent.csv"], "cannot read /nonexistent.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(script: Path, arguments: list[str], message: str) -> None:
    given = arguments if arguments[0].endswith(".py") else [str(script), *arguments]
    result = CliRunner().invoke(app, ["run", *given])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_125(script: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(script), "--kubeconfig", "/nonexistent"])
    assert result.exit_code == 125
    assert "the sandbox could not run your code: ApiUnavailable: cannot use kubeconfig /nonexistent" in result.stderr


def test_two_inputs_with_one_base_name_are_refused(script: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_text(folder)
    files = [str(tmp_path / folder / "data.csv") for folder in ("a", "b")]
    result = CliRunner().invoke(app, ["run", str(script), "--file", files[0], "--file", files[1]])
    assert result.exit_code == 2
    assert f"{files[0]} and {files[1]} would be one file in the working directory. Rename one" in result.stderr


@pytest.fixture
def program_with_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the user, in which the command is called; the program has written files of the same names."""
    files = (File(name="Makefile", content=b"evil"), File(name=".git/hooks/pre-commit", content=b"evil!"))
    outcome = Outcome(name="e1", reason=Reason.COMPLETED, files=files)
    monkeypatch.setattr(Sandbox, "run", lambda *_, **__: outcome)
    mine = tmp_path / "mine"
    (mine / ".git" / "hooks").mkdir(parents=True)
    (mine / "Makefile").write_text("mine")
    monkeypatch.chdir(mine)
    return mine


def test_files_are_listed_and_not_written_without_a_folder(script: Path, program_with_files: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(script)])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "file Makefile: 4 bytes",
        "file .git/hooks/pre-commit: 5 bytes",
        "keep the files with --output DIR",
    ]
    assert (program_with_files / "Makefile").read_text() == "mine"
    assert not any((program_with_files / ".git" / "hooks").iterdir())


def test_a_file_that_is_in_the_way_keeps_the_others_and_ends_with_2(script: Path, program_with_files: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(script), "--output", "."])
    assert result.exit_code == 2
    assert "adk-gke-sandbox: Makefile exists: Makefile is not written" in result.stderr
    assert "wrote .git/hooks/pre-commit" in result.stderr
    assert (program_with_files / "Makefile").read_text() == "mine"


def test_an_output_that_is_no_folder_is_refused_before_the_program_runs(script: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(script), "--output", str(script)])
    assert result.exit_code == 2
    assert f"{script} is not a folder. Name a folder by --output" in result.stderr


@pytest.mark.parametrize(("options", "kernel"), [([], []), (["--verbose"], ["kernel: gVisor 4.19.0-gvisor"])])
def test_warnings_are_always_told_and_the_kernel_when_asked_for(
    script: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], kernel: list[str]
) -> None:
    outcome = Outcome(name="e1", reason=Reason.COMPLETED, kernel="gVisor 4.19.0-gvisor", warnings=("no gVisor", "b"))
    monkeypatch.setattr(Sandbox, "run", lambda *_, **__: outcome)
    told = CliRunner().invoke(app, ["run", str(script), *options]).stderr.splitlines()
    assert told[:2] == ["no gVisor", "b"]
    assert [line for line in told if line.startswith("kernel")] == kernel


def fake_pulumi(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "pulumi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_contract_pull_writes_what_the_stack_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "output").write_text(CONTRACT.to_json())
    fake_pulumi(tmp_path, f"cat {tmp_path}/output", monkeypatch)
    target = tmp_path / "contract.json"
    result = CliRunner().invoke(app, ["contract", "pull", "staging", "--output", str(target)])
    assert result.exit_code == 0, result.stderr
    assert target.read_text() == CONTRACT.to_json()


def test_contract_pull_of_a_stack_that_is_not_there_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pulumi(tmp_path, "echo error: no stack named staging >&2; exit 255", monkeypatch)
    result = CliRunner().invoke(app, ["contract", "pull", "staging"])
    assert result.exit_code == 2
    assert "pulumi has no contract for stack staging: error: no stack named staging." in result.stderr
    assert "Run `pulumi up --stack staging` first" in result.stderr
