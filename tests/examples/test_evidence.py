"""Evidence from several views: log-odds of places, independence of views, and when a place is found."""

from __future__ import annotations

import dataclasses
from math import exp, log

import numpy as np
import pytest

from examples.ask import Answer
from examples.evidence import DOUBT, NEAR, ONE_VIEW, Evidence, Place, are_beside, in_view, is_flat

CHAIR = Answer("the chair", "present", "", 0.9, 0.7, "map", np.array([4.0, 0.0, 0.5]), size=(0.6, 0.6, 1.0))
NOTHING = Answer("the chair", "absent", "The goal is absent.", 0.2, 0.2)
AHEAD = 0.0


def sure(log_odds: float) -> float:
    """Probability of an answer whose view counts with these log-odds for the place it names."""
    return 1 / (1 + exp(-log_odds - DOUBT))


FOUR = sure(log(4))


def at(x: float, y: float, present: float = FOUR, margin: float = FOUR) -> Answer:
    return dataclasses.replace(CHAIR, position=np.array([x, y, 0.5]), present=present, margin=margin)


def test_presence_is_divided_between_the_best_object_and_the_others() -> None:
    assert (CHAIR.chance, CHAIR.rest) == (pytest.approx(0.8), pytest.approx(0.1))
    assert (NOTHING.chance, NOTHING.rest) == (0.2, 0.2)
    # Two that are meant have nearly no margin; which of them is named says nothing about the other.
    pair = dataclasses.replace(CHAIR, count=2, margin=0.02)
    assert (pair.chance, pair.rest) == (0.9, 0.5)


def test_one_of_several_that_are_meant_is_found() -> None:
    evidence = Evidence("map")
    pair = dataclasses.replace(at(3, 0, sure(2.0), margin=0.02), count=2)
    evidence.add(dataclasses.replace(pair, position=np.array([3, 1.0, 0.5])), np.zeros(2), AHEAD)
    place = evidence.add(pair, np.array([0.0, 0.7]), AHEAD)
    assert place is not None and evidence.add(pair, np.array([1.0, 0.0]), AHEAD) is place
    assert place.log_odds == pytest.approx(2 * 2.0) and evidence.is_found(place)


def test_one_of_several_that_are_meant_says_nothing_about_the_others() -> None:
    evidence = Evidence("map")
    first = dataclasses.replace(at(3, 0, sure(2.0), margin=0.02), count=2)
    other = evidence.add(first, np.zeros(2), AHEAD)
    unsure = dataclasses.replace(at(3, 1.0, 0.6, margin=0.02), count=2)
    assert evidence.add(unsure, np.array([0.0, 0.7]), AHEAD) is not other
    assert other is not None and other.log_odds == pytest.approx(2.0)


def test_one_view_finds_nothing_and_two_positions_do() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(4, 0, 1.0, 1.0), np.zeros(2), AHEAD)
    assert place is not None and place.log_odds == pytest.approx(ONE_VIEW) and not evidence.is_found(place)
    assert evidence.add(at(4.3, 0), np.array([1.5, 0]), AHEAD) is place
    assert place.log_odds == pytest.approx(ONE_VIEW + log(4)) and evidence.is_found(place)
    # The pose is that of the answer from the nearest position.
    assert place.answer.position[0] == 4.3


@pytest.mark.parametrize(("length", "places"), [(0.6, 2), (2.4, 1)])
def test_parts_of_a_long_object_are_one_place(length: float, places: int) -> None:
    evidence = Evidence("map")
    for y in (0.0, 1.1):
        part = dataclasses.replace(at(4, y), size=(length, 0.4, 0.8))
        evidence.add(part, np.array([1.0, y]), AHEAD)
    assert len(evidence.places) == places


def test_views_from_the_same_position_count_as_one() -> None:
    evidence = Evidence("map")
    for turn in (0.0, 0.1, -0.1):
        place = evidence.add(at(3, 0), np.array([0.2 * turn, 0]), turn)
    assert place is not None and len(place.views) == 1 and place.log_odds == pytest.approx(log(4))
    evidence.add(NOTHING, np.zeros(2), AHEAD)
    assert place.log_odds == pytest.approx((3 * log(4) - log(4)) / 4)


def test_a_view_that_names_another_place_or_none_speaks_against_a_place_in_it() -> None:
    evidence = Evidence("map")
    here = np.zeros(2)
    first = evidence.add(at(3, 0), here, AHEAD)
    second = evidence.add(at(3, 1.0), np.array([0.0, 1.0]), AHEAD)
    assert first is not None and second is not None
    # 0.1 remains for the first place, which the second view shows too.
    assert first.log_odds == pytest.approx(log(4) - log(9))
    assert second.log_odds == pytest.approx(log(4))
    evidence.add(NOTHING, np.array([1.0, 1.0]), AHEAD)
    assert second.log_odds == pytest.approx(log(4) - log(4))


@pytest.mark.parametrize(
    ("here", "heading"),
    [((0.0, 0.0), 1.0), ((0.0, 0.0), np.pi), ((3.2, 0.0), 0.0), ((-1.0, 0.0), 0.0)],
    ids=["aside", "behind", "too near", "too far"],
)
def test_a_view_that_does_not_show_a_place_says_nothing_about_it(
    here: tuple[float, float], heading: float
) -> None:
    evidence = Evidence("map")
    place = evidence.add(at(4, 0), np.array([1.0, 0.0]), AHEAD)
    assert place is not None and not in_view(place.answer, np.array(here), heading, NEAR)
    evidence.add(NOTHING, np.array(here), heading)
    assert place.log_odds == pytest.approx(log(4))


def test_another_place_named_from_near_speaks_against_a_place() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(4, 0), np.array([1.0, 0.0]), AHEAD)
    other = evidence.add(at(6, 0), np.array([3.2, 0.0]), AHEAD)
    assert place is not None and other is not None
    assert place.log_odds == pytest.approx(log(4) - log(9)) and other.log_odds == pytest.approx(log(4))


def test_a_rival_that_is_nearly_as_likely_keeps_a_place_from_being_found() -> None:
    evidence = Evidence("map")
    for y in (0.0, 2.0):
        for x in (0.0, 1.0):
            evidence.add(at(4, y), np.array([x, y]), AHEAD)
    one, other = evidence.places
    assert one.log_odds == pytest.approx(other.log_odds) and one.log_odds < 3
    for x in (0.0, 1.0):
        evidence.add(at(4, 0, 1.0, 1.0), np.array([x, -1.0]), AHEAD)
    assert one.log_odds > 3 and evidence.is_found(one) and not evidence.is_found(other)
    for x in (0.0, 1.0):
        evidence.add(at(4, 2.0, 1.0, 1.0), np.array([x, 3.0]), AHEAD)
    assert other.log_odds > 3 and not evidence.is_found(one) and not evidence.is_found(other)


def test_the_most_likely_place_is_next_until_it_is_given_up() -> None:
    evidence = Evidence("map")
    weak = evidence.add(at(4, 2.5, sure(-0.5), sure(-0.5)), np.zeros(2), 0.6)
    strong = evidence.add(at(4, -2.5), np.zeros(2), -0.6)
    assert weak is not None and strong is not None
    assert evidence.next() is strong and evidence.next(1.3) is strong and evidence.next(1.5) is None
    strong.given_up = strong.log_odds
    assert evidence.next() is weak
    weak.given_up = weak.log_odds
    assert evidence.next() is None
    # More evidence makes it worth another approach.
    evidence.add(at(4, -2.5), np.array([4.0, 0.0]), -np.pi / 2)
    assert evidence.next() is strong


def test_a_place_below_the_limit_is_not_gone_to() -> None:
    evidence = Evidence("map")
    evidence.add(at(4, 0, 0.4, 0.4), np.zeros(2), AHEAD)
    assert evidence.places[0].log_odds == pytest.approx(log(0.4 / 0.6) - DOUBT)
    assert evidence.next() is None and len(evidence.places) == 1


def test_a_pose_in_another_frame_or_without_depth_is_no_evidence() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(4, 0), np.zeros(2), AHEAD)
    assert place is not None
    for frame in ("", "camera"):
        assert evidence.add(dataclasses.replace(CHAIR, frame=frame), np.array([1.0, 0.0]), AHEAD) is None
    assert place.log_odds == pytest.approx(log(4)) and len(evidence.places) == 1


def test_the_most_likely_place_is_described() -> None:
    evidence = Evidence("map")
    assert evidence.described() == ""
    evidence.add(at(4, 0), np.zeros(2), AHEAD)
    assert (
        evidence.described()
        == "The most likely object, at (4.0, 0.0), is 0.80 likely after views from 1 position."
    )


@pytest.mark.parametrize(
    ("position", "beside"),
    [
        ((4.0, 1.7, 0.2), True),  # 1.1 m between the outlines
        ((4.0, 1.9, 0.2), False),  # 1.3 m
        ((4.0, 0.5, 0.2), True),
        ((4.0, 0.45, 0.9), False),  # the same object
    ],
)
def test_objects_are_beside_each_other(position: tuple[float, float, float], beside: bool) -> None:
    other = dataclasses.replace(CHAIR, position=np.array(position))
    assert are_beside(CHAIR, other) is beside and are_beside(other, CHAIR) is beside


def chance(evidence: Evidence, place: Place) -> float:
    return 1 / (1 + float(np.exp(-evidence.log_odds(place))))


def test_a_place_is_as_likely_as_the_object_and_its_neighbour_together() -> None:
    neighbours = Evidence("map")
    evidence = Evidence("map", neighbours)
    place = evidence.add(at(4, 0), np.zeros(2), AHEAD)
    assert place is not None and chance(evidence, place) == pytest.approx(0.8 * 0.4)
    neighbours.add(at(4, 5.0), np.array([4.0, 3.0]), np.pi / 2)  # too far away
    assert chance(evidence, place) == pytest.approx(0.8 * 0.4)
    neighbours.add(at(4, 1.0), np.array([4.0, -1.0]), np.pi / 2)  # seen from elsewhere
    assert chance(evidence, place) == pytest.approx(0.8 * 0.8)
    neighbours.add(at(4, -1.0, sure(log(9)), sure(log(9))), np.array([4.0, 1.5]), -np.pi / 2)
    assert chance(evidence, place) == pytest.approx(0.8 * 0.9)


def test_of_two_alike_the_one_with_the_neighbour_is_found() -> None:
    neighbours = Evidence("map")
    evidence = Evidence("map", neighbours)
    for x in (0.0, 1.0):
        evidence.add(at(4, 3.0, 1.0, 1.0), np.array([x, 3.0]), AHEAD)
        evidence.add(at(4, 0, 1.0, 0.8), np.array([x, -1.5]), 0.3)
        neighbours.add(at(4.0, -1.0, 1.0, 1.0), np.array([x, -1.5]), AHEAD)
    far, near = evidence.places
    assert far.log_odds >= near.log_odds > 3
    assert evidence.is_found(near) and not evidence.is_found(far) and evidence.next() is near
    assert evidence.described().startswith("The most likely object, at (4.0, 0.0), is ")


def test_naming_one_of_several_says_nothing_about_the_others() -> None:
    evidence = Evidence("map", Evidence("map"))
    here = np.zeros(2)
    first = evidence.add(at(3, 0.5), here, AHEAD)
    second = evidence.add(at(3, -0.5, sure(log(7 / 3)), 0.0), here, AHEAD)
    assert first is not None and second is not None
    assert first.log_odds == pytest.approx(log(4)) and second.log_odds == pytest.approx(log(7 / 3))
    evidence.add(NOTHING, here, AHEAD)  # that there is none says something about both
    assert first.log_odds == pytest.approx((log(4) - log(4)) / 2)


def test_a_place_that_is_found_after_it_was_given_up_is_next() -> None:
    neighbours = Evidence("map")
    evidence = Evidence("map", neighbours)
    for x in (0.0, 1.0, 2.0):
        place = evidence.add(at(4, 0, 1.0), np.array([x, -1.5]), 0.3)
        neighbours.add(at(4, -1.0, sure(1.5), sure(1.5)), np.array([x, -1.5]), AHEAD)
        if x == 1.0:
            assert place is not None
            place.given_up = evidence.log_odds(place)
    assert place is not None and evidence.log_odds(place) < place.given_up + 2
    assert evidence.is_found(place) and evidence.next() is place


def test_log_odds_stay_finite() -> None:
    neighbours = Evidence("map")
    evidence = Evidence("map", neighbours)
    for x in range(30):
        place = evidence.add(at(4, 0, 1.0, 1.0), np.array([-x, -1.5]), AHEAD)
        neighbours.add(at(4, 1.0, 1.0, 1.0), np.array([-x, -1.5]), AHEAD)
    assert place is not None and 15 < evidence.log_odds(place) < 25


@pytest.mark.parametrize(
    ("goal", "size", "flat"),
    [
        ("the desk", (1.4, 0.01, 0.8), True),
        ("the desk", (1.4, 0.05, 0.8), False),
        ("the keycard", (0.2, 0.01, 0.1), False),
        ("go to the door", (1.4, 0.01, 1.8), False),
        ("the two windows", (1.4, 0.01, 1.8), False),
        ("the doorstop", (1.4, 0.01, 1.8), True),
        ("the whiteboard", (1.4, 0.01, 1.8), False),
        ("the desk next to the door", (1.4, 0.01, 0.8), True),
    ],
)
def test_a_patch_of_a_wall_is_no_evidence(goal: str, size: tuple[float, float, float], flat: bool) -> None:
    answer = dataclasses.replace(at(3, 0), goal=goal, size=size)
    assert is_flat(answer) is flat
    place = Evidence("map").add(answer, np.zeros(2), AHEAD)
    assert place is not None and place.log_odds == pytest.approx(0.0 if flat else log(4))


def test_a_view_too_near_for_a_tall_object_says_nothing_about_it() -> None:
    evidence = Evidence("map")
    for height in (2.0, 0.7):  # from nearer its upper part is not in the picture
        answer = dataclasses.replace(at(4, 0), size=(0.8, 0.6, height))
        place = evidence.add(answer, np.zeros(2), AHEAD)
    assert place is not None and place.height == 2.0
    evidence.add(NOTHING, np.array([0.7, 0.0]), AHEAD)  # 3.3 m, less than 1.8 x 2 m and than 3.4 m
    assert place.log_odds == pytest.approx(log(4))
    evidence.add(NOTHING, np.array([0.3, 0.6]), AHEAD)
    assert place.log_odds < log(4)


def test_a_wall_that_is_named_says_nothing_about_other_places() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(3, 0), np.zeros(2), AHEAD)
    wall = dataclasses.replace(at(3.5, 0.9), size=(1.4, 0.01, 0.8))
    evidence.add(wall, np.array([0.0, 0.7]), AHEAD)
    assert place is not None and place.log_odds == pytest.approx(log(4)) and len(evidence.places) == 2


def test_a_place_that_is_named_never_falls_behind_one_that_is_not() -> None:
    evidence = Evidence("map")
    other = evidence.add(at(3, 0.7), np.array([0.0, 0.7]), AHEAD)
    named = evidence.add(at(3, -0.7, 0.95, 0.02), np.zeros(2), AHEAD)
    assert other is not None and named is not None
    value = log(0.485 / 0.515) - DOUBT  # (0.95 + 0.02) / 2; the rest is 0.465
    assert named.log_odds == pytest.approx(value)
    assert other.log_odds == pytest.approx(log(4) + value)


def test_an_absent_answer_never_speaks_for_a_place() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(3, 0), np.zeros(2), AHEAD)
    evidence.add(dataclasses.replace(NOTHING, present=0.99), np.array([0.0, 0.7]), AHEAD)
    assert place is not None and place.log_odds == pytest.approx(log(4))


def test_a_view_that_names_nothing_counts_less_than_one_that_names_another_place() -> None:
    evidence = Evidence("map")
    place = evidence.add(at(3, 0), np.zeros(2), AHEAD)
    evidence.add(dataclasses.replace(NOTHING, present=0.0), np.array([0.0, 0.7]), AHEAD)
    assert place is not None and place.log_odds == pytest.approx(log(4) + log(0.18 / 0.82))
