"""Results of a run of the demonstration: figures, a picture and a bag."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from groma_ros.atomic_write import write_file
from groma_ros.matching import exact_set
from groma_ros.types import FloatArray, Goal, Grounding
from groma_ros.visualization import draw_groundings

BOXES_SHOWN = 2


def answers_table(
    goals: Sequence[Goal], newest: Sequence[Grounding], correct: Mapping[str, Sequence[bool]], footer: str
) -> Group:
    """Return a table with one row per goal. correct: by goal, whether each answered frame so far was right;
    empty before the run is evaluated."""
    table = Table(title="groma: language goals to boxes", title_justify="left", expand=False)
    table.add_column("goal", min_width=24)
    table.add_column("present", justify="right")
    table.add_column("boxes", justify="right")
    table.add_column("x1 y1 x2 y2, score", no_wrap=True)
    if correct:
        table.add_column("frames right", justify="right")
    answered = {item.goal.text: item for item in newest}
    for goal in goals:
        row = _row(goal, answered.get(goal.text))
        goods = correct.get(goal.text, ())
        table.add_row(*row, *([f"{sum(goods)} of {len(goods)}"] if correct else []))
    return Group(table, Text(footer))


def _row(goal: Goal, grounding: Grounding | None) -> list[str | Text]:
    name = Text(goal.text if goal.kind == "auto" else f"{goal.text} ({goal.kind})")
    if grounding is None:
        return [name, "", "", Text("waiting", style="dim")]
    count = len(grounding.detections)
    verdict = Text(_boxes(grounding)) if count else Text("absent", style="yellow")
    return [name, f"{grounding.present:.2f}", str(count), verdict]


def _boxes(grounding: Grounding) -> str:
    shown = [
        "{:.0f} {:.0f} {:.0f} {:.0f}, ".format(*item.box) + f"{item.score:.2f}"
        for item in grounding.detections[:BOXES_SHOWN]
    ]
    more = len(grounding.detections) - BOXES_SHOWN
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")


IOU = 0.5
PICTURE_FRAMES = 4

Answers = Mapping[int, Sequence[Grounding]]
"""Groundings by the stamp (ns) of their frame."""


@dataclass(frozen=True)
class Counts:
    """Number of frames by their fate, as counted by the node."""

    received: int
    answered: int
    dropped: int
    seconds: float
    """From the first frame played to the last answer."""


@dataclass(frozen=True, eq=False)
class DemoTruth:
    """Ground truth of the demo bag."""

    targets: Mapping[str, tuple[int, ...]]
    """By goal, indices into the scene's objects."""
    boxes: Mapping[int, FloatArray]
    """By stamp (ns), float32 Nx4 xyxy of all objects."""

    @classmethod
    def load(cls, path: Path) -> DemoTruth:
        """Read a truth.json. Raises ValueError for an invalid one."""
        try:
            data = json.loads(path.read_text())
            targets = {goal["text"]: tuple(goal["targets"]) for goal in data["goals"]}
            boxes = {
                int(frame["stamp"]): np.array(frame["boxes"], np.float32).reshape(-1, 4)
                for frame in data["frames"]
            }
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The truth {path} cannot be read: {type(error).__name__} {error}.") from error
        return cls(targets, boxes)


def correct_by_goal(answers: Answers, truth: DemoTruth) -> dict[str, list[bool]]:
    """Evaluate every goal of the truth: whether each answered frame has exactly its boxes, in the order of
    the stamps."""
    judged: dict[str, list[bool]] = {goal: [] for goal in truth.targets}
    for stamp in sorted(set(answers) & set(truth.boxes)):
        for grounding in answers[stamp]:
            goal = grounding.goal.text
            if goal in truth.targets:
                targets = truth.boxes[stamp][list(truth.targets[goal])]
                judged[goal].append(exact_set(grounding.boxes, targets, IOU))
    return judged


def accuracy(answers: Answers, truth: DemoTruth) -> float:
    """Share of (answered frame, goal) pairs with exactly the true boxes at IoU 0.5; 0 if nothing was
    answered."""
    judged = [good for goods in correct_by_goal(answers, truth).values() for good in goods]
    return sum(judged) / len(judged) if judged else 0.0


def write_figures(path: Path, answers: Answers, truth: DemoTruth, counts: Counts) -> None:
    """Write demo.json: stamps in nanoseconds, boxes xyxy in camera pixels."""
    frames = [
        {"stamp": stamp, "groundings": [item.to_dict() for item in answers[stamp]]}
        for stamp in sorted(answers)
    ]
    figures = {"frames": frames, "accuracy": round(accuracy(answers, truth), 4), **vars(counts)}
    write_file(path, (json.dumps(figures, ensure_ascii=False, indent=1) + "\n").encode())


def write_picture(path: Path, frames: Mapping[int, NDArray[Any]], answers: Answers) -> None:
    """Draw demo.png: some frames (uint8 HxWx3 RGB by stamp) spread over the run, each with a part of the
    goals. The first frames, whose goals were not answered yet, count only if there is no other."""
    stamps = sorted(set(frames) & set(answers))
    told = [stamp for stamp in stamps if all(one.status != "pending" for one in answers[stamp])]
    stamps = told or stamps
    if not stamps:
        raise ValueError("No frame of the bag was answered, so there is no picture to draw.")
    chosen = list(
        dict.fromkeys(stamps[round(place)] for place in np.linspace(0, len(stamps) - 1, PICTURE_FRAMES))
    )
    # The labels of all goals would cover the picture.
    parts = np.array_split(np.arange(len(answers[chosen[0]])), len(chosen))
    shown = [
        (stamp, [answers[stamp][index] for index in part]) for stamp, part in zip(chosen, parts, strict=True)
    ]
    tiles = [draw_groundings(frames[stamp], groundings) for stamp, groundings in shown]
    height, width = max(tile.shape[0] for tile in tiles), max(tile.shape[1] for tile in tiles)
    padded = [_padded(tile, height, width) for tile in tiles] + [np.zeros((height, width, 3), np.uint8)] * (
        len(tiles) % 2
    )
    rows = [np.hstack(padded[index : index + 2]) for index in range(0, len(padded), 2)]
    cv2.imwrite(str(path), np.vstack(rows)[:, :, ::-1])


def _padded(tile: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return np.pad(tile, ((0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)))
