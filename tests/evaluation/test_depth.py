"""Errors of 3D boxes, and the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from groma_ros import cli
from groma_ros.evaluation.depth import DepthTally, errors, evaluate, rendered, table
from groma_ros.grounding.grounder import Grounder
from groma_ros.simulation.scenes import SceneObject
from groma_ros.types import Box3D, Frame

TRUTH = Box3D((0.1, 0.2, 0.9), (0.0, 0.0, 0.0, 1.0), (0.10, 0.05, 0.2))


def test_errors_are_those_of_middle_sides_and_up() -> None:
    tilt = np.deg2rad(5)
    found = Box3D(
        (0.1, 0.23, 0.94), (float(np.sin(tilt / 2)), 0.0, 0.0, float(np.cos(tilt / 2))), (0.06, 0.11, 0.19)
    )
    assert errors(found, TRUTH) == pytest.approx(
        {"centre": 0.05, "width": 0.2, "length": 0.1, "height": -0.05, "up": 5.0}
    )
    assert errors(TRUTH, TRUTH) == pytest.approx({"centre": 0, "width": 0, "length": 0, "height": 0, "up": 0})


def test_what_is_refused_is_counted_by_cause() -> None:
    tally = DepthTally()
    item = SceneObject("mug", "red", (0, 0, 9, 9), 1.0, 50, (0, 0, 1), (0.1, 0.1, 0.1), TRUTH)
    tally.add(item, item.box, Frame(np.zeros((20, 20, 3), np.uint8)))
    report = tally.report()
    assert (report["boxes"], report["refused"], report["kinds"]) == (1, {"missing": 1}, {})
    assert "0     1" in table(
        {"scenes": 1, "seed": 2, "world": "table", "levels": {"clean": {"true": report}}}
    )


def test_true_and_own_boxes_are_placed_at_every_level(small_model: Path) -> None:
    samples = list(rendered(5, 2))
    tallies = evaluate(samples, Grounder.load(small_model), ["clean", "poor"])
    assert {level: set(sources) for level, sources in tallies.items()} == {
        "clean": {"true", "own"},
        "poor": {"true", "own"},
    }
    for sources in tallies.values():
        assert sources["true"].report()["boxes"] == sum(len(sample.objects) for sample in samples)


def test_the_command_writes_one_document_and_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = []
    for _ in range(2):
        monkeypatch.setattr(
            sys,
            "argv",
            ["groma", "eval", "depth", "--seed", "6", "--count", "2", "--noise", "clean", "camera", "--json"],
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        reports.append(json.loads(capsys.readouterr().out))
        for level in reports[-1]["levels"].values():
            assert level["true"].pop("ms_a_box") > 0
    assert reports[0] == reports[1]
    clean = reports[0]["levels"]["clean"]["true"]
    assert list(reports[0]["levels"]) == ["clean", "camera"] and clean["refused"] == {} and clean["boxes"] > 8
    assert (
        clean["centre_mm"]["median"] < 10
        and clean["centre_mm"]["p95"] < 30
        and clean["width_percent"]["median"] < 10
    )
