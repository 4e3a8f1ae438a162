"""The documents say what is so: examples run, tables are complete, references are the code's."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.cli.main import app
from adk_gke_sandbox.config import ExecutorConfig
from adk_gke_sandbox.contract import CONTRACT_ENV, Contract
from adk_gke_sandbox.execution import Limits, Reason
from adk_gke_sandbox.paths.attempt import Stage

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(*languages: str) -> list[Any]:
    """Return the code blocks of the documents in one of the languages."""
    return [
        pytest.param(text, id=f"{path.name}:{number}")
        for path in DOCUMENTS
        for number, (language, text) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")))
        if language in languages
    ]


def rows(path: Path) -> list[list[str]]:
    """Return the cells of all tables of a document, without their heads."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [line for line in cells if line[0].startswith("`") or re.fullmatch(r"D\d+", line[0])]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Examples


@pytest.mark.parametrize("code", blocks("python"))
def test_python_in_a_document_runs(code: str, tmp_path: Path) -> None:
    contract = tmp_path / "contract.json"
    contract.write_text(Contract(stack="test", image="python:3.11-slim").to_json())
    env = {**os.environ, "HOME": str(tmp_path), CONTRACT_ENV: str(contract)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def commands() -> list[Any]:
    """Return each different line of a block that calls this package's command."""
    lines = [line for block in blocks("", "console", "sh") for line in block.values[0].splitlines()]
    known = [re.split(r"  #| \|\| ", line.removeprefix("$ "))[0].strip() for line in lines]
    return sorted({line for line in known if line.startswith("adk-gke-sandbox ") and "[OPTIONS]" not in line})


@pytest.mark.parametrize("line", commands())
def test_a_command_in_a_document_is_one(line: str) -> None:
    program, *arguments = shlex.split(line)
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    assert command.make_context(program, arguments)


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 5


def test_every_link_to_a_page_or_a_folder_leads_somewhere() -> None:
    links = [
        (path, target.partition("#")[0])
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert len(links) > 50
    assert [(path.name, target) for path, target in links if not (path.parent / target).exists()] == []


# What is written from the code, or must agree with it


def test_the_extras_that_the_readme_names_are_the_packages(tmp_path: Path) -> None:
    build = "import sys, uv_build; print(uv_build.prepare_metadata_for_build_wheel(sys.argv[1]))"
    # The backend looks for its program on PATH.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metadata = (tmp_path / done.stdout.split()[-1] / "METADATA").read_text(encoding="utf-8")
    assert set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.MULTILINE)) == {"adk", "infra"}
    needed = re.findall(r"^Requires-Dist: ([\w-]+).*extra == '(\w+)'$", metadata, re.MULTILINE)
    assert ("google-adk", "adk") in needed
    assert {name for name, extra in needed if extra == "infra"} > {"pulumi", "pulumi-gcp", "pulumi-kubernetes"}


@pytest.mark.parametrize("name", ["executor.md", "cli.md", "reasons.md"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    generated = run_generator()
    # The page of settings has a generator and a test of its own, in infra.
    assert {*generated, "settings.md"} == {path.name for path in (ROOT / "docs" / "reference").iterdir()}
    assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == generated[name], "run `make docs`"


def run_generator() -> dict[str, str]:
    space: dict[str, Any] = {"__name__": "generate", "__file__": str(ROOT / "docs" / "generate.py")}
    exec(compile((ROOT / "docs" / "generate.py").read_text(encoding="utf-8"), space["__file__"], "exec"), space)
    pages: dict[str, str] = space["pages"]()
    return pages


@pytest.mark.parametrize("described", [ExecutorConfig, Limits])
def test_every_setting_is_in_the_reference(described: Any) -> None:
    found = {quoted(line[0])[0] for line in rows(ROOT / "docs" / "reference" / "executor.md")}
    assert set(getattr(described, "model_fields", None) or described.__dataclass_fields__) <= found


def test_every_reason_is_in_the_reference() -> None:
    assert [quoted(line[0])[0] for line in rows(ROOT / "docs" / "reference" / "reasons.md")] == [
        reason.value for reason in Reason
    ]


def test_the_readme_has_every_parameter_with_its_default() -> None:
    told: dict[str, str] = {}
    for names, defaults, _ in (line for line in rows(ROOT / "README.md") if len(line) == 3):
        values = re.split(r", (?=`|GKE)", defaults)
        told.update(zip(quoted(names), (value.strip("`") for value in values), strict=True))
    assert told.pop("tolerations") == "GKE's for gVisor nodes"
    assert told.pop("limits") == "Limits()"
    expected = {name: GkeCodeExecutor.model_fields[name].default for name in ExecutorConfig.model_fields}
    del expected["tolerations"], expected["limits"]
    assert {name: ast.literal_eval(value) for name, value in told.items()} == expected


def test_the_picture_of_the_stages_is_the_codes() -> None:
    (picture,) = BLOCK.findall((ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8"))
    assert [line for line in picture[1].splitlines() if line.strip() not in str(Stage.__doc__)] == []


def test_every_attribute_and_instrument_of_telemetry_is_documented() -> None:
    source = (ROOT / "runtime" / "adk_gke_sandbox" / "telemetry.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:k8s|container|process|error|gcp)\.[a-z._]+)"', source))
    names |= {f"adk_gke_sandbox.{name}" for name in re.findall(r'f"\{SCOPE\}\.([a-z.]+)"', source)}
    documented = quoted((ROOT / "docs" / "observability.md").read_text(encoding="utf-8"))
    assert len(names) > 12
    assert names - set(documented) == set()


# The table of defects


def files_of_tests() -> dict[str, list[Path]]:
    """Return every test function and the files that it is in."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name].append(path)
    return found


DEFECTS = ROOT / "docs" / "defects.md"
TABLE = {line[0]: line for line in rows(DEFECTS) if line[0].startswith("D")}


def of_case(name: str) -> str | None:
    match = re.match(r"test_(d\d+)[a-c]?_", name)
    return match and match[1].upper()


def test_all_cases_are_in_the_table_and_each_is_complete() -> None:
    assert set(TABLE) == {f"D{number}" for number in range(1, 33)}
    assert all(len(line) == 5 and all(line) for line in TABLE.values())


def test_every_test_that_the_page_names_exists() -> None:
    assert set(re.findall(r"`(test_\w+)`", DEFECTS.read_text(encoding="utf-8"))) - set(files_of_tests()) == set()


def test_every_fault_that_was_mended_has_tests() -> None:
    _, _, section = DEFECTS.read_text(encoding="utf-8").partition("## Faults that this one had")
    faults = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert [line for line in faults if "`test_" not in line.split("|")[3]] == []
    assert len(faults) == 13


def test_every_test_of_a_case_is_in_its_row() -> None:
    known = {name for name in files_of_tests() if of_case(name)}
    assert len(known) > 60
    assert {name for name in known if name not in quoted(TABLE[str(of_case(name))][4])} == set()


@pytest.mark.parametrize("case", [f"D{number}" for number in range(1, 33)])
def test_every_case_has_a_test_with_its_id_in_its_name(case: str) -> None:
    own = [name for name in quoted(TABLE[case][4]) if of_case(name) == case]
    assert any("_the_incumbent" not in name for name in own)


@pytest.mark.parametrize("case", [f"D{number}" for number in range(1, 33)])
def test_what_the_table_says_of_the_incumbent_is_measured_or_said_to_be_from_the_reference(case: str) -> None:
    measured = any("_the_incumbent" in name for name in quoted(TABLE[case][4]))
    assert measured or "reference" in TABLE[case][2]
