"""Errors of 3D boxes, and the command."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from groma_ros import cli
from groma_ros.evaluation.depth import DepthTally, errors, evaluate, folder_samples, rendered, table
from groma_ros.grounding.grounder import Grounder
from groma_ros.simulation.dataset import DatasetError, Settings, write_dataset
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered scenes with depth."""
    path = tmp_path_factory.mktemp("scenes")
    write_dataset(path, 2, Settings(5, depth=True), progress=False)
    return path


def test_a_folder_of_scenes_gives_what_rendering_them_gives(folder: Path) -> None:
    count, samples = folder_samples(folder)
    assert count == 2
    (read,), (drawn,) = (
        evaluate(source, None, ["millimetres"]).values() for source in (samples, rendered(5, 2))
    )
    read_report, drawn_report = read["true"].report(), drawn["true"].report()
    assert read_report["boxes"] == drawn_report["boxes"] > 5
    assert read_report["centre_mm"] == pytest.approx(drawn_report["centre_mm"], abs=0.2)


def test_the_command_reads_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["groma", "eval", "depth", "--data", str(folder), "--noise", "clean"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and f"scenes 2, data {folder};" in capsys.readouterr().out


def test_a_folder_without_depth_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "scenes"
    shutil.copytree(folder, copy)
    (copy / "depth" / "000001.png").unlink()
    with pytest.raises(DatasetError, match="000001.png is no 16-bit depth image of 000001.jpg; write"):
        list(folder_samples(copy)[1])
    document = json.loads((copy / "annotations.json").read_text())
    del document["annotations"][0]["box_3d"]
    (copy / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match="no camera or no 3D boxes"):
        folder_samples(copy)


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
