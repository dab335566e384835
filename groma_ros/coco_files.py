"""Read annotation files of COCO and LVIS, the goals in them and refs of REFER, checking each entry before a
model runs; find their pictures.

Annotations are renumbered, because pycocotools treats id 0 as "no match" and merges annotations with the same
id. Ambiguous entries are rejected with the file and the entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from groma_ros import json_files, plain_pickle
from groma_ros.errors import printable, quoted

Key = int | str
"""An id: an integer, or a text that does not represent one."""
Entry = dict[str, Any]
_COCO_2014 = re.compile(r"^COCO_(train|val|test)2014_")


def read_coco(path: Path, *lists: str, optional: Sequence[str] = ()) -> dict[str, list[Entry]]:
    """Read a COCO-style document and check every entry of the named lists (images, annotations, categories).

    optional: lists that are checked if present; an annotation need not refer to them. Additional keys are
    kept. `id`, `image_id` and `category_id` are normalised (7, 7.0 and "7" are one id); the `id` of an
    annotation becomes its position from 1, and `own_id` the file's value (None if absent); `bbox` is four
    finite floats; `area`, `iscrowd` and `ignore` get defaults if absent or null. Raises ValueError naming the
    file and the entry for anything else.
    """
    document = json_files.load(path)
    for name in lists:
        if not isinstance(document, dict) or not isinstance(document.get(name), list):
            raise ValueError(f"{path} has no list {name!r}, so it is not a COCO-style annotation file.")
    for name in optional:
        if not isinstance(document.get(name) or [], list):
            raise ValueError(
                f"{path} has {name} that are no list, so it is not a COCO-style annotation file."
            )
    read: dict[str, list[Entry]] = {}
    for name in ("images", "categories", "annotations"):
        if name in lists or (name in optional and isinstance(document.get(name), list)):
            checked = _Checker(path, name)
            read[name] = [checked(place, entry) for place, entry in enumerate(document[name])]
    images = {entry["id"] for entry in read.get("images", ())}
    categories = {entry["id"] for entry in read.get("categories", ())}
    for place, entry in enumerate(read.get("annotations", ())):
        if "images" in lists and entry["image_id"] not in images:
            refuse(
                path,
                "annotations",
                place,
                entry,
                f"names the image {quoted(entry['image_id'])}, which is not listed",
            )
        if "categories" in lists and entry.get("category_id") not in categories:
            said = quoted(entry.get("category_id"))
            refuse(path, "annotations", place, entry, f"names the category {said}, which is not listed")
    return {**{key: value for key, value in document.items() if key not in read}, **read}


def corners(bbox: list[float]) -> tuple[float, float, float, float]:
    """Convert COCO's [x, y, width, height] to xyxy."""
    x, y, width, height = bbox
    return x, y, x + width, y + height


def four_numbers(value: Any) -> list[float] | None:
    """The coordinates of a box; None for anything but a list of four numbers of at most `MAX_NUMBER`."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
        return None
    return [float(number) for number in value]


def refuse(path: Path, part: str, place: int, entry: Any, reason: str) -> NoReturn:
    """Raise ValueError for an entry of a list. place: index of the entry, from 0."""
    own = entry.get("own_id", entry.get("id")) if isinstance(entry, Mapping) else None
    said = f" (id {printable(own, 40)})" if own is not None else ""
    raise ValueError(f"{path}: {part}[{place}]{said} {printable(reason, 200)}.")


MAX_DIGITS = 30
"""Maximum number of digits of an id written as text; a longer text is not converted to a number."""
MAX_NAME = 255
"""Maximum length of a file name without its folders, characters."""
MAX_NUMBER = 1e15
"""Maximum of a coordinate, a size and an area; larger boxes would have no area in float32."""


def as_key(value: Any) -> Key | None:
    """Normalise an id for comparison; None for a value that is not an id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
        return int(text) if is_number else text or None
    return value if isinstance(value, int) else None


class _Checker:
    """Check the entries of one list of a file, in order."""

    def __init__(self, path: Path, part: str) -> None:
        self._path, self._part = path, part
        self._seen: dict[Key, Entry] = {}
        self._check: Callable[[int, Entry], Entry] = getattr(self, f"_{part}")

    def __call__(self, place: int, entry: Any) -> Entry:
        if not isinstance(entry, dict):
            self._refuse(place, entry, f"is {quoted(entry)} and must be an object")
        return self._check(place, dict(entry))

    def _images(self, place: int, entry: Entry) -> Entry:
        entry["id"] = self._id(place, entry, "id")
        for name in ("file_name", "coco_url"):
            if entry.get(name) in (None, ""):  # CVAT writes "" for unknown values
                entry.pop(name, None)
            elif not isinstance(entry[name], str):
                self._refuse(place, entry, f"has the {name} {quoted(entry[name])} and must have a text")
            elif "\0" in entry[name] or max(map(len, entry[name].split("/"))) > MAX_NAME:
                self._refuse(place, entry, f"has the {name} {quoted(entry[name])}, which no file can have")
        if not {"file_name", "coco_url"} & set(entry):
            self._refuse(place, entry, "has neither file_name nor coco_url")
        for name in ("width", "height"):
            if entry.get(name) is None:
                entry.pop(name, None)
            else:
                entry[name] = self._number(place, entry, name, least=1)
        if "caption" in entry and (not isinstance(entry["caption"], str) or not entry["caption"].strip()):
            self._refuse(place, entry, f"has the caption {quoted(entry['caption'])} and must have a text")
        return self._unique(place, entry)

    def _categories(self, place: int, entry: Entry) -> Entry:
        entry["id"] = self._id(place, entry, "id")
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            self._refuse(place, entry, f"has the name {quoted(entry.get('name'))} and must have a text")
        return self._unique(place, entry)

    def _annotations(self, place: int, entry: Entry) -> Entry:
        own = entry.get("id")
        entry["own_id"] = as_key(own)
        if own is not None and entry["own_id"] is None:
            self._refuse(place, {}, f"has the id {quoted(own)}, which is neither a whole number nor a text")
        entry["image_id"] = self._id(place, entry, "image_id")
        if entry.get("category_id") is not None:
            entry["category_id"] = self._id(place, entry, "category_id")
        box = entry.get("bbox")
        numbers = four_numbers(box)
        if numbers is None or min(numbers[2:]) < 0:
            self._refuse(
                place, entry, f"has the bbox {quoted(box)} and must have four numbers: x, y, width, height"
            )
        entry["bbox"] = numbers
        if entry.get("area") is None:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        entry["area"] = self._number(place, entry, "area", least=0)
        for name in ("iscrowd", "ignore"):
            flag = entry.get(name) or 0
            if flag not in (0, 1):
                self._refuse(place, entry, f"has {name} {quoted(flag)} and must have 0 or 1")
            entry[name] = int(flag)
        entry["id"] = place + 1
        return entry

    def _unique(self, place: int, entry: Entry) -> Entry:
        if entry["id"] in self._seen:
            self._refuse(place, entry, "has the id of an entry before it")
        self._seen[entry["id"]] = entry
        return entry

    def _id(self, place: int, entry: Entry, name: str) -> Key:
        if entry.get(name) is None:
            self._refuse(place, {} if name == "id" else entry, f"has no {name}")
        key = as_key(entry[name])
        if key is None:
            reason = f"has the {name} {quoted(entry[name])}, which is neither a whole number nor a text"
            self._refuse(place, {} if name == "id" else entry, reason)
        return key

    def _number(self, place: int, entry: Entry, name: str, least: float) -> float:
        value = entry[name]
        if not is_number(value) or value < least:
            self._refuse(
                place, entry, f"has the {name} {quoted(value)} and must have a number from {least:g}"
            )
        return float(value) if isinstance(value, float) else int(value)

    def _refuse(self, place: int, entry: Any, reason: str) -> NoReturn:
        refuse(self._path, self._part, place, entry, reason)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number of at most `MAX_NUMBER`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= MAX_NUMBER  # not infinite, NaN, or an integer beyond the range of float


def annotations_by_own_id(path: Path, annotations: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Checked annotations by the id in the file. Raises ValueError if two share an id, since expressions and
    goals refer to it."""
    found: dict[Any, dict[str, Any]] = {}
    for place, entry in enumerate(annotations):
        if entry["own_id"] is None:
            continue
        if entry["own_id"] in found:
            reason = (
                "has the id of an entry before it, and expressions and goals name annotations by their id"
            )
            refuse(path, "annotations", place, entry, reason)
        found[entry["own_id"]] = entry
    return found


def read_goals(path: Path, document: Mapping[str, Any]) -> list[Entry]:
    """Check the `goals` of a document whose images and annotations `read_coco` has checked.

    Additional keys are kept. `image_id` is normalised, `kind` is a text or missing, and `annotation_ids`
    become the annotations' positions from 1, their `id` in the document. Raises ValueError naming the file
    and the entry for anything else, also for an annotation that is not listed, is of another image or is
    named twice.
    """
    goals = document.get("goals") or []
    if not isinstance(goals, list):
        raise ValueError(f"{path} has goals that are no list; write a list of objects (docs/scenes.md).")
    if not goals:
        return []
    images = {entry["id"] for entry in document["images"]}
    annotations = annotations_by_own_id(path, document["annotations"])
    return [_goal(path, place, goal, images, annotations) for place, goal in enumerate(goals)]


def _goal(path: Path, place: int, goal: Any, images: set[Key], annotations: Mapping[Any, Entry]) -> Entry:
    def wrong(reason: str) -> NoReturn:
        refuse(path, "goals", place, goal, reason)

    if not isinstance(goal, dict):
        wrong(f"is {quoted(goal)} and must be an object")
    image, text, kind = as_key(goal.get("image_id")), goal.get("text"), goal.get("kind")
    if image is None or image not in images:
        wrong(f"names the image {quoted(goal.get('image_id'))}, which is not listed")
    if not isinstance(text, str) or not text.strip():
        wrong(f"has the text {quoted(text)} and must have a text with words")
    if kind is not None and (not isinstance(kind, str) or not kind.strip()):
        wrong(f"has the kind {quoted(kind)} and must have a text")
    given = goal.get("annotation_ids")
    if not isinstance(given, list):
        wrong(f"has the annotation_ids {quoted(given)} and must have a list, empty for an absent goal")
    targets = []
    for value in given:
        key = as_key(value)
        if key is None or key not in annotations:
            wrong(f"names the annotation {quoted(value)}, which is not listed")
        if annotations[key]["image_id"] != image:
            other = quoted(annotations[key]["image_id"])
            wrong(f"names the annotation {quoted(value)}, which is of the image {other} and not of its own")
        targets.append(annotations[key]["id"])
    if len(set(targets)) < len(targets):
        wrong(f"names an annotation twice in its annotation_ids {quoted(given)}")
    return {**goal, "image_id": image, "annotation_ids": targets}


@dataclass(frozen=True)
class Ref:
    """An entry of a refs file: the sentences about some annotations of a picture."""

    split: str
    image: Key
    annotations: tuple[Key, ...]
    """Exactly one in REFER; any number in gRefCOCO, -1 for none."""
    sentences: tuple[str, ...]


def read_refs(path: Path) -> list[Ref]:
    """Read a refs file of REFER or gRefCOCO, a pickle of plain values or JSON. Raises ValueError naming a
    wrong entry."""
    refs = json_files.load(path) if path.suffix == ".json" else plain_pickle.load(path)
    if not isinstance(refs, list):
        raise ValueError(f"{path} does not hold a list of refs.")
    return [_ref(f"{path}: entry {place}", entry) for place, entry in enumerate(refs)]


def _ref(where: str, entry: Any) -> Ref:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {quoted(entry)} and must be an object.")
    for name in ("split", "image_id", "ann_id", "sentences"):
        if name not in entry:
            raise ValueError(f"{where} has no {name}, so it is not a ref of REFER or gRefCOCO.")
    split, image = entry["split"], as_key(entry["image_id"])
    if not isinstance(split, str):
        raise ValueError(f"{where} has the split {quoted(split)} and must have a text.")
    if image is None:
        raise ValueError(f"{where} has the image_id {quoted(entry['image_id'])}, which is no id.")
    given = entry["ann_id"] if isinstance(entry["ann_id"], list) else [entry["ann_id"]]
    keys = [key for key in map(as_key, given) if key is not None]
    if len(keys) < len(given):
        raise ValueError(f"{where} has the ann_id {quoted(entry['ann_id'])}, which is no id.")
    sentences = entry["sentences"] if isinstance(entry["sentences"], list) else [entry["sentences"]]
    texts = []
    for sentence in sentences:
        text = sentence.get("sent") if isinstance(sentence, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where} has a sentence without words: {quoted(text)}.")
        texts.append(text)
    return Ref(split, image, tuple(keys), tuple(texts))


def find_picture(folder: Path, name: str) -> Path:
    """Find a picture named in annotations below a folder.

    Tries the name as it is (for LVIS the end of coco_url), its last part, and the 2017 name of a COCO 2014
    picture, which is the same picture. Raises ValueError if none exists.
    """
    last = name.rsplit("/", 1)[-1]
    later = _COCO_2014.sub("", last)
    tried = dict.fromkeys((name.split("images.cocodataset.org/")[-1].lstrip("/"), last, later))
    if ".." in name.split("/"):
        raise ValueError(
            f"The annotations name the picture {quoted(name)}, which lies outside the folder {folder}."
        )
    for candidate in tried:
        with suppress(OSError):  # a name that no file can have
            if (folder / candidate).is_file():
                return folder / candidate
    names = printable(" or ".join(tried), 300)
    raise ValueError(
        f"The folder {folder} has no picture {names}; name the folder of the pictures with --images."
    )
