"""`groma eval concepts`: all objects of a noun phrase, or none, with the data format and metrics of SA-Co.

Carion et al., SAM 3: Segment Anything with Concepts, arXiv 2511.16719, with boxes in the place of masks. Each
pair of a picture and a phrase is one sample. pmF1: micro-F1 over the samples with objects, from one-to-one
matches of the highest total IoU, averaged over IoU 0.5 to 0.95. IL_MCC: Matthews correlation of predicted and
true presence, over all samples. cgF1 = 100 x pmF1 x IL_MCC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.coco_files import Key, corners, read_coco, refuse
from groma_ros.errors import quoted
from groma_ros.evaluation.expression_sets import (
    Answered,
    Asked,
    Box,
    PictureExpressions,
    by_picture,
    presence_error,
    target_boxes,
)
from groma_ros.evaluation.referring import file_name
from groma_ros.evaluation.statistics import figure, rounded
from groma_ros.matching import best_pairs

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def read_concepts(path: Path) -> list[PictureExpressions]:
    """Read a COCO-style file whose image entries are pairs of a picture and a phrase (`text_input`).

    Boxes are x, y, width, height in pixels, or relative to the picture if none in the file exceeds 1, as in
    SA-Co. Raises ValueError for another file.
    """
    document = read_coco(path, "images", "annotations")
    shares = bool(document["annotations"]) and all(
        max(entry["bbox"]) <= 1 for entry in document["annotations"]
    )
    boxes: dict[Key, list[Box]] = {}
    sizes = {entry["id"]: (entry.get("width"), entry.get("height")) for entry in document["images"]}
    for place, entry in enumerate(document["annotations"]):
        if entry["iscrowd"] or entry["ignore"]:
            continue
        x1, y1, x2, y2 = corners(entry["bbox"])
        if shares:
            width, height = sizes[entry["image_id"]]
            if width is None or height is None:
                refuse(path, "annotations", place, entry, "is a share of a picture whose size is not given")
            x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
        boxes.setdefault(entry["image_id"], []).append((x1, y1, x2, y2))
    rows = []
    for place, entry in enumerate(document["images"]):
        text = entry.get("text_input")
        if not isinstance(text, str) or not text.strip():
            refuse(path, "images", place, entry, f"has the text_input {quoted(text)} and must have a text")
        rows.append((file_name(entry), Asked(place, text, tuple(boxes.get(entry["id"], ())))))
    if not rows:
        raise ValueError(f"{path} has no pairs of a picture and a phrase.")
    return by_picture(rows)


def report(items: Sequence[Answered]) -> dict[str, Any]:
    """Compute the metrics: F1 and correlation as fractions, cgF1 times 100."""
    positive = [item for item in items if item.asked.targets]
    overlaps = [_paired(item) for item in positive]
    boxes = sum(len(item.boxes) + len(item.asked.targets) for item in positive)
    scores = [
        2 * sum(int((own >= at).sum()) for own in overlaps) / boxes if boxes else None for at in THRESHOLDS
    ]
    mean = float(np.mean([score for score in scores if score is not None])) if boxes else None
    said = [(bool(len(item.boxes)), bool(item.asked.targets)) for item in items]
    correlation = matthews(said)
    return {
        "samples": len(items),
        "positive": len(positive),
        "cgf1": None if mean is None or correlation is None else round(100 * mean * correlation, 2),
        "positive_micro_f1": None if mean is None else rounded(mean),
        "positive_micro_f1_at": {
            f"{at:g}": score and rounded(score) for at, score in zip(THRESHOLDS, scores)
        },
        "il_mcc": None if correlation is None else rounded(correlation),
        "calibration_error": presence_error(items),
    }


def _paired(item: Answered) -> NDArray[Any]:
    """IoU of each pair of the one-to-one matching with the highest total IoU."""
    if not len(item.boxes):
        return np.zeros(0)
    overlap = np.asarray(box_iou(item.boxes, target_boxes(item)), np.float64)
    return np.array([overlap[pair] for pair in best_pairs(overlap, 0.0)])


def matthews(said: Sequence[tuple[bool, bool]]) -> float | None:
    """Matthews correlation coefficient of (predicted, true); None if a row or column of the contingency table
    is empty."""
    tp = sum(a and b for a, b in said)
    fp = sum(a and not b for a, b in said)
    fn = sum(b and not a for a, b in said)
    tn = len(said) - tp - fp - fn
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(product) if product else None


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    at = document["positive_micro_f1_at"]
    return "\n".join(
        [
            f"{document['model']}: {document['samples']} pairs of picture and phrase, "
            f"{document['positive']} with objects (boxes)",
            f"cgF1                {figure(document['cgf1'], 2)}",
            f"positive micro-F1   {figure(document['positive_micro_f1'])}   at IoU 0.5 {figure(at['0.5'])}, "
            f"at 0.75 {figure(at['0.75'])}",
            f"IL_MCC              {figure(document['il_mcc'])}",
            f"presence ECE        {figure(document['calibration_error'])}",
        ]
    )
