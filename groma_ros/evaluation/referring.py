"""Referring expressions in the published formats: REFER's refs with instances.json, and the single-file
format of MDETR and Groma."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.boxes import box_iou
from groma_ros.coco_files import annotations_by_own_id, corners, find_picture, read_coco, read_refs
from groma_ros.errors import quoted
from groma_ros.evaluation.published_figures import HEAD, beside, rec_accuracy, row
from groma_ros.evaluation.statistics import rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.types import Frame, Goal

INSTANCES = "instances.json"
DATASETS = (
    "refcoco+",
    "refcocog",
    "refcoco",
)  # longer names first: the last one is a substring of the others
_SMALLEST_PICTURE = 32

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Expression:
    """An expression that refers to one object."""

    number: int
    """Place in the file."""
    text: str
    box: Box
    """Of the object, xyxy pixels."""
    split: str
    """val, testA, testB, test or train."""


@dataclass(frozen=True)
class ReferredPicture:
    """A picture, under its name in the annotations, with all expressions about it."""

    name: str
    expressions: tuple[Expression, ...]


def read_referring(path: Path, splits: Sequence[str] = ()) -> tuple[str, list[ReferredPicture]]:
    """Read the name of the data set ("" if unknown) and its pictures, in the order of the file.

    path: a folder or refs file of REFER (`refs(unc).p` or the same as JSON, `instances.json` beside it), or
    one JSON file whose images have a `caption`. splits: read only these; if empty, all but train. Raises
    ValueError for any other file.
    """
    name, rows = _refer(path) if path.is_dir() or path.name.startswith("refs") else _one_file(path)
    wanted = [
        (picture, item)
        for picture, item in rows
        if (item.split in splits if splits else item.split != "train")
    ]
    if not wanted:
        there = ", ".join(sorted({item.split for _, item in rows})) or "none"
        raise ValueError(f"{path} has no expressions of the splits asked for; it has {there}.")
    return name, _by_picture(wanted)


def _by_picture(rows: Iterable[tuple[str, Expression]]) -> list[ReferredPicture]:
    grouped: dict[str, list[Expression]] = {}
    for picture, item in rows:
        grouped.setdefault(picture, []).append(item)
    return [ReferredPicture(picture, tuple(items)) for picture, items in grouped.items()]


Rows = tuple[str, list[tuple[str, Expression]]]


def _refer(path: Path) -> Rows:
    """REFER's format: refs name an annotation of instances.json and contain several sentences each."""
    folder = path if path.is_dir() else path.parent
    refs_file = refs_file_of(path)
    document = read_coco(folder / INSTANCES, "images", "annotations")
    names = {entry["id"]: file_name(entry) for entry in document["images"]}
    boxes = annotations_by_own_id(folder / INSTANCES, document["annotations"])
    rows: list[tuple[str, Expression]] = []
    for place, ref in enumerate(read_refs(refs_file)):
        key = ref.annotations[0] if len(ref.annotations) == 1 else None
        if ref.image not in names or key not in boxes:
            missing = f"image {quoted(ref.image)}" if ref.image not in names else f"annotation {quoted(key)}"
            raise ValueError(
                f"{refs_file}: entry {place} names the {missing}, which {INSTANCES} does not have."
            )
        box = corners(boxes[key]["bbox"])
        rows += [
            (names[ref.image], Expression(len(rows) + number, sentence, box, ref.split))
            for number, sentence in enumerate(ref.sentences)
        ]
    return _named(str(refs_file.resolve().parent.name)), rows


def refs_file_of(path: Path, prefix: str = "refs") -> Path:
    """The single refs file of a folder (`refs(unc).p`, `.json`), or the file itself."""
    if not path.is_dir():
        return path
    found = sorted([*path.glob(f"{prefix}*.p"), *path.glob(f"{prefix}*.json")])
    if len(found) != 1:
        raise ValueError(
            f"{path} holds {len(found)} {prefix} files; name the one to read, as {prefix}(unc).p."
        )
    return found[0]


def file_name(image: Mapping[str, Any]) -> str:
    """Name of the picture of a checked COCO or LVIS image entry."""
    return str(image.get("file_name") or image["coco_url"])


def _one_file(path: Path) -> Rows:
    """The format of MDETR, which the original's evaluation reads: one image entry per expression, with the
    expression as its caption."""
    document = read_coco(path, "images", "annotations")
    if any("caption" not in entry for entry in document["images"]):
        raise ValueError(
            f"{path} has images without a caption; it is neither the one-file form nor the refs of REFER."
        )
    boxes: dict[Any, Box] = {}
    for entry in document["annotations"]:
        if not entry["ignore"] and min(entry["bbox"][2:]) >= 1 and entry["area"] > 0:
            boxes.setdefault(entry["image_id"], corners(entry["bbox"]))
    split = _split_of(path.stem)
    rows: list[tuple[str, Expression]] = []
    for image in document["images"]:
        side = min(image.get("width", _SMALLEST_PICTURE), image.get("height", _SMALLEST_PICTURE))
        if side >= _SMALLEST_PICTURE and image["id"] in boxes:
            rows.append(
                (file_name(image), Expression(len(rows), image["caption"], boxes[image["id"]], split))
            )
    said = document["images"][0].get("dataset_name", "") if document["images"] else ""
    return _named(f"{said} {path.stem}"), rows


def _named(text: str) -> str:
    return next((name for name in DATASETS if name in text.lower()), "")


def _split_of(stem: str) -> str:
    lowered = stem.lower()
    return next(
        (name for name in ("testA", "testB", "test", "train", "val") if name.lower() in lowered), "val"
    )


IOU = 0.5


@dataclass(frozen=True)
class AskExpressions:
    """Ground all expressions about a picture in batches, each with a randomly chosen query.

    The record has, for every expression, its number in the file, the split, the IoU of the answer with the
    target, and the best IoU of any region with it, which bounds what the proposals allow.
    """

    images: Path
    seed: int
    batch: int

    def __call__(self, grounder: Grounder, picture: ReferredPicture) -> Record:
        scene = grounder.perceive(Frame(read_annotated(find_picture(self.images, picture.name))))
        rows = []
        for start in range(0, len(picture.expressions), self.batch):
            batch = picture.expressions[start : start + self.batch]
            goals = [Goal(item.text, "one") for item in batch]
            answers = grounder.answers(
                scene, goals, [self._wording(item, grounder.wordings("one")) for item in batch]
            )
            overlaps = box_iou(np.array([item.box for item in batch], np.float32), scene.boxes)
            for item, answer, overlap in zip(batch, answers, overlaps, strict=True):
                chosen = float(overlap[answer.regions[0]]) if answer.regions else 0.0
                rows.append([item.number, item.split, chosen, float(overlap.max())])
        return {"rows": rows}

    def _wording(self, item: Expression, count: int) -> int:
        """Choose one of the original's six queries for an expression, the same in every run. The original
        draws anew in each run."""
        return random.Random(f"{self.seed} {item.number}").randrange(max(1, count))


def report(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """Accuracy by split: share of answers with an IoU above 0.5 with the target."""
    rows = [row for record in records for row in record["rows"]]
    splits = {}
    for split in dict.fromkeys(entry[1] for entry in rows):
        own = np.array([entry[2:] for entry in rows if entry[1] == split])
        accuracy = 100 * float((own[:, 0] > IOU).mean())
        splits[split] = {
            "expressions": len(own),
            "accuracy": beside(accuracy, rec_accuracy(name, split, len(own))),
            "mean_iou": rounded(float(own[:, 0].mean())),
            "reachable": rounded(100 * float((own[:, 1] > IOU).mean())),
        }
    return {"dataset": name, "iou": IOU, "splits": splits}


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    lines = [
        f"{document['model']} on {document['dataset'] or 'referring expressions'}: accuracy at IoU "
        f"{IOU}, percent",
        HEAD,
    ]
    for split, entry in document["splits"].items():
        tail = (
            f"   of {entry['expressions']}; a region for {entry['reachable']:.2f}, mean IoU "
            f"{entry['mean_iou']:.3f}"
        )
        lines.append(row(split, entry["accuracy"], tail))
    return "\n".join(lines)
