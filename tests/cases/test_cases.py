"""Programs from the field: each folder is one case, `README.md` tells what `expect.json` says.

`chosen` in an `expect.json` has the same keys as `expect`: what this package does where several answers would be right.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adk_gke_sandbox.contract import Contract

HERE = Path(__file__).parent
AT_ONCE = 3
"""Executions that run at the same time."""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    # ADK's own, of features that it calls experimental or old.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One folder."""

    name: str
    how: str
    files: tuple[tuple[str, bytes], ...]
    settings: Mapping[str, Any]
    expect: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def programs(self) -> list[str]:
        """The program, and those of further turns."""
        paths = [self.folder / "main.py", *sorted(self.folder.glob("turn_*.py"))]
        return [path.read_bytes().decode() for path in paths]


def read(folder: Path) -> Case:
    document = json.loads((folder / "expect.json").read_text())
    settings = dict(document["run"])
    if "timeout" in settings:
        settings["timeout_seconds"] = settings.pop("timeout")
    return Case(
        name=folder.name,
        how=re.split("[: ]", document["how"])[0],
        files=tuple((file["name"], (folder / file["stored"]).read_bytes()) for file in document["files"]),
        settings=settings,
        expect={**document["expect"], **document.get("chosen", {})},
    )


CASES = {folder.name: read(folder) for folder in sorted(HERE.iterdir()) if (folder / "expect.json").exists()}


def named(*how: str) -> list[str]:
    return [name for name, case in CASES.items() if case.how in how]


@dataclass(kw_only=True)
class Seen:
    """What came of a case."""

    stdout: str
    model: str
    files: Mapping[str, bytes]
    exit_code: int | None
    seconds: float
    reason: str = ""
    left_out: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Told:
    """What the log says of an execution: why it ended, and how long it took once its sandbox was up.

    How long it waits for a place on the node depends on the other tests.
    """

    reason: str = ""
    seconds: float = float("inf")


class Records(logging.Handler):
    """Keeps what the log says of each execution, by its invocation."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: dict[str, Told] = {}

    def emit(self, record: logging.LogRecord) -> None:
        told = vars(record)
        if "reason" in told:
            seconds = sum(told["timings"][phase] for phase in ("start", "run", "collect", "delete"))
            self.found[told["invocation_id"]] = Told(reason=told["reason"], seconds=seconds)


@pytest.fixture(scope="module")
def executor(contract: Contract, agent_kubeconfig: Path, leftovers: Callable[[], list[str]]) -> Iterator[Any]:
    from adk_gke_sandbox import GkeCodeExecutor

    yield GkeCodeExecutor.from_contract(contract, kubeconfig_path=str(agent_kubeconfig))
    assert leftovers() == []


@pytest.fixture(scope="module")
def told() -> Iterator[Mapping[str, Told]]:
    logger, handler = logging.getLogger("adk_gke_sandbox"), Records()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(scope="module")
def ahead(executor: Any, told: Mapping[str, Told], request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Seen]]]:
    """What is to come of the selected cases that are one execution."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {}
        for item in request.session.items:
            name = getattr(item, "callspec", None) and item.callspec.params.get("execution")
            if name and name not in found:
                found[name] = pool.submit(execute, executor, told, CASES[name])
        yield found
        pool.shutdown(cancel_futures=True)


def execute(executor: Any, told: Mapping[str, Told], case: Case) -> Seen:
    from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionUtils, File

    code = case.programs[0]
    if case.how == "surrogates-in-code":
        code = code.replace("PAIR", "\ud83c\udf78").replace("LONE", "\ud83c")
    made = executor.model_copy(update=dict(case.settings))
    result = made.execute_code(
        SimpleNamespace(invocation_id=case.name),
        CodeExecutionInput(code=code, input_files=[File(name=name, content=data) for name, data in case.files]),
    )
    part = CodeExecutionUtils.build_code_execution_result_part(result)
    log = told.get(case.name, Told())
    return Seen(
        stdout=result.stdout,
        model=part.code_execution_result.output,
        files={file.name: file.content for file in result.output_files},
        exit_code=result.exit_code,
        seconds=log.seconds,
        reason=log.reason,
    )


@pytest.mark.parametrize("execution", named("executor", "surrogates-in-code"))
def test_a_program(execution: str, ahead: Mapping[str, Future[Seen]]) -> None:
    seen, expect = ahead[execution].result(), CASES[execution].expect
    print(seen)
    assert set(expect) <= {*CHECKS, "any_of"}
    for key, check in CHECKS.items():
        if key in expect:
            assert check(seen, expect[key]), f"{key}: {expect[key]}"


def whole_records(seen: Seen, count: int) -> bool:
    """Whether all lines are records; of which there are so many."""
    lines = seen.stdout.splitlines()
    try:
        return len([json.loads(line) for line in lines]) == count
    except ValueError:
        return False


def storable(text: str) -> bool:
    """Whether PostgreSQL takes a text as JSON."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


CHECKS: Mapping[str, Any] = {
    "reason": lambda seen, reason: seen.reason == reason,
    "exit_code": lambda seen, code: seen.exit_code == code,
    "stdout_has": lambda seen, words: all(word in seen.model for word in words),
    "stdout_lacks": lambda seen, words: not any(word in seen.model for word in words),
    "stdout_exactly": lambda seen, text: seen.stdout == text,
    "stdout_or_stderr_has": lambda seen, words: all(word in seen.model for word in words),
    "model_has": lambda seen, words: all(word in seen.model for word in words),
    "hint_has_any": lambda seen, words: any(word in seen.model for word in words),
    "model_text_at_most": lambda seen, most: len(seen.model) <= most,
    "files": lambda seen, names: set(names) == set(seen.files),
    "files_exactly": lambda seen, names: sorted(names) == sorted(seen.files),
    "files_has": lambda seen, names: set(names) <= set(seen.files),
    "files_lacks": lambda seen, names: not set(names) & set(seen.files),
    "files_or_left_out": lambda seen, words: all(
        word in seen.model or any(word in name for name in seen.files) for word in words
    ),
    "left_out": lambda seen, words: (
        all(word in seen.model for word in words or ()) and bool(words) == ("left out" in seen.model)
    ),
    "json_lines": whole_records,
    "storable": lambda seen, _: storable(seen.model + seen.stdout + "".join(seen.files)),
    "quick_seconds": lambda seen, most: seen.seconds < most,
    "at_least_mib": lambda seen, least: int(seen.stdout.split()[0]) >= least,
}


# Several turns


async def converse(executor: Any, case: Case, folder: Path) -> tuple[list[str], dict[str, list[int]]]:
    """Let a scripted model answer with one program after the other.

    Returns:
        What the model was shown of each program; the artifacts of the session, with their versions.
    """
    from google.adk.agents import LlmAgent
    from google.adk.artifacts.file_artifact_service import FileArtifactService
    from google.adk.models.base_llm import BaseLlm
    from google.adk.models.llm_response import LlmResponse
    from google.adk.runners import Runner
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from google.genai import types

    replies = [code if "```" in code else f"```python\n{code}\n```" for code in case.programs]
    shown: list[str] = []

    class Scripted(BaseLlm):
        model: str = "scripted"

        async def generate_content_async(self, llm_request: Any, stream: bool = False) -> AsyncGenerator[Any, None]:
            texts = [part.text or "" for content in llm_request.contents for part in content.parts or []]
            shown[:] = [text for text in texts if text.startswith("```tool_output")]
            explored = len(case.files)
            turn = len(shown) - explored
            text = replies[turn] if turn < len(replies) else "done"
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))

    agent = LlmAgent(name="coder", model=Scripted(), code_executor=executor.model_copy(update=dict(case.settings)))
    tables = [types.Part(inline_data=types.Blob(mime_type="text/csv", data=data)) for _, data in case.files]
    sessions = DatabaseSessionService(f"sqlite+aiosqlite:///{folder}/sessions.db")
    artifacts = FileArtifactService(root_dir=str(folder / "artifacts"))
    async with Runner(app_name="test", agent=agent, session_service=sessions, artifact_service=artifacts) as runner:
        session = await sessions.create_session(app_name="test", user_id="ada")
        message = types.Content(role="user", parts=[types.Part(text="go"), *tables])
        async for _ in runner.run_async(user_id="ada", session_id=session.id, new_message=message):
            pass
        of_session = {"app_name": "test", "user_id": "ada", "session_id": session.id}
        names = await artifacts.list_artifact_keys(**of_session)
        versions = {name: await artifacts.list_versions(filename=name, **of_session) for name in names}
    await sessions.db_engine.dispose()
    return shown, versions


@pytest.mark.parametrize("flow", named("flow"))
def test_an_agent_run(flow: str, executor: Any, tmp_path: Path) -> None:
    case = CASES[flow]
    shown, artifacts = asyncio.run(converse(executor, case, tmp_path))
    print(shown, artifacts)
    for turn, words in enumerate(case.expect["shown"]):
        assert all(word in shown[turn] for word in words), f"turn {turn + 1}: {words}"
    assert sorted(artifacts) == sorted(case.expect["artifacts"])
    assert all(storable(text) for text in shown)


# The command line


def command(contract: Contract, kubeconfig: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "contract.json").write_text(contract.to_json())
    program = [str(Path(sys.executable).with_name("adk-gke-sandbox")), "run", *arguments]
    return subprocess.run(
        [*program, "--contract", "contract.json", "--kubeconfig", str(kubeconfig)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_input_files_of_one_name_are_refused_by_name(
    contract: Contract, agent_kubeconfig: Path, tmp_path: Path
) -> None:
    case = CASES["b35-same-name-twice"]
    for name, data in case.files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    given = [text for name, _ in case.files for text in ("--file", name)]
    done = command(contract, agent_kubeconfig, tmp_path, str(case.folder / "main.py"), *given)
    assert done.returncode != 0
    assert all(name in done.stderr for name, _ in case.files)


def test_the_command_line_writes_over_nothing(contract: Contract, agent_kubeconfig: Path, tmp_path: Path) -> None:
    case = CASES["b57-cli-writes-over"]
    own = {**dict(case.files), "conftest.py": b"# mine\n", ".envrc": b"# mine\n"}
    for name, data in own.items():
        (tmp_path / name).write_bytes(data)
    command(contract, agent_kubeconfig, tmp_path, str(case.folder / "main.py"), "--file", "sales.csv")
    assert {name: (tmp_path / name).read_bytes() for name in own} == own


def test_a_kubeconfig_with_a_dead_token_is_read_again_when_it_was_replaced(
    contract: Contract, agent_kubeconfig: Path, tmp_path: Path
) -> None:
    from adk_gke_sandbox.config import ExecutorConfig
    from adk_gke_sandbox.sandbox import Sandbox

    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(re.sub(r"token: .*", "token: dead", agent_kubeconfig.read_text()))
    sandbox = Sandbox(ExecutorConfig.from_contract(contract, kubeconfig_path=str(kubeconfig)))
    code = CASES["b53-kubeconfig-rotated"].programs[0]
    first = sandbox.run(code)
    kubeconfig.write_bytes(agent_kubeconfig.read_bytes())
    second = sandbox.run(code)
    sandbox.close()
    assert (first.reason, "credentials" in first.message) == ("ApiUnavailable", True)
    assert (second.reason, second.stdout) == ("Completed", b"alive\n")


def test_every_case_is_a_test() -> None:
    tested = Path(__file__).read_text()
    assert [name for name in CASES if name not in named("executor", "surrogates-in-code", "flow")] == [
        name for name in CASES if f'CASES["{name}"]' in tested
    ]
