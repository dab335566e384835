"""Write rendered scenes in the formats in which data sets are published."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from groma_ros.simulation.dataset import load_dataset
from groma_ros.simulation.scene_records import SceneRecord


def single_goals(record: SceneRecord) -> list[tuple[str, int]]:
    """(words, index of the object) of the goals that refer to one object."""
    return [(goal.text, goal.targets[0]) for goal in record.goals if len(goal.targets) == 1]


def xywh(box: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def instances(folder: Path) -> dict[str, Any]:
    """instances.json as REFER ships it: ids of annotations count through the scenes."""
    images, annotations = [], []
    for number, record in enumerate(load_dataset(folder)):
        images.append(
            {"id": number, "file_name": record.image.name, "width": record.width, "height": record.height}
        )
        for index, item in enumerate(record.objects):
            place = {"id": 100 * number + index, "image_id": number, "category_id": 1}
            annotations.append({**place, "bbox": xywh(item.box), "area": item.area, "iscrowd": 0})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def write_refer(folder: Path, out: Path, as_json: bool = False) -> Path:
    """The folder of a REFER data set: refs(unc).p (a pickle by Python 2's protocol) and instances.json;
    scenes alternate val and testA, the last one is for training."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "instances.json").write_text(json.dumps(instances(folder)))
    refs: list[dict[str, Any]] = []
    records = load_dataset(folder)
    for number, record in enumerate(records):
        split = "train" if number == len(records) - 1 else ("val", "testA")[number % 2]
        for text, index in single_goals(record):
            sentence = {"tokens": text.split(), "raw": text, "sent_id": len(refs), "sent": text}
            refs.append(
                {
                    "ref_id": len(refs),
                    "ann_id": 100 * number + index,
                    "image_id": number,
                    "category_id": 1,
                    "split": split,
                    "file_name": f"COCO_train2014_{number:012d}_{len(refs)}.jpg",
                    "sent_ids": [len(refs)],
                    "sentences": [sentence],
                }
            )
    name = "refs(unc).json" if as_json else "refs(unc).p"
    (out / name).write_bytes(json.dumps(refs).encode() if as_json else pickle.dumps(refs, protocol=2))
    return out


def write_one_file(folder: Path, path: Path, prefix: str = "") -> Path:
    """The single-file format: one image entry per expression, with the words as its caption."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in load_dataset(folder):
        for text, index in single_goals(record):
            item, number = record.objects[index], len(images)
            size = {"width": record.width, "height": record.height}
            images.append(
                {
                    "id": number,
                    "file_name": prefix + record.image.name,
                    **size,
                    "caption": text,
                    "dataset_name": "refcoco",
                }
            )
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": xywh(item.box),
                    "area": item.area,
                    "iscrowd": 0,
                }
            )
    path.write_text(
        json.dumps(
            {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
        )
    )
    return path
