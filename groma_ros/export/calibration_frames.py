"""Images for calibrating 8-bit graphs: rendered from a seed, from a folder or from a bag."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pictures = list[NDArray[np.uint8]]

COUNT = 48
SEED = 12
"""Scenes of `groma scenes --seed 12`, which are not used for training or measurement."""
_PICTURES = (".jpg", ".jpeg", ".png")


def read_frames(source: Path | None, count: int = COUNT) -> Pictures:
    """Read up to `count` uint8 HxWx3 images, spread evenly over the source.

    source: a folder of images, a rosbag2 folder, an .mcap or .db3 file; None for rendered scenes. Raises
    ValueError if there is no image.
    """
    frames = (
        _rendered(count)
        if source is None
        else _bag(source, count)
        if _is_bag(source)
        else _folder(source, count)
    )
    found = list(itertools.islice(frames, count))
    if not found:
        raise ValueError(
            f"{source} holds no picture to take the ranges of 8-bit graphs from; name a folder of pictures "
            "or a bag."
        )
    return found


def _rendered(count: int) -> Iterator[NDArray[np.uint8]]:
    from groma_ros.simulation.dataset import scene_seeds
    from groma_ros.simulation.scenes import SceneRenderer

    with SceneRenderer(640, 480) as renderer:
        for seed in scene_seeds(SEED, count):
            yield renderer.render(seed).rgb


def _is_bag(source: Path) -> bool:
    return source.suffix in (".mcap", ".db3") or (source / "metadata.yaml").is_file()


def _bag(source: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    from groma_ros.io.bag_topics import find_camera
    from groma_ros.io.bags import open_bag, recorded_images

    with open_bag(source) as bag:
        camera = find_camera(bag)
        step = max(1, camera.count // count)
        for image in recorded_images(bag, camera, lambda number: number % step == 0):
            if image.frame is not None:
                yield image.frame.rgb


def _folder(source: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    if not source.is_dir():
        raise ValueError(f"{source} is neither a folder of pictures nor a bag.")
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in _PICTURES)
    for path in paths[:: max(1, len(paths) // count)]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"The picture {path} cannot be decoded.")
        yield np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
