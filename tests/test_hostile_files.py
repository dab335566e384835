"""Files damaged at random: every reader returns a value or raises one of our sentences.

Each case writes a file in the reader's format and changes it a few dozen times, in its bytes and in its
values. An error that is not one of our sentences, such as a library's KeyError, would be shown to the user as
unexpected.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groma_ros import plain_pickle
from groma_ros.errors import sentence
from groma_ros.evaluation import absence, caption, chat, concepts, grec, lvis_ground, mentions, referring
from groma_ros.grounding.calibration import Calibration
from groma_ros.grounding.goals import read_goals
from groma_ros.io.bag_files import METADATA
from groma_ros.io.bag_topics import find_camera
from groma_ros.io.bags import RAW, open_bag, recorded_images
from groma_ros.live.labels import LabelFile
from groma_ros.replay.plan import DETECTIONS, RUN, read_expectation
from groma_ros.replay.records import read_records
from groma_ros.replay.truth import read_truth
from groma_ros.runtime.bundle import Bundle, read_network
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.simulation.dataset import load_dataset
from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.training.data_files import open_file
from tests.io.test_bags import image, pictures, write

CHANGES = 60
HUGE = 10**400
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    HUGE,
    1e308,
    float("nan"),
    float("inf"),
    0.5,
    "",
    " ",
    "7",
    "../../x",
    "a\u2028b",
    "\x00",
    "\x1b[2J",
    "x" * 5000,
    [],
    [[]],
    [1, 2],
    [0, 0, -1, 4],
    [[[[[[1]]]]]],
    {},
    {"id": 1},
    {"": None},
]
BYTES = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\n",
    b'"',
    b"[" * 3000,
    b"}",
    b"9" * 5000,
    b"\\ud800",
    b"{{",
    b",",
)

PICTURE = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
BOX = {"id": 3, "image_id": 1, "category_id": 2, "bbox": [4, 5, 20, 10], "area": 200, "iscrowd": 0}
COCO = {
    "images": [PICTURE, {**PICTURE, "id": 2, "file_name": "b.jpg"}],
    "annotations": [BOX, {**BOX, "id": 4, "image_id": 2, "bbox": [1.5, 2, 30, 30]}],
    "categories": [{"id": 2, "name": "mug"}, {"id": 5, "name": "box"}],
}
GOALS = [{"id": 1, "image_id": 1, "text": "the mug", "kind": "attribute", "annotation_ids": [3]}]
REFS = [{"ann_id": 3, "image_id": 1, "split": "val", "sentences": [{"sent": "the mug"}]}]
QUESTION = {"question_id": 1, "image": "a.jpg", "text": "What is it?", "category": "detail"}
RECORD = {
    "number": 0,
    "time": 5,
    "stamp": 5,
    "frame_id": "camera",
    "width": 64,
    "height": 48,
    "asked": True,
    "answered": 5,
    "refused": "",
    "goals": [
        {
            "goal": "the mug",
            "kind": "auto",
            "present": 0.9,
            "margin": 0.4,
            "detections": [
                {
                    "box": [1.0, 2.0, 3.0, 4.0],
                    "score": 0.5,
                    "id": "1",
                    "place": {"centre": [0.0, 0.1, 1.0], "quaternion": [0, 0, 0, 1], "size": [1, 1, 1]},
                }
            ],
        }
    ],
    "depth": "",
}
STORED_RUN = {
    "camera": {"topic": "/image", "type": "sensor_msgs/msg/Image", "count": 1},
    "every": 1,
    "goals": [{"text": "the mug", "kind": "auto", "min_score": 0.0}],
    "min_presence": 0.5,
    "model": "tiny",
    "weights": "0" * 64,
    "backend": "onnx",
    "precision": "fp32",
    "device": "cpu",
    "calibration": {},
    "follow": {},
    "depth": None,
    "version": "1",
    "format": 1,
}


@dataclass(frozen=True)
class Reader:
    """A reader with a file for it. read: called with the folder that contains the file `name`."""

    name: str
    document: Any
    read: Callable[[Path], Any]
    lines: bool = False
    """Whether the document is a list that is written as JSON lines."""
    beside: tuple[tuple[str, Any], ...] = ()
    """Other files, by name and document."""


def bundle_of(folder: Path) -> Any:
    bundle = Bundle.load(folder)
    read_network(bundle)
    PromptTemplate.from_dict(bundle.prompt)
    return Calibration.from_manifest(bundle.calibration, "int8")


def manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((shipped_model() / "manifest.json").read_text())
    data["files"], data["graphs"] = {}, {}
    return data


def labels() -> dict[str, Any]:
    images = [
        {**PICTURE, "id": number, "file_name": f"images/{number}.jpg", "stamp": number, "frame_id": "camera"}
        for number in (1, 2)
    ]
    return {**COCO, "images": images, "goals": GOALS}


def with_phrases() -> dict[str, Any]:
    return {**COCO, "images": [{**entry, "caption": "a mug"} for entry in COCO["images"]]}


READERS = {
    "rec": Reader(
        "refcoco_val.json", with_phrases(), lambda f: referring.read_referring(f / "refcoco_val.json")
    ),
    "refs": Reader(
        "refs(unc).json", REFS, lambda f: referring.read_referring(f), beside=(("instances.json", COCO),)
    ),
    "instances": Reader(
        "instances.json", COCO, lambda f: referring.read_referring(f), beside=(("refs(unc).json", REFS),)
    ),
    "grec": Reader("grefs(unc).json", REFS, lambda f: grec.read_grefs(f), beside=(("instances.json", COCO),)),
    "caption": Reader(
        "vg.json",
        {**COCO, "annotations": [{**entry, "caption": "a mug"} for entry in COCO["annotations"]]},
        lambda f: caption.read_regions(f / "vg.json"),
    ),
    "chat": Reader("q.jsonl", [QUESTION, QUESTION], lambda f: chat.read_questions(f / "q.jsonl"), lines=True),
    "objects": Reader("truth.json", COCO, lambda f: mentions.read_objects(f / "truth.json")),
    "synonyms": Reader("s.json", {"mug": ["cup"]}, lambda f: mentions.read_synonyms(f / "s.json")),
    "absence": Reader(
        "a.json",
        [
            {"description": "a mug", "image": "a.jpg", "bbox": [1, 2, 3, 4], "subtask_l1": "Spatial"},
            {"rejected_exp": "a cat", "image": {"path": "b.jpg"}},
        ],
        lambda f: absence.read_samples(f / "a.json"),
    ),
    "absence lines": Reader(
        "a.jsonl",
        [{"description": "a mug", "image": "a.jpg", "bbox": [1, 2, 3, 4]}],
        lambda f: absence.read_samples(f / "a.jsonl"),
        lines=True,
    ),
    "concepts": Reader(
        "saco.json",
        {**COCO, "images": [{**entry, "text_input": "mug"} for entry in COCO["images"]]},
        lambda f: concepts.read_concepts(f / "saco.json"),
    ),
    "lvis": Reader("lvis.json", COCO, lambda f: lvis_ground.read_classes(f / "lvis.json")),
    "scenes": Reader("annotations.json", {**COCO, "goals": GOALS}, lambda f: load_dataset(f)),
    "training": Reader(
        "train.json", {**COCO, "goals": GOALS}, lambda f: open_file(f / "train.json").sample(0)
    ),
    "training phrases": Reader("train.json", with_phrases(), lambda f: open_file(f / "train.json").sample(0)),
    "truth": Reader("truth.json", {**COCO, "goals": GOALS}, lambda f: read_truth(f / "truth.json")),
    "demo truth": Reader(
        "truth.json",
        {
            "goals": [{"text": "the mug", "kind": "attribute", "targets": [0]}],
            "frames": [{"stamp": 5, "boxes": [[1, 2, 3, 4]]}],
        },
        lambda f: read_truth(f / "truth.json"),
    ),
    "records": Reader(DETECTIONS, [RECORD], lambda f: read_records(f / DETECTIONS), lines=True),
    "run": Reader(RUN, STORED_RUN, lambda f: read_expectation(f), beside=((DETECTIONS, RECORD),)),
    "manifest": Reader("manifest.json", manifest(), bundle_of),
    "labels": Reader("annotations.json", labels(), lambda f: LabelFile(f)),
}


def mutants(reader: Reader, rng: random.Random) -> Iterator[bytes]:
    """The reader's file, changed: half of them in their values, half in their bytes."""
    for number in range(CHANGES):
        document = copy.deepcopy(reader.document)
        if number % 2:
            for _ in range(rng.choice((1, 1, 2))):
                document = change_value(document, rng)
            yield written(document, reader.lines)
        else:
            yield change_bytes(written(document, reader.lines), rng)


def written(document: Any, lines: bool) -> bytes:
    if lines and isinstance(document, list):
        return "".join(json.dumps(entry) + "\n" for entry in document).encode()
    return json.dumps(document).encode()


def change_value(document: Any, rng: random.Random) -> Any:
    """One value of the document replaced, removed or repeated."""
    places = list(walk(document))
    if not places:
        return copy.deepcopy(rng.choice(VALUES))
    holder, key = rng.choice(places)
    what = rng.random()
    if what < 0.7:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    elif what < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder["unheard"] = copy.deepcopy(rng.choice(VALUES))
    return document


def walk(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: its list or object, and the index or key in it."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from walk(value[key])


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    what = rng.random()
    if what < 0.25:
        return data[:place]
    if what < 0.5:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if what < 0.75:
        return data[:place] + rng.choice(BYTES) + data[place:]
    return data[:place] + data[place + rng.randrange(1, 40) :]


def unexpected(read: Callable[[Path], Any], folder: Path) -> str:
    """What a user would see of an error that is no sentence of ours; empty for a value or a sentence."""
    try:
        read(folder)
    except Exception as error:
        said = sentence(error)
        if "Unexpected" in said or not isinstance(error, (ValueError, OSError)):
            return f"{type(error).__name__}: {said}"
        assert said.strip() and "\n" not in said and len(said) < 1500, said
    return ""


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_give_a_value_or_a_sentence(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    for other, document in reader.beside:
        (tmp_path / other).write_bytes(written(document, False) + b"\n")
    for picture in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / picture), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / reader.name).write_bytes(written(reader.document, reader.lines))
    reader.read(tmp_path)  # the file itself is read
    rng = random.Random(f"hostile {name}")
    found = {}
    for data in mutants(reader, rng):
        (tmp_path / reader.name).write_bytes(data)
        if said := unexpected(reader.read, tmp_path):
            found[said] = data[:3000]
    assert found == {}


TEXTS: dict[str, tuple[str, bytes, Callable[[Path], Any]]] = {
    "goals": (
        "goals.yaml",
        b"goals:\n- the mug\n- {text: a box, kind: all, min_score: 0.5}\n- &a text\n",
        lambda f: read_goals(f / "goals.yaml"),
    ),
    "refs": ("refs(unc).p", pickle.dumps(REFS, 2), lambda f: referring.read_referring(f)),
    "training": ("refs(unc).p", pickle.dumps(REFS, 2), lambda f: open_file(f / "refs(unc).p")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_damaged_texts_and_pickles_give_a_value_or_a_sentence(name: str, tmp_path: Path) -> None:
    file, data, read = TEXTS[name]
    (tmp_path / "instances.json").write_bytes(written(COCO, False))
    (tmp_path / "a.jpg").touch()
    (tmp_path / file).write_bytes(data)
    rng = random.Random(f"hostile {name}")
    found = {}
    for _ in range(CHANGES):
        changed = data
        for _ in range(rng.choice((1, 1, 3))):
            changed = change_bytes(changed or data, rng)
        (tmp_path / file).write_bytes(changed)
        if said := unexpected(read, tmp_path):
            found[said] = changed[:3000]
    assert found == {}


def test_a_pickle_with_a_number_beyond_memory_is_read_or_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # an empty list, stored as number 2^31 - 1
    assert plain_pickle.load(path) == []
    path.write_bytes(b"\x80\x02cbuiltins\nprint\n.")
    with pytest.raises(ValueError, match=r"names builtins\.print, and only plain values are read"):
        plain_pickle.load(path)


@pytest.mark.parametrize("file", [METADATA, ".mcap", ".db3"])
def test_damaged_bags_give_images_or_a_sentence(file: str, tmp_path: Path) -> None:
    plugin = StoragePlugin.SQLITE3 if file == ".db3" else StoragePlugin.MCAP
    messages = [("/camera", RAW, time, image(time, rgb)) for time, rgb in enumerate(pictures(), 1)]
    bag = write(tmp_path / "bag", messages, plugin)
    (path,) = (path for path in bag.iterdir() if path.name.endswith(file))
    data = path.read_bytes()
    assert len(read_bag(bag)) == 3
    rng = random.Random(f"hostile {file}")
    found = {}
    for _ in range(CHANGES):
        path.write_bytes(change_bytes(data, rng))
        if said := unexpected(read_bag, bag):
            found[said] = path.read_bytes()[:3000]
    assert found == {}


def read_bag(path: Path) -> list[Any]:
    with open_bag(path, allow_loss=True) as bag:
        return list(recorded_images(bag, find_camera(bag, None), lambda number: True))
