"""Texts to standing goals, all or none."""

from __future__ import annotations

import pytest

from groma_ros.grounding.goals import check_goal
from groma_ros.node.goal_set import (
    GoalSet,
    check_goals,
    goals_from_text,
    goals_from_texts,
    without_repetitions,
)
from groma_ros.types import Goal


def test_one_goal_a_line_without_blank_lines_and_repetitions() -> None:
    goals = goals_from_text("  the red mug \n\n\r\nall the boxes\nthe red mug\n")
    assert [(goal.text, goal.kind, goal.min_score) for goal in goals] == [
        ("the red mug", "auto", 0.0),
        ("all the boxes", "auto", 0.0),
    ]


@pytest.mark.parametrize("text", ["", "\n \n", "\t"])
def test_a_text_without_a_goal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="holds no goal"):
        goals_from_text(text)


def test_no_texts_are_no_goals() -> None:
    assert goals_from_texts(["", " "]) == ()


@pytest.mark.parametrize(
    ("goals", "sentence"),
    [
        ([Goal("a"), Goal("b"), Goal("c")], "There are 3 goals, and at most 2 may stand"),
        ([Goal("a"), Goal("x" * 10_000)], "has 10000 characters"),
        ([Goal("a"), Goal("")], "The goal is empty"),
        ([Goal("what is it", "chat")], "of kind chat, whose answer is words"),
    ],
)
def test_goals_that_cannot_stand_are_refused_with_a_sentence(goals: list[Goal], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_goals(goals, 2, check_goal)


def test_every_change_has_a_number() -> None:
    first = GoalSet((Goal("a"),))
    second = first.replaced([Goal("b"), Goal("c")])
    assert (first.version, second.version, second.replaced([]).version) == (0, 1, 2)
    assert [goal.text for goal in second.goals] == ["b", "c"] and [goal.text for goal in first.goals] == ["a"]


def test_a_question_stands_once() -> None:
    mug, ball = Goal("the mug"), Goal("the ball")
    other = Goal("the mug", "all")
    assert without_repetitions([mug, ball, Goal("the mug"), other, ball]) == (mug, ball, other)
