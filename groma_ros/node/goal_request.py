"""Goals for a node, sent by another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rclpy.client import Client

from groma_ros.msg import Goal as GoalMessage
from groma_ros.node.repeated import Repeated
from groma_ros.srv import SetGoals
from groma_ros.types import Goal


def request_goals(client: Client, goals: Sequence[Goal], until: Callable[[Callable[[], bool], str], None]) -> None:
    """Let these goals stand. until: listens until its first argument holds, and raises with its second, a sentence, where that takes too
    long. Raises ValueError with the node's sentence where it refuses the goals."""
    messages = [GoalMessage(text=goal.text, kind=goal.kind, min_score=goal.min_score) for goal in goals]
    request = Repeated(partial(client.call_async, SetGoals.Request(goals=messages)))
    until(request.done, "The node did not answer to its goals")
    if not request.result().success:
        raise ValueError(f"The node refused the goals: {request.result().message}")
