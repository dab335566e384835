"""Records of a replay: one line of JSON per frame, identical for the same bag, goals, model and CPU
backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from groma_ros.coco_files import four_numbers, is_number
from groma_ros.errors import printable, quoted
from groma_ros.json_files import load_lines
from groma_ros.types import Box3D, Detection, Grounding

BOX_DIGITS, SCORE_DIGITS, SPACE_DIGITS = 3, 6, 5
"""Decimals kept: a thousandth of a pixel, a millionth of a probability, a hundredth of a millimetre."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PlaceRecord:
    """A 3D box; fields as in `types.Box3D`."""

    centre: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class BoxRecord:
    """One box."""

    box: Box
    """xyxy, camera pixels."""
    score: float
    id: str = ""
    """Track id; empty if untracked."""
    place: PlaceRecord | None = None
    """3D box; None without depth."""


@dataclass(frozen=True)
class GoalRecord:
    """The answer to one goal; fields as in `types.Grounding`."""

    goal: str
    kind: str
    present: float
    margin: float
    detections: tuple[BoxRecord, ...]
    status: str = ""
    """Left empty, and omitted in the line, if it is `present` with boxes or `absent` without."""
    alternatives: tuple[BoxRecord, ...] = ()
    """Runner-up boxes of an ambiguous answer; omitted in the line if there are none."""

    @property
    def verdict(self) -> str:
        """The status, derived from the boxes if `status` is empty."""
        return self.status or ("present" if self.detections else "absent")


@dataclass(frozen=True)
class FrameRecord:
    """One image of the bag."""

    number: int
    """Index on the topic."""
    time: int
    """ns at which it was recorded."""
    stamp: int
    """Stamp of its header, ns."""
    frame_id: str
    width: int
    height: int
    asked: bool
    """Whether the language model answered on this frame; otherwise an earlier answer was carried to it."""
    answered: int | None
    """Stamp in ns of the frame the answer is for; None without an answer."""
    refused: str
    """Cause in one word if the image could not be read; else empty."""
    goals: tuple[GoalRecord, ...]
    """Answers in the order of the goals; empty for a refused image."""
    depth: str = ""
    """Causes of missing 3D boxes; empty if the bag has no depth or all boxes have one."""

    def line(self) -> str:
        """Serialise to a line of JSON, without newline."""
        document = asdict(self)
        for goal in document["goals"]:
            for key in ("status", "alternatives"):
                if not goal[key]:
                    del goal[key]
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_document(cls, data: Any) -> FrameRecord:
        """Read the JSON value of a line. Raises ValueError with the reason for another form."""
        if not isinstance(data, dict) or not isinstance(data.get("goals"), list):
            raise ValueError("it has no list of goals")
        rest = {name: value for name, value in data.items() if name != "goals"}
        check_fields(cls, rest, ("goals",))
        return cls(**rest, goals=tuple(map(_goal, data["goals"])))


def goal_record(
    grounding: Grounding, find_place: Callable[[Detection], Box3D | None] = lambda detection: None
) -> GoalRecord:
    """Convert an answer, with rounded numbers and the best box first, as the node publishes it.

    find_place: returns the 3D box of a detection.
    """
    boxes = tuple(_box(item, find_place(item)) for item in _best_first(grounding.detections))
    others = tuple(_box(item, None) for item in _best_first(grounding.alternatives))
    present, margin = (round(float(value), SCORE_DIGITS) for value in (grounding.present, grounding.margin))
    record = GoalRecord(grounding.goal.text, grounding.goal.kind, present, margin, boxes, "", others)
    return record if record.verdict == grounding.status else replace(record, status=grounding.status)


def _best_first(detections: Sequence[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda item: -item.score)


def _box(item: Detection, place: Box3D | None) -> BoxRecord:
    score = round(float(item.score), SCORE_DIGITS)
    return BoxRecord(_rounded(item.box), score, item.track_id, _place(place))


def without_places(record: FrameRecord) -> FrameRecord:
    """Copy of a record without depth information."""
    goals = [
        replace(goal, detections=tuple(replace(box, place=None) for box in goal.detections))
        for goal in record.goals
    ]
    return replace(record, goals=tuple(goals), depth="")


def read_records(path: Path) -> list[FrameRecord]:
    """Read a detections.jsonl. Raises ValueError naming the wrong line."""
    records = []
    for number, entry in load_lines(path):
        try:
            records.append(FrameRecord.from_document(entry))
        except ValueError as error:
            raise ValueError(
                f"Line {number} of {path} is not a record of a replay: {printable(error, 200)}."
            ) from error
    return records


def text_lines(path: Path) -> list[str]:
    """Lines of a text file, split at line feeds only: texts may contain U+2028, U+0085 and others."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "str": str,
    "bool": bool,
    "int | None": (int, type(None)),
}


def check_fields(kind: type, data: Mapping[str, Any], but: Sequence[str] = ()) -> None:
    """Raise ValueError with the reason unless `data` has the fields of a dataclass, with their plain types.
    but: fields that it does not have."""
    wanted = {item.name: item for item in fields(kind) if item.name not in but}
    missing = [name for name, item in wanted.items() if name not in data and item.default is MISSING]
    unknown = sorted(set(data) - set(wanted))
    if missing or unknown:
        raise ValueError(
            f"it lacks {missing[0]}" if missing else f"its key {quoted(unknown[0])} is not known"
        )
    for name, value in data.items():
        expected = _TYPES.get(str(wanted[name].type))
        if expected is not None and (
            not isinstance(value, expected) or isinstance(value, bool) != (expected is bool)
        ):
            raise ValueError(f"its {name} is {quoted(value)} and not of type {wanted[name].type}")


def _goal(data: Any) -> GoalRecord:
    lists = ("detections", "alternatives")
    if not isinstance(data, dict):
        raise ValueError(f"its goal is {quoted(data)}")
    boxes = [data.get("detections"), data.get("alternatives", [])]
    if not all(isinstance(items, list) for items in boxes):
        raise ValueError(f"the boxes of its goal are {quoted(boxes)}")
    rest = {name: value for name, value in data.items() if name not in lists}
    check_fields(GoalRecord, rest, lists)
    found, others = (tuple(map(_detection, items)) for items in boxes)
    return GoalRecord(**rest, detections=found, alternatives=others)


def _detection(data: Any) -> BoxRecord:
    if not isinstance(data, dict):
        raise ValueError(f"its detection is {quoted(data)}")
    numbers = four_numbers(data.get("box"))
    if numbers is None:
        raise ValueError(f"its box is {quoted(data.get('box'))} and must have four numbers")
    rest = {name: value for name, value in data.items() if name not in ("box", "place")}
    check_fields(BoxRecord, rest, ("box", "place"))
    return BoxRecord(_rounded(numbers), **rest, place=_read_place(data.get("place")))


def _place(box: Box3D | None) -> PlaceRecord | None:
    if box is None:
        return None
    (x, y, z), (a, b, c, w), (long, short, high) = (
        [round(float(value), SPACE_DIGITS) for value in part]
        for part in (box.centre, box.quaternion, box.size)
    )
    return PlaceRecord((x, y, z), (a, b, c, w), (long, short, high))


def _read_place(data: Any) -> PlaceRecord | None:
    if data is None:
        return None
    lengths = {"centre": 3, "quaternion": 4, "size": 3}
    if not isinstance(data, dict) or set(data) != set(lengths):
        raise ValueError(f"its place is {quoted(data)}")
    for name, length in lengths.items():
        numbers = data[name]
        if not isinstance(numbers, list) or len(numbers) != length or not all(map(is_number, numbers)):
            raise ValueError(f"its {name} is {quoted(numbers)} and must have {length} numbers")
    return PlaceRecord(*(tuple(data[name]) for name in lengths))


def _rounded(box: Sequence[float]) -> Box:
    x1, y1, x2, y2 = (round(float(value), BOX_DIGITS) for value in box)
    return x1, y1, x2, y2
