"""Average recall against values by hand, a plain re-implementation, and the command on rendered scenes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.evaluation.lvis_ground import ClassedPicture, average_recall, read_classes, table

pytest.importorskip("pycocotools", reason="groma eval lvis-ground needs the extra eval")
TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
CATEGORIES = [{"id": 7, "name": "tea_cup"}, {"id": 9, "name": "dog"}]


def document(annotations: list[tuple[int, int, list[float]]]) -> dict[str, Any]:
    """An LVIS document (no iscrowd) of (image, class, xywh)."""
    entries = [
        {"id": number, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3]}
        for number, (image, kind, box) in enumerate(annotations, 1)
    ]
    images = [{"id": number, "coco_url": f"http://x/val2017/{number}.jpg"} for number in (1, 2, 3)]
    return {"images": images, "annotations": entries, "categories": CATEGORIES}


def found(*rows: tuple[int, int, list[float]]) -> list[dict[str, Any]]:
    return [{"image_id": image, "category_id": kind, "bbox": box, "score": 1.0} for image, kind, box in rows]


def plain_recall(data: dict[str, Any], results: list[dict[str, Any]], thresholds: NDArray[Any]) -> float:
    """Mean over thresholds and classes of the share of objects that are found: boxes in their order each take
    the object left that they overlap most."""
    shares = []
    for threshold in thresholds:
        for kind in {entry["category_id"] for entry in data["annotations"]}:
            hits = total = 0
            for image in {entry["image_id"] for entry in data["annotations"]}:
                truth = [
                    e["bbox"]
                    for e in data["annotations"]
                    if (e["image_id"], e["category_id"]) == (image, kind)
                ]
                boxes = [e["bbox"] for e in results if (e["image_id"], e["category_id"]) == (image, kind)]
                left = list(range(len(truth)))
                total += len(truth)
                for box in boxes[:100]:
                    overlaps = [iou(box, truth[index]) for index in left]
                    if overlaps and max(overlaps) >= threshold - 1e-10:
                        left.pop(int(np.argmax(overlaps)))
                        hits += 1
            shares.append(hits / total)
    return 100 * float(np.mean(shares))


def iou(a: list[float], b: list[float]) -> float:
    corners = [np.array([[x, y, x + w, y + h]], np.float32) for x, y, w, h in (a, b)]
    return float(box_iou(*corners)[0, 0])


def test_recall_by_hand() -> None:
    # One small cup found exactly, one missed; a large dog found with an overlap of 0.8, which counts at 7 of
    # the 10 thresholds.
    data = document([(1, 7, [0, 0, 20, 20]), (1, 7, [50, 50, 20, 20]), (2, 9, [0, 0, 200, 100])])
    recall = average_recall(data, [1, 2, 3], found((1, 7, [0, 0, 20, 20]), (2, 9, [0, 0, 200, 80])))
    assert recall["AR"] == pytest.approx((50 + 70) / 2)
    assert recall["AR50"] == pytest.approx((50 + 100) / 2) and recall["AR75"] == pytest.approx((50 + 100) / 2)
    assert recall["ARs"] == pytest.approx(50) and recall["ARl"] == pytest.approx(70) and recall["ARm"] is None


def test_nothing_found_is_no_recall() -> None:
    data = document([(1, 7, [0, 0, 20, 20])])
    assert average_recall(data, [1, 2, 3], [])["AR"] == 0


def test_wrong_boxes_of_other_classes_and_pictures_change_nothing() -> None:
    data = document([(1, 7, [0, 0, 20, 20]), (2, 9, [0, 0, 50, 50])])
    right = found((1, 7, [0, 0, 20, 20]))
    wrong = found((1, 9, [0, 0, 20, 20]), (3, 7, [0, 0, 20, 20]))
    assert average_recall(data, [1, 2, 3], right + wrong) == average_recall(data, [1, 2, 3], right)


def test_recall_equals_a_plain_computation_of_its_definition() -> None:
    rng = np.random.default_rng(12)
    for _ in range(5):
        truth, boxes = [], []
        for image in (1, 2, 3):
            for kind in (7, 9):
                for _ in range(int(rng.integers(1, 4))):
                    box = [*rng.uniform(0, 100, 2).tolist(), *rng.uniform(20, 80, 2).tolist()]
                    truth.append((image, kind, box))
                    boxes.append((image, kind, (np.array(box) + rng.normal(0, 6, 4)).tolist()))
        rng.shuffle(boxes)
        data, results = document(truth), found(*boxes)
        recall = average_recall(data, [1, 2, 3], results)
        assert recall["AR"] == pytest.approx(
            plain_recall(data, results, np.linspace(0.5, 0.95, 10)), abs=0.01
        )
        assert recall["AR50"] == pytest.approx(plain_recall(data, results, np.array([0.5])), abs=0.01)
        assert recall["AR75"] == pytest.approx(plain_recall(data, results, np.array([0.75])), abs=0.01)


def test_the_form_of_lvis_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lvis.json"
    path.write_text(
        json.dumps(
            document([(1, 7, [0, 0, 2, 2]), (2, 9, [0, 0, 2, 2]), (1, 9, [0, 0, 2, 2]), (1, 7, [3, 3, 2, 2])])
        )
    )
    _, pictures = read_classes(path)
    assert pictures == [
        ClassedPicture(1, "http://x/val2017/1.jpg", ((7, "tea_cup"), (9, "dog"))),
        ClassedPicture(2, "http://x/val2017/2.jpg", ((9, "dog"),)),
    ]
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="no list 'categories'"):
        read_classes(path)


def test_the_command_on_rendered_scenes(
    command: Callable[..., dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    common = (
        "eval",
        "lvis-ground",
        "--model",
        TINY,
        "--data",
        scenes / "annotations.json",
        "--images",
        scenes,
        "--threads",
        1,
    )
    found = command(*common, "--out", tmp_path / "run")
    assert found["pictures"] == 8
    assert found["recall"]["AR"]["paper"] is None and "AR@100" in table(found)
    # The records contain the boxes, from which the plain computation must give the same recall.
    records = [
        json.loads(line)["record"] for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    ]
    boxes = [item for record in records for item in record["found"]]
    data = json.loads((scenes / "annotations.json").read_text())
    assert len(boxes) > 20
    for name, thresholds in {"AR": np.linspace(0.5, 0.95, 10), "AR50": np.array([0.5])}.items():
        assert found["recall"][name]["measured"] == pytest.approx(
            plain_recall(data, boxes, thresholds), abs=0.01
        )
    # A bare noun was trained to mean one object, so one of several is found.
    assert found["recall"]["AR50"]["measured"] > 50
    paper = command(*common, "--paper", "--out", tmp_path / "run")
    assert (
        paper["recall"]["ARs"]["paper"] == 8.7
        and paper["recall"]["AR"]["measured"] == found["recall"]["AR"]["measured"]
    )
    one = command(*common, "--most", 1, "--limit", 4)
    assert one["pictures"] == 4 and one["recall"]["AR50"]["measured"] < found["recall"]["AR50"]["measured"]
