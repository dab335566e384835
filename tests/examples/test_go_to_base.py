"""The navigation bridge's commands to Nav2: drives, refusals and goals that change on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples.ask import GoalChanged, RobotError
from examples.go_to import Base


class Done:
    """A future that is done after some looks."""

    def __init__(self, result: Any, looks: int = 0) -> None:
        self._result, self._looks = result, looks

    def done(self) -> bool:
        self._looks -= 1
        return self._looks < 0

    def result(self) -> Any:
        return self._result


class StandInDriver:
    """The client and the handle of NavigateToPose; its way takes `looks` looks."""

    def __init__(self, looks: int, accepted: bool = True) -> None:
        self.looks, self.accepted, self.cancelled, self.served = looks, accepted, 0, True
        self.goals: list[Any] = []

    def wait_for_server(self, timeout_sec: float) -> bool:
        return self.served

    def send_goal_async(self, goal: Any) -> Done:
        self.goals.append(goal)
        return Done(self, 2)

    def get_result_async(self) -> Done:
        status = 4 if not self.cancelled else 5
        return Done(type("Result", (), {"status": status}), self.looks)

    def cancel_goal_async(self) -> Done:
        self.cancelled += 1
        return Done(None)


class StandInWatchdog:
    """Spins nothing; the goal changes at one of the spins."""

    def __init__(self, changes_at: int = -1) -> None:
        self.spins, self.changes_at = 0, changes_at
        self.caught_up = 0

    def catch_up(self) -> None:
        self.caught_up += 1

    def spin(self) -> None:
        self.spins += 1
        if self.spins == self.changes_at:
            raise GoalChanged("'the door' was requested instead of 'the chair'.")


def base_with(driver: StandInDriver, watchdog: StandInWatchdog) -> Base:
    base = Base.__new__(Base)  # without ROS
    base._client, base._watchdog = driver, watchdog  # type: ignore[assignment]
    base._pose = (0.0, 0.0, 0.0, 0.0)
    return base


def test_a_way_is_driven_to_its_end() -> None:
    driver = StandInDriver(5)
    assert base_with(driver, StandInWatchdog()).go(np.array([2.0, 1.0]), np.pi)
    (goal,) = driver.goals
    assert (goal.pose.pose.position.x, goal.pose.pose.position.y) == (2, 1) and driver.cancelled == 0
    assert goal.pose.pose.orientation.z == pytest.approx(1)


def test_a_goal_that_is_refused_or_served_by_nobody() -> None:
    with pytest.raises(RobotError, match="navigate_to_pose rejected the goal: is Nav2 active?"):
        base_with(StandInDriver(5, accepted=False), StandInWatchdog()).go(np.zeros(2), 0.0)
    driver = StandInDriver(5)
    driver.served = False
    with pytest.raises(RobotError, match="No action server navigate_to_pose"):
        base_with(driver, StandInWatchdog()).go(np.zeros(2), 0.0)


@pytest.mark.parametrize("changes_at", [1, 5])
def test_a_goal_that_changes_on_the_way_cancels_it(changes_at: int) -> None:
    driver = StandInDriver(50)
    with pytest.raises(GoalChanged):
        base_with(driver, StandInWatchdog(changes_at)).go(np.array([2.0, 1.0]), 0.0)
    assert driver.cancelled == 1
