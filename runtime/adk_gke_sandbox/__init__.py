"""Run the Python that Google ADK agents write in gVisor sandboxes on Google Kubernetes Engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adk_gke_sandbox.adk.executor import GkeCodeExecutor
    from adk_gke_sandbox.adk.plugin import CancelPlugin
    from adk_gke_sandbox.config import ExecutorConfig
    from adk_gke_sandbox.contract import Contract
    from adk_gke_sandbox.errors import ClusterError, ConfigError, ContractError, SandboxError
    from adk_gke_sandbox.execution import Ended, Event, ExecutionFailed, File, Limits, Outcome, Output, Reason, Started
    from adk_gke_sandbox.sandbox import RunOptions, Sandbox
    from adk_gke_sandbox.values import SecretKey

_HOMES = ("errors", "contract", "values", "execution", "config", "sandbox", "adk.plugin", "adk.executor")
"""Modules with the public names, those first that import the least."""

__all__ = ["CancelPlugin", "Contract", "ExecutorConfig", "GkeCodeExecutor", "RunOptions", "Sandbox", "SecretKey"]
__all__ += ["Ended", "Event", "File", "Limits", "Outcome", "Output", "Reason", "Started"]
__all__ += ["ClusterError", "ConfigError", "ContractError", "ExecutionFailed", "SandboxError"]


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used, so that the command line does not pay for ADK."""
    if name in __all__:
        for home in _HOMES:
            if name in (names := vars(import_module(f"adk_gke_sandbox.{home}"))):
                return names[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
