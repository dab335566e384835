"""Truth files in both formats, matched by stamp or index, and accuracies counted by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.replay.records import BoxRecord, FrameRecord, GoalRecord
from groma_ros.replay.truth import Truth, judge, read_truth, unjudged

MUG, BALL = (10.0, 10.0, 50.0, 60.0), (100.0, 20.0, 140.0, 60.0)


def frame(number: int, **answers: tuple[tuple[float, float, float, float], ...]) -> FrameRecord:
    goals = tuple(
        GoalRecord(text, "auto", 0.9, 0.5, tuple(BoxRecord(box, 0.9) for box in boxes))
        for text, boxes in answers.items()
    )
    return FrameRecord(number, number, 1_000 + 100 * number, "camera", 640, 480, True, None, "", goals)


def coco(**image: Any) -> dict[str, Any]:
    """The mug in three frames and the ball in the first; goals on the first two."""
    size = {"file_name": "x.jpg", "width": 640, "height": 480}
    return {
        "images": [
            {"id": 7 + place, **size, **{key: value[place] for key, value in image.items()}}
            for place in range(3)
        ],
        "categories": [{"id": 1, "name": "mug"}],
        "annotations": [
            {"id": 20 + place, "image_id": 7 + place, "category_id": 1, "bbox": [10, 10, 40, 50]}
            for place in range(3)
        ]
        + [{"id": 30, "image_id": 7, "category_id": 1, "bbox": [100, 20, 40, 40]}],
        "goals": [
            {"image_id": 7, "text": "mug", "kind": "attribute", "annotation_ids": [20]},
            {"image_id": 8, "text": "mug", "kind": "attribute", "annotation_ids": [21]},
            {"image_id": 7, "text": "all", "kind": "plural", "annotation_ids": [20, 30]},
            {"image_id": 8, "text": "cone", "kind": "absent", "annotation_ids": []},
        ],
    }


def with_goal(annotation: int) -> dict[str, Any]:
    goal = {"image_id": 7, "text": "mug", "kind": "attribute", "annotation_ids": [annotation]}
    return {**coco(), "goals": [goal]}


def sequence(*targets: Any) -> dict[str, Any]:
    """The demo's form: a goal with these targets in a frame of two boxes."""
    goal = {"text": "ball", "kind": "attribute", "targets": list(targets)}
    return {"goals": [goal], "frames": [{"stamp": 1_000, "boxes": [MUG, BALL]}]}


@pytest.mark.parametrize(
    ("image", "numbers"),
    [
        ({}, (0, 1)),
        ({"frame": (4, 9, 11)}, (4, 9)),
        ({"stamp": (1_300, 1_000, 5_000)}, (3, 0)),
        ({"file_name": "abc"}, (0, 1)),
    ],
)
def test_coco_s_form(tmp_path: Path, image: dict[str, Any], numbers: tuple[int, int]) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(coco(**image)))
    first, second = numbers
    records = [
        frame(first, mug=(MUG,), all=(MUG, BALL), other=()),
        frame(second, mug=(BALL,), cone=(), all=(MUG,)),
        frame(2, mug=()),
    ]
    found = {
        item.goal: (item.kind, dict(item.right), item.accuracy) for item in judge(read_truth(path), records)
    }
    assert found == {
        "mug": ("attribute", {first: True, second: False}, 0.5),
        "all": ("plural", {first: True}, 1.0),
        "cone": ("absent", {second: True}, 1.0),
    }


def test_the_demo_s_form(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    goals = [
        {"text": "ball", "kind": "attribute", "targets": [1]},
        {"text": "cone", "kind": "absent", "targets": []},
    ]
    path.write_text(json.dumps({"goals": goals, "frames": [{"stamp": 1_000, "boxes": [MUG, BALL]}]}))
    records = [frame(0, ball=(BALL,), cone=(MUG,)), frame(1, ball=())]
    assert {item.goal: dict(item.right) for item in judge(read_truth(path), records)} == {
        "ball": {0: True},
        "cone": {0: False},
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[]", "is not in its form"),
        ("{}", "the key 'images' is missing"),
        (json.dumps({**coco(), "annotations": []}), "the key 20 is missing, or names nothing"),
        (json.dumps(coco(frame=(1, 1, 2))), "two of its images are the same frame"),
        (
            json.dumps({**coco(), "annotations": [{"id": 20, "bbox": [1, 2]}]}),
            "is not in its form: a box is [1, 2] and must have four numbers",
        ),
        (
            json.dumps(coco(stamp=(1_000, None, 1_200))),
            "images[1] has no stamp and images[0] has one; give a",
        ),
        (
            json.dumps(coco(frame=(None, 4, 5))),
            "images[0] has no frame and images[1] has one; give a frame to",
        ),
        (json.dumps(with_goal(21)), "a goal of the image 7 names the annotation 21, which is of the image 8"),
        (
            json.dumps({**coco(), "annotations": [{"id": 20, "bbox": [1, 2, 3, 4]}] * 2}),
            "two of its annotations have the same id",
        ),
        *(
            (
                json.dumps(sequence(wrong)),
                f"a target of the goal 'ball' is {wrong!r} and must be the index of one of the 2 boxes",
            )
            for wrong in (-1, 2, 1.5, "1", True)
        ),
        (json.dumps(sequence([1])), "a target of the goal 'ball' is [1] and must be the index"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"The truth .*truth.json") as caught:
        read_truth(path)
    assert sentence in str(caught.value)


def test_goals_of_the_truth_that_were_not_judged() -> None:
    none = np.zeros((0, 4), np.float32)
    truth = Truth(
        {0: {"mug": none}, 1: {"ball": none, "Mug": none}}, dict.fromkeys(("mug", "ball", "Mug"), ""), False
    )
    judged = judge(truth, [frame(0, mug=(), ball=())])
    assert [item.sentence for item in unjudged(truth, judged, {"mug", "ball"})] == [
        "The goal 'ball' of the truth was judged on no frame: none of its frames was answered.",
        "The goal 'Mug' of the truth was judged on no frame: no goal of this text was asked.",
    ]


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.json does not exist"):
        read_truth(tmp_path / "none.json")
