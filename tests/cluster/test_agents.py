"""`GkeCodeExecutor` driven by ADK itself, on a real cluster; runs with the oldest and the newest ADK supported."""

from __future__ import annotations

import asyncio
import copy
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from google.adk.runners import InMemoryRunner
from google.genai import types

from adk_gke_sandbox import CancelPlugin, GkeCodeExecutor
from adk_gke_sandbox.contract import Contract
from tests.scripted_model import ScriptedModel

pytestmark = [
    pytest.mark.cluster,
    # ADK's own, of features that it calls experimental or old.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER = "```python\nprint(6 * 7)\n```"
SLEEP = "```python\nprint('on', flush=True)\nimport time; time.sleep(600)\n```"


@pytest.fixture
def executor(contract: Contract, agent_kubeconfig: Path) -> GkeCodeExecutor:
    return GkeCodeExecutor.from_contract(contract, kubeconfig_path=str(agent_kubeconfig), timeout_seconds=60)


def coder(executor: GkeCodeExecutor | None, *replies: str, name: str = "coder") -> LlmAgent:
    return LlmAgent(name=name, model=ScriptedModel(replies=[*replies, "done"]), code_executor=executor)


async def events(runner: InMemoryRunner, *parts: types.Part) -> list[Any]:
    session = await runner.session_service.create_session(app_name=runner.app_name, user_id="ada")
    message = types.Content(role="user", parts=[types.Part(text="go"), *parts])
    return [event async for event in runner.run_async(user_id="ada", session_id=session.id, new_message=message)]


def ask(agent: LlmAgent, *parts: types.Part) -> list[str]:
    """Return the texts and results of a run."""

    async def run() -> list[Any]:
        async with InMemoryRunner(agent=agent, app_name="test") as runner:
            return await events(runner, *parts)

    return [
        str(part.code_execution_result.output if part.code_execution_result else part.text)
        for event in asyncio.run(run())
        for part in (event.content.parts if event.content else [])
    ]


def test_an_agent_sees_the_output_of_its_program(executor: GkeCodeExecutor) -> None:
    assert any("42" in text for text in ask(coder(executor, ANSWER)))


def test_an_agent_sees_the_traceback_and_may_try_again(executor: GkeCodeExecutor) -> None:
    seen = "\n".join(ask(coder(executor, "```python\n1 / 0\n```", ANSWER)))
    assert "ZeroDivisionError: division by zero" in seen
    assert "42" in seen


def test_d19_an_uploaded_table_is_explored_and_read(contract: Contract, agent_kubeconfig: Path) -> None:
    executor = GkeCodeExecutor.from_contract(
        contract, kubeconfig_path=str(agent_kubeconfig), optimize_data_file=True, timeout_seconds=60, mem_limit="1Gi"
    )
    table = types.Part(inline_data=types.Blob(mime_type="text/csv", data=b"region,units\nnorth,3\nsouth,4\n"))
    program = "```python\nimport pandas as pd\nprint(pd.read_csv('data_1_2.csv').units.sum())\n```"
    # ADK explores the table first; the reply at that turn is never asked for.
    seen = "\n".join(ask(coder(executor, "", program), table))
    assert "Error" not in seen
    assert "\n7\n" in f"\n{seen}\n".replace("Code execution result:", "\n")


def test_an_agent_by_yaml_runs_code(executor: GkeCodeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.adk.agents.config_agent_utils import from_config

    monkeypatch.syspath_prepend(str(EXAMPLES))
    agent: Any = from_config(str(EXAMPLES / "yaml_agent" / "root_agent.yaml"))
    sys.modules.pop("yaml_agent.agent", None)
    assert isinstance(agent.code_executor, GkeCodeExecutor)
    agent.model = ScriptedModel(replies=[ANSWER, "done"])
    agent.code_executor = executor
    assert any("42" in text for text in ask(agent))


def skill_run(executor: GkeCodeExecutor, name: str, source: str, **arguments: Any) -> dict[str, Any]:
    """Return what ADK's tool makes of a skill's script."""
    from google.adk.agents.invocation_context import InvocationContext
    from google.adk.sessions import InMemorySessionService
    from google.adk.skills import models
    from google.adk.tools.skill_toolset import SkillToolset
    from google.adk.tools.tool_context import ToolContext

    skill = models.Skill(
        frontmatter=models.Frontmatter(name="counting", description="counts"),
        instructions="Count.",
        resources=models.Resources(scripts={name: models.Script(src=source)}, assets={"n.txt": "20"}),
    )

    async def run() -> dict[str, Any]:
        toolset = SkillToolset(skills=[skill], code_executor=executor)
        tools = {tool.name: tool for tool in await toolset.get_tools()}
        service = InMemorySessionService()
        session = await service.create_session(app_name="test", user_id="ada")
        context = InvocationContext(session_service=service, invocation_id="e-1", agent=coder(None), session=session)
        given = {"skill_name": "counting", "file_path": f"scripts/{name}", **arguments}
        found = await tools["run_skill_script"].run_async(args=given, tool_context=ToolContext(context))
        return dict(found)

    return asyncio.run(run())


def test_a_python_script_of_a_skill_runs_with_its_folder(executor: GkeCodeExecutor) -> None:
    source = "import sys; print(sum(map(int, sys.argv[1:])) + int(open('assets/n.txt').read()))"
    found = skill_run(executor, "add.py", source, args=["1", "2"])
    assert (found["status"], found["stdout"].strip()) == ("success", "23")


def test_a_shell_script_of_a_skill_keeps_its_exit_code_and_a_large_output(executor: GkeCodeExecutor) -> None:
    found = skill_run(executor, "many.sh", "head -c 2000000 /dev/zero | tr '\\0' x; exit 3")
    assert found["status"] == "error"
    assert len(found["stdout"]) == 2_000_000


def test_many_agents_and_threads_share_an_executor(executor: GkeCodeExecutor) -> None:
    results: list[str] = []
    agents = [coder(executor, f"```python\nprint('answer', {n})\n```", name=f"coder_{n}") for n in range(4)]
    agents.append(coder(copy.deepcopy(executor), "```python\nprint('answer', 4)\n```"))
    threads = [threading.Thread(target=lambda agent=agent: results.append("\n".join(ask(agent)))) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n for n in range(5) if any(f"answer {n}" in text for text in results)} == set(range(5))


def test_d7_an_abort_of_the_run_ends_the_program(executor: GkeCodeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[Any] = []
    execute = GkeCodeExecutor.execute_code

    def remember(self: GkeCodeExecutor, context: Any, asked: CodeExecutionInput) -> Any:
        contexts.append(context)
        threading.Timer(2, context.abort).start()
        return execute(self, context, asked)

    monkeypatch.setattr(GkeCodeExecutor, "execute_code", remember)
    begin = time.monotonic()
    ask(coder(executor, SLEEP))
    assert contexts
    # Far below the program's timeout of 60 s.
    assert time.monotonic() - begin < 30


def test_a_cancelled_task_ends_the_program_with_the_plugin(
    executor: GkeCodeExecutor, leftovers: Callable[[], list[str]]
) -> None:
    async def run() -> None:
        app = App(name="test", root_agent=coder(executor, SLEEP), plugins=[CancelPlugin()])
        async with InMemoryRunner(app=app) as runner:
            task = asyncio.create_task(events(runner))
            await asyncio.sleep(3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    begin = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(run())
    # The loop waits for the thread of the execution: without the plugin for the program's 60 s.
    assert time.monotonic() - begin < 30
    assert leftovers() == []
