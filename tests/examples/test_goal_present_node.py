"""Output of goal_present_node for each status of the first goal."""

from __future__ import annotations

from typing import Any

import pytest
from std_msgs.msg import Bool

from examples.goal_present_node import GoalPresent
from groma_ros.msg import Grounding, GroundingArray


class Published:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[bool] = []

    def publish(self, message: Bool) -> None:
        self.values.append(message.data)


@pytest.mark.parametrize(
    ("status", "values"),
    [
        (Grounding.PRESENT, [True]),
        (Grounding.AMBIGUOUS, [True]),
        (Grounding.ABSENT, [False]),
        (Grounding.PENDING, []),
        (Grounding.STALE, []),
    ],
)
def test_status_of_the_first_goal(status: int, values: list[bool]) -> None:
    published = Published()
    node: Any = GoalPresent.__new__(GoalPresent)  # without rclpy's context, which this method does not need
    node._publisher = published
    first, second = (
        Grounding(goal="the mug", status=status),
        Grounding(goal="the cone", status=Grounding.ABSENT),
    )
    node._on_groundings(GroundingArray(groundings=[first, second]))
    assert published.values == values


def test_no_goal_says_nothing() -> None:
    published = Published()
    node: Any = GoalPresent.__new__(GoalPresent)
    node._publisher = published
    node._on_groundings(GroundingArray())
    assert published.values == []
