"""Tracking evaluation on synthetic sequences, and its documented figures on the demo bag."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.cli import main
from groma_ros.evaluation.tracking import DelayedModel, Mode, Moment, evaluate_tracking, lengthened
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Frame, Goal, Grounding, Scene
from tests.tracking.moving import SECOND, scene
from tests.tracking.test_grounding_tracker import answer, at

ROOT = Path(__file__).parents[2]


class World:
    """A model that sees a given set of objects."""

    min_presence = 0.5
    min_margin = 0.0

    def __init__(self, frames: list[dict[str, tuple[float, float]]]) -> None:
        self.scenes = {
            round(0.1 * step * SECOND): scene(0.1 * step, centres) for step, centres in enumerate(frames)
        }

    def perceive(self, frame: Frame) -> Scene:
        return self.scenes[frame.stamp]

    def ground(self, view: Scene, goals: tuple[Goal, ...]) -> list[Grounding]:
        return answer(Question(view, StandingGoals(goals)))


def moments(frames: list[dict[str, tuple[float, float]]], *goals: str) -> list[Moment]:
    picture = np.zeros((4, 4, 3), np.uint8)
    return [
        Moment(
            Frame(picture, round(0.1 * step * SECOND)),
            {goal: np.array([at(*centres[goal])], np.float32) for goal in goals},
        )
        for step, centres in enumerate(frames)
    ]


def measured(
    frames: list[dict[str, tuple[float, float]]], mode: Mode, config: TrackingConfig | None = None
) -> dict[str, Any]:
    tallies = evaluate_tracking(World(frames), [moments(frames, "a")], [mode], config or TrackingConfig())  # type: ignore[arg-type]
    return tallies[0].report()


def test_tracked_boxes_follow_the_object_and_still_boxes_do_not() -> None:
    frames = [{"a": (100.0 + 10 * step, 100.0), "b": (300.0, 300.0)} for step in range(21)]
    report = measured(frames, Mode(1.0))
    assert (report["inputs"], report["outputs"], report["iou"], report["switches"]) == (61, 61, 1.0, 0)
    assert report["iou_still"] < 0.4 and report["kept"] == 1.0
    # An answer is a second old when it arrives, and is used until the next one a second later.
    assert report["age_max"] == pytest.approx(2.0, abs=0.11) and report["boxed"] == 1.0
    assert report["questions"] == 7


def test_the_models_own_bounds_hold_for_its_answers() -> None:
    world = World([{"a": (100, 100)} for _ in range(3)])
    world.min_presence, world.min_margin = 0.4, 0.3  # set again by each question
    evaluate_tracking(world, [moments([{"a": (100, 100)}] * 3, "a")], [Mode(0.0)], TrackingConfig())  # type: ignore[arg-type]
    assert (world.min_presence, world.min_margin) == (0.4, 0.3)


def test_motion_model_follows_between_perceived_frames() -> None:
    frames = [{"a": (100.0 + 10 * step, 100.0), "b": (300.0, 300.0)} for step in range(21)]
    report = measured(frames, Mode(0.3, 2.5))
    assert report["outputs"] == 21 and report["iou"] > 0.8


def test_a_lost_box_counts_as_nothing() -> None:
    frames = [{"a": (100.0, 100.0), "b": (300.0, 300.0)} for _ in range(40)]
    blind = [dict(centres) if step < 3 else {"b": centres["b"]} for step, centres in enumerate(frames)]
    config = TrackingConfig(max_coast=0.61)
    tallies = evaluate_tracking(World(blind), [moments(frames, "a")], [Mode(0.6)], config)  # type: ignore[arg-type]
    report = tallies[0].report()
    # Answered at 0.6 s about the first frame, not seen after 0.2 s, carried to 0.8 s and absent in the answer
    # of 1.2 s.
    assert report["carried_boxes"] == 6 and report["iou"] == pytest.approx(0.5) and report["kept"] == 0.5
    assert report["boxed"] == pytest.approx(30 / 33, abs=1e-4)


def test_a_new_id_for_the_same_object_is_a_switch() -> None:
    frames = [{"a": (100.0 if step < 10 else 500.0, 100.0), "b": (300.0, 300.0)} for step in range(20)]
    report = measured(frames, Mode(0.0), TrackingConfig())
    assert report["switches"] == 1 and report["switches_per_minute"] == pytest.approx(60 / 1.9, abs=0.01)


def test_late_answers_come_when_their_time_has_come() -> None:
    line = DelayedModel(lambda question: [], 1.0)
    for start in (5, 8):
        future = line.ask(Question(scene(start, {"a": (100, 100)}), StandingGoals()))
        line.advance(round((start + 0.9) * SECOND))
        assert not future.done()
        line.advance((start + 1) * SECOND)
        assert future.result(0).seconds == 1.0
    assert line.asked == 2


def test_a_sequence_is_played_back_and_forth_until_it_is_long_enough() -> None:
    frames = [{"a": (100.0 + 10 * step, 100.0)} for step in range(3)]
    sequence = moments(frames, "a")
    scenes = [scene(0.1 * step, centres) for step, centres in enumerate(frames)]
    longer = lengthened(sequence, scenes, 0.1)
    assert [round(moment.frame.stamp / SECOND, 1) for moment, _ in longer] == [
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
    ]
    places = [sequence[place].targets["a"][0, 0] for place in (0, 1, 2, 1, 0, 1, 2)]
    assert [moment.targets["a"][0, 0] for moment, _ in longer] == places
    assert all(
        moment.frame.stamp == view.stamp and view.boxes[0, 0] == moment.targets["a"][0, 0]
        for moment, view in longer
    )
    assert len(lengthened(sequence, scenes, 0.0)) == 3 and len(lengthened(sequence[:1], scenes[:1], 5.0)) == 1


def test_documented_figures_hold_on_the_demo_bag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "--model",
        str(ROOT / "engines" / "groma-tiny"),
        "--bag",
        str(ROOT / "demo" / "tabletop.mcap"),
        "--answer-seconds",
        "1,2.5,10",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["groma", "eval", "tracking", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    rows = {(row["answer_seconds"], row["proposer_hz"]): row for row in document["rows"]}
    assert list(rows) == [(1, 0), (1, 2.5), (2.5, 0), (2.5, 2.5), (10, 0), (10, 2.5)]
    for (seconds, rate), row in rows.items():
        assert row["inputs"] == row["outputs"] == max(60, 60 * seconds + 1)
        # How tight boxes are depends on the weights; that carried boxes stay on their objects does not.
        assert row["kept"] >= (0.97 if rate else 0.99) and row["iou"] >= (0.74 if rate else 0.8)
        assert row["iou_still"] < 0.35, "carried for up to twice as long"
        assert row["boxed"] == 1.0 and row["switches_per_minute"] < 2
        assert seconds <= row["age_mean"] <= row["age_max"] <= 2 * seconds + 0.81


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give either --seed"),
        (["--seed", "1", "--count", "0"], "--count must be 1 or more"),
        (
            ["--seed", "1", "--answer-seconds", "2,soon"],
            "--answer-seconds is '2,soon'; give numbers from 0 to 600",
        ),
        (["--seed", "1", "--answer-seconds", "-1"], "--answer-seconds is '-1'; give numbers from 0 to 600"),
        (["--seed", "1", "--proposer-hz", "nan"], "--proposer-hz is 'nan'; give numbers from 0 to 1000"),
        (["--bag", "none.mcap"], "none.mcap"),
    ],
)
def test_wrong_options_are_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["groma", "eval", "tracking", "--model", str(ROOT / "engines" / "groma-tiny"), *arguments],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err.strip()
    assert ended.value.code == 1 and sentence in error and len(error.splitlines()) == 1
