"""Clients of a running node: for scripts, the demo, live replay and tests.

Names are imported at first use, so that a program can report the absence of ROS 2 in a sentence.
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
