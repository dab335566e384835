"""Scenes from recorded frames with a truth file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from groma_ros.evaluation.scenes import TrueScene
from groma_ros.io.bag_topics import find_camera
from groma_ros.io.bags import RecordedImage, open_bag, recorded_images
from groma_ros.replay.truth import Truth, read_truth
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.scenes import SceneObject
from groma_ros.types import FloatArray

BAG_FILES = (".mcap", ".db3")
TRUTH = "truth.json"


def is_bag(path: Path) -> bool:
    """Whether a path is a bag by its name: a bag file or a rosbag2 folder."""
    return path.suffix in BAG_FILES or (path / "metadata.yaml").is_file()


def bag_scenes(
    path: Path, truth_file: Path | None = None, topic: str | None = None, every: int = 1
) -> list[TrueScene]:
    """Read every `every`-th frame of the camera that the truth file contains (default: truth.json beside the
    bag).

    Raises ValueError for a bag or truth that cannot be read, and if no frame is in the truth.
    """
    if every < 1:
        raise ValueError(f"--every is {every}; at least every frame is 1.")
    truth = read_truth(truth_file or path.parent / TRUTH)
    with open_bag(path) as bag:
        images = recorded_images(bag, find_camera(bag, topic), lambda number: number % every == 0)
        scenes = [
            _scene(image.frame.rgb, truth, goals)
            for image in images
            if image.frame is not None and (goals := _goals(image, truth))
        ]
    if not scenes:
        raise ValueError(
            f"The truth file knows none of the frames of {path}; its stamps are those of another recording."
        )
    return scenes


def _goals(shot: RecordedImage, truth: Truth) -> Mapping[str, FloatArray]:
    assert shot.frame is not None
    return truth.boxes.get(shot.frame.stamp if truth.stamped else shot.number, {})


def _scene(rgb: NDArray[Any], truth: Truth, goals: Mapping[str, FloatArray]) -> TrueScene:
    """Build a scene whose objects are the targets of the goals in order. The truth file may not name their
    kinds."""
    objects: list[SceneObject] = []
    said: list[SceneGoal] = []
    for text, boxes in goals.items():
        targets = tuple(range(len(objects), len(objects) + len(boxes)))
        objects += [_target(box) for box in boxes]
        said.append(SceneGoal(text, truth.kinds[text], targets))
    return TrueScene(rgb, tuple(objects), tuple(said))


def _target(box: FloatArray) -> SceneObject:
    x1, y1, x2, y2 = (float(value) for value in box)
    return SceneObject(
        "", "", (x1, y1, x2, y2), 1.0, int((x2 - x1) * (y2 - y1)), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    )
