"""Which objects an answer in words speaks of: hallucinated ones that are not in the picture, and those it
misses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groma_ros.evaluation.coco import corners, read_coco
from groma_ros.evaluation.dataset_files import read_json
from groma_ros.matching import match_boxes

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class KnownObject:
    """A true object."""

    kind: str
    """Its class."""
    box: Box
    """xyxy pixels."""


@dataclass(frozen=True)
class MentionCounts:
    """What one answer says against what is in the picture."""

    mentioned: tuple[str, ...]
    """Classes it names."""
    hallucinated: tuple[str, ...]
    """Those of them that are not in the picture."""
    present: tuple[str, ...]
    """Classes that are in the picture."""
    missed: tuple[str, ...]
    """Those of them it does not name."""
    pointed: int
    """Boxes it points at under a class's name."""
    right: int
    """Those that overlap an object of that class by one half or more, matched one to one."""
    objects: int
    """True objects in the picture."""

    @property
    def found(self) -> int:
        """Objects that a right box covers: as many as there are right boxes, since they match one to one."""
        return self.right


class Vocabulary:
    """The words that name each class: its own name, its plural, and synonyms if any are given.

    synonyms: by class, more words for it. ValueError where they name a class that does not exist.
    """

    def __init__(self, kinds: Iterable[str], synonyms: Mapping[str, Sequence[str]] | None = None) -> None:
        self.kinds = tuple(dict.fromkeys(kinds))
        unknown = sorted(set(synonyms or {}) - set(self.kinds))
        if unknown:
            raise ValueError(f"The synonyms name the class {unknown[0]!r}, which the truth does not have.")
        forms = {
            form: kind
            for kind in self.kinds
            for word in (kind, *(synonyms or {}).get(kind, ()))
            for form in _forms(word)
        }
        self._kind_of = forms
        # The longest name wins, so that a hot dog is no dog.
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(r"\b(" + "|".join(map(re.escape, ordered)) + r")\b") if ordered else None

    def named(self, text: str) -> tuple[str, ...]:
        """The classes a text names, each once, in order."""
        if self._pattern is None:
            return ()
        return tuple(
            dict.fromkeys(self._kind_of[match.group()] for match in self._pattern.finditer(text.lower()))
        )


def _forms(word: str) -> tuple[str, ...]:
    plain = word.replace("_", " ").lower()
    if plain.endswith(("s", "x", "ch", "sh")):
        return plain, plain + "es"
    if plain.endswith("y") and plain[-2:-1] not in tuple("aeiou"):
        return plain, plain[:-1] + "ies"
    return plain, plain + "s"


def read_objects(path: Path) -> tuple[list[str], dict[str, list[KnownObject]]]:
    """The classes of a COCO-style file, and the objects of each picture by the last part of its file name.
    ValueError for another file."""
    document = read_coco(path, "images", "annotations", "categories")
    kinds = {entry["id"]: entry["name"] for entry in document["categories"]}
    names = {
        entry["id"]: str(entry.get("file_name") or entry["coco_url"]).rsplit("/", 1)[-1]
        for entry in document["images"]
    }
    objects: dict[str, list[KnownObject]] = {name: [] for name in names.values()}
    for entry in document["annotations"]:
        known = KnownObject(kinds[entry["category_id"]], corners(entry["bbox"]))
        objects[names[entry["image_id"]]].append(known)
    return list(kinds.values()), objects


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """A JSON object from class to words. ValueError for another file."""
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(line, list) for line in found.values()):
        raise ValueError(f"{path} must map each class to a list of words.")
    return {str(kind): [str(word) for word in line] for kind, line in found.items()}


def count(
    text: str,
    spans: Sequence[tuple[str, Sequence[Box]]],
    truth: Sequence[KnownObject],
    vocabulary: Vocabulary,
) -> MentionCounts:
    """What an answer says against what is there. spans: its phrases with the boxes they point at."""
    present = tuple(dict.fromkeys(item.kind for item in truth))
    mentioned = vocabulary.named(text)
    pointed = [
        (kind, box)
        for phrase, boxes in spans
        for kind in vocabulary.named(phrase)[-1:]
        for box in dict.fromkeys(boxes)
    ]
    right = 0
    for kind in dict.fromkeys(kind for kind, _ in pointed):
        boxes = [
            np.array([b for k, b in found if k == kind], np.float32).reshape(-1, 4)
            for found in (_distinct(pointed), _pairs(truth))
        ]
        right += int((match_boxes(boxes[0], boxes[1]) >= 0).sum())
    return MentionCounts(
        mentioned,
        tuple(kind for kind in mentioned if kind not in present),
        present,
        tuple(kind for kind in present if kind not in mentioned),
        len(_distinct(pointed)),
        right,
        len(truth),
    )


def _distinct(pointed: Sequence[tuple[str, Box]]) -> list[tuple[str, Box]]:
    """A box that is pointed at twice under one name counts once."""
    return list(dict.fromkeys(pointed))


def _pairs(truth: Sequence[KnownObject]) -> list[tuple[str, Box]]:
    return [(item.kind, item.box) for item in truth]
