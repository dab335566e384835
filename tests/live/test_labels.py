"""Labels of the page: the file's form, and that replay and training read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.live.labels import LabelFile, category
from groma_ros.replay.truth import read_truth
from groma_ros.training.data_files import open_file
from groma_ros.types import Frame, Goal
from tests.pictures import read_picture

MUG, BALL = [10.0, 20.0, 50.0, 80.0], [100.0, 10.0, 145.0, 40.0]


def frame(stamp: int) -> Frame:
    """Noise of 160x120 pixels that is another for each stamp."""
    rgb = np.random.default_rng(stamp).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    return Frame(rgb, stamp, "camera")


def boxes(*rows: list[float]) -> NDArray[Any]:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.fixture
def labels(tmp_path: Path) -> LabelFile:
    """Two frames: one with a mug, a plural and an absent goal, one with an absent goal alone."""
    labels = LabelFile(tmp_path / "labels")
    labels.put(frame(1_700_000_000_123_456_789), Goal("the red mug", "one"), boxes(MUG))
    labels.put(frame(1_700_000_000_123_456_789), Goal("all the round things", "all"), boxes(MUG, BALL))
    labels.put(frame(1_700_000_000_123_456_789), Goal("the purple cone"), boxes())
    labels.put(frame(5), Goal("the red mug"), boxes())
    return labels


def test_the_file_has_coco_boxes_with_goals_and_verified_negatives(labels: LabelFile) -> None:
    document = json.loads(labels.path.read_text())
    first, second = document["images"]
    assert (first["width"], first["height"], first["stamp"]) == (160, 120, 1_700_000_000_123_456_789)
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    assert list(names.values()) == ["red mug", "round things", "purple cone"]
    assert [entry["bbox"] for entry in document["annotations"]] == [
        [10, 20, 40, 60],
        [10, 20, 40, 60],
        [100, 10, 45, 30],
    ]
    assert [names[entry["category_id"]] for entry in document["annotations"]] == [
        "red mug",
        *["round things"] * 2,
    ]
    assert [(goal["text"], goal["kind"], goal["annotation_ids"]) for goal in document["goals"]] == [
        ("the red mug", "one", [1]),
        ("all the round things", "all", [2, 3]),
        ("the purple cone", "auto", []),
        ("the red mug", "auto", []),
    ]
    assert [names[i] for i in first["neg_category_ids"]] == ["purple cone"]
    assert [names[i] for i in second["neg_category_ids"]] == ["red mug"]
    picture = read_picture(labels.path.parent / first["file_name"])
    assert picture.shape == (120, 160, 3)
    counts = labels.counts
    assert (counts.frames, counts.goals, counts.absent) == (2, 4, 2)


def test_replay_reads_it_as_truth(labels: LabelFile) -> None:
    truth = read_truth(labels.path)
    assert truth.stamped
    known = truth.boxes[1_700_000_000_123_456_789]
    np.testing.assert_allclose(known["all the round things"], boxes(MUG, BALL))
    assert known["the purple cone"].shape == (0, 4) and truth.boxes[5]["the red mug"].shape == (0, 4)


def test_training_reads_it_as_goals_and_verified_negatives(labels: LabelFile) -> None:
    pictures, rng = open_file(labels.path), np.random.default_rng(0)
    assert [len(objects) for objects in pictures.objects] == [2, 0]  # the mug of two goals is one object
    first, second = (pictures.sample(index) for index in range(2))
    told = {
        kind: {(goal.text, goal.targets) for goal in first.draw(rng, 9, kind)}
        for kind in ("one", "all", "absent")
    }
    assert told == {
        "one": {("the red mug", (0,))},
        "all": {("all the round things", (0, 1))},
        "absent": {("the purple cone", ())},
    }
    assert first.phrase(0, rng) == "the red mug"
    assert [goal.text for goal in second.draw(rng, 9, "absent")] == ["the red mug"]


def test_a_goal_that_lost_a_box_is_not_trained_on(labels: LabelFile) -> None:
    document = json.loads(labels.path.read_text())
    document["annotations"][2]["bbox"] = [100, 10, 1, 1]  # below what is kept
    labels.path.write_text(json.dumps(document))
    sample = open_file(labels.path).sample(0)
    assert sample.draw(np.random.default_rng(0), 9, "all") == []


def test_it_is_taken_up_changed_and_taken_back(labels: LabelFile) -> None:
    again = LabelFile(labels.path.parent)
    assert again.of(frame(5)) == {"the red mug": []} and again.counts == labels.counts
    again.put(frame(5), Goal("the red mug"), boxes(BALL))
    assert LabelFile(labels.path.parent).of(frame(5)) == {"the red mug": [BALL]}
    again.remove(frame(5), "never there")
    again.remove(frame(6), "the red mug")
    assert again.counts.frames == 2
    again.remove(frame(5), "the red mug")
    assert again.counts.frames == 1
    assert [path.name for path in (labels.path.parent / "images").iterdir()] == ["1700000000123456789.jpg"]


def test_boxes_are_cut_to_the_frame_and_refused_outside(labels: LabelFile) -> None:
    labels.put(frame(7), Goal("it"), boxes([-5.0, 100.0, 30.0, 400.0]))
    assert labels.of(frame(7)) == {"it": [[0.0, 100.0, 30.0, 120.0]]}
    with pytest.raises(ValueError, match="not a box inside the frame of 160x120 pixels"):
        labels.put(frame(7), Goal("it"), boxes([200.0, 0.0, 300.0, 50.0]))
    assert labels.of(frame(7)) == {"it": [[0.0, 100.0, 30.0, 120.0]]}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="is no file of labels .* name another --out"):
        LabelFile(tmp_path)


@pytest.mark.parametrize(
    ("text", "name"),
    [("the red mug", "red mug"), ("all the boxes", "boxes"), ("the", "the"), ("红色的杯子", "红色的杯子")],
)
def test_a_category_is_the_goal_without_determiners(text: str, name: str) -> None:
    assert category(text) == name


def test_labels_of_another_source_are_left_alone(labels: LabelFile) -> None:
    """Pictures and videos count their stamps from 0, so two sources have the same ones."""
    other = Frame(np.zeros((48, 64, 3), np.uint8), stamp=5, frame_id="other.png")
    assert labels.of(other) == {}
    before = labels.path.read_bytes()
    with pytest.raises(ValueError, match="labels of another picture with this stamp, .*; name another --out"):
        labels.put(other, Goal("the red mug"), boxes())
    labels.remove(other, "the red mug")
    assert labels.of(frame(5)) == {"the red mug": []}
    assert labels.path.read_bytes() == before


def put(*places: Any) -> Callable[[dict[str, Any]], None]:
    """Change a document: put the last of these where the others lead; Ellipsis takes the key out."""

    def change(document: Any) -> None:
        *way, key, value = places
        for step in way:
            document = document[step]
        if value is ...:
            del document[key]
        else:
            document[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *((put("images", 0, key, ...), f"it has no '{key}'") for key in ("id", "stamp", "width", "height")),
        *((put("images", 0, key, ...), f"it has no '{key}'") for key in ("file_name", "frame_id")),
        *((put(key, ...), f"it has no '{key}'") for key in ("images", "annotations", "goals")),
        *((put("goals", 0, key, ...), f"it has no '{key}'") for key in ("text", "kind", "annotation_ids")),
        (put("goals", 0, "image_id", ...), "it has no 'image_id'"),
        (put("goals", 0, "image_id", 77), "it has no 77"),
        (put("goals", 0, "annotation_ids", [99]), "it has no 99"),
        (put("goals", 0, "annotation_ids", [[1]]), "unhashable"),
        (put("goals", 0, "annotation_ids", "1"), "the annotation_ids of a goal is '1'"),
        (put("goals", 0, "text", None), "the text of a goal is None"),
        (put("images", 0, "stamp", 1.5), "the stamp of an image is 1.5"),
        (put("images", 0, "width", True), "the width of an image is True"),
        (put("images", 0, "height", "120"), "the height of an image is '120'"),
        (put("images", 0, "file_name", "images/a\0b"), "is not in images"),
        (put("images", 1, "id", 1), "two images have the id 1"),
        (put("images", 0, "stamp", 5), "two images have the id 2 or the stamp 5"),
        (put("images", 0, [1, 2]), "attribute"),
        (put("annotations", 0, "bbox", [1, 2, 3]), "unpack"),
        (put("annotations", 0, "bbox", [1, 2, 3, "x"]), "could not convert"),
        (put("annotations", 0, "bbox", [1, 2, 3, float("nan")]), "not of finite numbers"),
        (put("annotations", 0, "bbox", [1e308, 2, 1e308, 4]), "not of finite numbers"),
        (put("annotations", 0, "id", ...), "it has no 'id'"),
        (put("annotations", 3), "not iterable"),
    ],
)
def test_a_malformed_file_is_one_sentence(
    labels: LabelFile, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    document = json.loads(labels.path.read_text())
    change(document)
    labels.path.write_text(json.dumps(document))
    before = labels.path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(reason)) as raised:
        LabelFile(labels.path.parent)
    said = str(raised.value)
    assert said.startswith(f"{labels.path} is there and is no file of labels (")
    assert said.endswith("; move it away or name another --out.") and "\n" not in said
    assert labels.path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b'{"images": 1e999}'])
def test_a_file_that_is_no_labels_at_all_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "annotations.json").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of labels .* name another --out") as raised:
        LabelFile(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["/tmp/victim", "../victim", "images/..", "images/a/../../victim"])
def test_a_file_that_names_pictures_elsewhere_is_refused(labels: LabelFile, name: str) -> None:
    document = json.loads(labels.path.read_text())
    document["images"][0]["file_name"] = name
    labels.path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="is not in images"):
        LabelFile(labels.path.parent)


def test_what_could_not_be_written_is_not_kept(labels: LabelFile) -> None:
    labels.path.unlink()
    labels.path.mkdir()  # cannot be replaced by a file
    before = labels.of(frame(5))
    with pytest.raises(OSError, match="annotations.json"):
        labels.put(frame(5), Goal("the blue ball"), boxes(BALL))
    assert labels.of(frame(5)) == before
