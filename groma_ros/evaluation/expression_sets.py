"""Expressions with any number of targets, including none, and the model's answers: common to `grec`,
`absence` and `concepts`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.coco_files import find_picture
from groma_ros.evaluation.statistics import calibration_error, rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.types import Frame, Goal, GoalKind

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """An expression about a picture."""

    number: int
    """Index in the file."""
    text: str
    targets: tuple[Box, ...]
    """True boxes, xyxy pixels; empty if nothing matches."""
    group: str = ""
    """Split or subtask."""


@dataclass(frozen=True)
class PictureExpressions:
    """A picture, under its name in the annotations, with all expressions about it."""

    name: str
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Answered:
    """An expression with the model's answer."""

    asked: Asked
    boxes: NDArray[Any]
    """float32 (N, 4) xyxy pixels, best first; empty if reported absent."""
    present: float
    """Presence reported by the model."""


@dataclass(frozen=True)
class GroundExpressions:
    """Ground all expressions about a picture, in batches.

    The record has one row per expression: its number, the presence, and the boxes.
    """

    images: Path
    """Folder of the pictures."""
    kind: GoalKind
    """Kind of goal the expressions are grounded as."""
    batch: int
    """Expressions per batch."""

    def __call__(self, grounder: Grounder, picture: PictureExpressions) -> Record:
        scene = grounder.perceive(Frame(read_annotated(find_picture(self.images, picture.name))))
        rows: list[list[Any]] = []
        for start in range(0, len(picture.asked), self.batch):
            batch = picture.asked[start : start + self.batch]
            answers = grounder.ground(scene, [Goal(item.text, self.kind) for item in batch])
            for item, answer in zip(batch, answers, strict=True):
                boxes = [[round(float(value), 3) for value in found.box] for found in answer.detections]
                rows.append([item.number, float(answer.present), boxes])
        return {"rows": rows}


def by_picture(rows: Iterable[tuple[str, Asked]]) -> list[PictureExpressions]:
    """Group expressions by picture, in the order of first occurrence."""
    grouped: dict[str, list[Asked]] = {}
    for name, item in rows:
        grouped.setdefault(name, []).append(item)
    return [PictureExpressions(name, tuple(items)) for name, items in grouped.items()]


def answered(pictures: Sequence[PictureExpressions], records: Sequence[Record]) -> list[Answered]:
    """Join the expressions with the records of `GroundExpressions`."""
    found = []
    for picture, record in zip(pictures, records, strict=True):
        for item, (_, present, boxes) in zip(picture.asked, record["rows"], strict=True):
            found.append(Answered(item, np.array(boxes, np.float32).reshape(-1, 4), float(present)))
    return found


def presence_error(items: Sequence[Answered]) -> float | None:
    """Expected calibration error of the presences."""
    stated = np.array([item.present for item in items])
    return rounded(calibration_error(stated, np.array([bool(item.asked.targets) for item in items], bool)))


def target_boxes(item: Answered) -> NDArray[Any]:
    """True boxes of an expression, float32 (M, 4) xyxy pixels."""
    return np.array(item.asked.targets, np.float32).reshape(-1, 4)


def percent(part: int, whole: int) -> float | None:
    """Percentage, None if `whole` is 0."""
    return round(100 * part / whole, 2) if whole else None
