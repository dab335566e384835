"""Referring expressions in the forms they are published in: REFER's refs with instances.json, and the one-file form of MDETR and Groma."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.evaluation.pictures import corners, read_coco, read_json

INSTANCES = "instances.json"
DATASETS = ("refcoco+", "refcocog", "refcoco")  # the longer names first: the last one is part of the others
_SMALLEST_PICTURE = 32

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Expression:
    """Words for one object. number: its place in the file; box: xyxy pixels; split: val, testA, testB, test or train."""

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

    path: a folder or refs file of REFER (`refs(unc).p` or the same as JSON, `instances.json` beside it), or one JSON file whose images
    have a `caption`. splits: only these; none takes all but train. Raises ValueError with a sentence for any other file.
    """
    try:
        found = _refer(path) if path.is_dir() or path.name.startswith("refs") else _one_file(path)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of referring expressions: {type(error).__name__} {error}.") from error
    name, rows = found
    wanted = [(picture, item) for picture, item in rows if (item.split in splits if splits else item.split != "train")]
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
            rows.append((names[ref["image_id"]], Expression(len(rows), sentence["sent"], boxes[ref["ann_id"]], ref["split"])))
    return _named(str(refs_files[0].resolve().parent.name)), rows


def _one_file(path: Path) -> Rows:
    """The form that MDETR made and the original's evaluation reads: an image entry an expression, its caption the words."""
    document = read_coco(path, "images", "annotations")
    if document["images"] and "caption" not in document["images"][0]:
        raise ValueError(f"{path} has images without a caption; it is neither the one-file form nor the refs of REFER.")
    boxes: dict[Any, list[Box]] = {}
    for entry in document["annotations"]:
        if not entry.get("ignore", False) and min(entry["bbox"][2:]) >= 1 and entry.get("area", 1) > 0:
            boxes.setdefault(entry["image_id"], []).append(corners(entry["bbox"]))
    split = _split_of(path.stem)
    rows: list[tuple[str, Expression]] = []
    for image in document["images"]:
        if min(image.get("width", _SMALLEST_PICTURE), image.get("height", _SMALLEST_PICTURE)) >= _SMALLEST_PICTURE and image["id"] in boxes:
            rows.append((image["file_name"], Expression(len(rows), image["caption"], boxes[image["id"]][0], split)))
    said = document["images"][0].get("dataset_name", "") if document["images"] else ""
    return _named(f"{said} {path.stem}"), rows


def _named(text: str) -> str:
    return next((name for name in DATASETS if name in text.lower()), "")


def _split_of(stem: str) -> str:
    lowered = stem.lower()
    return next((name for name in ("testA", "testB", "test", "train", "val") if name.lower() in lowered), "val")


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
