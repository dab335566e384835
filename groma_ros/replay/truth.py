"""True boxes of a bag's frames, in COCO format with goals as written by `groma scenes`, and accuracy
against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.coco_files import as_key, four_numbers
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


@dataclass(frozen=True)
class Unjudged:
    """A goal of the truth that was judged on no frame."""

    goal: str
    reason: str
    """A clause."""

    @property
    def sentence(self) -> str:
        return f"The goal {self.goal!r} of the truth was judged on no frame: {self.reason}."


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


def unjudged(truth: Truth, judged: Sequence[Judged], asked: Collection[str]) -> list[Unjudged]:
    """Goals of the truth that were judged on no frame, in their order. asked: texts of the run's goals."""
    done = {item.goal for item in judged}
    return [
        Unjudged(text, _NO_FRAME if text in asked else _NOT_ASKED) for text in truth.kinds if text not in done
    ]


_NOT_ASKED = "no goal of this text was asked"
_NO_FRAME = "none of its frames was answered"


def _coco(data: Mapping[str, Any]) -> Truth:
    images = data["images"]
    stamped = _all_have(images, "stamp")
    framed = not stamped and _all_have(images, "frame")
    places = {
        image["id"]: int(image["stamp"] if stamped else image["frame"] if framed else place)
        for place, image in enumerate(images)
    }
    if len(set(places.values())) < len(images):
        raise ValueError("two of its images are the same frame")
    annotations = {item["id"]: (item, _corners(item["bbox"])) for item in data["annotations"]}
    if len(annotations) < len(data["annotations"]):
        raise ValueError("two of its annotations have the same id")
    boxes: dict[int, dict[str, FloatArray]] = {}
    for goal in data["goals"]:
        rows = []
        for number in goal["annotation_ids"]:
            item, box = annotations[number]
            if as_key(item.get("image_id", goal["image_id"])) != as_key(goal["image_id"]):
                raise ValueError(
                    f"a goal of the image {quoted(goal['image_id'])} names the annotation {quoted(number)}, "
                    f"which is of the image {quoted(item['image_id'])}"
                )
            rows.append(box)
        boxes.setdefault(places[goal["image_id"]], {})[_text(goal, "text")] = np.array(
            rows, np.float32
        ).reshape(-1, 4)
    return Truth(boxes, {goal["text"]: _text(goal, "kind") for goal in data["goals"]}, stamped)


def _all_have(images: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether the images have a key. Raises ValueError if only some do, since the others would have no
    frame."""
    having = [image.get(key) is not None for image in images]
    if any(having) and not all(having):
        raise ValueError(
            f"images[{having.index(False)}] has no {key} and images[{having.index(True)}] has one; give a "
            f"{key} to all images or to none"
        )
    return all(having)


def _sequence(data: Mapping[str, Any]) -> Truth:
    """Read the format of `groma_ros.simulation.sequence`, where targets are the same objects in every
    frame."""
    boxes = {}
    for frame in data["frames"]:
        corners = np.array([_four(box) for box in frame["boxes"]], np.float32).reshape(-1, 4)
        boxes[int(frame["stamp"])] = {
            _text(goal, "text"): corners[_targets(goal, len(corners))] for goal in data["goals"]
        }
    return Truth(boxes, {goal["text"]: _text(goal, "kind") for goal in data["goals"]}, True)


def _targets(goal: Mapping[str, Any], count: int) -> list[int]:
    """Indices of a goal's boxes among the `count` of a frame."""
    for target in goal["targets"]:
        if type(target) is not int or not 0 <= target < count:
            raise ValueError(
                f"a target of the goal {quoted(goal['text'])} is {quoted(target)} and must be the index of "
                f"one of the {count} boxes of every frame, counted from 0"
            )
    return list(goal["targets"])


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
