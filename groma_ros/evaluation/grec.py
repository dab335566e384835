"""`groma eval grec`: generalised referring expressions (gRefCOCO), which mean no object, one or several.

He et al., GREC: Generalized Referring Expression Comprehension, arXiv 2308.16182. A sample is right if its
F1 is 1: every target is matched by a box and no box is left over. N-acc is the share of samples without
target for which no box is returned, T-acc that of samples with targets for which any is. The paper matches
at an IoU of 0.5; the field's tool matches at a generalised IoU of 0.5, greedily from the best pair on. Both
are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.coco_files import annotations_by_own_id, corners, read_coco, read_refs
from groma_ros.errors import quoted
from groma_ros.evaluation.expression_sets import (
    Answered,
    Asked,
    PictureExpressions,
    by_picture,
    percent,
    presence_error,
    target_boxes,
)
from groma_ros.evaluation.referring import INSTANCES, file_name, refs_file_of
from groma_ros.evaluation.statistics import figure

THRESHOLD = 0.5
NO_TARGET = -1
"""Annotation id with which gRefCOCO marks an expression that refers to nothing in the picture."""


def read_grefs(path: Path, splits: Sequence[str] = ()) -> list[PictureExpressions]:
    """Read a `grefs(unc).json` (or `.p`), or the folder that contains it, with `instances.json` beside it.

    splits: read only these; if empty, all but train. Raises ValueError for any other file.
    """
    file = refs_file_of(path, "grefs")
    instances = file.parent / INSTANCES
    document = read_coco(instances, "images", "annotations")
    names = {entry["id"]: file_name(entry) for entry in document["images"]}
    boxes = annotations_by_own_id(instances, document["annotations"])
    rows: list[tuple[str, Asked]] = []
    found: set[str] = set()
    for place, ref in enumerate(read_refs(file)):
        found.add(ref.split)
        if not (ref.split in splits if splits else ref.split != "train"):
            continue
        targets = [key for key in ref.annotations if key != NO_TARGET]
        unknown = [key for key in targets if key not in boxes]
        if ref.image not in names or unknown:
            missing = f"annotation {quoted(unknown[0])}" if unknown else f"image {quoted(ref.image)}"
            raise ValueError(f"{file}: entry {place} names the {missing}, which {INSTANCES} does not have.")
        own = tuple(corners(boxes[key]["bbox"]) for key in targets)
        rows += [
            (names[ref.image], Asked(len(rows) + number, text, own, ref.split))
            for number, text in enumerate(ref.sentences)
        ]
    if not rows:
        there = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{file} has no expressions of the splits asked for; it has {there}.")
    return by_picture(rows)


def generalised_iou(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Generalised IoU of (N, 4) and (M, 4) xyxy boxes, (N, M) in -1..1: IoU minus the share of the enclosing
    box that neither covers."""
    a, b = np.asarray(a, np.float64).reshape(-1, 4), np.asarray(b, np.float64).reshape(-1, 4)
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    inner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = inner.clip(0).prod(-1)
    union = areas[0][:, None] + areas[1][None] - common
    outer = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    hull = outer.prod(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = common / union - (hull - union) / hull
    finite: NDArray[np.float64] = np.nan_to_num(found, nan=0.0)
    return finite


def matched(overlap: NDArray[Any], threshold: float = THRESHOLD) -> int:
    """Count pairs of boxes (rows) and targets (columns), matched greedily from the best pair on."""
    left, count = np.array(overlap, np.float64), 0
    while left.size and left.max() >= threshold:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        left[row, :] = left[:, column] = -np.inf
        count += 1
    return count


def is_exact(found: NDArray[Any], targets: NDArray[Any], generalised: bool) -> bool:
    """Whether F1 is 1: every target matched and no other box; no box if there is no target."""
    if not len(targets) or not len(found):
        return len(targets) == len(found)
    overlap = generalised_iou(found, targets) if generalised else box_iou(found, targets)
    return len(found) == len(targets) == matched(overlap)


def report(items: Sequence[Answered]) -> dict[str, Any]:
    """Metrics by split, in percent."""
    splits = {}
    for split in dict.fromkeys(item.asked.group for item in items):
        own = [item for item in items if item.asked.group == split]
        nothing = [item for item in own if not item.asked.targets]
        something = [item for item in own if item.asked.targets]
        exact = {
            name: percent(
                sum(is_exact(item.boxes, target_boxes(item), name == "giou") for item in own), len(own)
            )
            for name in ("giou", "iou")
        }
        splits[split] = {
            "expressions": len(own),
            "without_target": len(nothing),
            "precision": exact,
            "n_acc": percent(sum(not len(item.boxes) for item in nothing), len(nothing)),
            "t_acc": percent(sum(len(item.boxes) > 0 for item in something), len(something)),
            "calibration_error": presence_error(own),
        }
    return {"threshold": THRESHOLD, "splits": splits}


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{document['model']} on generalised referring expressions, percent",
        f"{'':<10}{'F1=1 GIoU':>11}{'F1=1 IoU':>11}{'N-acc':>9}{'T-acc':>9}{'ECE':>8}",
    ]
    for split, entry in document["splits"].items():
        exact = entry["precision"]
        cells = f"{figure(exact['giou'], 2):>11}{figure(exact['iou'], 2):>11}"
        cells += f"{figure(entry['n_acc'], 2):>9}{figure(entry['t_acc'], 2):>9}"
        tail = f"   of {entry['expressions']}, {entry['without_target']} without target"
        lines.append(f"{split:<10}{cells}{figure(entry['calibration_error']):>8}{tail}")
    return "\n".join(lines)
