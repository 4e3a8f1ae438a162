"""The two names that ``root_agent.yaml`` refers to."""

from __future__ import annotations

from typing import ClassVar

from google.adk.agents import LlmAgent
from google.adk.agents.base_agent_config import BaseAgentConfig

from adk_gke_sandbox import GkeCodeExecutor


class CodingAgent(LlmAgent):
    """An ``LlmAgent`` whose YAML may name a code executor."""

    config_type: ClassVar[type[BaseAgentConfig]] = BaseAgentConfig


executor = GkeCodeExecutor()
