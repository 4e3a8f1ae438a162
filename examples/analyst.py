"""An ADK agent that analyses a CSV file with code it writes itself.

Offline a scripted model plays its part: its first program asks for a column that is not there, its second
one learns from the traceback. With ``GOOGLE_API_KEY`` set it is Gemini.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from google.adk.agents import LlmAgent
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

DATA = Path(__file__).with_name("sales.csv")
QUESTION = "Which region brings in the most revenue, and how much is it?"
INSTRUCTION = (
    "You analyse CSV files. Write a Python program in a ```python block; you will be shown its output. "
    "The files are in the working directory. When you know the answer, give it in one sentence without code."
)

_FIRST = """I add up the revenue by region.

```python
import csv
from collections import Counter

sums = Counter()
with open("data_1_2.csv", newline="") as source:
    for row in csv.DictReader(source):
        sums[row["region"]] += int(row["units"]) * float(row["price"])
print(sums.most_common(1))
```"""

_SECOND = """There is no column "price"; it is called "unit_price".

```python
import csv
from collections import Counter

sums = Counter()
with open("data_1_2.csv", newline="") as source:
    for row in csv.DictReader(source):
        sums[row["region"]] += int(row["units"]) * float(row["unit_price"])
with open("revenue.csv", "w", newline="") as table:
    csv.writer(table).writerows(sums.most_common())
for region, total in sums.most_common():
    print(f"{region:6} sold for {total:10.2f}")
```"""


_RESULT = re.compile(r"^(\w+) +sold for +([\d.]+)$", re.MULTILINE)


class ScriptedModel(BaseLlm):
    """Answers from what it has been shown so far; keeps no state."""

    model: str = "scripted"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yield the next reply of the script."""
        del stream
        shown = "\n".join(part.text or "" for content in llm_request.contents for part in content.parts or [])
        result = _RESULT.search(shown)
        if result:
            text = f"The region {result[1]} brings in the most: {float(result[2]):,.2f}."
        else:
            text = _SECOND if "KeyError: 'price'" in shown else _FIRST
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))


def analyst(executor: BaseCodeExecutor) -> LlmAgent:
    """Return the agent."""
    model = os.environ.get("ADK_GKE_SANDBOX_MODEL", "gemini-2.5-flash")
    return LlmAgent(
        name="analyst",
        model=model if os.environ.get("GOOGLE_API_KEY") else ScriptedModel(),
        instruction=INSTRUCTION,
        code_executor=executor,
    )


async def ask(executor: BaseCodeExecutor, question: str = QUESTION) -> AsyncIterator[Event]:
    """Ask the agent about the CSV file and yield its events."""
    async with InMemoryRunner(agent=analyst(executor), app_name="analyst") as runner:
        session = await runner.session_service.create_session(app_name="analyst", user_id="demo")
        message = types.Content(
            role="user",
            parts=[
                types.Part(text=question),
                types.Part.from_bytes(data=DATA.read_bytes(), mime_type="text/csv"),
            ],
        )
        async for event in runner.run_async(user_id="demo", session_id=session.id, new_message=message):
            yield event
