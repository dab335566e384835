"""The navigation bridge and goals that mention a neighbour: "the chair next to the barrel"."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from examples.approach import STANDOFF
from examples.ask import Answer
from examples.go_to import Seeker
from tests.examples.test_go_to import CHAIR, CONFIRM, NOTHING, StandInBase

BARREL = dataclasses.replace(CHAIR, goal="the barrel", position=np.array([4.0, 1.0, 0.5]))


def facing(base: StandInBase, answer: Answer, most: float = 0.4) -> bool:
    """Whether an object is within an angle from the base's heading, radians."""
    way = answer.position[:2] - base.place
    aside = float(np.arctan2(*way[::-1])) - base.heading
    return abs(float(np.angle(np.exp(1j * aside)))) < most


def test_an_object_whose_neighbour_is_not_there_is_looked_at_and_no_arrival() -> None:
    base, asked = StandInBase(), []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        return CHAIR if goal == "go to the chair" and facing(base, CHAIR) else NOTHING

    trip = Seeker(base, ask).go_to("go to the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == "not found" and set(asked) == {"go to the chair", "the barrel"}
    assert trip.sentence.endswith("is 0.40 likely after views from 4 positions.")
    near = [place for place, _ in base.goes if np.hypot(*(place - CHAIR.position[:2])) < 1.0]
    assert not near


def test_the_whole_goal_is_asked_where_both_are_in_view() -> None:
    base, asked = StandInBase(), []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        thing = BARREL if goal == "the barrel" else CHAIR
        return thing if facing(base, thing, 0.58) else NOTHING

    trip = Seeker(base, ask).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == ""
    apart, whole = ["the chair", "the barrel"], "the chair next to the barrel"
    # Both are in the first view, and in that from nearer; at the end the barrel need not be.
    assert asked == [*apart, whole, *apart, whole, "the chair"]


def test_an_object_and_its_neighbour_need_not_be_in_one_view() -> None:
    base, seen = StandInBase(), []
    chair = dataclasses.replace(CHAIR, position=np.array([3.1, 0.0, 0.5]))
    barrel = dataclasses.replace(BARREL, position=np.array([2.4, 1.65, 0.5]))

    def ask(goal: str) -> Answer:
        thing = barrel if goal == "the barrel" else chair
        if not facing(base, thing, 0.58):
            return NOTHING
        seen.append((goal, tuple(base.place), base.heading))
        return thing

    trip = Seeker(base, ask).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == ""
    start = {goal: heading for goal, place, heading in seen if place == (0.0, 0.0)}
    assert start == pytest.approx({"the chair": 0.0, "the barrel": np.pi / 3})
    assert np.hypot(*(base.place - chair.position[:2])) == pytest.approx(0.3 + STANDOFF)


def test_an_object_that_is_named_for_both_is_not_its_own_neighbour() -> None:
    base = StandInBase()
    trip = Seeker(base, lambda goal: CHAIR).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == "not found"
    # Not from other positions either, although they measure it elsewhere.
    moved = dataclasses.replace(CHAIR, position=np.array([4.0, 0.3, 0.5]))

    def ask(goal: str) -> Answer:
        named_chair = base.place[0] < 1.0
        if goal == "the barrel":
            return NOTHING if named_chair else moved
        return CHAIR if named_chair else NOTHING

    trip = Seeker(StandInBase(), ask).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == "not found"


@pytest.mark.parametrize(("presence", "cause"), [(0.0, "not found"), (0.4, "")])
def test_the_neighbour_in_a_goal_that_depends_on_the_point_of_view(presence: float, cause: str) -> None:
    beside = dataclasses.replace(NOTHING, present=presence)
    base = StandInBase()
    trip = Seeker(base, lambda goal: beside if goal == "the barrel" else CHAIR).go_to(  # type: ignore[arg-type]
        "the leftmost chair next to the barrel"
    )
    assert trip.cause == cause


def test_of_two_close_objects_the_whole_goal_names_the_right_one() -> None:
    base = StandInBase()
    right = dataclasses.replace(CHAIR, position=np.array([4.0, 0.9, 0.5]))
    wrong = dataclasses.replace(CHAIR, position=np.array([4.0, -0.1, 0.5]))
    barrel = dataclasses.replace(BARREL, position=np.array([4.0, 2.2, 0.5]))

    def ask(goal: str) -> Answer:
        thing = {"the barrel": barrel, "the chair": wrong}.get(goal, right)
        return thing if facing(base, thing, 0.58) else NOTHING

    trip = Seeker(base, ask).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == ""
    assert np.hypot(*(base.place - right.position[:2])) == pytest.approx(0.3 + STANDOFF)


def test_a_small_object_is_looked_for_from_near_its_neighbour() -> None:
    base = StandInBase()

    def ask(goal: str) -> Answer:
        thing = BARREL if goal == "the barrel" else CHAIR
        far = float(np.hypot(*(thing.position[:2] - base.place)))
        return thing if facing(base, thing, 0.58) and (thing is BARREL or far < 2.5) else NOTHING

    trip = Seeker(base, ask).go_to("the chair next to the barrel")  # type: ignore[arg-type]
    assert trip.cause == ""
    # After the six views in front of the barrel, which is 1 m beside the chair.
    way = base.goes[5][0] - BARREL.position[:2]
    assert np.hypot(*way) == pytest.approx(0.3 + CONFIRM)
    assert np.hypot(*(base.place - CHAIR.position[:2])) == pytest.approx(0.3 + STANDOFF)
