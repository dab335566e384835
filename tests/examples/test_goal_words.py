"""The words of goals: points of view, superlatives, and what an object is next to."""

from __future__ import annotations

import pytest

from examples.goal_words import depends_on_view, parts, without_superlative


@pytest.mark.parametrize(
    ("goal", "depends"),
    [
        ("go to the LEFTMOST object", True),
        ("the chair left of the barrel", True),
        ("the cone in front of the desk", True),
        ("the nearest chair", True),
        ("the chair closest to me", True),
        ("the left-most of the cones", True),
        ("the cone in back of the desk", True),
        ("the rearmost chair", True),
        ("the box ahead of the cone", True),
        ("the most distant ball", True),
        ("the biggest box", True),
        ("the ball between the desk and the door", True),
        ("the chair nearest the camera", True),
        ("the chair nearest to the desk", False),
        ("the object closest the barrel", False),
        ("the chair next to the barrel", False),
        ("the leftover box", False),
        ("the chair right next to the desk", False),
        ("go right to the door", False),
        ("the chair right of the desk", True),
        ("the right chair", True),
        ("the box on the right next to the desk", True),
    ],
)
def test_goals_that_depend_on_the_point_of_view(goal: str, depends: bool) -> None:
    assert depends_on_view(goal) is depends


@pytest.mark.parametrize(
    ("goal", "plain"),
    [
        ("go to the leftmost chair", "go to the chair"),
        ("the Nearest office chair, please", "the office chair, please"),
        ("the most distant cone", "the cone"),
        ("the nearest object", ""),
        ("the leftmost one", ""),
        ("the chair", ""),
        ("the leftmost chair behind the desk", ""),
        ("the left-most chair next to the desk", "the chair next to the desk"),
        ("THE LEFTMOST CHAIR", "THE CHAIR"),
        ("the nearest of the chairs", ""),
        ("go to the leftmost", ""),
        ("the chair nearest to me", ""),
        ("the chair that is nearest", ""),
        ("go to the chair farthest from the desk", ""),
        ("the second leftmost chair", ""),
        ("the chair next to the leftmost desk", ""),
        ("the smaller of the two", ""),
    ],
)
def test_a_goal_without_its_superlative(goal: str, plain: str) -> None:
    assert without_superlative(goal) == plain


@pytest.mark.parametrize(
    ("goal", "found"),
    [
        ("go to the barrel next to the pink chair", ("go to the barrel", "the pink chair")),
        ("the chair Near the desk ", ("the chair", "the desk")),
        ("the cone beside the green ball", ("the cone", "the green ball")),
        ("a ball that's right next to the desk, please?", ("a ball", "the desk")),
        ("the box which is close to a door.", ("the box", "a door")),
        ("the cone beside the barrel next to the door", ("the cone", "the barrel next to the door")),
        ("the chair that is not next to the barrel", None),
        ("go near the door", None),
        ("go to the near chair", None),
        ("next to the door", None),
        ("the nearest chair", None),
        ("the chair nearest to the desk", None),
        ("the chair", None),
    ],
)
def test_the_object_of_a_goal_and_its_neighbour(goal: str, found: tuple[str, str] | None) -> None:
    assert parts(goal) == found
