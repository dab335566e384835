"""Judging of answers, counting, and the command on rendered scenes and folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from groma_ros.evaluation.scenes import (
    SceneTally,
    TrueScene,
    _judge_goal,
    evaluate,
    folder_scenes,
    rendered_scenes,
    table,
)
from groma_ros.grounding.decoding import RegionAnswer
from groma_ros.grounding.grounder import Grounder
from groma_ros.matching import match_boxes
from groma_ros.simulation.dataset import Settings, load_dataset, write_dataset
from groma_ros.simulation.goal_generator import GOAL_TYPES, SceneGoal
from groma_ros.simulation.scenes import SceneObject
from groma_ros.types import Scene

BOXES = [(0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)]
OBJECTS = tuple(
    SceneObject(kind, colour, box, 1.0, 100, (0.0, 0.0, 1.0), (0.1, 0.1, 0.1))
    for kind, colour, box in zip(("mug", "box", "ball"), ("red", "blue", "red"), BOXES, strict=True)
)


def judged(
    regions: list[int], targets: tuple[int, ...], kind: str = "attribute", text: str = "the red mug"
) -> SceneTally:
    """The tally of one answer; regions 0 and 1 are the first two objects, region 2 is nothing, object 2 has
    no region."""
    boxes = np.array([*BOXES[:2], (70, 0, 80, 10)], np.float32)
    tokens = np.zeros((3, 4), np.float32)
    scene = Scene(boxes, np.array([0.5, 0.4, 0.9], np.float32), tokens, tokens, None, 100, 20)
    truth = TrueScene(np.zeros((20, 100, 3), np.uint8), OBJECTS, ())
    tally = SceneTally()
    answer = RegionAnswer(tuple(regions), tuple([0.9] * len(regions)), np.array([0.8, 0.3, 0.1]), 0.9, 0.5)
    _judge_goal(
        tally, SceneGoal(text, kind, targets), answer, scene, truth, match_boxes(scene.boxes, truth.boxes)
    )
    return tally


@pytest.mark.parametrize(
    ("regions", "targets", "outcome"),
    [
        ([0], (0,), "right"),
        ([1, 0], (0, 1), "right"),
        ([], (), "right"),
        ([1], (0,), "wrong regions"),
        ([0], (0, 1), "wrong regions"),
        ([0, 1], (0,), "wrong regions"),
        ([0], (), "wrong regions"),
        ([], (0,), "said absent"),
        ([2], (2,), "no region"),
        ([0], (0, 2), "no region"),
        ([], (2,), "no region"),
    ],
)
def test_outcomes(regions: list[int], targets: tuple[int, ...], outcome: str) -> None:
    assert judged(regions, targets).goals == {"attribute": [outcome]}


def test_ranking_counts_targets_without_a_region() -> None:
    tally = judged([0], (0, 2))
    assert tally.targets == 2 and tally.correct[0].tolist() == [True, False, False]
    report = tally.report(balanced=True)
    # Membership puts the one right region first, objectness second: half of the targets at precision 1 and
    # 1/2.
    assert report["average_precision"] == {"score": 0.5, "objectness": 0.25}


@pytest.mark.parametrize(
    ("text", "hard"),
    [
        ("the blue mug", True),
        ("all the blue balls", True),
        ("the green mug", False),
        ("the cone", False),
        ("a red cone", False),
    ],
)
def test_an_absent_goal_is_hard_if_both_its_words_are_in_the_scene(text: str, hard: bool) -> None:
    assert judged([], (), "absent", text).absent_hard == [hard]


def test_the_report_balances_kinds_and_averages_over_goals() -> None:
    tally = SceneTally(scenes=2, objects=10, regions=8, matched=6)
    tally.goals = {"attribute": ["right", "right", "no region"], "plural": ["said absent", "right"]}
    balanced, whole = tally.report(balanced=True), tally.report(balanced=False)
    assert (balanced["recall"], balanced["precision"]) == (0.6, 0.75)
    assert balanced["accuracy"] == {"attribute": 1.0, "plural": 0.5, "all": 0.75}
    assert balanced["goals"] == {"attribute": 2, "plural": 2}
    assert whole["accuracy"] == {"attribute": 0.6667, "plural": 0.5, "all": 0.6}
    assert whole["errors"]["attribute"] == {"no region": 1, "said absent": 0, "wrong regions": 0}
    assert "plural" in table({"seed": 1, **whole})


def test_an_empty_report_has_no_figures() -> None:
    report = SceneTally().report(balanced=True)
    assert (
        report["recall"] is None
        and report["accuracy"] == {"all": None}
        and report["average_precision"]["score"] is None
    )
    assert "-" in table({"seed": None, **report})


def test_rendered_goals_are_the_same_number_of_every_kind_and_repeatable() -> None:
    first, second = (list(rendered_scenes(3, 5, 224, 168)) for _ in range(2))
    counts = {kind: sum(goal.kind == kind for scene in first for goal in scene.goals) for kind in GOAL_TYPES}
    assert min(counts.values()) >= 3 and max(counts.values()) <= 5
    assert [scene.goals for scene in first] == [scene.goals for scene in second]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(first, second, strict=True))
    assert all(4 <= len(scene.objects) <= 9 for scene in first)
    assert all(item.visible >= 0.55 for scene in first for item in scene.objects)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three scenes in the form of docs/scenes.md."""
    out = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(out, 3, Settings(4, 224, 168), progress=False)
    return out


def test_a_folder_holds_the_scenes_that_its_seed_renders(folder: Path) -> None:
    count, scenes = folder_scenes(folder)
    records, rendered = load_dataset(folder), list(rendered_scenes(4, 3, 224, 168))
    assert count == 3
    for scene, record, same in zip(scenes, records, rendered, strict=True):
        assert scene.goals == record.goals and len(scene.goals) >= 4
        assert np.abs(scene.boxes - same.boxes).max() == 0
        assert (
            np.abs(scene.rgb.astype(int) - same.rgb.astype(int)).mean() < 4
        )  # the folder's pictures are compressed


def test_evaluation_counts_all_goals_and_objects(folder: Path, small_model: Path) -> None:
    tally = evaluate(Grounder.load(small_model), folder_scenes(folder)[1])
    records = load_dataset(folder)
    assert tally.scenes == 3 and tally.objects == sum(len(record.objects) for record in records)
    assert sum(map(len, tally.goals.values())) == sum(len(record.goals) for record in records)
    assert tally.targets == sum(len(goal.targets) for record in records for goal in record.goals)
    assert [len(scores) for scores in tally.membership] == [len(right) for right in tally.correct]


def test_a_broken_picture_is_named(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "annotations.json").read_text())
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"The picture .* is missing or cannot be decoded"):
        list(folder_scenes(tmp_path)[1])
