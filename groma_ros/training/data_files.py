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
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from groma_ros.coco_files import Key, annotations_by_own_id, corners, read_coco, read_goals, read_refs, refuse
from groma_ros.errors import quoted
from groma_ros.io.picture_files import may_have_size, read_annotated
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.scenes import SceneObject, SceneSample
from groma_ros.types import Intrinsics

KINDS = ("one", "all", "absent")
_LEAST = 2.0  # minimum side in pixels; smaller boxes are left out, as in the paper
_NAMED = 5  # number of pictures listed in an error
_OUTSIDE, _SMALL, _CROWD = "outside the picture", f"narrower or lower than {_LEAST:g} pixels", "of a crowd"
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


@dataclass
class _Counts:
    """How much of a file there is, and how much of it is left out."""

    boxes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of boxes by the reason."""
    texts: int = 0
    """Number of goals and phrases."""
    texts_left_out: int = 0
    """Number of those that lack one of their boxes."""

    def sentence(self, path: Path) -> str:
        """A sentence about everything that is left out; empty if nothing is."""
        said = []
        if self.left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common())
            said.append(f"{self.left_out.total()} of the {self.boxes} boxes are left out ({reasons})")
        if self.texts_left_out:
            said.append(
                f"{self.texts_left_out} of the {self.texts} goals or phrases lack a box and are left out"
            )
        return f"{path}: {'; '.join(said)}." if said else ""


class FilePictures:
    """Pictures of an annotation file, with the interface of a shard of scenes.

    Raises TrainingDataError for pictures that are missing or whose size differs from the file's.
    """

    mirrors = False  # a phrase may contain "left"

    def __init__(
        self, path: Path, entries: Sequence[_Entry], categories: Sequence[str], note: str = ""
    ) -> None:
        """note: a sentence about the boxes and goals of the file that are left out, if any."""
        self.note = note
        self.name = f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        self.categories = tuple(categories)
        self._entries = [entry for entry in entries if entry.objects or entry.goals]
        if not self._entries:
            raise TrainingDataError(
                f"{path} holds no picture with a box of at least {_LEAST:g} pixels; there is nothing to "
                f"learn from. {note}".rstrip()
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
    categories, goals, counts = _names(document), read_goals(path, document), _Counts()
    by_image: dict[Key, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    entries: dict[str, _Entry] = {}
    named: dict[Key, _Entry] = {}
    kept: dict[int, int] = {}
    for place, image in enumerate(document["images"]):
        entry = _entry(path, place, image, folder)
        named[image["id"]] = entry = entries.setdefault(str(entry.path), entry)
        own = {}
        for annotation in by_image.get(image["id"], ()):
            if (found := _object(annotation, entry, categories, counts)) is not None:
                kept[annotation["id"]] = own[annotation["id"]] = _keep(entry, annotation["id"], found)
        if "caption" in image:
            entry.phrases.append((image["caption"].strip(), tuple(own.values())))
            counts.texts += 1
            counts.texts_left_out += not own
    for goal in goals:
        _add_goal(named[goal["image_id"]], goal, kept, counts)
    names = list(dict.fromkeys(categories.values()))
    return FilePictures(path, list(entries.values()), names, counts.sentence(path))


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


def _add_goal(entry: _Entry, goal: dict[str, Any], kept: dict[int, int], counts: _Counts) -> None:
    """Add a checked goal to its picture. kept: keys of objects by annotation."""
    keys = [kept[number] for number in goal["annotation_ids"] if number in kept]
    entry.goals = entry.goals or []
    counts.texts += 1
    if len(keys) < len(goal["annotation_ids"]):  # without one of its boxes the goal's answer would be wrong
        counts.texts_left_out += 1
        return
    several = len(keys) > 1 or goal.get("kind") == "all"
    kind = "absent" if not keys else "all" if several else "one"
    entry.goals.append((goal["text"].strip(), kind, tuple(keys)))


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
    counts, known = _Counts(), set()
    for place, ref in enumerate(read_refs(path)):
        if ref.split != "train":
            continue
        key = ref.annotations[0] if len(ref.annotations) == 1 else None
        if ref.image not in entries or key not in annotations:
            raise TrainingDataError(
                f"{path}: entry {place} names an image or annotation that {instances.name} does not have."
            )
        entry, annotation = entries[ref.image], annotations[key]
        if annotation["image_id"] != ref.image:
            raise TrainingDataError(
                f"{path}: entry {place} is about the image {quoted(ref.image)} and names the annotation "
                f"{quoted(key)}, which is of the image {quoted(annotation['image_id'])}."
            )
        found = _object(annotation, entry, categories, _Counts() if key in known else counts)
        known.add(key)
        counts.texts += len(ref.sentences)
        if found is None:
            counts.texts_left_out += len(ref.sentences)
            continue
        entry.objects[annotation["id"]] = found
        entry.phrases += [(text.strip(), (annotation["id"],)) for text in ref.sentences]
    names = list(dict.fromkeys(categories.values()))
    return FilePictures(path, list(entries.values()), names, counts.sentence(path))


def _object(
    annotation: dict[str, Any], entry: _Entry, categories: dict[Key | None, str], counts: _Counts
) -> SceneObject | None:
    """The object, clipped to the picture; None for one that is left out, which is counted."""
    counts.boxes += 1
    x1, y1, x2, y2 = corners(annotation["bbox"])
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(entry.width)), min(y2, float(entry.height))
    width, height = x2 - x1, y2 - y1
    if annotation["iscrowd"] or min(width, height) < _LEAST:
        outside = min(width, height) <= 0 < min(annotation["bbox"][2:])
        counts.left_out[_CROWD if annotation["iscrowd"] else _OUTSIDE if outside else _SMALL] += 1
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
