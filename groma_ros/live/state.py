"""Convert answers to plain JSON with few digits, for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from groma_ros.types import Detection, Grounding


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
