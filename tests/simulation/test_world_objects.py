"""Object kinds of other simulators, and unambiguous goals."""

from __future__ import annotations

import numpy as np
import pytest

from groma_ros.simulation.scenes import SceneObject
from groma_ros.simulation.world_objects import (
    MINIWORLD_KINDS,
    OWN,
    ROBOSUITE_KINDS,
    WORLD_KINDS,
    Thing,
    WorldSample,
    avoided_words,
    draw_things,
    held_out_name,
    held_out_seed,
    is_clear,
    scene_object,
    split,
    upright_box,
    world_goals,
)
from groma_ros.types import Intrinsics

KINDS = {kind.name: kind for kind in (*MINIWORLD_KINDS, *ROBOSUITE_KINDS)}
FINISHES = {"can": (OWN, "red", "blue"), "cereal box": (OWN,), "box": ("red", "blue"), "lemon": (OWN,)}


def seen(kind: str, colour: str, x: float, z: float) -> SceneObject:
    return SceneObject(kind, colour, (x, 100, x + 40, 160), 1.0, 2400, (0, 0, z), (0.05, 0.1, 0.05))


def sample(things: list[tuple[str, str]], seed: int = 0) -> WorldSample:
    made = [Thing(KINDS[kind], finish) for kind, finish in things]
    objects = tuple(
        seen(thing.kind.name, thing.colour, 60.0 + 120 * i, 1 + 0.2 * i) for i, thing in enumerate(made)
    )
    blank = np.zeros((480, 640, 3), np.uint8), np.ones((480, 640), np.float32)
    k = Intrinsics(500, 500, 320, 240, 640, 480)
    return WorldSample(*blank, k, objects, seed, avoided_words(made))


def test_a_fifth_of_the_seeds_and_about_a_fifth_of_names_are_held_out() -> None:
    assert [held_out_seed(seed * 1_000_000 + 17) for seed in range(5)] == [False, False, False, False, True]
    names = [f"{kind} {colour}" for kind in WORLD_KINDS for colour in ("red", "blue", "green", "white")]
    assert 0.1 < np.mean([held_out_name(name) for name in names]) < 0.3
    assert set(split(names, True)) | set(split(names, False)) == set(names)
    assert not set(split(names, True)) & set(split(names, False))


def test_training_never_draws_a_painted_kind_that_is_held_out() -> None:
    rng = np.random.default_rng(0)
    kinds = [KINDS[name] for name in ("can", "box")]
    drawn = [
        thing
        for _ in range(200)
        for thing in draw_things(
            rng, kinds, 4, False, {"can": ("red", "blue", "pink"), "box": ("red", "cyan")}
        )
    ]
    assert drawn
    assert not any(held_out_name(f"{thing.kind.name} {thing.finish}") for thing in drawn)


def test_kinds_of_a_scene_share_no_name() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        names = {
            thing.kind.name for thing in draw_things(rng, [KINDS[k] for k in FINISHES], 6, True, FINISHES)
        }
        assert not {"box", "cereal box"} <= names


def test_goals_avoid_ambiguous_colours_and_names() -> None:
    scene = sample([("cereal box", OWN), ("can", "blue"), ("can", "green"), ("lemon", OWN), ("lemon", OWN)])
    texts = {goal.text for seed in range(40) for goal in world_goals(scene, np.random.default_rng(seed), 2)}
    assert len(texts) > 60
    assert any("cereal box" in text for text in texts)
    for text in texts:
        assert is_clear(text, [item.kind for item in scene.objects], scene.avoided), text
        words = text.replace("cereal boxes", "").replace("cereal box", "").split()
        assert not {"box", "boxes", "carton", "red", "orange", "yellow", "brown", "mixed"} & set(words), text


def test_goals_targets_are_the_objects_that_the_words_mean() -> None:
    scene = sample([("cereal box", OWN), ("can", "blue"), ("can", "green"), ("lemon", OWN)])
    goals = {
        goal.text: goal for seed in range(60) for goal in world_goals(scene, np.random.default_rng(seed), 2)
    }
    assert goals["both cans"].targets == (1, 2)
    assert goals["the lemon"].targets == (3,)
    assert goals["the can that is not blue"].targets == (2,)
    assert goals["the leftmost object"].targets == (0,)
    assert goals["everything that is not a can"].targets == (0, 3)
    absent = [goal for goal in goals.values() if goal.kind == "absent"]
    assert absent and all(goal.targets == () for goal in absent)


@pytest.mark.parametrize(
    ("text", "clear"),
    [("the cereal box", True), ("the box", False), ("all cereal boxes", True), ("all boxes", False)],
)
def test_a_kind_with_another_ones_name_in_it(text: str, clear: bool) -> None:
    assert is_clear(text, ["cereal box"], frozenset({"box", "carton"})) is clear


def test_an_object_that_is_cut_small_or_hidden_has_no_truth() -> None:
    points = np.array([[x, y, z] for x in (0, 0.1) for y in (0, 0.05) for z in (0, 0.2)])
    thing, still = Thing(KINDS["can"], "blue"), (np.eye(3), np.zeros(3))
    mask = np.zeros((480, 640), bool)
    mask[100:160, 200:240] = True
    item = scene_object(thing, mask, 3000, points, *still)
    assert item is not None
    assert item.box == (200, 100, 240, 160)
    assert item.visible == pytest.approx(2400 / 3000)
    assert scene_object(thing, mask, 6000, points, *still) is None
    cut = np.zeros_like(mask)
    cut[:60, 200:240] = True
    assert scene_object(thing, cut, 2400, points, *still) is None
    small = np.zeros_like(mask)
    small[100:110, 200:210] = True
    assert scene_object(thing, small, 100, points, *still) is None


def test_upright_box_of_a_turned_block() -> None:
    angle = 0.6
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    block = np.array([[x, y, z] for x in (-0.1, 0.1) for y in (-0.03, 0.03) for z in (0, 0.4)])
    centre, axes, size = upright_box(block @ turn.T + [1, 2, 3])
    assert centre == pytest.approx([1, 2, 3.2], abs=1e-5)
    assert size == pytest.approx([0.2, 0.06, 0.4], abs=1e-5)
    assert abs(axes[:, 0] @ turn[:, 0]) == pytest.approx(1, abs=1e-5)
