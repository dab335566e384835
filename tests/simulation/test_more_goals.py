"""Goals of nearness, stacking, order, two relations and absence, checked against the objects."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from groma_ros.simulation.everyday_words import HELD_OUT_NOUNS, NOUNS
from groma_ros.simulation.goal_generator import View
from groma_ros.simulation.more_goals import MORE_TYPES, draw_more_goals, unknown
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.types import Intrinsics


def _sample(objects: list[SceneObject]) -> SceneSample:
    empty = np.zeros((100, 100, 3), np.uint8)
    return SceneSample(
        empty, empty[..., 0].astype(np.float32), Intrinsics(100, 100, 50, 50, 100, 100), tuple(objects), 0
    )


def _object(
    kind: str, colour: str, x: float, z: float = 1.0, support: int = -1, inside: bool = False
) -> SceneObject:
    box = (x, 40.0, x + 8, 48.0)
    return SceneObject(
        kind, colour, box, 1.0, 60, (x / 100, 0.0, z), (0.08, 0.08, 0.08), None, support, inside
    )


def _drawn(sample: SceneSample, kind: str, count: int = 200) -> dict[str, tuple[int, ...]]:
    goals = [
        goal
        for seed in range(count)
        for goal in draw_more_goals(sample, np.random.default_rng(seed), 1, (kind,))
    ]
    return {goal.text: goal.targets for goal in goals}


def test_next_to_is_the_nearest_by_far() -> None:
    sample = _sample(
        [
            _object("mug", "red", 10),
            _object("ball", "blue", 20),
            _object("ball", "green", 80),
            _object("box", "red", 60),
        ]
    )
    goals = _drawn(sample, "near")
    named = [targets for text, targets in goals.items() if re.fullmatch(r"the ball .* the (red )?mug", text)]
    assert len(named) >= 4 and set(named) == {(1,)}
    assert not any(
        text.startswith("the ball") and "the box" in text and targets == (1,)
        for text, targets in goals.items()
    )


def test_on_in_and_under_follow_the_support() -> None:
    stack = [
        _object("box", "red", 10),
        _object("ball", "blue", 10, support=0),
        _object("ball", "green", 60),
        _object("bowl", "cyan", 40),
    ]
    goals = _drawn(_sample([*stack, _object("lemon", "yellow", 41, support=3, inside=True)]), "stacked")
    assert {targets for text, targets in goals.items() if re.search(r"\bon\b", text)} == {(1,)}
    assert {targets for text, targets in goals.items() if re.search(r"\b(in|inside)\b", text)} == {(4,)}
    assert {
        targets for text, targets in goals.items() if re.search(r"\b(under|below|beneath|underneath)\b", text)
    } == {(0,)}


def test_ordinals_count_from_the_named_side() -> None:
    sample = _sample([_object("mug", "red", 70), _object("mug", "blue", 10), _object("mug", "green", 40)])
    goals = _drawn(sample, "ordinal")
    assert goals["the first mug from the left"] == (1,) and goals["the second mug from the left"] == (2,)
    assert goals["the first mug from the right"] == (0,)


def test_two_relations_need_both() -> None:
    mugs = [_object("mug", "red", 10, 2.0), _object("mug", "blue", 10, 0.5), _object("mug", "green", 90, 2.0)]
    sample = _sample([*mugs, _object("box", "cyan", 50, 1.0), _object("ball", "pink", 50, 1.2)])
    goals = _drawn(sample, "two relations")
    left_and_behind = {
        t
        for text, t in goals.items()
        if text.startswith("the mug") and "left of" in text and "behind" in text
    }
    assert left_and_behind == {(0,)}


def test_a_pair_is_two_objects_that_are_named_each_by_itself() -> None:
    sample = _sample([_object("mug", "red", 10), _object("ball", "blue", 30), _object("ball", "green", 60)])
    goals = _drawn(sample, "pair")
    assert goals["the mug and the blue ball"] == (0, 1)
    assert goals["both the green ball and the red mug"] == (0, 2)
    assert all(len(set(targets)) == 2 for targets in goals.values())
    assert not any(re.search(r"the ball\b", text) for text in goals), "it names two"


def test_nowhere_is_clearly_nowhere() -> None:
    sample = _sample([_object("mug", "red", 10), _object("box", "blue", 50), _object("ball", "green", 90)])
    goals = _drawn(sample, "nowhere")
    assert goals and all(targets == () for targets in goals.values())
    assert not any(re.fullmatch(r"the (red )?mug (to the )?left of the (blue )?box", text) for text in goals)
    assert any(re.fullmatch(r"the (red )?mug (to the )?right of the (blue )?box", text) for text in goals)


def test_unknown_goals_are_absent_and_held_out_nouns_stay_apart() -> None:
    view = View((_object("mug", "red", 10),), 100)
    trained = [unknown(view, np.random.default_rng(seed)) for seed in range(500)]
    held_out = [unknown(view, np.random.default_rng(seed), held_out=True) for seed in range(500)]
    assert all(goal.targets == () and goal.kind == "absent" for goal in (*trained, *held_out))
    words = [set(re.split(r"[ ]", goal.text)) for goal in held_out]
    assert (
        not any(own & set(NOUNS) for own in words)
        and sum(bool(own & set(HELD_OUT_NOUNS)) for own in words) > 400
    )


@pytest.mark.parametrize("kind", [*MORE_TYPES])
def test_a_scene_of_one_object_draws_nothing_false(kind: str) -> None:
    lone = dataclasses.replace(_sample([_object("mug", "red", 10)]))
    assert all(targets == () for targets in _drawn(lone, kind, 20).values())
