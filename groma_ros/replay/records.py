"""What a replay writes down of every frame: one line of JSON each, the same bytes for the same bag, goals,
model and CPU backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from groma_ros.types import Box3D, Detection, Grounding

BOX_DIGITS, SCORE_DIGITS, SPACE_DIGITS = 3, 6, 5
"""Decimals that are kept: a thousandth of a pixel, a millionth of a probability, a hundredth of a millimetre.
"""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PlaceRecord:
    """A box in space; fields as in `types.Box3D`."""

    centre: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class BoxRecord:
    """One box. box: xyxy, camera pixels; id: the track, empty when untracked; place: in space, None where
    depth does not tell."""

    box: Box
    score: float
    id: str = ""
    place: PlaceRecord | None = None


@dataclass(frozen=True)
class GoalRecord:
    """The answer to one goal; fields as in `types.Grounding`."""

    goal: str
    kind: str
    present: float
    margin: float
    detections: tuple[BoxRecord, ...]


@dataclass(frozen=True)
class FrameRecord:
    """One image of the bag. number: its place on the topic; time: ns it was recorded at; stamp: ns of its
    header.

    asked: whether the language model answered on this very frame, or an earlier answer was carried to it;
    answered: stamp in ns of the frame that answer is of, None where there is none; refused: why the image
    could not be read, in a word, empty for one that could; depth: why boxes have no place in space, by cause,
    empty where the bag holds no depth or all have one; goals: in the order of the goals, none for a refused
    image.
    """

    number: int
    time: int
    stamp: int
    frame_id: str
    width: int
    height: int
    asked: bool
    answered: int | None
    refused: str
    goals: tuple[GoalRecord, ...]
    depth: str = ""

    def line(self) -> str:
        """The record as a line of JSON, without its end."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> FrameRecord:
        """The record of a line. ValueError, KeyError or TypeError for another line."""
        data = json.loads(line)
        goals = tuple(_goal(item) for item in data.pop("goals"))
        return cls(**data, goals=goals)


def goal_record(
    grounding: Grounding, find_place: Callable[[Detection], Box3D | None] = lambda detection: None
) -> GoalRecord:
    """An answer with its numbers rounded to what is kept; the best box first, as the node publishes them.
    find_place: of a box in space."""
    best_first = sorted(grounding.detections, key=lambda item: -item.score)
    boxes = tuple(
        BoxRecord(
            _rounded(item.box),
            round(float(item.score), SCORE_DIGITS),
            item.track_id,
            _place(find_place(item)),
        )
        for item in best_first
    )
    present, margin = (round(float(value), SCORE_DIGITS) for value in (grounding.present, grounding.margin))
    return GoalRecord(grounding.goal.text, grounding.goal.kind, present, margin, boxes)


def without_places(record: FrameRecord) -> FrameRecord:
    """The record as of a bag without depth."""
    goals = [
        replace(goal, detections=tuple(replace(box, place=None) for box in goal.detections))
        for goal in record.goals
    ]
    return replace(record, goals=tuple(goals), depth="")


def read_records(path: Path) -> list[FrameRecord]:
    """The records of a detections.jsonl. Raises ValueError with a sentence that names the line that is
    wrong."""
    records = []
    try:
        lines = text_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The records {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        try:
            records.append(FrameRecord.parse(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"Line {number} of {path} is not a record of a replay: {type(error).__name__} {error}."
            ) from error
    return records


def text_lines(path: Path) -> list[str]:
    """The lines of a text file, which end at line feeds alone: U+2028, U+0085 and others stand in texts."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _goal(data: dict[str, Any]) -> GoalRecord:
    boxes = tuple(
        BoxRecord(_rounded(item["box"]), item["score"], item["id"], _read_place(item["place"]))
        for item in data.pop("detections")
    )
    return GoalRecord(**data, detections=boxes)


def _place(box: Box3D | None) -> PlaceRecord | None:
    if box is None:
        return None
    (x, y, z), (a, b, c, w), (long, short, high) = (
        [round(float(value), SPACE_DIGITS) for value in part]
        for part in (box.centre, box.quaternion, box.size)
    )
    return PlaceRecord((x, y, z), (a, b, c, w), (long, short, high))


def _read_place(data: dict[str, Any] | None) -> PlaceRecord | None:
    return (
        None
        if data is None
        else PlaceRecord(*(tuple(data[name]) for name in ("centre", "quaternion", "size")))
    )


def _rounded(box: Sequence[float]) -> Box:
    x1, y1, x2, y2 = (round(float(value), BOX_DIGITS) for value in box)
    return x1, y1, x2, y2
