"""JSON of the page: read the values of its actions, which can be anything, and convert answers for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from groma_ros.types import Detection, FloatArray, Goal, GoalKind, Grounding

Action = Mapping[str, Any]
MAX_BOXES = 256


def text_of(action: Action, key: str) -> str:
    """Read a text, "" if it is absent. Raises ValueError for another type."""
    value = action.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"The value of {key!r} must be a text.")
    return value


def number_of(action: Action, key: str) -> float:
    """Read a finite number. Raises ValueError for anything else."""
    value = action.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"The value of {key!r} must be a number.")
    return value


def goals_of(action: Action) -> list[Goal]:
    """Read the goals under `goals`, each a mapping of text and kind; surrounding spaces are stripped.

    Their content is checked by `check_goal`. Raises ValueError for another form.
    """
    entries = action.get("goals")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("The goals must be a list of mappings with the key text.")
    return [
        Goal(text_of(entry, "text").strip(), cast(GoalKind, text_of(entry, "kind") or "auto"))
        for entry in entries
    ]


def boxes_of(action: Action, key: str) -> FloatArray:
    """Read boxes, float32 Mx4 xyxy in pixels. Raises ValueError for anything else."""
    value = action.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_BOXES:
        raise ValueError(f"The value of {key!r} must be a list of at most {MAX_BOXES} boxes.")
    for box in value:
        numbers = isinstance(box, list) and all(
            isinstance(side, (int, float)) and not isinstance(side, bool) and math.isfinite(side)
            for side in box
        )
        if not numbers or len(box) != 4 or not (box[2] > box[0] and box[3] > box[1]):
            raise ValueError(
                f"A box of {key!r} must be four numbers x1, y1, x2, y2 with x2 > x1 and y2 > y1."
            )
    return np.array(value, np.float32).reshape(-1, 4)


def goal_state(grounding: Grounding, label: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    """Convert the answer to a goal. label: boxes given by a person on this frame, [] for absent, None if
    unlabelled."""
    return {
        "text": grounding.goal.text,
        "kind": grounding.goal.kind,
        "status": grounding.status,
        "present": round(float(grounding.present), 3),
        "margin": round(float(grounding.margin), 3),
        "detections": _boxes(grounding.detections),
        "alternatives": _boxes(grounding.alternatives),
        "label": None if label is None else [list(box) for box in label],
    }


def answer_state(grounding: Grounding) -> dict[str, Any]:
    """Convert an answer in words: its text, and phrases (start, end) with the boxes each one names.

    Positions in the text count UTF-16 code units, as JavaScript does.
    """
    boxes = {item.region: rounded(item.box) for item in grounding.detections}
    spans = [
        {
            "start": _units(grounding.text[: span.start]),
            "end": _units(grounding.text[: span.end]),
            "boxes": [boxes[region] for region in span.regions if region in boxes],
        }
        for span in grounding.spans
    ]
    return {"text": grounding.text, "spans": spans, "boxes": list(boxes.values())}


def rounded(box: Iterable[float]) -> list[float]:
    """Round a box to a tenth of a pixel."""
    return [round(float(value), 1) for value in box]


def _boxes(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    return [
        {"box": rounded(item.box), "score": round(float(item.score), 3), "id": item.track_id}
        for item in detections
    ]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
