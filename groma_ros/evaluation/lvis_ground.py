"""`groma eval lvis-ground`: average recall of all objects of a class, on LVIS-Ground or any COCO or LVIS
file."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.coco_files import Key, find_picture, read_coco
from groma_ros.evaluation.published_figures import HEAD, row
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
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
    """A picture and its annotated classes."""

    image: Key
    """Id in the file."""
    name: str
    """Of the picture, as the annotations give it."""
    classes: tuple[tuple[Key, str], ...]
    """(id, name) in the order of the annotations."""


@dataclass(frozen=True)
class AskClasses:
    """Find all regions of every class in a picture, with a randomly chosen query for each class."""

    images: Path
    """Folder of the pictures."""
    seed: int
    """Of the draw among the wordings."""
    most: int
    """Boxes kept of each class, 0 for all."""

    def __call__(self, grounder: Grounder, picture: ClassedPicture) -> Record:
        scene = grounder.perceive(Frame(read_annotated(find_picture(self.images, picture.name))))
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
    """Read the document and its annotated pictures. Raises ValueError for another file."""
    document = read_coco(path, "images", "annotations", "categories")
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    classes: dict[Key, dict[Key, str]] = {}
    for entry in document["annotations"]:
        if not entry["iscrowd"]:
            classes.setdefault(entry["image_id"], {})[entry["category_id"]] = names[entry["category_id"]]
    pictures = [
        ClassedPicture(
            entry["id"], entry.get("file_name") or entry["coco_url"], tuple(classes[entry["id"]].items())
        )
        for entry in document["images"]
        if entry["id"] in classes
    ]
    if not pictures:
        raise ValueError(f"{path} has no annotations of single objects, so there is nothing to look for.")
    return document, pictures


def average_recall(
    document: Mapping[str, Any], images: Sequence[Key], found: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Average recall in percent over IoU 0.5 to 0.95 and the classes, at most 100 boxes per class and
    picture, computed by pycocotools.

    On these files it equals LVIS's own evaluation, which the original uses: the two differ in which false
    positives are counted, and recall counts none. None if no object has the size.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools treats id 0 as "no match" and merges repeated ids, so ids are positions from 1.
    pictures = {key: place for place, key in enumerate(images, 1)}
    kinds = {entry["id"]: place for place, entry in enumerate(document["categories"], 1)}
    there = [entry for entry in document["annotations"] if entry["image_id"] in pictures]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": place} for place in pictures.values()],
        "categories": [{"id": kinds[entry["id"]], "name": entry["name"]} for entry in document["categories"]],
        "annotations": [
            {**_measured(entry), "id": place, **_places(entry, pictures, kinds)}
            for place, entry in enumerate(there, 1)
        ],
    }
    results_of = [{**item, **_places(item, pictures, kinds)} for item in found]
    with contextlib.redirect_stdout(sys.stderr):  # pycocotools prints its progress
        truth.createIndex()
        results = truth.loadRes(results_of) if results_of else COCO()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.imgIds = sorted(pictures.values())
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][
        ..., 0
    ]  # IoU x class x size, -1 where a class has no object of the size
    thresholds = evaluation.params.iouThrs

    def mean(part: NDArray[Any]) -> float | None:
        there = part[part > -1]
        return 100 * float(there.mean()) if len(there) else None

    at = {name: int(np.argmin(np.abs(thresholds - value))) for name, value in (("AR50", 0.5), ("AR75", 0.75))}
    sizes = {name: mean(recall[:, :, place]) for place, name in enumerate(("AR", "ARs", "ARm", "ARl"))}
    return {"AR": sizes.pop("AR"), **{name: mean(recall[place, :, 0]) for name, place in at.items()}, **sizes}


def _places(
    entry: Mapping[str, Any], pictures: Mapping[Key, int], kinds: Mapping[Key, int]
) -> dict[str, int]:
    """Replace the ids of an annotation or a result by positions."""
    return {"image_id": pictures[entry["image_id"]], "category_id": kinds[entry["category_id"]]}


def _measured(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that COCO's evaluation reads besides ids; LVIS has no iscrowd."""
    box = entry["bbox"]
    return {"bbox": box, "area": entry.get("area", box[2] * box[3]), "iscrowd": entry.get("iscrowd", 0)}


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    counts = (
        f"{document['targets']} objects of {document['classes']} classes in {document['pictures']} pictures"
    )
    rows = [row(_NAMES[name], entry) for name, entry in document["recall"].items()]
    return "\n".join([f"{document['model']}: {counts}, percent", HEAD, *rows])
