"""Annotation files with ids of all kinds, and errors for entries that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest

from groma_ros import plain_pickle
from groma_ros.coco_files import as_key, find_picture, read_coco, read_goals
from groma_ros.evaluation.caption import read_regions
from groma_ros.evaluation.lvis_ground import average_recall, read_classes
from groma_ros.evaluation.referring import read_referring

ALL = ("images", "annotations", "categories")


def document(**changes: Any) -> dict[str, Any]:
    """Two pictures, three objects; changes: to the first annotation."""
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "coco_url": "http://x/val2017/b.jpg"}],
        "categories": [{"id": 3, "name": "cup"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 20], **changes},
            {"id": 6, "image_id": 1, "category_id": 3, "bbox": [50, 50, 20, 20]},
            {"id": 7, "image_id": 2, "category_id": 4, "bbox": [0, 0, 200, 100], "iscrowd": 0},
        ],
    }


def written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    "ids", [(1, 2, 3), (0, 1, 2), (0, 1, 0), (9, 9, 9), ("a", "b", "a"), (None, None, 1)]
)
def test_recall_is_the_same_whatever_the_ids_are(tmp_path: Path, ids: tuple[Any, ...]) -> None:
    pytest.importorskip("pycocotools")
    data = document()
    for entry, own in zip(data["annotations"], ids):
        entry["id"] = own
        if own is None:
            del entry["id"]
    read, pictures = read_classes(written(tmp_path / "a.json", data))
    boxes = [(1, 3, [0, 0, 20, 20]), (1, 3, [50, 50, 20, 20]), (2, 4, [0, 0, 200, 100])]
    found = [{"image_id": i, "category_id": c, "bbox": b, "score": 1.0} for i, c, b in boxes]
    assert average_recall(read, [item.image for item in pictures], found)["AR"] == pytest.approx(100)


def test_ids_of_pictures_and_classes_may_be_texts_zero_or_floats(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    data = document()
    for entry in data["images"]:
        entry["id"] = {1: 0, 2: "img-2"}[entry["id"]]
    for entry in data["annotations"]:
        entry["image_id"] = {1: "0", 2: "img-2"}[entry["image_id"]]
        entry["category_id"] = float(entry["category_id"])
    read, pictures = read_classes(written(tmp_path / "a.json", data))
    assert [(item.image, item.classes) for item in pictures] == [(0, ((3, "cup"),)), ("img-2", ((4, "dog"),))]
    found = [{"image_id": "img-2", "category_id": 4, "bbox": [0, 0, 200, 100], "score": 1.0}]
    assert average_recall(read, [0, "img-2"], found)["AR"] == pytest.approx(50)


def test_null_and_missing_fields_have_their_neutral_value(tmp_path: Path) -> None:
    data = document(area=None, iscrowd=None, ignore=None, segmentation=None)
    data["images"][0] |= {"width": None, "height": 480}
    read = read_coco(written(tmp_path / "a.json", data), *ALL)
    first = read["annotations"][0]
    assert (first["area"], first["iscrowd"], first["ignore"], first["id"], first["own_id"]) == (
        400,
        0,
        0,
        1,
        5,
    )
    assert "width" not in read["images"][0] and read["images"][0]["height"] == 480


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bbox": []}, r"annotations\[0\] \(id 5\) has the bbox \[\] and must have four numbers"),
        ({"bbox": None}, r"annotations\[0\] \(id 5\) has the bbox null"),
        ({"bbox": [0, 0, "20", 20]}, "has the bbox"),
        ({"bbox": [0, 0, -1, 20]}, "has the bbox"),
        ({"bbox": [0, 0, float("nan"), 20]}, "has the bbox"),
        ({"bbox": {"x": 1}}, "has the bbox"),
        ({"bbox": [0, 0, 10**400, 20]}, "has the bbox"),
        ({"area": 10**400}, "has the area 10+"),
        ({"area": "big"}, "has the area 'big' and must have a number from 0"),
        ({"iscrowd": 7}, "has iscrowd 7 and must have 0 or 1"),
        ({"iscrowd": [1]}, r"has iscrowd \[1\]"),
        ({"image_id": 9}, "names the image 9, which is not listed"),
        ({"image_id": None}, "has no image_id"),
        ({"image_id": [1]}, r"has the image_id \[1\], which is neither a whole number nor a text"),
        ({"category_id": 9}, "names the category 9, which is not listed"),
        ({"category_id": None}, "names the category null"),
        ({"id": [5]}, r"annotations\[0\] has the id \[5\]"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_entry_that_cannot_be_read_is_named(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = written(tmp_path / "bad.json", document(**changes))
    with pytest.raises(ValueError, match="bad.json: " + r".*" + sentence):
        read_coco(path, *ALL)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda data: data["images"].append(data["images"][0]),
            r"images\[2\] \(id 1\) has the id of an entry",
        ),
        (lambda data: data["images"][1].pop("coco_url"), "has neither file_name nor coco_url"),
        (lambda data: data["images"][0].update(file_name=3), "has the file_name 3 and must have a text"),
        (lambda data: data["images"][0].update(caption=None), "has the caption null and must have a text"),
        (lambda data: data["images"][0].update(caption=["a"]), r"has the caption \['a'\]"),
        (lambda data: data["images"][0].pop("id"), r"images\[0\] has no id"),
        (lambda data: data["images"].append("x"), r"images\[2\] is 'x' and must be an object"),
        (lambda data: data["categories"][0].update(name=None), "has the name null and must have a text"),
        (lambda data: data["categories"][0].update(id=4), "has the id of an entry before it"),
        (lambda data: data.update(annotations={}), "has no list 'annotations'"),
    ],
)
def test_what_is_wrong_in_the_lists_is_named(tmp_path: Path, change: Any, sentence: str) -> None:
    data = document()
    change(data)
    with pytest.raises(ValueError, match=sentence):
        read_coco(written(tmp_path / "bad.json", data), *ALL)


def test_an_integer_of_thousands_of_digits_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"images": [{"id": ' + "1" * 5000 + "}]}")
    with pytest.raises(ValueError, match=r"bad.json is not JSON \(Exceeds the limit"):
        read_coco(tmp_path / "bad.json", *ALL)


def test_a_file_without_annotations_is_refused_by_every_reader(tmp_path: Path) -> None:
    path = written(tmp_path / "refcoco_val.json", {**document(), "annotations": []})
    with pytest.raises(ValueError, match="no annotations"):
        read_classes(path)
    with pytest.raises(ValueError, match="no annotations"):
        read_regions(path)
    with pytest.raises(ValueError, match="images without a caption"):
        read_referring(path)


def test_expressions_and_captions_are_checked_before_the_model_runs(tmp_path: Path) -> None:
    data = document(bbox=[])
    for entry in data["images"]:
        entry["caption"] = "the cup"
    with pytest.raises(ValueError, match=r"refcoco_val.json: annotations\[0\] \(id 5\) has the bbox \[\]"):
        read_referring(written(tmp_path / "refcoco_val.json", data))
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 5\) has the caption null"):
        read_regions(written(tmp_path / "vg.json", document(caption=None)))


def test_keys() -> None:
    assert [as_key(value) for value in (7, 7.0, "7", " 7 ", "a7", 0)] == [7, 7, 7, 7, "a7", 0]
    assert as_key("1" * 5000) == "1" * 5000
    others: tuple[Any, ...] = (None, True, 7.5, [7], "", {})
    assert [as_key(value) for value in others] == [None] * 6


def test_a_picture_outside_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside the folder"):
        find_picture(tmp_path, "../secret.jpg")


def test_what_annotation_tools_leave_empty_counts_as_absent(tmp_path: Path) -> None:
    """As CVAT (empty texts) and LVIS (no file_name) write them."""
    data = document(segmentation=[], attributes={"occluded": False}, iscrowd=False)
    data["images"][0].update(coco_url="", flickr_url="", license=0, date_captured=0)
    data["images"][1].update(file_name="", neg_category_ids=[3], not_exhaustive_category_ids=[])
    data["categories"][0].update(supercategory="", synset="cup.n.01", synonyms=["cup"], frequency="f")
    data.update(info=None, licenses=[{"name": "", "id": 0, "url": ""}])
    read = read_coco(written(tmp_path / "a.json", data), *ALL)
    names = [{name: entry.get(name) for name in ("file_name", "coco_url")} for entry in read["images"]]
    assert names == [
        {"file_name": "a.jpg", "coco_url": None},
        {"file_name": None, "coco_url": "http://x/val2017/b.jpg"},
    ]
    data["images"][1]["coco_url"] = ""
    with pytest.raises(ValueError, match=r"images\[1\] \(id 2\) has neither file_name nor coco_url"):
        read_coco(written(tmp_path / "a.json", data), *ALL)


def test_texts_of_python_2_pickles(tmp_path: Path) -> None:
    """Bytes, in UTF-8 where they can be."""
    for text, encoding in (("café", "utf-8"), ("café", "latin1"), ("mug", "ascii")):
        content = text.encode(encoding)
        path = tmp_path / "refs.p"
        path.write_bytes(
            b"\x80\x02]U" + bytes([len(content)]) + content + b"a."
        )  # a list of a SHORT_BINSTRING
        assert plain_pickle.load(path) == [text]


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ("x", r"goals\[0\] is 'x' and must be an object"),
        ({"image_id": 9}, r"goals\[0\] names the image 9, which is not listed"),
        ({"text": None}, "has the text null and must have a text with words"),
        ({"kind": ["x"]}, r"has the kind \['x'\] and must have a text"),
        ({"annotation_ids": ""}, "has the annotation_ids '' and must have a list, empty for an absent goal"),
        ({"annotation_ids": [99]}, "names the annotation 99, which is not listed"),
        ({"annotation_ids": [[5]]}, r"names the annotation \[5\], which is not listed"),
        ({"annotation_ids": [5, "5"]}, "names an annotation twice"),
        ({"id": 3, "image_id": 2, "annotation_ids": [5]}, r"goals\[0\] \(id 3\) names .* of the image 1 and"),
    ],
    ids=str,
)
def test_a_wrong_goal_is_named(tmp_path: Path, goal: Any, said: str) -> None:
    right = {"image_id": 1, "text": "the cup", "kind": "attribute", "annotation_ids": [5]}
    path = written(tmp_path / "a.json", document())
    read = read_coco(path, *ALL)
    (found,) = read_goals(path, {**read, "goals": [{**right, "image_id": "1", "annotation_ids": ["5"]}]})
    assert found == {**right, "annotation_ids": [1]}  # positions, from 1
    with pytest.raises(ValueError, match=f"a.json: .*{said}"):
        read_goals(path, {**read, "goals": [{**right, **goal} if isinstance(goal, dict) else goal]})


def test_goals_need_annotations_with_ids_of_their_own(tmp_path: Path) -> None:
    data = document()
    for entry in data["annotations"]:
        entry["id"] = 5
    path = written(tmp_path / "a.json", data)
    goal = {"image_id": 1, "text": "the cup", "annotation_ids": [5]}
    with pytest.raises(ValueError, match=r"annotations\[1\] \(id 5\) has the id of an entry before it"):
        read_goals(path, {**read_coco(path, *ALL), "goals": [goal]})
    with pytest.raises(ValueError, match="has goals that are no list"):
        read_goals(path, {**read_coco(path, *ALL), "goals": {"a": 1}})
