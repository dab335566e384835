"""Clients of a running node: for scripts, the demo, live replay and tests.

The names are imported at their first use, so that a program can report in a sentence that ROS 2 is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groma_ros.client.groma_client import Answers, FindResult, GromaClient, Reply

__all__ = ["Answers", "FindResult", "GromaClient", "Reply"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from groma_ros.client import groma_client

    return getattr(groma_client, name)
