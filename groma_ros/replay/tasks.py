"""Bags and cameras of a replay, and the folder for the results of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from groma_ros.atomic_write import LOCK_NAME
from groma_ros.errors import printable
from groma_ros.io.bag_files import storage_suffix
from groma_ros.io.bag_topics import find_cameras
from groma_ros.io.bags import open_bag
from groma_ros.replay.plan import (
    DETECTIONS,
    JUNIT,
    RECORDING,
    REPORT,
    RUN,
    TIMINGS,
    AskedTopics,
    Task,
)
from groma_ros.replay.run import LOG

_RESERVED = frozenset({RUN, DETECTIONS, RECORDING, TIMINGS, REPORT, JUNIT, LOG, LOCK_NAME})
"""File names that a folder of results must not have."""
_MAX_NAME = 150


def make_tasks(
    bags: Sequence[Path],
    topics: Sequence[AskedTopics],
    out: Path,
    expect: Path | None = None,
    accept: bool = False,
    truth: Path | None = None,
) -> list[Task]:
    """Create a task for each bag and each camera.

    topics: of each camera; empty for every camera of a bag. A single bag with a single camera that was not
    searched for has its results in `out` itself. Otherwise bags have folders of their names there, and
    cameras folders of their topics inside those; the same applies to `expect` and `truth`. Raises ValueError
    for bags that cannot be told apart.
    """
    tasks = []
    for name, bag in zip(unique_names(bags), bags):
        folder = Path(name) if len(bags) > 1 else Path()
        found = topics or _every_camera(bag)
        cameras = [""] if len(topics) == 1 else topic_names([item.camera or "" for item in found])
        for camera, asked in zip(cameras, found):
            place = folder / camera
            label = f"{name} {asked.camera}" if camera else name
            if place == Path():
                tasks.append(Task(label, bag, out, expect, accept, truth, topics=asked))
                continue
            stored = expect and expect / place
            true = truth and truth / place.parent / f"{place.name}.json"
            tasks.append(Task(label, bag, out / place, stored, accept, true, keep=True, topics=asked))
    return tasks


def _every_camera(bag: Path) -> list[AskedTopics]:
    """Cameras of a bag. For a bag that cannot be read a single one is returned, whose task reports why."""
    try:
        with open_bag(bag, allow_loss=True) as opened:
            found = [AskedTopics(topic) for topic in find_cameras(opened)]
    except (ValueError, OSError):
        found = []
    return found or [AskedTopics()]


def topic_names(topics: Sequence[str]) -> list[str]:
    """A folder name for each topic; "" has none."""
    names: list[str] = []
    for topic in topics:
        name = plain = _folder_name(topic.strip("/")) if topic else ""
        number = 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def unique_names(bags: Sequence[Path]) -> list[str]:
    """A unique name for each bag, used as folder in `--out`: the name of its file or folder, with as many
    parent folders as needed. Raises ValueError for a bag that is given twice."""
    paths = [bag.resolve() for bag in bags]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"The bag {path} is named twice.")
    parts = [(*path.parts[1:-1], _stem(path)) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [_folder_name("-".join(part[-depth:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("Two bags differ in nothing but the ending of their files; give them other names.")


def _stem(path: Path) -> str:
    """The name of a bag without the suffixes of storage and compression."""
    suffix = storage_suffix(path)
    return path.name[: path.name.rindex(suffix)] if suffix else path.name


def _folder_name(text: str) -> str:
    """Turn a text into a single folder name that is not a path, hidden, a result's name, or too long for the
    file system."""
    name = re.sub(r"[/\\\x00]", "_", printable(text)).lstrip(".")
    while len(name.encode(errors="surrogateescape")) > _MAX_NAME:
        name = name[1:]  # the end distinguishes bags
    if not name or name in _RESERVED:
        name = f"bag_{name}"
    return name
