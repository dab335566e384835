"""GREC, absence and concepts: readers, and metrics against hand-computed values and plain
re-implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.evaluation import absence, concepts, grec
from groma_ros.evaluation.expression_sets import Answered, Asked, PictureExpressions, answered
from groma_ros.simulation.published_forms import write_form

Box = tuple[float, float, float, float]
A: Box = (0.0, 0.0, 10.0, 10.0)
B: Box = (20.0, 0.0, 30.0, 10.0)
NEAR_A: Box = (0.0, 0.0, 10.0, 8.0)  # IoU 0.8 with A
HALF_A: Box = (0.0, 0.0, 10.0, 4.0)  # IoU 0.4 with A


def item(
    targets: tuple[Box, ...], boxes: tuple[Box, ...], present: float = 1.0, group: str = "val"
) -> Answered:
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Answered(Asked(0, "x", targets, group), found, present)


def test_generalised_iou_by_hand() -> None:
    # Apart by ten: hull 30 x 10, union 200; alike: 1; a corner: common 25, union 175, hull 225.
    found = grec.generalised_iou(np.array([A]), np.array([B, A, (5, 5, 15, 15)], np.float32))
    assert found[0] == pytest.approx([-100 / 300, 1.0, 25 / 175 - 50 / 225])


def test_exactness_as_the_field_counts_it() -> None:
    cases = [
        ((A,), (NEAR_A,), True),
        ((A,), (HALF_A,), False),
        ((A, B), (NEAR_A, B), True),
        ((A, B), (A,), False),
        ((A,), (A, B), False),
        ((A,), (A, A), False),
        ((), (), True),
        ((), (A,), False),
        ((A,), (), False),
    ]
    for targets, boxes, right in cases:
        found, wanted = (np.array(part, np.float32).reshape(-1, 4) for part in (boxes, targets))
        assert grec.is_exact(found, wanted, True) is right and grec.is_exact(found, wanted, False) is right


def test_the_two_overlaps_differ_where_the_hull_is_large() -> None:
    # Two boxes shifted along the diagonal: IoU 0.53, generalised 0.49.
    a, b = (0.0, 0.0, 100.0, 100.0), (17.0, 17.0, 117.0, 117.0)
    giou = float(grec.generalised_iou(np.array([a]), np.array([b]))[0, 0])
    assert giou < 0.5
    found, wanted = np.array([a], np.float32), np.array([b], np.float32)
    assert grec.is_exact(found, wanted, False) and not grec.is_exact(found, wanted, True)


def test_grec_report_by_hand() -> None:
    items = [
        item((A,), (NEAR_A,)),
        item((A,), (), 0.0),
        item((A, B), (A,)),
        item((), (), 0.0),
        item((), (A,)),
        item((), (), 0.0),
        item((A,), (B,), group="testA"),
    ]
    found = grec.report(items)["splits"]
    assert found["val"]["precision"] == {"giou": 50.0, "iou": 50.0}
    assert (found["val"]["n_acc"], found["val"]["t_acc"]) == (66.67, 66.67)
    assert found["val"]["calibration_error"] == pytest.approx(2 / 6, abs=1e-4)
    assert found["testA"]["t_acc"] == 100 and found["testA"]["n_acc"] is None
    assert "66.67" in grec.table({"model": "m", **grec.report(items)})


def grefs(folder: Path, **changes: Any) -> Path:
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "bbox": [10 * number, 0, 10, 10]} for number in (0, 1)
    ]
    document = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": annotations}
    (folder / "instances.json").write_text(json.dumps(document))
    refs = [
        {"image_id": 7, "ann_id": [0, 1], "split": "val", "sentences": [{"sent": "both"}, {"sent": "two"}]},
        {"image_id": 7, "ann_id": [-1], "split": "val", "no_target": True, "sentences": [{"sent": "a dog"}]},
        {"image_id": 7, "ann_id": [1], "split": "train", "sentences": [{"sent": "right"}]},
    ]
    refs[0] |= changes
    path = folder / "grefs(unc).json"
    path.write_text(json.dumps(refs))
    return path


def test_grefs_are_read(tmp_path: Path) -> None:
    path = grefs(tmp_path)
    (picture,) = grec.read_grefs(path)
    assert grec.read_grefs(tmp_path) == [picture] and picture.name == "a.jpg"
    assert [(one.text, len(one.targets)) for one in picture.asked] == [("both", 2), ("two", 2), ("a dog", 0)]
    assert picture.asked[0].targets[1] == (10, 0, 20, 10)
    assert len(grec.read_grefs(path, ("train",))[0].asked) == 1
    with pytest.raises(ValueError, match="no expressions of the splits asked for; it has train, val"):
        grec.read_grefs(path, ("testA",))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ann_id": [5]}, "entry 0 names the annotation 5, which instances.json does not have"),
        ({"image_id": 8}, "entry 0 names the image 8"),
        ({"sentences": [{"sent": None}]}, "entry 0 has a sentence without words"),
        ({"sentences": None}, "entry 0 has a sentence without words: null"),
    ],
)
def test_grefs_that_cannot_be_read(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        grec.read_grefs(grefs(tmp_path, **changes))


def test_absence_report_by_hand() -> None:
    items = [
        item((A,), (NEAR_A, B), group="Spatial"),  # the first box counts alone
        item((A,), (B, A), group="Spatial"),
        item((A,), (), 0.0, "Spatial"),
        item((), (), 0.0, absence.REJECTION),
        item((), (A,), 1.0, absence.REJECTION),
    ]
    found = absence.report(items)
    assert found["all"]["accuracy"] == {"0.5": 40.0, "0.75": 40.0, "0.9": 20.0}
    assert found["all"]["rejection"] == 50 and found["all"]["found"] == 66.67
    assert found["subtasks"]["Spatial"]["rejection"] is None and found["subtasks"]["Spatial"]["samples"] == 3
    assert "ACC@0.75" in absence.table({"model": "m", **found})


def test_samples_of_both_forms_are_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "image": "a.jpg", "description": "the cup", "bbox": [1, 2, 3, 4], "subtask_l1": "Spatial"},
        {
            "id": 2,
            "image": {"path": "a.jpg"},
            "description": "a\u2028dog",
            "bbox": None,
            "subtask_l1": "Rejection",
        },
        {
            "id": 3,
            "image": "b.jpg",
            "original_exp": "x",
            "original_bbox": [1, 2, 3, 4],
            "rejected_exp": "a cat",
        },
    ]
    path = tmp_path / "samples.json"
    for text in (json.dumps(rows), "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)):
        path.write_text(text)
        first, second = absence.read_samples(path)
        assert [(one.text, one.targets, one.group) for one in first.asked] == [
            ("the cup", ((1, 2, 3, 4),), "Spatial"),
            ("a\u2028dog", (), "Rejection"),
        ]
        assert (second.name, second.asked[0].text, second.asked[0].targets) == ("b.jpg", "a cat", ())
    for change, sentence in (
        ({"bbox": [1, 2, 3]}, "has the bbox .* and must have four numbers"),
        ({"bbox": [3, 2, 1, 4]}, "has the bbox .*which is not x1, y1, x2, y2"),
        ({"image": None}, "has the image null"),
        ({"description": ""}, "has no words"),
    ):
        path.write_text(json.dumps([{**rows[0], **change}]))
        with pytest.raises(ValueError, match="entry 0 " + sentence):
            absence.read_samples(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no samples"):
        absence.read_samples(path)


def test_concepts_by_hand() -> None:
    items = [
        item((A,), (NEAR_A,)),  # right up to IoU 0.8: 7 of 10 thresholds
        item((A, B), (A,)),
        item((A,), (), 0.0),
        item((), (), 0.0),
        item((), (A,)),  # counts for the correlation alone
    ]
    found = concepts.report(items)
    # Boxes and targets of the positive samples: 2 + 3 + 1; matches: one at every threshold, one up to 0.8.
    f1 = (7 * 2 * 2 / 6 + 3 * 2 * 1 / 6) / 10
    mcc = (2 * 1 - 1 * 1) / np.sqrt((2 + 1) * (2 + 1) * (1 + 1) * (1 + 1))
    assert found["positive_micro_f1"] == pytest.approx(f1, abs=1e-4)
    assert found["il_mcc"] == pytest.approx(mcc, abs=1e-4)
    assert found["cgf1"] == pytest.approx(100 * f1 * mcc, abs=0.01)
    assert (
        found["samples"] == 5 and found["positive"] == 3 and "cgF1" in concepts.table({"model": "m", **found})
    )


def test_the_correlation_equals_that_of_numbers() -> None:
    rng = np.random.default_rng(3)
    said = [(bool(a), bool(b)) for a, b in rng.integers(0, 2, (200, 2))]
    table = np.array(said, float)
    assert concepts.matthews(said) == pytest.approx(np.corrcoef(table[:, 0], table[:, 1])[0, 1])
    assert concepts.matthews([(True, True)]) is None


@pytest.mark.parametrize("shares", [False, True])
def test_pairs_of_picture_and_phrase_are_read(tmp_path: Path, shares: bool) -> None:
    pair = {"file_name": "a.jpg", "width": 100, "height": 50}
    images = [{"id": 1, "text_input": "cup", **pair}, {"id": 2, "text_input": "dog", **pair}]
    box = [0.1, 0.2, 0.3, 0.4] if shares else [10, 10, 30, 20]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": box},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": box, "iscrowd": 1},
    ]
    path = tmp_path / "saco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    (picture,) = concepts.read_concepts(path)
    assert [one.text for one in picture.asked] == ["cup", "dog"] and picture.asked[1].targets == ()
    assert picture.asked[0].targets[0] == pytest.approx((10, 10, 40, 30))
    images[0]["text_input"] = None
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    with pytest.raises(ValueError, match=r"images\[0\] \(id 1\) has the text_input null"):
        concepts.read_concepts(path)


def test_scenes_in_both_forms_hold_the_same_goals(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "images/0.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 1, "name": "mug"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 20]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 10, 30, 20]},
        ],
        "goals": [
            {"id": 1, "image_id": 1, "text": "both mugs", "kind": "plural", "annotation_ids": [1, 2]},
            {"id": 2, "image_id": 1, "text": "the dog", "kind": "absent", "annotation_ids": []},
        ],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    (one,), (two,) = (
        grec.read_grefs(write_form(path, "grec")),
        concepts.read_concepts(write_form(path, "saco")),
    )
    for a, b in zip(one.asked, two.asked, strict=True):
        assert a.text == b.text and len(a.targets) == len(b.targets)
        assert np.allclose(np.array(a.targets), np.array(b.targets))
    assert [len(asked.targets) for asked in one.asked] == [2, 0]


def test_records_are_answers() -> None:
    pictures = [PictureExpressions("a.jpg", (Asked(0, "x", (A,)), Asked(1, "y", ())))]
    found = answered(pictures, [{"rows": [[0, 0.9, [list(A)]], [1, 0.1, []]]}])
    assert found[0].boxes.shape == (1, 4) and found[1].boxes.shape == (0, 4) and found[1].present == 0.1
