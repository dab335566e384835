"""Write the annotations of a folder of scenes in the formats of published datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import write_file

FORMS = ("grec", "saco")
GREFS, INSTANCES, SACO = "grefs(scenes).json", "instances.json", "saco.json"
_SPLIT = "val"


def write_form(annotations: Path, form: str) -> Path:
    """Write the goals of a folder in the format of gRefCOCO (grec: `grefs(scenes).json` with
    `instances.json`) or SA-Co (saco: `saco.json`, one image entry per pair of picture and phrase, boxes as
    fractions of the picture). Returns the file for --data. annotations: written by `groma scenes`."""
    document = json.loads(annotations.read_text(encoding="utf-8"))
    folder = annotations.parent
    if form == "grec":
        parts = {name: document[name] for name in ("images", "annotations", "categories")}
        write_file(folder / INSTANCES, json.dumps(parts).encode())
        write_file(folder / GREFS, json.dumps(_grefs(document)).encode())
        return folder / GREFS
    write_file(folder / SACO, json.dumps(_saco(document)).encode())
    return folder / SACO


def _grefs(document: dict[str, Any]) -> list[dict[str, Any]]:
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    return [
        {
            "ref_id": goal["id"],
            "image_id": goal["image_id"],
            "file_name": names[goal["image_id"]],
            "split": _SPLIT,
            "ann_id": goal["annotation_ids"] or [-1],
            "no_target": not goal["annotation_ids"],
            "sent_ids": [goal["id"]],
            "sentences": [{"sent_id": goal["id"], "sent": goal["text"], "raw": goal["text"]}],
        }
        for goal in document["goals"]
    ]


def _saco(document: dict[str, Any]) -> dict[str, Any]:
    pictures = {entry["id"]: entry for entry in document["images"]}
    boxes = {entry["id"]: entry["bbox"] for entry in document["annotations"]}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for goal in document["goals"]:
        picture = pictures[goal["image_id"]]
        width, height = picture["width"], picture["height"]
        size = {"width": width, "height": height}
        pair = {"id": goal["id"], "file_name": picture["file_name"], "text_input": goal["text"]}
        images.append({**pair, **size, "is_instance_exhaustive": 1})
        for number in goal["annotation_ids"]:
            x, y, w, h = boxes[number]
            share = [x / width, y / height, w / width, h / height]
            place = {"id": len(annotations) + 1, "image_id": goal["id"], "category_id": 1, "iscrowd": 0}
            annotations.append(
                {**place, "bbox": share, "area": share[2] * share[3], "noun_phrase": goal["text"]}
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
