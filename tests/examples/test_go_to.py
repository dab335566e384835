"""The navigation bridge: base poses, search, and its reaction to detections."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import numpy as np
import pytest
from nav_msgs.msg import OccupancyGrid

from examples.ask import Answer, RobotLost
from examples.go_to import STANDOFF, Seeker, before, frontiers

CHAIR = Answer("the chair", "present", "", 0.95, 0.8, "map", np.array([4.0, 0.0, 0.5]), size=(0.6, 0.6, 1.0))
NOTHING = Answer("the chair", "absent", "The goal is absent.")


class StandInBase:
    """A base that gets wherever it is sent."""

    def __init__(self) -> None:
        self.place, self.heading, self.goes = np.zeros(2), 0.0, []
        self.grid: Any = None
        self.lost = False

    def pose(self) -> tuple[Any, float]:
        return self.place, self.heading

    def clock(self) -> float:
        return float(len(self.goes))

    def go(self, place: Any, heading: float, timeout: float = 60.0) -> bool:
        if self.lost:
            raise RobotLost("The base has not been heard for 8 s; nothing more is asked of it.")
        self.goes.append((np.array(place), heading))
        self.place, self.heading = np.array(place), heading
        return True


def test_base_pose_is_in_front_of_the_object_and_faces_it() -> None:
    place, heading = before(CHAIR, np.zeros(2))
    assert place == pytest.approx([4.0 - 0.3 - STANDOFF, 0.0])
    assert heading == pytest.approx(0.0)
    near, _ = before(CHAIR, np.array([3.6, 0.0]))
    assert near == pytest.approx([3.6, 0.0])


def test_confident_detection_is_approached_and_confirmed() -> None:
    base, asked = StandInBase(), []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        return CHAIR

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "" and len(base.goes) == 1 and len(asked) == 2


def test_detection_not_confirmed_from_closer_is_not_an_arrival() -> None:
    base = StandInBase()
    answers = iter([CHAIR, NOTHING, *[CHAIR] * 6])
    trip = Seeker(base, lambda goal: next(answers, NOTHING)).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found" and "Nothing that fits 'the chair'" in trip.sentence


def test_absent_goal_is_searched_in_all_directions() -> None:
    base = StandInBase()
    trip = Seeker(base, lambda goal: NOTHING).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found"
    turns = [heading for _, heading in base.goes]
    assert len(turns) == 5 and len({round(float(np.cos(t)), 3) for t in turns}) > 2


def test_pose_in_another_frame_or_without_depth_is_ignored() -> None:
    base = StandInBase()
    ask = iter([dataclasses.replace(CHAIR, frame="")] * 6 + [dataclasses.replace(CHAIR, frame="camera")] * 6)
    assert Seeker(base, lambda goal: next(ask)).go_to("x").cause == "not found"  # type: ignore[arg-type]
    assert all(place == pytest.approx([0, 0]) for place, _ in base.goes)


def test_a_base_that_is_lost_is_a_sentence() -> None:
    base = StandInBase()
    base.lost = True
    trip = Seeker(base, lambda goal: CHAIR).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "base lost" and trip.sentence.endswith(".")


def test_frontiers_lie_where_free_floor_ends_unseen() -> None:
    cells = np.full((60, 80), -1, np.int8)
    cells[20:40, 10:50] = 0
    cells[20:40, 10] = 100
    cells[20, 10:50] = cells[39, 10:50] = 100
    grid = OccupancyGrid()
    grid.info.resolution, grid.info.width, grid.info.height = 0.1, 80, 60
    grid.info.origin.position.x, grid.info.origin.position.y = -1.0, -3.0
    grid.data = array("b", cells.tobytes())
    found = frontiers(grid, np.array([1.0, 0.0]))
    assert len(found) == 1
    # The open end is at column 49, between the two walls.
    assert found[0] == pytest.approx([3.95, -0.05], abs=0.15)
