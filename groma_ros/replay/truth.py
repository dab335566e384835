"""True boxes of a bag's frames, in COCO format with goals as written by `groma scenes`, and accuracy
against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.coco_files import four_numbers
from groma_ros.errors import printable, quoted
from groma_ros.json_files import load_object
from groma_ros.matching import exact_set
from groma_ros.replay.records import FrameRecord
from groma_ros.types import FloatArray

IOU = 0.5


@dataclass(frozen=True, eq=False)
class Truth:
    """True boxes and goals of a bag."""

    boxes: Mapping[int, Mapping[str, FloatArray]]
    """By frame and goal, float32 (M, 4) xyxy pixels; M may be 0."""
    kinds: Mapping[str, str]
    """Kind of each goal."""
    stamped: bool
    """Whether frames are identified by header stamp in ns; else by index on the topic."""

    def of(self, record: FrameRecord) -> Mapping[str, FloatArray]:
        """True boxes of a frame by goal."""
        return self.boxes.get(record.stamp if self.stamped else record.number, {})


@dataclass(frozen=True)
class Judged:
    """A goal's answers compared with the truth."""

    goal: str
    kind: str
    right: Mapping[int, bool]
    """By frame number, whether exactly the true boxes were found at IoU 0.5."""

    @property
    def accuracy(self) -> float:
        """Share of right frames."""
        return sum(self.right.values()) / len(self.right)


def read_truth(path: Path) -> Truth:
    """Read a truth file.

    Format: `images` (id, and stamp in ns or frame, else in order), `annotations` (id, image_id, bbox x y
    width height), `goals` (image_id, text, kind, annotation_ids); or that of the demo's truth.json. Raises
    ValueError.
    """
    try:
        data = load_object(path)
        return _sequence(data) if "frames" in data else _coco(data)
    except KeyError as error:
        raise ValueError(
            f"The truth {path} is not in its form: the key {printable(error, 80)} is missing, or names "
            "nothing."
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        reason = printable(error, 300).rstrip(".")
        raise ValueError(f"The truth {path} is not in its form: {reason}.") from error


def judge(truth: Truth, records: Sequence[FrameRecord]) -> list[Judged]:
    """Accuracy of every goal with truth on answered frames, in the order of the goals."""
    right: dict[str, dict[int, bool]] = {}
    for record in records:
        known = truth.of(record)
        for item in record.goals:
            if item.goal in known:
                found = np.array([box.box for box in item.detections], np.float32).reshape(-1, 4)
                right.setdefault(item.goal, {})[record.number] = exact_set(found, known[item.goal], IOU)
    return [Judged(goal, truth.kinds[goal], frames) for goal, frames in right.items()]


def _coco(data: Mapping[str, Any]) -> Truth:
    images = data["images"]
    stamped = all("stamp" in image for image in images)
    places = {
        image["id"]: int(image["stamp"] if stamped else image.get("frame", place))
        for place, image in enumerate(images)
    }
    if len(set(places.values())) < len(images):
        raise ValueError("two of its images are the same frame")
    corners = {item["id"]: _corners(item["bbox"]) for item in data["annotations"]}
    boxes: dict[int, dict[str, FloatArray]] = {}
    for goal in data["goals"]:
        rows = [corners[number] for number in goal["annotation_ids"]]
        boxes.setdefault(places[goal["image_id"]], {})[_text(goal, "text")] = np.array(
            rows, np.float32
        ).reshape(-1, 4)
    return Truth(boxes, {goal["text"]: _text(goal, "kind") for goal in data["goals"]}, stamped)


def _sequence(data: Mapping[str, Any]) -> Truth:
    """Read the format of `groma_ros.simulation.sequence`, where targets are the same objects in every
    frame."""
    boxes = {}
    for frame in data["frames"]:
        corners = np.array([_four(box) for box in frame["boxes"]], np.float32).reshape(-1, 4)
        boxes[int(frame["stamp"])] = {
            _text(goal, "text"): corners[[int(target) for target in goal["targets"]]]
            for goal in data["goals"]
        }
    return Truth(boxes, {goal["text"]: _text(goal, "kind") for goal in data["goals"]}, True)


def _text(goal: Mapping[str, Any], key: str) -> str:
    value = goal[key]
    if not isinstance(value, str):
        raise ValueError(f"the {key} of a goal is {quoted(value)} and must be a text")
    return value


def _corners(bbox: Any) -> tuple[float, float, float, float]:
    x, y, width, height = _four(bbox)
    return x, y, x + width, y + height


def _four(box: Any) -> list[float]:
    numbers = four_numbers(box)
    if numbers is None:
        raise ValueError(f"a box is {quoted(box)} and must have four numbers")
    return numbers
