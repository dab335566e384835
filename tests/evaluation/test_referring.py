"""Referring expressions in every published format, against direct answers of the model."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.coco_files import find_picture
from groma_ros.evaluation import published_figures as published
from groma_ros.evaluation.referring import (
    AskExpressions,
    Expression,
    ReferredPicture,
    read_referring,
    report,
    table,
)
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_annotated
from groma_ros.simulation.dataset import load_dataset
from groma_ros.types import Frame, Goal
from tests.evaluation.published_forms import single_goals, write_one_file, write_refer

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


@pytest.fixture(scope="module")
def refer(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_refer(scenes, tmp_path_factory.mktemp("refer") / "refcoco")


@pytest.fixture(scope="module")
def direct(scenes: Path) -> dict[int, list[bool]]:
    """By scene, whether the model's one box overlaps the target by more than half; counted pixel by pixel."""
    grounder = Grounder.load(TINY, min_presence=0.0, threads=1)
    right: dict[int, list[bool]] = {}
    for number, record in enumerate(load_dataset(scenes)):
        scene = grounder.perceive(Frame(read_annotated(record.image)))
        for text, index in single_goals(record):
            (answer,) = grounder.ground(scene, [Goal(text, "one")])
            right.setdefault(number, []).append(
                painted_iou(answer.detections[0].box, record.objects[index].box) > 0.5
            )
    return right


def painted_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes painted on a fine grid."""
    y, x = np.mgrid[0:960, 0:1280] / 4 + 0.125
    inside = [(x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]) for box in (a, b)]
    return float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())


def test_refer_and_one_file_hold_the_same_expressions(scenes: Path, refer: Path, tmp_path: Path) -> None:
    name, pictures = read_referring(refer, ("train", "val", "testA"))
    same, others = read_referring(write_one_file(scenes, tmp_path / "finetune_refcoco_val.json"))
    assert name == same == "refcoco" and len(pictures) == len(others) == 8
    for picture, other in zip(pictures, others, strict=True):
        assert picture.name == other.name
        assert [(item.text, item.number) for item in picture.expressions] == [
            (item.text, item.number) for item in other.expressions
        ]
        np.testing.assert_allclose(
            [item.box for item in picture.expressions], [item.box for item in other.expressions]
        )
    assert {item.split for picture in others for item in picture.expressions} == {"val"}


def test_splits_are_chosen_and_training_is_left_out(refer: Path) -> None:
    _, tested = read_referring(refer)
    assert {item.split for picture in tested for item in picture.expressions} == {"val", "testA"} and len(
        tested
    ) == 7
    _, val = read_referring(refer, ("val",))
    assert len(val) == 4
    with pytest.raises(ValueError, match=r"no expressions of the splits asked for; it has testA, train, val"):
        read_referring(refer, ("testB",))


def test_refs_as_json_are_the_same(scenes: Path, refer: Path, tmp_path: Path) -> None:
    assert read_referring(write_refer(scenes, tmp_path / "refcoco", as_json=True)) == read_referring(refer)


@pytest.mark.parametrize(
    ("stem", "name", "split"),
    [
        ("refcoco+_testA", "refcoco+", "testA"),
        ("finetune_refcocog_test", "refcocog", "test"),
        ("refcoco_testB", "refcoco", "testB"),
    ],
)
def test_names_say_data_set_and_split(scenes: Path, tmp_path: Path, stem: str, name: str, split: str) -> None:
    path = write_one_file(scenes, tmp_path / f"{stem}.json")
    document = json.loads(path.read_text())
    for image in document["images"]:
        del image["dataset_name"]
    path.write_text(json.dumps(document))
    found, pictures = read_referring(path)
    assert found == name and pictures[0].expressions[0].split == split


def test_what_the_original_skips_is_skipped(tmp_path: Path) -> None:
    sizes = enumerate((100, 31, 100, 100))
    images = [
        {"id": number, "file_name": "a.jpg", "width": 100, "height": size, "caption": "x"}
        for number, size in sizes
    ]
    boxes = [[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 0.5, 9], [0, 0, 9, 9]]
    annotations = [
        {"id": n, "image_id": n, "bbox": box, "area": 9, "ignore": n == 3} for n, box in enumerate(boxes)
    ]
    (tmp_path / "refcoco_val.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    _, pictures = read_referring(tmp_path / "refcoco_val.json")
    assert [len(picture.expressions) for picture in pictures] == [1]


class Harm:
    """What a pickle from elsewhere could hold."""

    def __reduce__(self) -> Any:
        return (print, ("harm",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps([Harm()]), r"is not a pickle of plain values: it names builtins.print"),
        (b"\x80\x02]q", r"is not a pickle of plain values"),
        (pickle.dumps({"a": 1}), r"does not hold a list of refs"),
        (pickle.dumps([{"sentences": [{}]}]), r"entry 0 has no split, so it is not a ref"),
    ],
)
def test_bad_refs_are_refused(
    refer: Path, tmp_path: Path, content: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "instances.json").write_bytes((refer / "instances.json").read_bytes())
    (tmp_path / "refs(unc).p").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_referring(tmp_path)
    assert "harm" not in capsys.readouterr().out


def test_other_bad_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}')
    with pytest.raises(ValueError, match="images without a caption"):
        read_referring(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="no list 'images'"):
        read_referring(tmp_path / "x.json")
    with pytest.raises(ValueError, match="holds 0 refs files"):
        read_referring(tmp_path)


def test_a_picture_is_found_by_its_names_of_2014_and_2017(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    for name in ("000000000007.jpg", "val2017/000000000009.jpg"):
        (tmp_path / name).touch()
    assert find_picture(tmp_path, "COCO_train2014_000000000007.jpg").name == "000000000007.jpg"
    assert find_picture(tmp_path, "train2017/000000000007.jpg").name == "000000000007.jpg"
    assert (
        find_picture(tmp_path, "http://images.cocodataset.org/val2017/000000000009.jpg")
        == tmp_path / "val2017/000000000009.jpg"
    )
    with pytest.raises(ValueError, match=r"has no picture x/a.jpg or a.jpg"):
        find_picture(tmp_path, "x/a.jpg")


def test_accuracy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.REC_EXPRESSIONS, ("refcoco", "val"), 3)
    # Exactly one half is not more than one half.
    records = [
        {"rows": [[0, "val", 0.5, 0.9], [1, "val", 0.51, 0.6]]},
        {"rows": [[2, "val", 0.0, 0.4], [3, "testA", 1.0, 1.0]]},
    ]
    found = report("refcoco", records)["splits"]
    assert found["val"]["expressions"] == 3 and found["val"]["reachable"] == 66.6667
    assert found["val"]["accuracy"] == {"measured": 33.33, "paper": 89.53, "difference": -56.2}
    # One expression is not RefCOCO's testA, whatever the file is called.
    assert found["testA"]["accuracy"] == {"measured": 100.0, "paper": None, "difference": None}
    assert found["val"]["mean_iou"] == pytest.approx((0.5 + 0.51) / 3, abs=1e-4)
    assert "89.53" in table({"model": "m", **report("refcoco", records)})
    assert report("", records)["splits"]["val"]["accuracy"]["paper"] is None


def test_the_papers_figure_belongs_to_whole_published_splits() -> None:
    assert (
        published.rec_accuracy("refcoco+", "testB", 4889)
        == published.rec_accuracy("refcoco+", "testB", 4880)
        == 78.05
    )
    assert (
        published.rec_accuracy("refcoco+", "testB", 4800) is None
        and published.rec_accuracy("", "val", 10834) is None
    )
    assert set(published.REC_ACCURACY) == set(published.REC_EXPRESSIONS)


def test_wordings_are_drawn_for_each_expression_and_the_same_in_every_run() -> None:
    work = AskExpressions(Path(), 3, 32)
    items = [Expression(number, "x", (0, 0, 1, 1), "val") for number in range(600)]
    drawn = [work._wording(item, 6) for item in items]
    assert drawn == [work._wording(item, 6) for item in reversed(items)][::-1]
    assert min(np.bincount(drawn, minlength=6)) > 70
    assert drawn != [AskExpressions(Path(), 4, 32)._wording(item, 6) for item in items]


def test_the_command_counts_what_the_model_answers(
    command: Callable[..., dict[str, Any]],
    scenes: Path,
    refer: Path,
    direct: dict[int, list[bool]],
    tmp_path: Path,
) -> None:
    common = ("eval", "rec", "--model", TINY, "--images", scenes / "images", "--threads", 1)
    found = command(*common, "--data", refer, "--batch", 3, "--out", tmp_path / "run")
    for split, numbers in {"val": (0, 2, 4, 6), "testA": (1, 3, 5)}.items():
        expected = [right for number in numbers for right in direct[number]]
        assert found["splits"][split]["expressions"] == len(expected)
        assert found["splits"][split]["accuracy"]["measured"] == pytest.approx(
            100 * np.mean(expected), abs=0.01
        )
    assert found["dataset"] == "refcoco" and found["resize"] == "area"
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == found
    assert "testA" in (tmp_path / "run" / "table.txt").read_text()
    # The other form, the pictures by their names of 2014, in two processes.
    path = write_one_file(scenes, tmp_path / "refcoco_val.json", "COCO_train2014_")
    every = command(*common, "--data", path, "--jobs", 2)
    expected = [right for rights in direct.values() for right in rights]
    assert every["splits"]["val"]["accuracy"]["measured"] == pytest.approx(100 * np.mean(expected), abs=0.01)


def test_a_picture_that_is_not_there_is_a_sentence(
    refusal: Callable[..., str], refer: Path, tmp_path: Path
) -> None:
    said = refusal("eval", "rec", "--model", TINY, "--images", tmp_path, "--data", refer, "--threads", 1)
    assert "has no picture 000000.jpg; name the folder" in said


def test_a_work_item_survives_a_pickle() -> None:
    picture = ReferredPicture("a.jpg", (Expression(0, "x", (0.0, 0.0, 1.0, 1.0), "val"),))
    assert pickle.loads(pickle.dumps(picture)) == picture
