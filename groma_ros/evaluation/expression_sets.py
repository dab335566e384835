"""Expressions with any number of targets, none included: what the model answers about each, for the
measures of `grec`, `absence` and `concepts`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.evaluation.dataset_files import find_picture, read_rgb
from groma_ros.evaluation.statistics import calibration_error, rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal, GoalKind

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """An expression about a picture."""

    number: int
    """Place in the file."""
    text: str
    targets: tuple[Box, ...]
    """True boxes, xyxy pixels; none where nothing fits."""
    group: str = ""
    """Split or subtask."""


@dataclass(frozen=True)
class AskedAbout:
    """A picture, by the name the annotations give it, with all expressions about it."""

    name: str
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Answered:
    """An expression with the model's answer."""

    asked: Asked
    boxes: np.ndarray
    """float32 Nx4 xyxy pixels, best first; empty where the model says that nothing fits."""
    present: float
    """Stated probability that something fits."""


@dataclass(frozen=True)
class AskSet:
    """The work on one picture: all its expressions, in batches. The record holds a row an expression: its
    number, the stated presence, and the boxes of the answer."""

    images: Path
    """Folder of the pictures."""
    kind: GoalKind
    """How the expressions are asked."""
    batch: int
    """Expressions asked at once."""

    def __call__(self, grounder: Grounder, picture: AskedAbout) -> Record:
        scene = grounder.perceive(Frame(read_rgb(find_picture(self.images, picture.name))))
        rows: list[list[Any]] = []
        for start in range(0, len(picture.asked), self.batch):
            batch = picture.asked[start : start + self.batch]
            answers = grounder.ground(scene, [Goal(item.text, self.kind) for item in batch])
            for item, answer in zip(batch, answers, strict=True):
                boxes = [[round(float(value), 3) for value in found.box] for found in answer.detections]
                rows.append([item.number, float(answer.present), boxes])
        return {"rows": rows}


def by_picture(rows: Iterable[tuple[str, Asked]]) -> list[AskedAbout]:
    """Expressions grouped by their picture, in the order in which the pictures come first."""
    grouped: dict[str, list[Asked]] = {}
    for name, item in rows:
        grouped.setdefault(name, []).append(item)
    return [AskedAbout(name, tuple(items)) for name, items in grouped.items()]


def answered(pictures: Sequence[AskedAbout], records: Sequence[Record]) -> list[Answered]:
    """The expressions with the answers that the records of `AskSet` hold."""
    found = []
    for picture, record in zip(pictures, records, strict=True):
        for item, (_, present, boxes) in zip(picture.asked, record["rows"], strict=True):
            found.append(Answered(item, np.array(boxes, np.float32).reshape(-1, 4), float(present)))
    return found


def presence_error(items: Sequence[Answered]) -> float | None:
    """Expected calibration error of the stated presences."""
    stated = np.array([item.present for item in items])
    return rounded(calibration_error(stated, np.array([bool(item.asked.targets) for item in items], bool)))


def target_boxes(item: Answered) -> np.ndarray:
    """True boxes of an expression, float32 Mx4 xyxy pixels."""
    return np.array(item.asked.targets, np.float32).reshape(-1, 4)


def percent(part: int, whole: int) -> float | None:
    """A share in percent, None of nothing."""
    return round(100 * part / whole, 2) if whole else None
