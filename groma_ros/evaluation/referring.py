"""Referring expressions in the forms they are published in: REFER's refs with instances.json, and the
one-file form of MDETR and Groma."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.boxes import box_iou
from groma_ros.evaluation.dataset_files import corners, find_picture, read_coco, read_json, read_rgb
from groma_ros.evaluation.published_figures import HEAD, beside, rec_accuracy, row
from groma_ros.evaluation.statistics import rounded
from groma_ros.evaluation.workers import Record
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Frame, Goal

INSTANCES = "instances.json"
DATASETS = ("refcoco+", "refcocog", "refcoco")  # the longer names first: the last one is part of the others
_SMALLEST_PICTURE = 32

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Expression:
    """Words for one object. number: its place in the file; box: xyxy pixels; split: val, testA, testB, test
    or train."""

    number: int
    text: str
    box: Box
    split: str


@dataclass(frozen=True)
class ReferredPicture:
    """A picture, by the name the annotations give it, with all expressions about it."""

    name: str
    expressions: tuple[Expression, ...]


def read_referring(path: Path, splits: Sequence[str] = ()) -> tuple[str, list[ReferredPicture]]:
    """The data set's name ("" if nothing says it) and its pictures, in the order of the file.

    path: a folder or refs file of REFER (`refs(unc).p` or the same as JSON, `instances.json` beside it), or
    one JSON file whose images have a `caption`. splits: only these; none takes all but train. Raises
    ValueError with a sentence for any other file.
    """
    try:
        found = _refer(path) if path.is_dir() or path.name.startswith("refs") else _one_file(path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a file of referring expressions: {type(error).__name__} {error}."
        ) from error
    name, rows = found
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
    """REFER's form: refs name an annotation of instances.json and hold several sentences each."""
    folder = path if path.is_dir() else path.parent
    refs_files = sorted([*folder.glob("refs*.p"), *folder.glob("refs*.json")]) if path.is_dir() else [path]
    if len(refs_files) != 1:
        raise ValueError(f"{path} holds {len(refs_files)} refs files; name the one to read, as refs(unc).p.")
    document = read_coco(folder / INSTANCES, "images", "annotations")
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    boxes = {entry["id"]: corners(entry["bbox"]) for entry in document["annotations"]}
    rows: list[tuple[str, Expression]] = []
    for ref in _read_refs(refs_files[0]):
        for sentence in ref["sentences"]:
            rows.append(
                (
                    names[ref["image_id"]],
                    Expression(len(rows), sentence["sent"], boxes[ref["ann_id"]], ref["split"]),
                )
            )
    return _named(str(refs_files[0].resolve().parent.name)), rows


def _one_file(path: Path) -> Rows:
    """The form that MDETR made and the original's evaluation reads: an image entry an expression, its caption
    the words."""
    document = read_coco(path, "images", "annotations")
    if document["images"] and "caption" not in document["images"][0]:
        raise ValueError(
            f"{path} has images without a caption; it is neither the one-file form nor the refs of REFER."
        )
    boxes: dict[Any, list[Box]] = {}
    for entry in document["annotations"]:
        if not entry.get("ignore", False) and min(entry["bbox"][2:]) >= 1 and entry.get("area", 1) > 0:
            boxes.setdefault(entry["image_id"], []).append(corners(entry["bbox"]))
    split = _split_of(path.stem)
    rows: list[tuple[str, Expression]] = []
    for image in document["images"]:
        if (
            min(image.get("width", _SMALLEST_PICTURE), image.get("height", _SMALLEST_PICTURE))
            >= _SMALLEST_PICTURE
            and image["id"] in boxes
        ):
            rows.append(
                (image["file_name"], Expression(len(rows), image["caption"], boxes[image["id"]][0], split))
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


def _read_refs(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        refs = read_json(path)
    else:
        try:
            refs = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
        except Exception as error:  # a damaged pickle raises whatever its bytes lead to
            raise ValueError(f"{path} is not a pickle of plain values: {error}.") from error
    if not isinstance(refs, list):
        raise ValueError(f"{path} does not hold a list of refs.")
    return refs


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, numbers and texts only: a pickle from elsewhere may otherwise run anything."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="latin1")  # the published files were written by Python 2

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are read")


IOU = 0.5


@dataclass(frozen=True)
class AskExpressions:
    """The work on one picture: all its expressions, in batches, each in a wording drawn by lot.

    The record: for every expression its number in the file, split, the overlap of the answer with the target,
    and the best overlap that any region has with it, which is what the proposer leaves possible.
    """

    images: Path
    seed: int
    batch: int

    def __call__(self, grounder: Grounder, picture: ReferredPicture) -> Record:
        scene = grounder.perceive(Frame(read_rgb(find_picture(self.images, picture.name))))
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
        """The original draws one of its six wordings anew for each expression; this draw is the same in every
        run."""
        return random.Random(f"{self.seed} {item.number}").randrange(max(1, count))


def report(name: str, records: Sequence[Record]) -> dict[str, Any]:
    """Accuracy by split: the answer overlaps the target by more than one half."""
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
    """The report as lines to read."""
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
