"""Read the annotations of a folder of scenes, in the form of docs/scenes.md, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from groma_ros.coco_files import (
    annotations_by_own_id,
    corners,
    four_numbers,
    is_number,
    read_coco,
    read_goals,
    refuse,
)
from groma_ros.errors import quoted
from groma_ros.simulation.goal_generator import SceneGoal
from groma_ros.simulation.scenes import SceneObject
from groma_ros.types import Box3D, Intrinsics

_NONE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SceneRecord:
    """One picture of a folder with its truth; boxes are xyxy in its pixels, the goals' targets are indices
    into `objects`."""

    image: Path
    width: int
    height: int
    seed: int
    objects: tuple[SceneObject, ...]
    goals: tuple[SceneGoal, ...]
    intrinsics: Intrinsics | None
    world: str = ""


def read_records(path: Path) -> list[SceneRecord]:
    """Read the scenes of an annotations file, in the order of its images.

    Raises ValueError naming the file and the entry for anything that docs/scenes.md does not describe.
    """
    document = read_coco(path, "images", "categories", "annotations", "goals")
    annotations_by_own_id(path, document["annotations"])  # each id once
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    objects: dict[Any, dict[int, SceneObject]] = {entry["id"]: {} for entry in document["images"]}
    goals: dict[Any, list[SceneGoal]] = {key: [] for key in objects}
    for place, entry in enumerate(document["annotations"]):
        here = _Place(path, "annotations", place, entry)
        if entry["own_id"] is None:
            here.refuse("has no id")
        objects[entry["image_id"]][entry["id"]] = _object(here, names[entry["category_id"]])
    for place, entry in enumerate(read_goals(path, document)):
        if entry.get("kind") is None:
            _Place(path, "goals", place, entry).refuse("has no kind")
        order = {number: index for index, number in enumerate(objects[entry["image_id"]])}
        targets = tuple(sorted(order[number] for number in entry["annotation_ids"]))
        goals[entry["image_id"]].append(SceneGoal(entry["text"], entry["kind"], targets))
    return [
        _record(
            _Place(path, "images", place, entry),
            tuple(objects[entry["id"]].values()),
            tuple(goals[entry["id"]]),
        )
        for place, entry in enumerate(document["images"])
    ]


@dataclass(frozen=True)
class _Place:
    """An entry of a list of a file."""

    path: Path
    part: str
    index: int
    entry: Mapping[str, Any]

    def refuse(self, reason: str) -> NoReturn:
        """Raise ValueError naming the file and the entry."""
        refuse(self.path, self.part, self.index, self.entry, reason)

    def wrong(self, name: str, wanted: str) -> NoReturn:
        """Raise ValueError for the value of a key."""
        self.refuse(f"has the {name} {quoted(self.entry.get(name))} and must have {wanted}")

    def text(self, name: str) -> str:
        """The text of a key; empty if it is missing or null."""
        value = self.entry.get(name)
        if value is not None and not isinstance(value, str):
            self.wrong(name, "a text")
        return value or ""

    def triple(self, name: str) -> tuple[float, float, float]:
        """The three numbers of a key; zeros if it is missing or null."""
        value = self.entry.get(name)
        numbers = _NONE if value is None else _three_numbers(value)
        if numbers is None:
            self.wrong(name, "a list of three numbers")
        return numbers

    def whole(self, name: str) -> int:
        """The whole number of a key."""
        value: Any = self.entry.get(name)
        if not is_number(value) or value != int(value):
            self.wrong(name, "a whole number")
        return int(value)


def _record(here: _Place, objects: tuple[SceneObject, ...], goals: tuple[SceneGoal, ...]) -> SceneRecord:
    name = here.text("file_name")
    if not name:
        here.refuse("has no file_name")
    size = here.whole("width"), here.whole("height")
    seed = here.whole("seed") if here.entry.get("seed") is not None else -1
    picture = here.path.parent / name
    return SceneRecord(picture, *size, seed, objects, goals, _intrinsics(here), here.text("world"))


def _intrinsics(here: _Place) -> Intrinsics | None:
    given = here.entry.get("intrinsics")
    if not given:
        return None
    names = [item.name for item in fields(Intrinsics)]
    if not isinstance(given, dict) or set(given) != set(names) or not all(map(is_number, given.values())):
        here.wrong("intrinsics", f"an object with the numbers {', '.join(names)}")
    if min(given[name] for name in ("fx", "fy", "width", "height")) <= 0:
        here.wrong("intrinsics", "fx, fy, width and height above 0")
    return Intrinsics(**given)


def _object(here: _Place, kind: str) -> SceneObject:
    """Read a checked annotation. Only COCO's own fields are required; others have neutral defaults."""
    entry = here.entry
    visible = entry.get("visible", 1.0)
    if not is_number(visible):
        here.wrong("visible", "a number")
    box = entry.get("box_3d")
    return SceneObject(
        kind,
        here.text("colour"),
        corners(entry["bbox"]),
        float(visible),
        int(entry["area"]),
        here.triple("position"),
        here.triple("size"),
        None if box is None else _box(here, box),
    )


def _box(here: _Place, value: Any) -> Box3D:
    given = value if isinstance(value, dict) else {}
    centre, size = _three_numbers(given.get("centre")), _three_numbers(given.get("size"))
    quaternion = four_numbers(given.get("quaternion"))
    if centre is None or size is None or quaternion is None:
        here.wrong("box_3d", "an object with centre, quaternion and size, lists of 3, 4 and 3 numbers")
    x, y, z, w = quaternion
    return Box3D(centre, (x, y, z, w), size)


def _three_numbers(value: Any) -> tuple[float, float, float] | None:
    """None for anything but a list of three finite numbers."""
    if not isinstance(value, list) or len(value) != 3 or not all(map(is_number, value)):
        return None
    x, y, z = value
    return float(x), float(y), float(z)
