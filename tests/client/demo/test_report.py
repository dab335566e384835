"""Accuracy of the demo against hand-counted values, and the format of its output files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from std_msgs.msg import Header

from groma_ros.client.demo.report import (
    Counts,
    DemoTruth,
    accuracy,
    correct_by_goal,
    write_figures,
    write_picture,
)
from groma_ros.client.messages import groundings_from_message
from groma_ros.node.conversions import groundings_message
from groma_ros.types import Detection, Goal, Grounding
from tests.pictures import read_picture

BALL, MUG = (10.0, 10.0, 50.0, 50.0), (100.0, 20.0, 140.0, 80.0)
TRUTH = {
    "goals": [
        {"text": "the ball", "kind": "attribute", "targets": [0]},
        {"text": "everything", "kind": "plural", "targets": [0, 1]},
        {"text": "the cone", "kind": "absent", "targets": []},
    ],
    "frames": [{"stamp": 1000, "boxes": [BALL, MUG]}, {"stamp": 2000, "boxes": [MUG, BALL]}],
}


def answer(goal: str, *boxes: tuple[float, float, float, float]) -> Grounding:
    return Grounding(
        Goal(goal), tuple(Detection(box, 0.75, number) for number, box in enumerate(boxes)), 0.5, 0.25
    )


@pytest.fixture
def truth(tmp_path: Path) -> DemoTruth:
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    return DemoTruth.load(tmp_path / "truth.json")


def test_a_pair_counts_only_with_exactly_its_boxes(truth: DemoTruth) -> None:
    near = (12.0, 10.0, 52.0, 50.0)
    answers = {
        1000: [answer("the ball", near), answer("everything", MUG, BALL), answer("the cone")],
        2000: [answer("the ball", BALL), answer("everything", MUG), answer("the cone", BALL)],
    }
    assert correct_by_goal(answers, truth) == {
        "the ball": [True, False],
        "everything": [True, False],
        "the cone": [True, False],
    }
    assert accuracy(answers, truth) == 0.5
    assert accuracy({1000: [answer("everything", BALL, near)]}, truth) == 0.0
    assert accuracy({1000: [answer("the ball", BALL, BALL)]}, truth) == 0.0


def test_frames_and_goals_without_truth_are_not_judged(truth: DemoTruth) -> None:
    assert (
        accuracy({1000: [answer("the ball", BALL), answer("unknown")], 3000: [answer("the ball")]}, truth)
        == 1.0
    )
    assert accuracy({}, truth) == 0.0


def test_the_figures_have_the_documented_form(tmp_path: Path, truth: DemoTruth) -> None:
    answers = {2000: [answer("the ball", MUG)], 1000: [answer("the ball", BALL)]}
    write_figures(tmp_path / "demo.json", answers, truth, Counts(5, 2, 3, 1.5))
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert {key: value for key, value in figures.items() if key != "frames"} == {
        "accuracy": 1.0,
        "received": 5,
        "answered": 2,
        "dropped": 3,
        "seconds": 1.5,
    }
    detections = [{"box": list(BALL), "score": 0.75}]
    assert figures["frames"][0] == {
        "stamp": 1000,
        "groundings": [
            {
                "goal": "the ball",
                "status": "present",
                "present": 0.5,
                "margin": 0.25,
                "detections": detections,
            }
        ],
    }
    assert [frame["stamp"] for frame in figures["frames"]] == [1000, 2000]


def test_messages_are_read_back(truth: DemoTruth) -> None:
    sent = [answer("everything", BALL, MUG), answer("the cone")]
    read = groundings_from_message(groundings_message(Header(), sent, 1))
    assert [(item.goal.text, item.goal.kind, item.present, item.margin) for item in read] == [
        ("everything", "auto", 0.5, 0.25),
        ("the cone", "auto", 0.5, 0.25),
    ]
    assert [item.box for item in read[0].detections] == [BALL, MUG] and read[1].detections == ()


@pytest.mark.parametrize(("frames", "size"), [(1, (2, 1)), (2, (2, 1)), (3, (2, 2)), (9, (2, 2))])
def test_the_picture_shows_frames_two_a_row_and_every_goal_once(
    tmp_path: Path, frames: int, size: tuple[int, int]
) -> None:
    goals = [f"goal {index}" for index in range(6)]
    answers = {stamp: [answer(goal, BALL) for goal in goals] for stamp in range(frames)}
    write_picture(
        tmp_path / "demo.png", {stamp: np.full((120, 160, 3), 90, np.uint8) for stamp in answers}, answers
    )
    picture = read_picture(tmp_path / "demo.png")
    assert picture.shape[1] == 160 * size[0] and picture.shape[0] > 120 * size[1]
    assert (picture[:120, :160] != 90).any()


def test_the_picture_leaves_out_frames_whose_goals_are_not_answered_yet(tmp_path: Path) -> None:
    pending = dataclasses.replace(answer("goal"), status="pending")
    answers = {0: [pending], 1: [answer("goal", BALL)]}
    shades = {0: np.full((120, 160, 3), 30, np.uint8), 1: np.full((120, 160, 3), 90, np.uint8)}
    for shown, left in ((answers, 90), ({0: answers[0]}, 30)):  # alone it is better than none
        write_picture(tmp_path / "demo.png", shades, shown)
        assert (read_picture(tmp_path / "demo.png")[60, 5] == left).all()


def test_wrong_truth_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    for content in ("{", "[]", '{"goals": []}', '{"goals": [{"text": "a"}], "frames": []}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"The truth .*truth\.json cannot be read"):
            DemoTruth.load(path)
    with pytest.raises(ValueError, match="cannot be read"):
        DemoTruth.load(tmp_path / "none.json")
