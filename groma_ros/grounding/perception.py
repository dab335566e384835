"""Frame -> Scene: refuse an image that cannot be looked at, then one vision pass."""

from __future__ import annotations

import numpy as np

from groma_ros.runtime.vision import VisionTokenizer
from groma_ros.types import Frame, Scene

MIN_SIDE = 2
MAX_SIDE = 16384


def check_image(rgb: np.ndarray) -> None:
    """Raise ValueError with a sentence unless `rgb` is a uint8 HxWx3 image with sides of 2 to 16384 pixels.

    A black image is legal: it is a picture of the dark, and the answer to every goal is then that nothing is there.
    """
    if rgb.size == 0:
        raise ValueError(f"The image is empty (shape {rgb.shape}).")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"An image must be height x width x 3 (RGB), not of shape {rgb.shape}.")
    if rgb.dtype != np.uint8:
        raise ValueError(f"An image must hold uint8 values, not {rgb.dtype}; scale it to 0..255 first.")
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"The image of {width}x{height} pixels is too small; each side needs {MIN_SIDE} or more.")
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"The image of {width}x{height} pixels is too large; no side may pass {MAX_SIDE}.")


def perceive(vision: VisionTokenizer, frame: Frame) -> Scene:
    """The regions of a frame. Raises ValueError for an image that cannot be looked at."""
    check_image(frame.rgb)
    return vision.encode(frame)
