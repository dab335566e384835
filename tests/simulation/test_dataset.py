from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from groma_ros.commands.scenes import add_arguments
from groma_ros.commands.scenes import run as run_scenes
from groma_ros.simulation.dataset import (
    ANNOTATIONS,
    DatasetError,
    Settings,
    load_dataset,
    scene_goals,
    scene_seeds,
    write_dataset,
)
from groma_ros.simulation.scenes import SceneRenderer
from tests.pictures import read_picture, read_rgb

SMALL = Settings(seed=3, width=160, height=120, goals_per_kind=2, depth=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    write_dataset(out, 5, SMALL, progress=False)
    return out


def test_a_folder_reads_back_as_it_was_rendered(folder: Path) -> None:
    records = load_dataset(folder)
    with SceneRenderer(160, 120) as renderer:
        samples = [renderer.render(seed) for seed in scene_seeds(3, 5)]
    assert [record.seed for record in records] == [3_000_000, 3_000_001, 3_000_002, 3_000_003, 3_000_004]
    for record, sample in zip(records, samples, strict=True):
        assert record.objects == sample.objects
        assert list(record.goals) == scene_goals(sample, 2)
        assert record.intrinsics == sample.intrinsics and (record.width, record.height) == (160, 120)
        picture = read_rgb(record.image)
        assert np.abs(picture.astype(int) - sample.rgb).mean() < 4
        depth = read_picture(folder / "depth" / f"{record.image.stem}.png", cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(depth, sample.depth * 1000, atol=0.51)


def test_annotations_are_coco(folder: Path) -> None:
    document = json.loads((folder / ANNOTATIONS).read_text())
    ids = [entry["id"] for entry in document["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for entry in document["annotations"]:
        x, y, w, h = entry["bbox"]
        assert min(x, y, entry["area"]) > 0 and x + w < 160 and y + h < 120 and entry["area"] <= w * h
        assert entry["iscrowd"] == 0 and 1 <= entry["category_id"] <= len(document["categories"])
    image_of = {entry["id"]: entry["image_id"] for entry in document["annotations"]}
    assert all(
        image_of[key] == goal["image_id"] for goal in document["goals"] for key in goal["annotation_ids"]
    )


def test_a_stopped_run_goes_on_and_ends_the_same(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, SMALL, progress=False)
    first = tmp_path / "images" / "000000.jpg"
    before = first.stat().st_mtime_ns
    (tmp_path / "records" / "000001.json").unlink()  # stopped between the picture and its record
    write_dataset(tmp_path, 5, SMALL, jobs=2, progress=False)
    assert first.stat().st_mtime_ns == before
    for path in sorted(folder.rglob("*.*")):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_other_settings_do_not_mix_into_a_folder(folder: Path) -> None:
    with pytest.raises(DatasetError, match="was begun with other settings .*another --out"):
        write_dataset(folder, 5, Settings(seed=4, width=160, height=120), progress=False)


def test_scene_seeds_of_different_data_seeds_are_disjoint() -> None:
    assert not set(scene_seeds(1, 1000)) & set(scene_seeds(2, 1000))
    assert scene_seeds(1, 10)[:4] == scene_seeds(1, 4)
    with pytest.raises(ValueError, match="at most 1000000 scenes"):
        scene_seeds(1, 1_000_001)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "does not exist; give a folder that `groma scenes` wrote"),
        ("{", "is not JSON"),
        ("[]", "has no list 'images', .*; docs/scenes.md describes the form"),
        ('{"images": [], "annotations": [], "categories": []}', "has no list 'goals'"),
        (
            '{"images": [], "annotations": [{"id": 1, "image_id": 9, "bbox": [0, 0, 1, 1]}], '
            '"categories": [], "goals": []}',
            r"annotations\[0\] \(id 1\) names the image 9, which is not listed",
        ),
    ],
)
def test_broken_annotations_are_named(tmp_path: Path, damage: str | None, message: str) -> None:
    if damage is not None:
        (tmp_path / ANNOTATIONS).write_text(damage)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path)


def test_a_folder_with_no_more_than_coco_and_goals_is_read(tmp_path: Path) -> None:
    document = {
        "images": [{"id": "a", "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 5, "name": "mug"}],
        "annotations": [{"id": 8, "image_id": "a", "category_id": 5, "bbox": [1, 2, 10, 20]}],
        "goals": [{"image_id": "a", "text": "the mug", "kind": "attribute", "annotation_ids": [8]}],
    }
    (tmp_path / ANNOTATIONS).write_text(json.dumps(document))
    (record,) = load_dataset(tmp_path)
    assert record.image == tmp_path / "a.png" and record.intrinsics is None
    assert record.objects[0].box == (1, 2, 11, 22) and record.objects[0].kind == "mug"
    assert record.goals[0].targets == (0,)


_COCO: dict[str, list[dict[str, Any]]] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
    "categories": [{"id": 5, "name": "mug"}],
    "annotations": [{"id": 8, "image_id": 1, "category_id": 5, "bbox": [1, 2, 10, 20]}],
    "goals": [{"image_id": 1, "text": "the mug", "kind": "attribute", "annotation_ids": [8]}],
}
_CAMERA = {"fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0, "width": 40, "height": 30}


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "annotations",
            {"bbox": [1, 2, float("nan"), 20]},
            "has the bbox [1, 2, nan, 20] and must have four",
        ),
        ("annotations", {"bbox": [1, 2, -10, 20]}, "has the bbox [1, 2, -10, 20] and must have four numbers"),
        ("annotations", {"area": -1}, "has the area -1 and must have a number from 0"),
        ("annotations", {"id": None}, "has no id"),
        ("annotations", {"visible": "all"}, "has the visible 'all' and must have a number"),
        ("annotations", {"colour": ["red"]}, "has the colour ['red'] and must have a text"),
        (
            "annotations",
            {"position": [1, 2]},
            "has the position [1, 2] and must have a list of three numbers",
        ),
        (
            "annotations",
            {"box_3d": {"centre": [0, 0, 1]}},
            "has the box_3d {'centre': [0, 0, 1]} and",
        ),
        ("images", {"width": -1}, "has the width -1 and must have a number from 1"),
        ("images", {"width": "7"}, "has the width '7' and must have a number from 1"),
        ("images", {"width": None}, "has the width null and must have a whole number"),
        ("images", {"height": 7.5}, "has the height 7.5 and must have a whole number"),
        ("images", {"file_name": None, "coco_url": "http://x/a.png"}, "has no file_name"),
        ("images", {"seed": "x"}, "has the seed 'x' and must have a whole number"),
        ("images", {"world": 3}, "has the world 3 and must have a text"),
        ("images", {"intrinsics": [1]}, "has the intrinsics [1] and must have an object with the numbers fx"),
        ("images", {"intrinsics": {**_CAMERA, "fx": 0}}, "and must have fx, fy, width and height above 0"),
        ("goals", {"annotation_ids": ""}, "has the annotation_ids '' and must have a list"),
        ("goals", {"annotation_ids": [9]}, "names the annotation 9, which is not listed"),
        ("goals", {"text": None}, "has the text null and must have a text with words"),
        ("goals", {"kind": ["x"]}, "has the kind ['x'] and must have a text"),
        ("goals", {"kind": None}, "has no kind"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named(tmp_path: Path, part: str, changes: dict[str, Any], message: str) -> None:
    (entry,) = _COCO[part]
    path = tmp_path / ANNOTATIONS
    path.write_text(json.dumps({**_COCO, part: [{**entry, **changes}]}))
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{path}: {part}[0]") and message in said and "Error" not in said


@pytest.mark.parametrize("part", ["images", "categories", "annotations"])
def test_an_id_that_two_entries_have_is_named(tmp_path: Path, part: str) -> None:
    path = tmp_path / ANNOTATIONS
    path.write_text(json.dumps({**_COCO, part: _COCO[part] * 2, "goals": []}))
    said = rf"annotations.json: {part}\[1\] \(id \d\) has the id of an entry before it"
    with pytest.raises(DatasetError, match=said):
        load_dataset(tmp_path)


def test_the_command_writes_and_names_the_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [
        "--seed",
        "9",
        "--count",
        "2",
        "--out",
        str(tmp_path / "d"),
        "--jobs",
        "1",
        "--width",
        "96",
        "--height",
        "96",
    ]
    assert run_scenes(parser.parse_args([*options, "--aspect", "random"])) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "d" / ANNOTATIONS)
    assert "scene 2 of 2" in printed.err
    assert len(load_dataset(tmp_path / "d")) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(1, aspect="wide"), "'wide' is neither a number nor random"),
        (Settings(1, aspect="9"), "aspect 9 is out of range: take 0.4 to 2.5"),
        (Settings(1, aspect="0"), "A camera of aspect 0 is out of range"),
        (Settings(1, aspect="nan"), "A camera of aspect nan is out of range"),
        (Settings(1, width=640, height=64), "A picture of 640x64 has the aspect 10, which is out of range"),
        (Settings(1, width=8, height=8), "8x8, supersampled 1 times, is out of range"),
        (Settings(1, supersample=0), "supersampled 0 times, is out of range"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(tmp_path: Path, settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path, 1, settings, progress=False)
    assert not list(tmp_path.iterdir())  # a folder begun wrongly would refuse the right settings
