"""A recording with a truth file as evaluation scenes and as calibration data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.evaluation.bag_scenes import bag_scenes, is_bag

ROOT = Path(__file__).parents[2]
BAG = ROOT / "demo" / "tabletop.mcap"


def test_frames_get_the_boxes_of_their_stamp() -> None:
    truth = json.loads((ROOT / "demo" / "truth.json").read_text())
    scenes = bag_scenes(BAG, every=20)
    assert len(scenes) == 3
    for scene, frame in zip(scenes, truth["frames"][::20], strict=True):
        assert scene.rgb.shape == (480, 640, 3)
        for goal, said in zip(scene.goals, truth["goals"], strict=True):
            assert (goal.text, goal.kind) == (said["text"], said["kind"])
            wanted = np.array([frame["boxes"][index] for index in said["targets"]], np.float32).reshape(-1, 4)
            np.testing.assert_array_equal(scene.boxes[list(goal.targets)], wanted)


def test_what_a_bag_looks_like(tmp_path: Path) -> None:
    assert is_bag(BAG) and is_bag(tmp_path / "x.db3") and not is_bag(tmp_path)
    (tmp_path / "metadata.yaml").touch()
    assert is_bag(tmp_path)


def test_the_truth_of_another_recording_is_refused(tmp_path: Path) -> None:
    truth = json.loads((ROOT / "demo" / "truth.json").read_text())
    for frame in truth["frames"]:
        frame["stamp"] += 1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(ValueError, match="knows none of the frames"):
        bag_scenes(BAG, tmp_path / "truth.json")
    with pytest.raises(ValueError, match="--every is 0"):
        bag_scenes(BAG, every=0)


def test_calibrating_on_a_bag(command: Callable[..., dict[str, Any]]) -> None:
    model = ROOT / "engines" / "groma-tiny"
    found = command("calibrate", BAG, "--model", model, "--every", 6, "--threads", 1, "--dry-run")
    assert (found["scenes"], found["goals"], found["absent"], found["written"]) == (10, 80, 10, False)
    assert found["presence"]["before"]["error"] < 0.1
