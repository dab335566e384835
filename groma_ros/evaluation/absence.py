"""`groma eval absence`: one box or none, on files in the form of GroundingME and RefCOCOg_rej.

Li et al., GroundingME, arXiv 2512.17495. ACC at an IoU of 0.5, 0.75 and 0.9 counts a sample with a target
as right if the one box overlaps it by at least that much, and a sample without (subtask Rejection) if no
box is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groma_ros.boxes import box_iou
from groma_ros.coco_files import four_numbers
from groma_ros.errors import printable, quoted
from groma_ros.evaluation.expression_sets import (
    Answered,
    Asked,
    PictureExpressions,
    by_picture,
    percent,
    presence_error,
    target_boxes,
)
from groma_ros.evaluation.statistics import figure
from groma_ros.json_files import load_entries

THRESHOLDS = (0.5, 0.75, 0.9)
REJECTION = "Rejection"


def read_samples(path: Path) -> list[PictureExpressions]:
    """Read the samples of a JSON list or of JSON lines, grouped by picture.

    GroundingME: `description`, `bbox` (x1, y1, x2, y2 in pixels; null or empty if nothing matches),
    `subtask_l1`. RefCOCOg_rej: `rejected_exp`, which nothing matches. `image` is a file name. Raises
    ValueError naming the entry.
    """
    rows = [_sample(path, place, entry) for place, entry in enumerate(load_entries(path))]
    if not rows:
        raise ValueError(f"{path} holds no samples.")
    return by_picture(rows)


def _sample(path: Path, place: int, entry: Any) -> tuple[str, Asked]:
    where = f"{path}: entry {place}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is not an object.")
    rejected = "rejected_exp" in entry
    text, name = entry.get("rejected_exp" if rejected else "description"), entry.get("image")
    if isinstance(name, dict):  # a data set on the Hub stores a picture as an object
        name = name.get("path")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} has no words under description or rejected_exp.")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where} has the image {quoted(name)} and must have the name of a file.")
    box = None if rejected else entry.get("bbox")
    group = REJECTION if rejected else str(entry.get("subtask_l1") or "")
    if box is None or box == []:
        return name, Asked(place, text, (), group)
    numbers = four_numbers(box)
    if numbers is None:
        raise ValueError(f"{where} has the bbox {quoted(box)} and must have four numbers.")
    x1, y1, x2, y2 = numbers
    if not (x1 < x2 and y1 < y2):
        raise ValueError(f"{where} has the bbox {quoted(box)}, which is not x1, y1, x2, y2.")
    return name, Asked(place, text, ((x1, y1, x2, y2),), group)


def report(items: Sequence[Answered]) -> dict[str, Any]:
    """Metrics over all samples and by subtask, in percent."""
    groups = [name for name in dict.fromkeys(item.asked.group for item in items) if name]
    return {
        "all": _figures(items),
        "subtasks": {name: _figures([item for item in items if item.asked.group == name]) for name in groups},
    }


def _figures(items: Sequence[Answered]) -> dict[str, Any]:
    absent = [item for item in items if not item.asked.targets]
    return {
        "samples": len(items),
        "absent": len(absent),
        "accuracy": {
            f"{at:g}": percent(sum(_right(item, at) for item in items), len(items)) for at in THRESHOLDS
        },
        "rejection": percent(sum(not len(item.boxes) for item in absent), len(absent)),
        "found": percent(
            sum(len(item.boxes) > 0 for item in items if item.asked.targets), len(items) - len(absent)
        ),
        "calibration_error": presence_error(items),
    }


def _right(item: Answered, threshold: float) -> bool:
    best = item.boxes[:1]
    if not item.asked.targets or not len(best):
        return not item.asked.targets and not len(best)
    return bool(box_iou(best, target_boxes(item))[0, 0] >= threshold)


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    head = "".join(f"{f'ACC@{at:g}':>10}" for at in THRESHOLDS)
    lines = [
        f"{document['model']}: one box or none, percent",
        f"{'':<18}{head}{'rejected':>10}{'found':>9}{'ECE':>8}",
    ]
    for name, entry in {"all": document["all"], **document["subtasks"]}.items():
        cells = "".join(f"{figure(value, 2):>10}" for value in entry["accuracy"].values())
        cells += f"{figure(entry['rejection'], 2):>10}{figure(entry['found'], 2):>9}"
        tail = f"   of {entry['samples']}, {entry['absent']} absent"
        lines.append(f"{printable(name, 16):<18}{cells}{figure(entry['calibration_error']):>8}{tail}")
    return "\n".join(lines)
