"""Generated goals, checked by a small independent interpreter of their English."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from groma_ros.simulation.goal_generator import (
    GOAL_TYPES,
    SceneGoal,
    SteadyView,
    draw_goals,
    draw_view_goals,
)
from groma_ros.simulation.scenes import COLOURS, KINDS, SceneObject, SceneSample
from groma_ros.simulation.vocabulary import FIRST_WORDS
from groma_ros.types import Intrinsics

WIDTH = 320
SINGULAR = {
    **{kind + "s": kind for kind in KINDS},
    "boxes": "box",
    "objects": "object",
    "things": "object",
    "thing": "object",
}


def symbolic_scene(seed: int) -> SceneSample:
    """Objects without a picture: everything that a goal may speak of is in the numbers."""
    rng = np.random.default_rng(seed)
    kinds, colours = rng.choice(KINDS, 4, replace=False), rng.choice(COLOURS, 4, replace=False)
    objects = []
    for _ in range(rng.integers(4, 10)):
        x, y, w, h = *rng.uniform(5, 250, 2), *rng.uniform(15, 60, 2)
        position = (0.0, 0.0, float(rng.uniform(0.5, 1.3)))
        area = int(w * h * rng.uniform(0.6, 0.9))
        kind, colour = str(rng.choice(kinds)), str(rng.choice(colours))
        objects.append(SceneObject(kind, colour, (x, y, x + w, y + h), 1.0, area, position, (0.1, 0.1, 0.1)))
    empty = np.zeros((WIDTH, WIDTH, 3), np.uint8)
    depth = empty[..., 0].astype(np.float32)
    return SceneSample(empty, depth, Intrinsics(300, 300, 160, 160, WIDTH, WIDTH), tuple(objects), seed)


def phrase(words: str) -> tuple[str | None, str | None]:
    """(kind, colour) of a noun phrase; None is any."""
    kind = colour = None
    for word in words.split():
        word = SINGULAR.get(word, word)
        if word in KINDS:
            kind = word
        elif word in COLOURS:
            colour = word
        else:
            assert word in ("the", "a", "an", "all", "every", "both", "three", "four", "object"), (
                f"{word!r} in {words!r}"
            )
    return kind, colour


def members(objects: tuple[SceneObject, ...], words: str) -> set[int]:
    kind, colour = phrase(words)
    return {i for i, o in enumerate(objects) if kind in (None, o.kind) and colour in (None, o.colour)}


def centre(item: SceneObject) -> float:
    return (item.box[0] + item.box[2]) / 2


MEASURES: dict[str, Callable[[SceneObject], float]] = {
    "leftmost": centre,
    "rightmost": lambda o: -centre(o),
    "nearest": lambda o: o.position[2],
    "closest": lambda o: o.position[2],
    "farthest": lambda o: -o.position[2],
    "largest": lambda o: -o.area,
    "biggest": lambda o: -o.area,
    "smallest": lambda o: o.area,
}


def stands(relation: str, a: SceneObject, b: SceneObject) -> bool:
    if relation == "left of":
        return centre(a) < centre(b)
    if relation == "right of":
        return centre(a) > centre(b)
    return a.position[2] > b.position[2] if relation == "behind" else a.position[2] < b.position[2]


def meaning(text: str, objects: tuple[SceneObject, ...]) -> set[int]:
    """The objects that a text means, without any margin."""
    everything = set(range(len(objects)))
    if found := re.fullmatch(r"everything (?:that is not|but) (.+)", text):
        return everything - members(objects, found[1])
    if found := re.fullmatch(r"(.+) (?:that|which) (?:is|are) not (.+)", text):
        return members(objects, found[1]) - members(objects, found[2])
    if found := re.fullmatch(r"(.+) between (.+) and (.+)", text):
        (a,), (b,) = members(objects, found[2]), members(objects, found[3])
        low, high = sorted((centre(objects[a]), centre(objects[b])))
        return {i for i in members(objects, found[1]) - {a, b} if low < centre(objects[i]) < high}
    if found := re.fullmatch(r"(.+?) (?:to the )?(left of|right of|behind|in front of) (.+)", text):
        (anchor,) = members(objects, found[3])
        return {
            i for i in members(objects, found[1]) - {anchor} if stands(found[2], objects[i], objects[anchor])
        }
    if found := re.fullmatch(rf"the ({'|'.join(MEASURES)}) (.+)", text):
        return {min(members(objects, found[2]), key=lambda i: MEASURES[found[1]](objects[i]))}
    return members(objects, text)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[SceneSample, list[SceneGoal]]]:
    samples = [symbolic_scene(seed) for seed in range(250)]
    return [
        (sample, draw_goals(sample, np.random.default_rng(sample.seed), per_kind=3)) for sample in samples
    ]


def test_every_goal_means_its_targets(drawn: list[tuple[SceneSample, list[SceneGoal]]]) -> None:
    for sample, goals in drawn:
        for goal in goals:
            assert set(goal.targets) == meaning(goal.text, sample.objects), goal
            assert goal.targets == tuple(sorted(goal.targets))


def test_kinds_come_in_equal_number_and_no_text_twice(
    drawn: list[tuple[SceneSample, list[SceneGoal]]],
) -> None:
    counts = Counter(goal.kind for _, goals in drawn for goal in goals)
    assert set(counts) == set(GOAL_TYPES)
    assert min(counts.values()) > 0.75 * 3 * len(drawn) and max(counts.values()) <= 3 * len(drawn)
    assert all(len({goal.text for goal in goals}) == len(goals) for _, goals in drawn)


def test_the_number_of_targets_fits_the_kind(drawn: list[tuple[SceneSample, list[SceneGoal]]]) -> None:
    sizes = {
        kind: Counter(len(g.targets) for _, goals in drawn for g in goals if g.kind == kind)
        for kind in GOAL_TYPES
    }
    assert set(sizes["attribute"]) == set(sizes["superlative"]) == set(sizes["between"]) == {1}
    assert set(sizes["absent"]) == {0}
    assert min(sizes["plural"]) == 2 and 1 in sizes["negation"] and max(sizes["negation"]) > 3
    share = sizes["relation"][1] / sizes["relation"].total()
    assert 0.4 < share < 0.75


def test_absent_goals_are_mostly_hard(drawn: list[tuple[SceneSample, list[SceneGoal]]]) -> None:
    hard = []
    for sample, goals in drawn:
        for goal in goals:
            if goal.kind == "absent":
                kind, colour = phrase(goal.text)
                hard.append(
                    kind in {o.kind for o in sample.objects} and colour in {o.colour for o in sample.objects}
                )
    assert 0.65 < np.mean(hard) < 0.95


def shifted(sample: SceneSample, index: int, dx: float, dz: float) -> tuple[SceneObject, ...]:
    """The objects after one of them moved in the picture and in depth."""
    moved = list(sample.objects)
    o = moved[index]
    box = (o.box[0] + dx, o.box[1], o.box[2] + dx, o.box[3])
    moved[index] = SceneObject(
        o.kind, o.colour, box, o.visible, o.area, (0.0, 0.0, o.position[2] + dz), o.size
    )
    return tuple(moved)


def test_answers_hold_when_any_object_moves_within_the_margins(
    drawn: list[tuple[SceneSample, list[SceneGoal]]],
) -> None:
    checked = 0
    for sample, goals in drawn[:80]:
        for goal in goals:
            if goal.kind not in ("relation", "between", "superlative"):
                continue
            for index in range(len(sample.objects)):
                for sign in (-1, 1):
                    moved = shifted(sample, index, sign * 0.059 * WIDTH, sign * 0.059)
                    assert meaning(goal.text, moved) == set(goal.targets), (goal, index)
                    checked += 1
    assert checked > 2000


def test_goals_of_several_frames_hold_in_each() -> None:
    """One object moves across the picture and away from the camera, so that much of what holds in a frame
    does not hold in another."""
    counts: Counter[str] = Counter()
    lost = 0
    for seed in range(40):
        sample = symbolic_scene(seed)
        frames = [shifted(sample, 0, share * 0.4 * WIDTH, share * 0.3) for share in (0.0, 0.5, 1.0)]
        goals = draw_view_goals(SteadyView(frames, WIDTH, FIRST_WORDS), np.random.default_rng(seed), 5)
        for goal in goals:
            assert all(meaning(goal.text, objects) == set(goal.targets) for objects in frames), goal
        counts.update(goal.kind for goal in goals)
        single = draw_goals(sample, np.random.default_rng(seed), 5)
        lost += sum(meaning(goal.text, frames[-1]) != set(goal.targets) for goal in single)
    assert set(counts) == set(GOAL_TYPES) and min(counts.values()) > 80
    assert lost > 20  # goals of the first frame alone that are wrong in the last


def test_a_superlative_of_size_wins_clearly(drawn: list[tuple[SceneSample, list[SceneGoal]]]) -> None:
    ratios = []
    for sample, goals in drawn:
        for goal in goals:
            if found := re.fullmatch(r"the (largest|biggest|smallest) (.+)", goal.text):
                winner = sample.objects[goal.targets[0]].area
                others = [
                    sample.objects[i].area for i in members(sample.objects, found[2]) if i not in goal.targets
                ]
                ratios += [other / winner if found[1] == "smallest" else winner / other for other in others]
    assert len(ratios) > 100 and min(ratios) >= 1.349


def test_the_same_generator_state_draws_the_same_goals() -> None:
    sample = symbolic_scene(3)
    first, second = (draw_goals(sample, np.random.default_rng(5), 2) for _ in range(2))
    assert first == second
    assert draw_goals(sample, np.random.default_rng(6), 2) != first


def test_a_scene_of_one_kind_and_colour_gives_only_what_it_holds() -> None:
    sample = symbolic_scene(0)
    same = tuple(SceneObject("box", "red", o.box, 1.0, o.area, o.position, o.size) for o in sample.objects)
    alike = SceneSample(sample.rgb, sample.depth, sample.intrinsics, same, 0)
    goals = draw_goals(alike, np.random.default_rng(0), 3)
    assert {goal.kind for goal in goals} <= {"absent", "plural", "superlative"}
    assert all(len(goal.targets) == len(same) for goal in goals if goal.kind == "plural")


def test_an_unknown_kind_of_goal_is_an_error() -> None:
    with pytest.raises(KeyError, match="riddle"):
        draw_goals(symbolic_scene(0), np.random.default_rng(0), 1, ("riddle",))
