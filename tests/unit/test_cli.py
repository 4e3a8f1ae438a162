from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.contract import CONTRACT_ENV, Cluster, Contract
from adk_gke_sandbox.execution import Ended, File, Outcome, Output, Reason, Started
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
        (["--file", "/"], "cannot read /: Is a directory"),
        (["--output", "/proc/self"], "cannot write to /proc/self: "),
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


def ends(monkeypatch: pytest.MonkeyPatch, outcome: Outcome, *output: Output) -> None:
    """Have every execution write this and come to this end."""
    monkeypatch.setattr(Sandbox, "stream", lambda *_, **__: iter((Started(), *output, Ended(outcome=outcome))))


def test_output_is_written_as_it_comes_with_what_was_cut_out(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (
        Output(stream="stdout", data=b"a"),
        Output(stream="stderr", data=b"warning\n"),
        Output(stream="stdout", data=b"z\n", skipped=24),
    )
    ends(monkeypatch, Outcome(name="e1", reason=Reason.COMPLETED, stdout=b"not again"), *parts)
    result = CliRunner().invoke(app, ["run", str(script)])
    assert result.stdout == "a\n[... 24 bytes left out ...]\nz\n"
    assert result.stderr == "warning\n"


@pytest.fixture
def program_with_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of the user, in which the command is called; the program has written files of the same names."""
    files = (File(name="Makefile", content=b"evil"), File(name=".git/hooks/pre-commit", content=b"evil!"))
    ends(monkeypatch, Outcome(name="e1", reason=Reason.COMPLETED, files=files))
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


def test_a_file_that_is_in_the_way_keeps_the_others_and_ends_with_74(script: Path, program_with_files: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(script), "--output", "."])
    assert result.exit_code == 74
    assert "adk-gke-sandbox: Makefile exists: Makefile is not written" in result.stderr
    assert "wrote .git/hooks/pre-commit" in result.stderr
    assert (program_with_files / "Makefile").read_text() == "mine"


@pytest.mark.parametrize(("options", "kernel"), [([], []), (["--verbose"], ["kernel: gVisor 4.19.0-gvisor"])])
def test_warnings_are_always_told_and_the_kernel_when_asked_for(
    script: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], kernel: list[str]
) -> None:
    outcome = Outcome(name="e1", reason=Reason.COMPLETED, kernel="gVisor 4.19.0-gvisor", warnings=("no gVisor", "b"))
    ends(monkeypatch, outcome)
    told = CliRunner().invoke(app, ["run", str(script), *options]).stderr.splitlines()
    assert told[:2] == ["no gVisor", "b"]
    assert [line for line in told if line.startswith("kernel")] == kernel


@pytest.mark.parametrize(
    ("shell", "code", "message"),
    [
        ("run - <&-", 2, "standard input is closed. Name a file in place of -"),
        ("contract show >/dev/full", 74, "input or output failed: [Errno 28] No space left on device"),
    ],
)
def test_a_stream_that_does_not_work_is_one_line(script: Path, shell: str, code: int, message: str) -> None:
    command = shlex.join([sys.executable, "-c", "from adk_gke_sandbox.cli.main import main; main()"])
    done = subprocess.run(f"{command} {shell}", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, f"adk-gke-sandbox: {message}\n")


# The local stack


@pytest.fixture
def local_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make up` leaves on a machine, on which no other contract is named."""
    monkeypatch.delenv(CONTRACT_ENV, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "adk-gke-sandbox" / "local"
    folder.mkdir(parents=True)
    contract = CONTRACT.model_copy(update={"cluster": Cluster(context="adk-gke-sandbox-local")})
    (folder / "contract.json").write_text(contract.to_json())
    (folder / "agent.kubeconfig").write_text("{}")
    return folder


def test_the_local_stack_is_used_and_named_when_there_is_no_other(local_stack: Path) -> None:
    result = CliRunner().invoke(app, ["contract", "show"])
    assert result.stdout == (local_stack / "contract.json").read_text()
    assert result.stderr == f"stack local of this machine: {local_stack / 'contract.json'}\n"


@pytest.mark.parametrize("contract", [[], ["--contract", "adk-gke-sandbox/local/contract.json"]])
@pytest.mark.parametrize("command", [["run", "-"], ["sweep"], ["preflight"]])
def test_the_local_stacks_credentials_go_with_its_contract(
    local_stack: Path, command: list[str], contract: list[str]
) -> None:
    result = CliRunner().invoke(app, [*command, *contract], input="")
    assert f"cannot use kubeconfig {local_stack / 'agent.kubeconfig'}, context" in result.stderr


def test_another_stack_of_the_local_cluster_has_credentials_of_its_own(local_stack: Path, tmp_path: Path) -> None:
    cluster = Cluster(context="adk-gke-sandbox-local")
    other = CONTRACT.model_copy(update={"cluster": cluster, "namespace": "another"})
    (tmp_path / "other.json").write_text(other.to_json())
    result = CliRunner(env={"KUBECONFIG": "/nonexistent"}).invoke(app, ["sweep", "--contract", "other.json"])
    assert "agent.kubeconfig" not in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize("option", ["--kubeconfig", "--context"])
def test_credentials_that_are_named_are_used_with_the_local_stacks_contract(local_stack: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["sweep", option, "mine"])
    assert "mine" in result.stderr
    assert "agent.kubeconfig" not in result.stderr.partition("contract.json")[2]


def test_contract_pull_of_the_local_stack_needs_no_pulumi(local_stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = CliRunner().invoke(app, ["contract", "pull", "local"])
    assert result.exit_code == 0, result.stderr
    assert Path("contract.json").read_text() == (local_stack / "contract.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["local", "--output", "/"], "cannot write /: Is a directory. Name another file by --output"),
        (["local", "--project", "."], "for the local stack, run `make up`"),
        (["staging"], "cannot run pulumi in .: No such file or directory. Install the Pulumi CLI and name the folder"),
    ],
)
def test_contract_pull_that_cannot_work_is_one_line(
    local_stack: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = CliRunner().invoke(app, ["contract", "pull", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


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
