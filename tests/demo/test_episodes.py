"""Counting episodes: shares, intervals and the keys of the JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.episodes import Row, described, summary, wilson, write_summary

ROWS = [
    Row(0, "the red can", "attribute", True, "success"),
    Row(1, "the lemon", "attribute", True, "nothing lifted", "missed"),
    Row(2, "the box", "relation", True, "wrong lift", "wrong object", wrong=True),
    Row(3, "the cup", "absent", False, "success"),
    Row(4, "the plate", "absent", False, "motion", "absent goal answered", moved=True),
]


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_counts_are_over_the_right_rows(tmp_path: Path) -> None:
    document = write_summary(tmp_path / "out" / "grasp.json", ROWS, "wrong_lift", finder="node")
    assert json.loads((tmp_path / "out" / "grasp.json").read_text()) == document
    assert [document[key] for key in ("episodes", "present", "success", "wrong_lift", "absent")] == [
        5,
        3,
        1,
        1,
        2,
    ]
    assert document["motion_on_absent"] == 1
    assert document["causes"] == {"missed": 1, "wrong object": 1, "absent goal answered": 1}
    assert document["rows"][1] == {
        "seed": 1,
        "goal": "the lemon",
        "kind": "attribute",
        "present": True,
        "outcome": "nothing lifted",
        "cause": "missed",
        "wrong": False,
        "moved": False,
        "figures": {},
    }
    assert document["kinds"] == {"absent": [1, 2], "attribute": [1, 2], "relation": [0, 1]}


def test_a_summary_in_words() -> None:
    text = described(summary(ROWS, "wrong_lift"), "wrong_lift")
    assert "1 of 3" in text and "motion on absent" in text and "missed 1" in text
    assert "causes: none" in described(summary(ROWS[:1], "wrong_lift"), "wrong_lift")
