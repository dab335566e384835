"""Which objects a textual answer mentions: those not in the picture (hallucinated) and those it omits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groma_ros import json_files
from groma_ros.coco_files import corners, read_coco
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
    """Classes and boxes of one answer compared with the truth."""

    mentioned: tuple[str, ...]
    """Classes named in the answer."""
    hallucinated: tuple[str, ...]
    """Named classes that are not in the picture."""
    present: tuple[str, ...]
    """Classes in the picture."""
    missed: tuple[str, ...]
    """Classes in the picture that are not named."""
    pointed: int
    """Boxes the answer gives for phrases that name a class."""
    right: int
    """Boxes with an IoU of at least 0.5 with an object of that class, matched one to one."""
    objects: int
    """True objects in the picture."""

    @property
    def found(self) -> int:
        """Objects covered by a right box; equal to `right` because the matching is one to one."""
        return self.right


class Vocabulary:
    """Words that name each class: its own name, the plural, and optional synonyms.

    synonyms: further words by class. Raises ValueError if they name an unknown class.
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
        # Match longer names first, so that "hot dog" is not counted as "dog".
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(r"\b(" + "|".join(map(re.escape, ordered)) + r")\b") if ordered else None

    def named(self, text: str) -> tuple[str, ...]:
        """Classes named in a text, each once, in order."""
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
    """Read the classes of a COCO-style file, and the objects of each picture by the last part of its file
    name.

    Raises ValueError for another file.
    """
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
    """Read a JSON object that maps classes to words. Raises ValueError for another file."""
    found = json_files.load(path)
    if not isinstance(found, dict) or not all(isinstance(line, list) for line in found.values()):
        raise ValueError(f"{path} must map each class to a list of words.")
    return {str(kind): [str(word) for word in line] for kind, line in found.items()}


def count(
    text: str,
    spans: Sequence[tuple[str, Sequence[Box]]],
    truth: Sequence[KnownObject],
    vocabulary: Vocabulary,
) -> MentionCounts:
    """Compare an answer with the truth. spans: phrases of the answer with their boxes."""
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
    """Drop repeated boxes of the same class."""
    return list(dict.fromkeys(pointed))


def _pairs(truth: Sequence[KnownObject]) -> list[tuple[str, Box]]:
    return [(item.kind, item.box) for item in truth]
