"""`groma eval lvis-ground`: average recall of all objects of a class, on LVIS-Ground or any file in the form
of COCO or LVIS."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.evaluation.dataset_files import find_picture, read_coco, read_rgb
from groma_ros.evaluation.published_figures import HEAD, row
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal

MOST_BOXES = 9
"""The original stops after ten tokens: the opening and nine regions."""
MAX_DETECTIONS = 100
_NAMES = {
    "AR": "AR@100",
    "AR50": "AR@100, IoU 0.5",
    "AR75": "AR@100, IoU 0.75",
    "ARs": "AR@100, small",
    "ARm": "AR@100, medium",
    "ARl": "AR@100, large",
}


@dataclass(frozen=True)
class ClassedPicture:
    """A picture and the classes that are annotated in it. image: its id; classes: (id, name) in the order of
    the annotations."""

    image: int
    name: str
    classes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class AskClasses:
    """The work on one picture: all regions of every class, each class asked for in a wording drawn by lot.
    most: boxes kept of each."""

    images: Path
    seed: int
    most: int

    def __call__(self, grounder: Grounder, picture: ClassedPicture) -> Record:
        scene = grounder.perceive(Frame(read_rgb(find_picture(self.images, picture.name))))
        count = grounder.wordings("all")
        drawn = [
            random.Random(f"{self.seed} {picture.image} {number}").randrange(max(1, count))
            for number, _ in picture.classes
        ]
        goals = [Goal(name.replace("_", " ").strip().lower(), "all") for _, name in picture.classes]
        found = []
        for (number, _), answer in zip(picture.classes, grounder.answers(scene, goals, drawn), strict=True):
            for region in answer.regions[: self.most or None]:
                x1, y1, x2, y2 = (round(float(value), 3) for value in scene.boxes[region])
                found.append(
                    {
                        "image_id": picture.image,
                        "category_id": number,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": 1.0,
                    }
                )
        return {"found": found}


def read_classes(path: Path) -> tuple[dict[str, Any], list[ClassedPicture]]:
    """The document, and its pictures that have annotations. ValueError with a sentence for another file."""
    document = read_coco(path, "images", "annotations", "categories")
    try:
        names = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        classes: dict[Any, dict[int, str]] = {}
        for entry in document["annotations"]:
            if not entry.get("iscrowd", 0):
                classes.setdefault(entry["image_id"], {})[entry["category_id"]] = names[entry["category_id"]]
        pictures = [
            ClassedPicture(
                entry["id"], entry.get("file_name") or entry["coco_url"], tuple(classes[entry["id"]].items())
            )
            for entry in document["images"]
            if entry["id"] in classes
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not in the form of COCO or LVIS: {type(error).__name__} {error}."
        ) from error
    return document, pictures


def average_recall(
    document: Mapping[str, Any], images: Sequence[int], found: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Average recall, in percent, over IoU 0.5 to 0.95 and the classes, at most 100 boxes a class and
    picture.

    pycocotools computes it. On these files it equals LVIS's own evaluation, which the original uses: the two
    differ in which wrong boxes count, and recall counts none. None where no object is of the size.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    asked = set(images)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in images],
        "categories": [{"id": entry["id"], "name": entry["name"]} for entry in document["categories"]],
        "annotations": [
            _annotation(entry) for entry in document["annotations"] if entry["image_id"] in asked
        ],
    }
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it does
        truth.createIndex()
        results = truth.loadRes([dict(item) for item in found]) if found else COCO()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.imgIds = sorted(images)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][
        ..., 0
    ]  # IoU x class x size, -1 where a class has no object of the size
    thresholds = evaluation.params.iouThrs

    def mean(part: np.ndarray) -> float | None:
        there = part[part > -1]
        return 100 * float(there.mean()) if len(there) else None

    at = {name: int(np.argmin(np.abs(thresholds - value))) for name, value in (("AR50", 0.5), ("AR75", 0.75))}
    sizes = {name: mean(recall[:, :, place]) for place, name in enumerate(("AR", "ARs", "ARm", "ARl"))}
    return {"AR": sizes.pop("AR"), **{name: mean(recall[place, :, 0]) for name, place in at.items()}, **sizes}


def _annotation(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What COCO's evaluation reads of an annotation; LVIS has no iscrowd."""
    box = entry["bbox"]
    plain = {
        "id": entry["id"],
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": box,
    }
    return {**plain, "area": entry.get("area", box[2] * box[3]), "iscrowd": entry.get("iscrowd", 0)}


def table(document: dict[str, Any]) -> str:
    """The report as lines to read."""
    counts = (
        f"{document['targets']} objects of {document['classes']} classes in {document['pictures']} pictures"
    )
    rows = [row(_NAMES[name], entry) for name, entry in document["recall"].items()]
    return "\n".join([f"{document['model']}: {counts}, percent", HEAD, *rows])
