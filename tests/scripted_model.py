"""A model that says what a test wrote down for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types


class ScriptedModel(BaseLlm):
    """Replies in turn, by how often it has spoken in the conversation; the last reply again and again.

    It keeps nothing itself: one serves any number of sessions.
    """

    model: str = "scripted"
    replies: list[Any]
    """Texts, or parts."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        spoken = sum(content.role == "model" for content in llm_request.contents)
        reply = self.replies[min(spoken, len(self.replies) - 1)]
        part = types.Part(text=reply) if isinstance(reply, str) else reply
        yield LlmResponse(content=types.Content(role="model", parts=[part]))
