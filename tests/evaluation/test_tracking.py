"""Tracking evaluation on synthetic sequences, and its documented figures on the demo bag."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.cli import main
from groma_ros.evaluation.tracking import DelayedModel, Mode, Moment, evaluate_tracking
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.questions import Question, StandingGoals
from groma_ros.types import Frame, Goal, Grounding, Scene
from tests.tracking.moving import SECOND, scene
from tests.tracking.test_grounding_tracker import answer, at

ROOT = Path(__file__).parents[2]


class World:
    """A model that sees what is said to be there."""

    min_presence = 0.5

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
    frames: list[dict[str, tuple[float, float]]], mode: Mode, rule: TrackingConfig | None = None
) -> dict[str, Any]:
    tallies = evaluate_tracking(World(frames), [moments(frames, "a")], [mode], rule or TrackingConfig())  # type: ignore[arg-type]
    return tallies[0].report()


def test_tracked_boxes_follow_the_object_and_still_boxes_do_not() -> None:
    frames = [{"a": (100 + 10 * step, 100), "b": (300, 300)} for step in range(21)]
    report = measured(frames, Mode(1.0))
    assert (report["inputs"], report["outputs"], report["iou"], report["switches"]) == (21, 21, 1.0, 0)
    assert report["iou_still"] < 0.4 and report["kept"] == 1.0
    # The first is answered as it comes; the one asked a second after that stands from its own second on.
    assert report["age_max"] == pytest.approx(2.0, abs=0.11) and report["questions"] == 3


def test_motion_model_follows_between_perceived_frames() -> None:
    frames = [{"a": (100 + 10 * step, 100), "b": (300, 300)} for step in range(21)]
    report = measured(frames, Mode(1.0, 2.5))
    assert report["outputs"] == 21 and report["iou"] > 0.8


def test_a_lost_box_counts_as_iou_zero() -> None:
    frames = [{"a": (100, 100), "b": (300, 300)} for _ in range(11)]
    blind = [dict(centres) if step < 3 else {"b": centres["b"]} for step, centres in enumerate(frames)]
    tallies = evaluate_tracking(World(blind), [moments(frames, "a")], [Mode(9.0)], TrackingConfig(coast=0.25))  # type: ignore[arg-type]
    report = tallies[0].report()
    assert report["carried_boxes"] == 10 and report["iou"] == pytest.approx(0.4) and report["kept"] == 0.4


def test_a_new_id_for_the_same_object_is_a_switch() -> None:
    frames = [{"a": (100.0 if step < 10 else 500.0, 100.0), "b": (300.0, 300.0)} for step in range(20)]
    report = measured(frames, Mode(0.0), TrackingConfig())
    assert report["switches"] == 1 and report["switches_per_minute"] == pytest.approx(60 / 1.9, abs=0.01)


def test_delayed_answers_arrive_after_their_latency() -> None:
    line = DelayedModel(lambda question: [], 1.0)
    assert line.ask(Question(scene(5, {"a": (100, 100)}), StandingGoals())).done(), "the first is at once"
    second = line.ask(Question(scene(5, {"a": (100, 100)}), StandingGoals()))
    line.advance(round(5.9 * SECOND))
    assert not second.done()
    line.advance(round(6.0 * SECOND))
    assert second.result(0).seconds == 1.0 and line.asked == 2


def test_documented_figures_hold_on_the_demo_bag(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        "--model",
        str(ROOT / "engines" / "groma-tiny"),
        "--bag",
        str(ROOT / "demo" / "tabletop.mcap"),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["groma", "eval", "tracking", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    everything, motion = document["rows"]
    assert (
        document["latency"] == 1.0
        and everything["inputs"] == everything["outputs"] == motion["outputs"] == 60
    )
    assert everything["iou"] >= 0.9 and motion["iou"] >= 0.75 and everything["iou_still"] < 0.6
    assert everything["switches_per_minute"] < 2 and motion["switches_per_minute"] < 2
    assert 1.0 <= everything["age_mean"] <= 2.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give either --seed"),
        (["--seed", "1", "--count", "0"], "--count must be 1 or more"),
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
