"""The navigation bridge: base poses, search, and its reaction to detections."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import numpy as np
import pytest
from nav_msgs.msg import OccupancyGrid

from examples.approach import STANDOFF, before, confirm
from examples.ask import Answer, GoalChanged, NodeLost, RobotLost
from examples.evidence import FAR, Place
from examples.go_to import Seeker

CHAIR = Answer("the chair", "present", "", 0.98, 0.96, "map", np.array([4.0, 0.0, 0.5]), size=(0.6, 0.6, 1.0))
NOTHING = Answer("the chair", "absent", "The goal is absent.")
CONFIRM = 2.2
"""Distance from its near side at which the chair, 1 m high, is asked for again."""


class StandInBase:
    """A base that gets wherever it is sent."""

    def __init__(self) -> None:
        self.place, self.heading = np.zeros(2), 0.0
        self.goes: list[Any] = []
        self.limits: list[float] = []
        self.grid: Any = None
        self.lost = False
        self.followed = ""

    def follow(self, goal: str) -> None:
        self.followed = goal

    def pose(self) -> tuple[Any, float]:
        return self.place, self.heading

    def clock(self) -> float:
        return float(len(self.goes))

    def go(self, place: Any, heading: float, timeout: float = 60.0) -> bool:
        if self.lost:
            raise RobotLost("The base has not been heard for 8 s.")
        self.goes.append((np.array(place), heading))
        self.limits.append(timeout)
        self.place, self.heading = np.array(place), heading
        return True


def test_base_pose_is_in_front_of_the_object_and_faces_it() -> None:
    place, heading = before(CHAIR, np.zeros(2))
    assert place == pytest.approx([4.0 - 0.3 - STANDOFF, 0.0])
    assert heading == pytest.approx(0.0)
    near, _ = before(CHAIR, np.array([3.6, 0.0]))
    assert near == pytest.approx([3.6, 0.0])


def test_a_wide_object_is_gone_to_as_if_it_were_narrow() -> None:
    door = dataclasses.replace(CHAIR, size=(2.0, 0.2, 2.0))  # may face the base, which must be within a metre
    place, _ = before(door, np.zeros(2))
    assert place == pytest.approx([4.0 - 0.1 - STANDOFF, 0.0])


@pytest.mark.parametrize(("height", "distance"), [(0.2, 1.6), (1.0, 2.2), (2.0, 3.5)])
def test_a_tall_object_is_asked_for_from_farther_away(height: float, distance: float) -> None:
    tall = dataclasses.replace(CHAIR, size=(0.6, 0.6, height))
    assert confirm(Place(tall, 4.0, height=height)) == pytest.approx(distance)


def test_a_wide_tall_object_is_asked_for_from_where_a_view_counts() -> None:
    van = dataclasses.replace(CHAIR, size=(4.0, 1.8, 2.0))
    assert confirm(Place(van, 6.0, height=2.0)) + 0.9 < FAR


def test_position_beside_an_object_is_as_far_from_it_and_faces_it() -> None:
    place, heading = before(CHAIR, np.zeros(2), CONFIRM, np.pi / 2)
    assert place == pytest.approx([4.0, -0.3 - CONFIRM]) and heading == pytest.approx(np.pi / 2)
    # Also from a position nearer than that.
    place, _ = before(CHAIR, np.array([3.4, 0.0]), CONFIRM, -np.pi / 2)
    assert place == pytest.approx([4.0, 0.3 + CONFIRM])


def test_likely_object_is_approached_and_confirmed_from_a_second_position() -> None:
    base, asked = StandInBase(), []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        return CHAIR

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "" and len(asked) == 3
    # On the way, and before its near side.
    assert [place[0] for place, _ in base.goes] == pytest.approx([4.0 - 0.3 - CONFIRM, 4.0 - 0.3 - STANDOFF])


@pytest.mark.parametrize(("on_the_way", "cause"), [(CHAIR, ""), (NOTHING, "not found")])
def test_a_thing_that_is_recognised_on_the_way_need_not_be_from_before_it(
    on_the_way: Answer, cause: str
) -> None:
    base = StandInBase()
    answers = iter([CHAIR, on_the_way])  # it may fill the picture at the end
    trip = Seeker(base, lambda goal: next(answers, NOTHING)).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == cause
    near = [place for place, _ in base.goes if np.hypot(*(place - CHAIR.position[:2])) < 1.0]
    assert len(near) == (1 if cause == "" else 0)


def test_detection_not_confirmed_from_closer_is_not_an_arrival() -> None:
    base = StandInBase()
    answers = iter([CHAIR, NOTHING])
    trip = Seeker(base, lambda goal: next(answers, NOTHING)).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found" and trip.sentence.startswith("No object that matches 'the chair'")
    # 1.8 in the first view, -1.5 in the second and third.
    assert trip.sentence.endswith("at (4.0, 0.0), is 0.22 likely after views from 3 positions.")


def test_a_doubtful_object_is_looked_at_from_its_sides() -> None:
    base, asked_from = StandInBase(), []
    doubtful = dataclasses.replace(CHAIR, present=0.95, margin=0.91)  # three positions are not enough

    def ask(goal: str) -> Answer:
        asked_from.append(base.place)
        facing = float(np.arctan2(*(CHAIR.position[:2] - base.place)[::-1]))
        return doubtful if abs(np.angle(np.exp(1j * (facing - base.heading)))) < 0.2 else NOTHING

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    around = [here - CHAIR.position[:2] for here in asked_from[6:9]]
    assert [float(np.hypot(*way)) for way in around] == pytest.approx([CONFIRM + 0.3] * 3)
    angles = [float(np.arctan2(way[1], way[0])) % (2 * np.pi) for way in around]
    assert angles == pytest.approx([np.pi, np.pi + 0.9, np.pi - 0.9])


def test_two_objects_named_in_turn_are_no_arrival() -> None:
    """Answers that change from view to view, as those to a goal that is absent."""
    base = StandInBase()
    other = dataclasses.replace(CHAIR, position=np.array([4.2, 0.85, 0.5]))
    answers = iter([CHAIR, other] * 20)
    trip = Seeker(base, lambda goal: next(answers, NOTHING)).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found"


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


def test_a_node_that_dies_on_the_way_is_a_sentence() -> None:
    base, answers = StandInBase(), iter([CHAIR])

    def ask(goal: str) -> Answer:
        try:
            return next(answers)
        except StopIteration:
            raise NodeLost("The search did not end within 30 s.") from None

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert (trip.cause, trip.sentence) == ("node lost", "The search did not end within 30 s.")
    assert len(base.goes) == 1 and trip.answer is CHAIR


def test_a_goal_that_depends_on_the_point_of_view_is_answered_from_where_it_was_given() -> None:
    base = StandInBase()
    once = dataclasses.replace(CHAIR, present=0.9, margin=0.4)
    elsewhere = dataclasses.replace(CHAIR, position=np.array([0.0, 4.0, 0.5]))
    answers = iter([once])  # from anywhere else another chair is the leftmost
    trip = Seeker(base, lambda goal: next(answers, elsewhere)).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == "" and trip.answer is elsewhere
    assert [place[0] for place, _ in base.goes] == pytest.approx([4.0 - 0.3 - CONFIRM, 4.0 - 0.3 - STANDOFF])


def test_a_goal_that_depends_on_the_point_of_view_needs_one_clear_answer() -> None:
    base = StandInBase()
    unclear = dataclasses.replace(CHAIR, present=0.9, margin=0.1)  # 0.5
    answers = iter([NOTHING])  # clear enough in the initial direction, and in no other
    trip = Seeker(base, lambda goal: next(answers, unclear)).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == "not found"
    assert trip.sentence.startswith(
        "No object that clearly matches 'the leftmost chair' was found from where"
    )
    assert all(place == pytest.approx([0.0, 0.0]) for place, _ in base.goes) and len(base.goes) == 5


@pytest.mark.parametrize(
    ("ahead", "elsewhere", "cause"),
    [(0.52, 0.0, ""), (0.48, 0.0, "not found"), (0.0, 0.82, ""), (0.0, 0.78, "not found")],
)
def test_least_probabilities_of_goals_that_depend_on_the_point_of_view(
    ahead: float, elsewhere: float, cause: str
) -> None:
    def answer(chance: float) -> Answer:
        return dataclasses.replace(CHAIR, present=chance, margin=chance) if chance else NOTHING

    answers = iter([answer(ahead)])
    trip = Seeker(StandInBase(), lambda goal: next(answers, answer(elsewhere))).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == cause


def test_a_goal_that_depends_on_the_point_of_view_may_be_ambiguous_in_the_initial_direction() -> None:
    base = StandInBase()
    unclear = dataclasses.replace(CHAIR, status="ambiguous", present=0.9, margin=0.1)
    trip = Seeker(base, lambda goal: unclear).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    assert [place[0] for place, _ in base.goes] == pytest.approx([4.0 - 0.3 - CONFIRM, 4.0 - 0.3 - STANDOFF])


def test_an_object_that_cannot_be_reached_is_no_arrival() -> None:
    base = StandInBase()
    base.go = lambda place, heading, timeout=60.0: False  # type: ignore[method-assign]
    trip = Seeker(base, lambda goal: CHAIR).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == "not reached"
    assert trip.sentence == "The base did not get within 0.9 m of the object at (4.0, 0.0)."


@pytest.mark.parametrize(("stopped_at", "arrived"), [(1.1, True), (1.3, False)])
def test_a_base_that_the_object_itself_stops_has_arrived(stopped_at: float, arrived: bool) -> None:
    base = StandInBase()
    drive = base.go

    def go(place: Any, heading: float, timeout: float = 60.0) -> bool:
        """A tree, of which depth shows the trunk, stops the base all around."""
        away = place - CHAIR.position[:2]
        least = 0.3 + stopped_at
        short = float(np.hypot(*away)) < least
        return (
            drive(CHAIR.position[:2] + away / np.hypot(*away) * least if short else place, heading)
            and not short
        )

    base.go = go  # type: ignore[method-assign]
    trip = Seeker(base, lambda goal: CHAIR).go_to("the chair")  # type: ignore[arg-type]
    assert (trip.cause == "") is arrived


@pytest.mark.parametrize(
    ("goal", "cause"), [("the chair", "not found"), ("the leftmost chair", "not reached")]
)
def test_a_base_that_the_time_limit_stops_has_not_arrived(goal: str, cause: str) -> None:
    class Slow(StandInBase):
        """Every drive in front of the chair ends 1 m before it, when the time is over."""

        def clock(self) -> float:
            return 100.0 * max(0, len(self.goes) - 1)

        def go(self, place: Any, heading: float, timeout: float = 60.0) -> bool:
            return super().go(np.minimum(place, [4.0 - 0.3 - 1.0, np.inf]), heading, timeout)

    base = Slow()
    trip = Seeker(base, lambda goal: CHAIR, 50.0).go_to(goal)  # type: ignore[arg-type]
    assert trip.cause == cause and "within 50 s" in trip.sentence
    assert base.place == pytest.approx([2.7, 0.0])


@pytest.mark.parametrize(
    ("chance", "named", "cause"),
    [
        (0.88, "always", ""),
        (0.88, "not from right before it", ""),
        (0.88, "not at the end", "not found"),
        (0.83, "always", "not found"),
    ],
)
def test_a_search_without_enough_evidence_ends_at_the_most_likely_object(
    chance: float, named: str, cause: str
) -> None:
    base, asked = StandInBase(), []
    doubtful = dataclasses.replace(CHAIR, present=chance, margin=chance)

    def ask(goal: str) -> Answer:
        asked.append(goal)
        way = CHAIR.position[:2] - base.place
        facing = abs(np.angle(np.exp(1j * (np.arctan2(way[1], way[0]) - base.heading)))) < 0.2
        hidden = {"not from right before it": np.hypot(*way) < 1.0, "not at the end": len(asked) > 9}
        return NOTHING if not facing or hidden.get(named) else doubtful

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == cause
    near = [place for place, _ in base.goes if np.hypot(*(place - CHAIR.position[:2])) < 1.0]
    assert len(near) == (0 if cause else 1)


def test_a_direction_that_was_looked_at_twice_is_skipped() -> None:
    cells = np.full((80, 80), 100, np.int8)
    cells[20:60, 20:60] = 0  # a closed room of 4 m, all of it explored
    grid = OccupancyGrid()
    grid.info.resolution, grid.info.width, grid.info.height = 0.1, 80, 80
    grid.info.origin.position.x = grid.info.origin.position.y = -4.0
    grid.data = array("b", cells.tobytes())
    base = StandInBase()
    base.grid = grid
    seeker = Seeker(base, lambda goal: NOTHING)  # type: ignore[arg-type]
    assert seeker.go_to("the chair").cause == "not found"
    assert len(base.goes) == 5  # nothing is unexplored
    seeker._views += [
        (np.array([x, 0.0]), float(turn)) for x in (-0.6, 0.6) for turn in np.arange(0, 6.3, 0.3)
    ]
    base.goes.clear()
    seeker._look_around("the chair")
    assert base.goes == []


def test_an_object_behind_an_obstacle_is_reached_from_its_side() -> None:
    base = StandInBase()
    drive = base.go

    def go(place: Any, heading: float, timeout: float = 60.0) -> bool:
        """Something stands right in front of the chair."""
        blocked = 2.5 < place[0] < 4.0 and abs(place[1]) < 0.4
        return drive(base.place if blocked else place, heading, timeout) and not blocked

    base.go = go  # type: ignore[method-assign]
    trip = Seeker(base, lambda goal: CHAIR).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    way = base.place - CHAIR.position[:2]
    assert np.hypot(*way) == pytest.approx(0.3 + STANDOFF) and abs(way[1]) > 0.5


def test_what_stops_the_base_a_little_before_an_object_is_tried_to_be_passed_on_another_side() -> None:
    base = StandInBase()
    drive = base.go

    def go(place: Any, heading: float, timeout: float = 60.0) -> bool:
        """Something low stands 1.1 m before the chair."""
        blocked = 2.6 < place[0] < 4.0 and abs(place[1]) < 0.4
        return drive(np.array([2.6, 0.0]) if blocked else place, heading, timeout) and not blocked

    base.go = go  # type: ignore[method-assign]
    trip = Seeker(base, lambda goal: CHAIR).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == "" and np.hypot(*(base.place - CHAIR.position[:2])) == pytest.approx(0.3 + STANDOFF)


def test_the_base_faces_the_place_that_its_last_answer_corrected() -> None:
    base = StandInBase()
    aside = dataclasses.replace(CHAIR, position=np.array([4.0, 0.35, 0.5]))
    answers = iter([CHAIR, CHAIR])
    trip = Seeker(base, lambda goal: next(answers, aside)).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    assert base.heading == pytest.approx(np.arctan2(0.35, 0.3 + STANDOFF))


def test_a_position_measured_from_nearer_corrects_the_approach() -> None:
    base = StandInBase()
    nearer = dataclasses.replace(CHAIR, position=np.array([4.5, 0.0, 0.5]))
    answers = iter([CHAIR])
    trip = Seeker(base, lambda goal: next(answers, nearer)).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    assert [place[0] for place, _ in base.goes] == pytest.approx([4.0 - 0.3 - CONFIRM, 3.65])


def test_a_long_object_whose_centre_moves_with_every_view_is_reached() -> None:
    base = StandInBase()
    wall = dataclasses.replace(CHAIR, size=(3.0, 0.4, 0.8))
    asked = []

    def ask(goal: str) -> Answer:
        """Its visible part, to one side and to the other."""
        asked.append(goal)
        return dataclasses.replace(wall, position=np.array([4.0, 0.3 * (-1) ** len(asked), 0.4]))

    trip = Seeker(base, ask).go_to("the leftmost barrier")  # type: ignore[arg-type]
    assert trip.cause == "" and len(asked) == 5


def test_the_position_of_a_superlative_is_corrected_by_asking_for_any_such_object() -> None:
    base, asked = StandInBase(), []
    right = dataclasses.replace(CHAIR, position=np.array([4.0, 0.5, 0.5]))

    def ask(goal: str) -> Answer:
        asked.append(goal)
        return CHAIR if goal == "the leftmost chair" else right

    trip = Seeker(base, ask).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == "" and asked == ["the leftmost chair", "the chair", "the chair"]
    assert np.hypot(*(base.place - right.position[:2])) == pytest.approx(0.3 + STANDOFF)


@pytest.mark.parametrize(
    ("moved", "status", "corrected"),
    [
        ((0.75, 0.0), "present", True),
        ((0.85, 0.0), "present", False),
        ((0.0, 0.35), "present", True),
        ((0.2, 0.6), "present", False),  # another chair, beside it
        ((0.7, 0.0), "ambiguous", False),
        ((0.7, 0.0), "unsure", False),
    ],
)
def test_a_superlative_elsewhere_than_where_it_was_measured(
    moved: tuple[float, float], status: str, corrected: bool
) -> None:
    base = StandInBase()
    position = CHAIR.position + np.array([*moved, 0.0])
    other = dataclasses.replace(CHAIR, status=status, position=position)
    if status == "unsure":
        other = dataclasses.replace(other, status="present", margin=0.05)  # of two chairs
    answers = iter([CHAIR, other])
    trip = Seeker(base, lambda goal: next(answers, NOTHING)).go_to("the leftmost chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    end = (other if corrected else CHAIR).position[:2]
    assert np.hypot(*(base.place - end)) == pytest.approx(0.3 + STANDOFF)


def test_an_unsure_view_is_looked_at_from_closer() -> None:
    base, places = StandInBase(), []
    unsure = dataclasses.replace(NOTHING, present=0.3)

    def ask(goal: str) -> Answer:
        places.append(base.place)
        if base.place[0] > 1.0:
            return CHAIR
        return unsure if abs(base.heading) < 0.1 else NOTHING

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == ""
    # Six views, 1.5 m on in the direction of the first, on the way to the chair and before it.
    assert places[6] == pytest.approx([1.5, 0.0])
    assert places[7] == pytest.approx([4.0 - 0.3 - CONFIRM, 0.0])
    assert float(np.hypot(*(places[-1] - CHAIR.position[:2]))) == pytest.approx(0.3 + STANDOFF)


def test_a_second_hint_is_gone_after_from_where_it_was_seen() -> None:
    base, places = StandInBase(), []

    def ask(goal: str) -> Answer:
        places.append(base.place)
        facing = {0: 0.3, 2: 0.2}.get(round(base.heading / (np.pi / 3)), 0.0)
        return dataclasses.replace(NOTHING, present=facing if not base.place.any() else 0.0)

    trip = Seeker(base, ask).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found" and len(places) == 8
    assert places[6] == pytest.approx([1.5, 0.0])
    assert places[7] == pytest.approx([1.5 * np.cos(2 * np.pi / 3), 1.5 * np.sin(2 * np.pi / 3)])


def test_no_drive_is_longer_than_what_is_left_of_the_search() -> None:
    base = StandInBase()  # a drive takes it a second
    hint = dataclasses.replace(NOTHING, present=0.3)
    trip = Seeker(base, lambda goal: hint, 8.0).go_to("the chair")  # type: ignore[arg-type]
    assert base.limits == [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0] and trip.cause == "not found"
    base = StandInBase()
    trip = Seeker(base, lambda goal: NOTHING, 3.0).go_to("the chair")  # type: ignore[arg-type]
    assert base.limits == [3.0, 2.0, 1.0] and trip.sentence == "'the chair' was not found within 3 s."


def test_an_ambiguous_thing_is_gone_to_but_no_arrival_until_it_is_one() -> None:
    base, unclear = StandInBase(), dataclasses.replace(CHAIR, status="ambiguous", present=0.9, margin=0.02)
    answers = iter([unclear, *[NOTHING] * 5])
    trip = Seeker(base, lambda goal: next(answers, CHAIR)).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "" and trip.answer is CHAIR
    base = StandInBase()
    trip = Seeker(base, lambda goal: unclear).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "not found" and len(base.goes) > 5


def test_a_goal_that_changes_is_the_outcome() -> None:
    class Changing(StandInBase):
        def go(self, place: Any, heading: float, timeout: float = 60.0) -> bool:
            raise GoalChanged("'the door' was requested instead of 'the chair'.")

    base = Changing()
    trip = Seeker(base, lambda goal: CHAIR).go_to("the chair")  # type: ignore[arg-type]
    assert trip.cause == "goal changed" and base.followed == "the chair"
    assert trip.sentence == "'the door' was requested instead of 'the chair'. The base stopped where it was."
