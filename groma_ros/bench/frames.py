"""The pictures a benchmark looks at, as JPEG files in memory."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from groma_ros.node.images import compressed_to_rgb
from groma_ros.node.loading import shipped_model
from groma_ros.types import Frame

WIDTH, HEIGHT = 640, 480
_QUALITY = 90


def pictures(count: int, seed: int) -> tuple[list[bytes], str]:
    """So many pictures of 640x480 pixels, and where they are from: rendered scenes where rendering works, else the demo's picture."""
    try:
        rgbs, source = _rendered(count, seed), f"rendered scenes, seed {seed}"
    except (ImportError, RuntimeError):
        rgbs, source = _demo(count), "the demo's picture, shifted"
    return [_jpeg(rgb) for rgb in rgbs], source


def to_frame(jpeg: bytes) -> Frame:
    """Decode one of the pictures, as the node decodes a compressed image."""
    return Frame(compressed_to_rgb(jpeg, "jpeg"))


def _rendered(count: int, seed: int) -> list[np.ndarray]:
    """ImportError or RuntimeError where nothing can be rendered."""
    from groma_ros.simulation.dataset import scene_seeds
    from groma_ros.simulation.scenes import SceneRenderer

    with SceneRenderer(WIDTH, HEIGHT) as renderer:
        return [renderer.render(scene_seed).rgb for scene_seed in scene_seeds(seed, count)]


def _demo(count: int) -> list[np.ndarray]:
    path = shipped_model().parents[1] / "demo" / "frame.png"
    rgb = compressed_to_rgb(Path(path).read_bytes(), "png")
    return [np.roll(rgb, 37 * index, axis=1) for index in range(count)]


def _jpeg(rgb: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise RuntimeError("A picture could not be encoded as JPEG.")
    return data.tobytes()
