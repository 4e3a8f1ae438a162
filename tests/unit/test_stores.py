"""Results of programs in ADK's own session and artifact services, brought there by ADK's own runner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.artifacts import FileArtifactService, InMemoryArtifactService
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService, InMemorySessionService
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools.agent_tool import AgentTool
from google.genai import types

from adk_gke_sandbox import GkeCodeExecutor
from adk_gke_sandbox.execution import File, Outcome, Reason
from tests import postgresql
from tests.scripted_model import ScriptedModel

pytestmark = [
    # ADK's own, of features that it calls experimental or old.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

CODE = "```python\nprint(1)\n```"
IDS: Any = {"app_name": "test", "user_id": "ada"}
AWKWARD = (
    *("report: final.png", "metadata.json", "out/versions/1.csv", "user:all.txt", "C:x", "back\\slash", "trailing "),
    *("nul.txt", "a" * 255, "folder/" * 100 + "deep.txt", "half \ud83c", "line\nend", "a", "a/b", "-rf", ".hidden"),
)
"""Names that one of the stores refuses, or takes for something else."""


class Ended:
    """Stands for the sandbox: the programs have ended already, in turn."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[dict[str, Any]] = []

    def run(self, code: str, **asked: Any) -> Outcome:
        self.asked.append(asked)
        return self.outcomes.pop(0)


def ended(reason: Reason = Reason.COMPLETED, *names: str, **fields: Any) -> Outcome:
    files = tuple(File(name=name, content=name.encode("utf-8", "surrogatepass")) for name in names)
    return Outcome(name="sandbox-1", reason=reason, started=True, files=files, **fields)


def coder(sandbox: Ended, *replies: Any, **settings: Any) -> LlmAgent:
    executor = GkeCodeExecutor(**settings)
    executor._sandbox = sandbox  # type: ignore[assignment]
    return LlmAgent(
        name="coder", description="codes", model=ScriptedModel(replies=list(replies)), code_executor=executor
    )


async def turn(runner: Runner, session_id: str, *parts: types.Part) -> list[str]:
    """Let the agent answer; return the results that the model is shown."""
    message = types.Content(role="user", parts=[types.Part(text="go"), *parts])
    return [
        part.code_execution_result.output or ""
        async for event in runner.run_async(user_id="ada", session_id=session_id, new_message=message)
        for part in (event.content.parts or [] if event.content else [])
        if part.code_execution_result
    ]


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    with postgresql.running() as url:
        yield url


@pytest.fixture(params=["in memory", "SQLite", "SQLite by SQLAlchemy", "PostgreSQL"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Return what makes the session service, inside the event loop."""
    database = tmp_path / "sessions.db"
    made: dict[str, Callable[[], Any]] = {
        "in memory": InMemorySessionService,
        "SQLite": lambda: SqliteSessionService(str(database)),
        "SQLite by SQLAlchemy": lambda: DatabaseSessionService(f"sqlite+aiosqlite:///{database}"),
    }
    if request.param == "PostgreSQL":
        url = request.getfixturevalue("postgresql_url")
        return lambda: DatabaseSessionService(url)
    return made[request.param]


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.ERROR])
def test_no_output_ends_an_agents_run_whatever_keeps_its_session(sessions: Callable[[], Any], reason: Reason) -> None:
    output = b"record\0one \xed\xa0\xbd half an emoji, caf\xe9\n"
    left_out = ("x\0\ud83c: too large",)
    sandbox = Ended(ended(reason, *AWKWARD, exit_code=1, stdout=output, stderr=output, files_left_out=left_out))

    async def run() -> list[str]:
        service = sessions()
        agent = coder(sandbox, CODE, "done")
        async with Runner(
            agent=agent, app_name="test", session_service=service, artifact_service=InMemoryArtifactService()
        ) as runner:
            session = await service.create_session(**IDS)
            await turn(runner, session.id)
            found = await service.get_session(**IDS, session_id=session.id)
        if isinstance(service, DatabaseSessionService):
            await service.close()
        parts = [part for event in found.events for part in event.content.parts]
        assert parts[-1].text == "done"
        return [part.code_execution_result.output for part in parts if part.code_execution_result]

    (stored,) = asyncio.run(run())
    assert "record\ufffdone" in stored
    assert "half an emoji" in stored
    assert "too large" in stored


@pytest.mark.parametrize("make", [lambda folder: InMemoryArtifactService(), FileArtifactService])
@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.ERROR])
def test_every_file_is_kept_and_named_whatever_keeps_the_artifacts(make: Any, reason: Reason, tmp_path: Path) -> None:
    names = [*AWKWARD, ""]

    async def run() -> tuple[str, list[bytes]]:
        service = InMemorySessionService()
        artifacts = make(tmp_path)
        agent = coder(Ended(ended(reason, *names, exit_code=1)), CODE, "done")
        async with Runner(agent=agent, app_name="test", session_service=service, artifact_service=artifacts) as runner:
            session = await service.create_session(**IDS)
            (told,) = await turn(runner, session.id)
            keys = await artifacts.list_artifact_keys(**IDS, session_id=session.id)
            assert all(key in told for key in keys)
            loaded = [await artifacts.load_artifact(**IDS, session_id=session.id, filename=key) for key in keys]
        return told, [part.inline_data.data for part in loaded]

    told, contents = asyncio.run(run())
    assert sorted(contents) == sorted(name.encode("utf-8", "surrogatepass") for name in names)
    assert "report: final.png was saved as report_ final.png" in told


def test_figures_are_numbered_on_from_turn_to_turn_and_within_one() -> None:
    sandbox = Ended(
        ended(Reason.COMPLETED, "figure_1.png", "figure_2.png"), ended(), ended(Reason.ERROR, "figure_3.png"), ended()
    )

    async def run() -> None:
        service = InMemorySessionService()
        agent = coder(sandbox, CODE, CODE, "done", CODE, CODE, "done")
        async with Runner(
            agent=agent, app_name="test", session_service=service, artifact_service=InMemoryArtifactService()
        ) as runner:
            session = await service.create_session(**IDS)
            await turn(runner, session.id)
            await turn(runner, session.id)

    asyncio.run(run())
    assert [asked["first_figure"] for asked in sandbox.asked] == [1, 3, 3, 4]


def test_figures_of_an_agent_that_is_a_tool_are_numbered_on_with_each_call() -> None:
    sandbox = Ended(ended(Reason.COMPLETED, "figure_1.png"), ended(Reason.COMPLETED, "figure_2.png"))
    call = types.Part.from_function_call(name="coder", args={"request": "draw"})

    async def run() -> list[str]:
        service, artifacts = InMemorySessionService(), InMemoryArtifactService()
        tools: list[Any] = [AgentTool(coder(sandbox, CODE, "done"))]
        agent = LlmAgent(name="chief", model=ScriptedModel(replies=[call, call, "done"]), tools=tools)
        async with Runner(agent=agent, app_name="test", session_service=service, artifact_service=artifacts) as runner:
            session = await service.create_session(**IDS)
            await turn(runner, session.id)
        return await artifacts.list_artifact_keys(**IDS, session_id=session.id)

    assert asyncio.run(run()) == ["figure_1.png", "figure_2.png"]
    assert [asked["first_figure"] for asked in sandbox.asked] == [1, 2]


def test_figures_are_numbered_on_in_a_session_whose_events_another_process_kept(tmp_path: Path) -> None:
    first, second = Ended(ended(Reason.COMPLETED, "figure_4.png")), Ended(ended())
    url = f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}"

    async def run(sandbox: Ended, session_id: str) -> str:
        service = DatabaseSessionService(url)
        agent = coder(sandbox, CODE, "done") if not session_id else coder(sandbox, "", "", CODE, "done")
        async with Runner(
            agent=agent, app_name="test", session_service=service, artifact_service=InMemoryArtifactService()
        ) as runner:
            found: str = session_id or (await service.create_session(**IDS)).id
            await turn(runner, found)
        await service.close()
        return found

    asyncio.run(run(second, asyncio.run(run(first, ""))))
    assert second.asked[0]["first_figure"] == 5
