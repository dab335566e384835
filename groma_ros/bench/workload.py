"""The pictures, goals and variants of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.io.images import compressed_to_rgb
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Frame, Goal

WIDTH, HEIGHT = 640, 480
_QUALITY = 90


def pictures(count: int, seed: int) -> tuple[list[bytes], str]:
    """Return `count` JPEG pictures of 640x480 pixels and a description of their source: rendered scenes if
    rendering works, else the demo's picture."""
    try:
        rgbs, source = _rendered(count, seed), f"rendered scenes, seed {seed}"
    except (ImportError, RuntimeError):
        rgbs, source = _demo(count), "the demo's picture, shifted"
    return [_jpeg(rgb) for rgb in rgbs], source


def to_frame(jpeg: bytes) -> Frame:
    """Decode one of the pictures in the same way as the node decodes a compressed image."""
    return Frame(compressed_to_rgb(jpeg, "jpeg"))


def _rendered(count: int, seed: int) -> list[NDArray[Any]]:
    """Render pictures. Raises ImportError or RuntimeError if rendering does not work."""
    from groma_ros.simulation.dataset import scene_seeds
    from groma_ros.simulation.scenes import SceneRenderer

    with SceneRenderer(WIDTH, HEIGHT) as renderer:
        return [renderer.render(scene_seed).rgb for scene_seed in scene_seeds(seed, count)]


def _demo(count: int) -> list[NDArray[Any]]:
    path = shipped_model().parents[1] / "demo" / "frame.png"
    rgb = compressed_to_rgb(Path(path).read_bytes(), "png")
    return [np.roll(rgb, 37 * index, axis=1) for index in range(count)]


def _jpeg(rgb: NDArray[Any]) -> bytes:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        raise RuntimeError("A picture could not be encoded as JPEG.")
    return data.tobytes()


MIXED: tuple[Goal, ...] = (
    Goal("the red mug"),
    Goal("all the blue objects", "all"),
    Goal("the leftmost object", "one"),
    Goal("the ball behind the box"),
    Goal("both cylinders", "all"),
    Goal("the green thing", "one"),
    Goal("all the objects that are not red", "all"),
    Goal("the mug between the cone and the ball", "one"),
    Goal("the purple ring"),
    Goal("the largest bottle", "one"),
)
SINGLE = (
    Goal("the red mug", "one"),
    Goal("the blue ball", "one"),
    Goal("the leftmost object", "one"),
    Goal("the green box", "one"),
)
"""Goals with one region each, as in the paper's referring benchmarks."""


def mixed_goals(count: int) -> list[Goal]:
    """Return `count` goals of kinds auto, one and all about attributes, relations, plurals and absent
    objects; they repeat after ten."""
    return [MIXED[index % len(MIXED)] for index in range(count)]


def single_goals(count: int) -> list[Goal]:
    """Return the same texts, each asking for one region: an untrained network never ends a list."""
    return [replace(goal, kind="one") for goal in mixed_goals(count)]


@dataclass(frozen=True)
class BenchVariant:
    """One model in one backend and precision."""

    model: Path | None
    """Folder of a bundle; None for random weights of `size`."""
    size: str
    options: RuntimeOptions
    seed: int
    clock: str = "wall"
    """One of `groma_ros.timing.CLOCKS`."""
