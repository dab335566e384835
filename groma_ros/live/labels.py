"""Labels given by a person on the page: COCO boxes with goals, and goals verified to be absent.

The file has the format of `groma scenes`: `images`, `annotations`, `categories`, and `goals` with the ids of
their annotations, none for an absent goal. Each image also lists its absent categories as LVIS does
(`neg_category_ids`). `groma train --data` and `groma replay --truth` read it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.atomic_write import write_file
from groma_ros.errors import printable
from groma_ros.json_files import load_object
from groma_ros.types import FloatArray, Frame, Goal

ANNOTATIONS = "annotations.json"
IMAGES = "images"
QUALITY = 95
"""JPEG quality of the pictures."""
DETERMINERS = frozenset(
    ("a", "all", "an", "any", "both", "each", "every", "my", "that", "the", "this", "your")
)
"""Words at the start of a goal that are not part of its category."""
_DIGITS = 2
_ENTRY = {"id": int, "file_name": str, "width": int, "height": int, "stamp": int, "frame_id": str}
"""Keys that every image of the file has, and the type of each value."""
_GOAL = {"text": str, "kind": str, "annotation_ids": list}
"""Likewise for goals."""


Label = tuple[str, list[list[float]]]
"""Kind of a goal and its boxes xyxy, none for an absent goal."""


@dataclass(frozen=True)
class _Picture:
    """A labelled frame."""

    entry: dict[str, Any]
    labels: dict[str, Label] = field(default_factory=dict)
    """By text of the goal."""

    def shows(self, frame: Frame) -> bool:
        """Whether it is this frame, rather than one of another source with the same stamp."""
        height, width = frame.rgb.shape[:2]
        own = (self.entry["frame_id"], self.entry["width"], self.entry["height"])
        return own == (frame.frame_id, width, height)


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of labels in a file."""

    frames: int
    goals: int
    absent: int
    """Number of goals verified to be absent, included in `goals`."""


class LabelFile:
    """Labels of one source in a folder: `annotations.json`, and the pictures in `images`.

    An existing file is continued. Every change is on disk when the method returns. Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ValueError for an existing file of another format."""
        self.path = folder / ANNOTATIONS
        self._folder = folder
        self._lock = threading.Lock()
        self._pictures: dict[int, _Picture] = {}
        if self.path.exists():
            try:
                self._read(load_object(self.path))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                reason = printable(f"it has no {error}" if isinstance(error, KeyError) else error, 200)
                raise ValueError(
                    f"{self.path} is there and is no file of labels ({reason}); move it away or name another "
                    "--out."
                ) from error

    @property
    def counts(self) -> LabelCounts:
        """Return the current numbers."""
        with self._lock:
            labels = [item for picture in self._pictures.values() for item in picture.labels.values()]
            return LabelCounts(len(self._pictures), len(labels), sum(not boxes for _, boxes in labels))

    def of(self, frame: Frame) -> dict[str, list[list[float]]]:
        """Return the labels of a frame: boxes xyxy by goal text."""
        with self._lock:
            picture = self._pictures.get(frame.stamp)
            if picture is None or not picture.shows(frame):
                return {}
            return {text: boxes for text, (_, boxes) in picture.labels.items()}

    def put(self, frame: Frame, goal: Goal, boxes: FloatArray) -> None:
        """Label a goal on a frame with boxes (Mx4 xyxy, pixels); no boxes: nothing in it matches.

        Raises ValueError for a box outside the frame, and if the file has labels of another frame with this
        stamp; OSError if it cannot be written, which leaves it unchanged.
        """
        height, width = frame.rgb.shape[:2]
        kept = [_inside(box, width, height) for box in np.asarray(boxes, np.float64).reshape(-1, 4)]
        with self._lock:
            picture = self._pictures.get(frame.stamp)
            if picture is not None and not picture.shows(frame):
                raise ValueError(
                    f"{self.path} holds labels of another picture with this stamp, "
                    f"{picture.entry['frame_id']}; name another --out for this source."
                )
            if picture is None:
                name = f"{IMAGES}/{frame.stamp:019d}.jpg"
                entry = {
                    "id": 1 + max((item.entry["id"] for item in self._pictures.values()), default=0),
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "stamp": frame.stamp,
                    "frame_id": frame.frame_id,
                }
                (self._folder / IMAGES).mkdir(parents=True, exist_ok=True)
                write_file(self._folder / name, jpeg(frame.rgb, QUALITY))
                picture = _Picture(entry)
            self._store(frame.stamp, {**picture.labels, goal.text: (goal.kind, kept)}, picture.entry)

    def remove(self, frame: Frame, text: str) -> None:
        """Remove the label of a goal on a frame, and the picture with its last label. Labels of another frame
        with this stamp stay."""
        with self._lock:
            picture = self._pictures.get(frame.stamp)
            if picture is None or not picture.shows(frame) or text not in picture.labels:
                return
            kept = {name: label for name, label in picture.labels.items() if name != text}
            self._store(frame.stamp, kept, picture.entry)
            if not kept:
                (self._folder / picture.entry["file_name"]).unlink(missing_ok=True)

    def _store(self, stamp: int, labels: dict[str, Label], entry: dict[str, Any]) -> None:
        """Set the labels of a frame, in memory and on disk; without any, the frame is removed."""
        before = dict(self._pictures)
        if labels:
            self._pictures[stamp] = _Picture(entry, labels)
        else:
            del self._pictures[stamp]
        try:
            self._write()
        except OSError:
            self._pictures = before
            raise

    def _write(self) -> None:
        texts = [text for picture in self._pictures.values() for text in picture.labels]
        categories = {name: number for number, name in enumerate(dict.fromkeys(map(category, texts)), 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        goals: list[dict[str, Any]] = []
        for picture in self._pictures.values():
            image = picture.entry["id"]
            there: set[int] = set()
            absent: set[int] = set()
            for text, (kind, boxes) in picture.labels.items():
                number = categories[category(text)]
                (there if boxes else absent).add(number)
                ids = range(len(annotations) + 1, len(annotations) + 1 + len(boxes))
                annotations += [_annotation(key, image, number, box) for key, box in zip(ids, boxes)]
                goals.append(
                    {
                        "id": len(goals) + 1,
                        "image_id": image,
                        "text": text,
                        "kind": kind,
                        "annotation_ids": list(ids),
                    }
                )
            images.append({**picture.entry, "neg_category_ids": sorted(absent - there)})
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "goals": goals,
        }
        write_file(self.path, json.dumps(document, ensure_ascii=False, indent=1).encode())

    def _read(self, document: dict[str, Any]) -> None:
        corners = {item["id"]: _corners(item["bbox"]) for item in document["annotations"]}
        by_id = {}
        for entry in document["images"]:
            own = {key: value for key, value in entry.items() if key != "neg_category_ids"}
            _check_types(own, _ENTRY, "an image")
            if own["id"] in by_id or own["stamp"] in self._pictures:
                raise ValueError(f"two images have the id {own['id']} or the stamp {own['stamp']}")
            # the file is deleted with the entry, so its name must not be another file's
            name = Path(own["file_name"])
            if name.parts[:-1] != (IMAGES,) or name.name == ".." or "\0" in name.name:
                raise ValueError(f"the file_name {str(name)[:80]!r} is not in {IMAGES}")
            by_id[own["id"]] = self._pictures[own["stamp"]] = _Picture(own)
        for goal in document["goals"]:
            _check_types(goal, _GOAL, "a goal")
            boxes = [corners[key] for key in goal["annotation_ids"]]
            by_id[goal["image_id"]].labels[goal["text"]] = goal["kind"], boxes


def category(text: str) -> str:
    """Return the category of a goal: its text without leading determiners."""
    words = text.split()
    while len(words) > 1 and words[0].lower() in DETERMINERS:
        words.pop(0)
    return " ".join(words)


def jpeg(rgb: NDArray[Any], quality: int) -> bytes:
    """Encode a picture (uint8 HxWx3) as JPEG, quality 1 to 100. Raises OSError if OpenCV cannot encode it."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OSError(f"A picture of {rgb.shape[1]}x{rgb.shape[0]} pixels could not be encoded as JPEG.")
    return bytes(data.tobytes())


def _annotation(key: int, image: int, category_id: int, box: Sequence[float]) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    width, height = round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)
    return {
        "id": key,
        "image_id": image,
        "category_id": category_id,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, _DIGITS),
        "iscrowd": 0,
    }


def _inside(box: NDArray[Any], width: int, height: int) -> list[float]:
    """Clip a box to the frame. Raises ValueError if nothing of it is left."""
    x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height])
    if not (np.isfinite(box).all() and x2 - x1 >= 1 and y2 - y1 >= 1):
        raise ValueError(
            f"The box {[round(float(value), 1) for value in box]} is not a box inside the frame of "
            f"{width}x{height} pixels; draw it on the picture."
        )
    return [round(float(value), _DIGITS) for value in (x1, y1, x2, y2)]


def _corners(bbox: Sequence[float]) -> list[float]:
    x, y, width, height = (float(value) for value in bbox)
    corners = [x, y, round(x + width, _DIGITS), round(y + height, _DIGITS)]
    if not np.isfinite(corners).all():
        raise ValueError(f"the bbox {printable(repr(bbox), 80)} is not of finite numbers")
    return corners


def _check_types(entry: dict[str, Any], kinds: Mapping[str, type], what: str) -> None:
    """Raise ValueError for an entry of the file with values of other types, KeyError for a missing key."""
    for key, kind in kinds.items():
        if type(entry[key]) is not kind:  # true is not a number
            raise ValueError(f"the {key} of {what} is {printable(repr(entry[key]), 80)}")
