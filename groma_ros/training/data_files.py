"""Training data in the forms it is published in: COCO-style boxes, and phrases for boxes in either form of
RefCOCO.

| form | told by | teaches |
|---|---|---|
| detection | a JSON with `images`, `annotations` and `categories` | boxes; "all" of a category; categories that are absent |
| goals | the same with `goals`, as `groma live` and `groma scenes` write it | boxes; each goal by its text; goals that are absent; goals for one box as descriptions |
| referring, one file | the same with a `caption` in every entry of `images`, one a phrase | boxes; "one" by its phrase; descriptions |
| referring, two files | a pickle of `refs` beside its `instances.json` | the same, of the split `train` |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from groma_ros.coco_files import Key, annotations_by_own_id, as_key, corners, read_coco, read_refs, refuse
from groma_ros.errors import quoted
from groma_ros.io.picture_files import may_have_size, read_annotated
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.types import Intrinsics

KINDS = ("one", "all", "absent")
_LEAST = 2.0  # minimum side in pixels; smaller boxes are left out, as in the paper
_NAMED = 5  # number of pictures listed in an error
_ABSENT_CATEGORIES = 2  # minimum number of categories in a file for goals about absent ones


class TrainingDataError(ValueError):
    """A file that cannot be used for training; the message names it, what is wrong and what to do."""


@dataclass(frozen=True, eq=False)
class FileSample(SceneSample):
    """A picture of an annotation file."""

    told: tuple[SceneGoal, ...] = ()
    """Goals with known answers."""
    phrases: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Descriptions by index of the object."""
    absent: tuple[str, ...] = ()
    """Categories of the file that are not in the picture."""

    def draw(self, rng: np.random.Generator, count: int, kind: str) -> list[SceneGoal]:
        """Draw up to `count` different goals of one of `KINDS`."""
        goals = [SceneGoal(name, "absent", ()) for name in self.absent] if kind == "absent" else self.told
        pool = [goal for goal in goals if goal.kind == kind]
        return [pool[int(i)] for i in rng.permutation(len(pool))[:count]]

    def phrase(self, index: int, rng: np.random.Generator) -> str:
        """Draw one of the descriptions of an object. Raises KeyError if it has none."""
        options = self.phrases[index]
        return options[int(rng.integers(len(options)))]


@dataclass
class _Entry:
    """A picture while a file is read; `objects` by annotation id."""

    path: Path
    width: int
    height: int
    objects: dict[int, SceneObject] = field(default_factory=dict)
    phrases: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    goals: list[tuple[str, str, tuple[int, ...]]] | None = None
    """Text, kind and object keys of each goal, no keys for an absent one; None if the file has no goals, so
    that its categories are used instead."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height


class FilePictures:
    """Pictures of an annotation file, with the interface of a shard of scenes.

    Raises TrainingDataError for pictures that are missing or whose size differs from the file's.
    """

    mirrors = False  # a phrase may contain "left"

    def __init__(self, path: Path, entries: Sequence[_Entry], categories: Sequence[str]) -> None:
        self.name = f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        self.categories = tuple(categories)
        self._entries = [entry for entry in entries if entry.objects or entry.goals]
        if not self._entries:
            raise TrainingDataError(
                f"{path} holds no picture with a box of at least {_LEAST:g} pixels; there is nothing to "
                "learn from."
            )
        missing = [entry.path for entry in self._entries if not entry.path.is_file()]
        if missing:
            raise TrainingDataError(
                f"{len(missing)} of the {len(self._entries)} pictures that {path} names are missing, the first "
                f"is {missing[0]}; check --images."
            )
        other = [entry.path for entry in self._entries if not may_have_size(entry.path, entry.size)]
        if other:
            raise TrainingDataError(
                f"{len(other)} of the {len(self._entries)} pictures that {path} names have another size than it "
                f"says, beginning with {', '.join(map(str, other[:_NAMED]))}; take the pictures that were "
                "annotated, scale their boxes, or leave them out of the file."
            )
        self.objects = [tuple(entry.objects.values()) for entry in self._entries]
        self.images = _Images([(entry.path, entry.size) for entry in self._entries])

    def sample(self, index: int) -> FileSample:
        """Return a picture with its annotations."""
        entry = self._entries[index]
        place = {key: i for i, key in enumerate(entry.objects)}
        kinds = [item.kind for item in entry.objects.values()]
        phrases: dict[int, tuple[str, ...]] = {}
        told = []
        for text, kind, keys in entry.goals or ():
            targets = tuple(sorted({place[key] for key in keys}))
            told.append(SceneGoal(text, kind, targets))
            if len(targets) == 1:
                phrases[targets[0]] = (*phrases.get(targets[0], ()), text)
        for text, keys in entry.phrases:
            targets = tuple(sorted(place[key] for key in keys if key in place))
            if targets:
                told.append(SceneGoal(text, "one", targets))
            if len(targets) == 1:
                phrases[targets[0]] = (*phrases.get(targets[0], ()), text)
        absent = tuple(goal.text for goal in told if goal.kind == "absent")
        # The boxes of a phrase or a goal need not be all boxes of a category.
        if not entry.phrases and entry.goals is None:
            told += [
                SceneGoal(kind, "all", tuple(i for i, k in enumerate(kinds) if k == kind))
                for kind in dict.fromkeys(kinds)
            ]
            absent = (
                tuple(name for name in self.categories if name not in kinds)
                if len(self.categories) >= _ABSENT_CATEGORIES
                else ()
            )
        k = Intrinsics(1.0, 1.0, entry.width / 2, entry.height / 2, entry.width, entry.height)
        empty = np.zeros((0, 0), np.float32)
        return FileSample(
            self.images[index],
            empty,
            k,
            self.objects[index],
            index,
            told=tuple(told),
            phrases=phrases,
            absent=absent,
        )


class _Images:
    """Sequence of pictures that are read on access, uint8 RGB HxWx3."""

    def __init__(self, pictures: list[tuple[Path, tuple[int, int]]]) -> None:
        """pictures: their files and (width, height)."""
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        try:
            return read_annotated(*self._pictures[index])
        except ValueError as error:
            raise TrainingDataError(str(error)) from error


def open_file(path: Path, images: Path | None = None) -> FilePictures:
    """Read a file in one of the formats above. images: folder of its pictures (default: the file's own).

    Raises TrainingDataError if the file cannot be read or has another format.
    """
    folder = images or path.parent
    try:
        return _referring_pair(path, folder) if path.suffix == ".p" else _single(path, folder)
    except TrainingDataError:
        raise
    except ValueError as error:
        raise TrainingDataError(f"{str(error).rstrip('.')}; check --data, see docs/training.md.") from error


def _single(path: Path, folder: Path) -> FilePictures:
    document = read_coco(path, "images", "annotations", optional=("categories",))
    categories = _names(document)
    goals = document.get("goals") or []
    if not isinstance(goals, list):
        raise TrainingDataError(f"{path} has goals that are no list; see docs/training.md.")
    by_image: dict[Key, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    entries: dict[str, _Entry] = {}
    named: dict[Key | None, _Entry] = {}
    kept: dict[Key | None, int] = {}
    for place, image in enumerate(document["images"]):
        entry = _entry(path, place, image, folder)
        named[image["id"]] = entry = entries.setdefault(str(entry.path), entry)
        own = {}
        for annotation in by_image.get(image["id"], ()):
            key = annotation["own_id"]
            if goals and key is not None and key in kept:
                refuse(path, "annotations", annotation["id"] - 1, annotation, "has the id of one before it")
            if (found := _object(annotation, entry, categories)) is not None:
                kept[key] = own[annotation["id"]] = _keep(entry, annotation["id"], found)
        if "caption" in image:
            entry.phrases.append((image["caption"].strip(), tuple(own.values())))
    for place, goal in enumerate(goals):
        _add_goal(path, place, goal, named, kept)
    return FilePictures(path, list(entries.values()), list(dict.fromkeys(categories.values())))


def _entry(path: Path, place: int, image: dict[str, Any], folder: Path) -> _Entry:
    for name in ("width", "height"):
        if name not in image:
            refuse(path, "images", place, image, f"has no {name}")
    # LVIS identifies its pictures only by their URL, e.g. .../train2017/000000391895.jpg.
    try:
        name = image.get("file_name") or urlsplit(image["coco_url"]).path.lstrip("/")
    except ValueError:  # a bracket without its other
        refuse(path, "images", place, image, f"has the coco_url {quoted(image['coco_url'])}, which is no URL")
    return _Entry(folder / name, int(image["width"]), int(image["height"]))


def _names(document: dict[str, list[dict[str, Any]]]) -> dict[Key | None, str]:
    """Categories of a checked document by id."""
    return {entry["id"]: entry["name"] for entry in document.get("categories") or ()}


def _add_goal(
    path: Path, place: int, goal: Any, named: dict[Key | None, _Entry], kept: dict[Key | None, int]
) -> None:
    """Add a goal to its picture. named: pictures by id; kept: keys of objects by annotation id."""
    if not isinstance(goal, dict) or as_key(goal.get("image_id")) not in named:
        refuse(path, "goals", place, goal, "names no image of the file")
    ids, text = goal.get("annotation_ids"), goal.get("text")
    if not isinstance(ids, list) or not isinstance(text, str) or not text.strip():
        refuse(path, "goals", place, goal, "must have a text and a list of annotation_ids")
    entry = named[as_key(goal["image_id"])]
    entry.goals = entry.goals or []
    keys = [kept[key] for key in map(as_key, ids) if key in kept]
    if len(keys) == len(ids):  # without one of its boxes the goal's answer would be wrong
        several = len(keys) > 1 or goal.get("kind") == "all"
        kind = "absent" if not keys else "all" if several else "one"
        entry.goals.append((text.strip(), kind, tuple(keys)))


def _keep(entry: _Entry, key: int, found: SceneObject) -> int:
    """Add an object to its picture and return its key. Files with one entry per phrase repeat an object for
    each of its phrases."""
    for other, item in entry.objects.items():
        if item.box == found.box:
            return other
    entry.objects[key] = found
    return key


def _referring_pair(path: Path, folder: Path) -> FilePictures:
    """Phrases of the split `train`, and their boxes from the instances file beside them."""
    instances = path.parent / "instances.json"
    document = read_coco(instances, "images", "annotations", optional=("categories",))
    categories = _names(document)
    annotations = annotations_by_own_id(instances, document["annotations"])
    entries = {
        image["id"]: _entry(instances, place, image, folder) for place, image in enumerate(document["images"])
    }
    for place, ref in enumerate(read_refs(path)):
        if ref.split != "train":
            continue
        key = ref.annotations[0] if len(ref.annotations) == 1 else None
        if ref.image not in entries or key not in annotations:
            raise TrainingDataError(
                f"{path}: entry {place} names an image or annotation that {instances.name} does not have."
            )
        entry, annotation = entries[ref.image], annotations[key]
        found = _object(annotation, entry, categories)
        if found is not None:
            entry.objects[annotation["id"]] = found
            entry.phrases += [(text.strip(), (annotation["id"],)) for text in ref.sentences]
    return FilePictures(path, list(entries.values()), list(dict.fromkeys(categories.values())))


def _object(
    annotation: dict[str, Any], entry: _Entry, categories: dict[Key | None, str]
) -> SceneObject | None:
    """The object, clipped to the picture; None for a crowd or a box that is too small."""
    x1, y1, x2, y2 = corners(annotation["bbox"])
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(entry.width)), min(y2, float(entry.height))
    if annotation["iscrowd"] or x2 - x1 < _LEAST or y2 - y1 < _LEAST:
        return None
    kind = categories.get(annotation.get("category_id"), "object")
    none = (0.0, 0.0, 0.0)
    return SceneObject(
        kind,
        str(annotation.get("colour", "")),
        (x1, y1, x2, y2),
        1.0,
        int(annotation["area"]),
        none,
        none,
    )


def names_of(pictures: Iterable[FilePictures]) -> tuple[str, ...]:
    """Categories of some files, each once, in order of occurrence."""
    return tuple(dict.fromkeys(name for one in pictures for name in (*one.categories, "object")))
