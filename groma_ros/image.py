"""From a camera image to the network's input pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from groma_ros.types import FloatArray

Resize = Literal["bilinear", "bicubic", "area"]
RESIZES: tuple[Resize, ...] = ("bilinear", "bicubic", "area")


@dataclass(frozen=True)
class ImageTransform:
    """How a camera image becomes the network's square: a plain stretch to size x size, then (rgb / 255 - mean) / std.

    resize: `bilinear` (cv2, what the published referring evaluation used), `bicubic` (antialiased as Pillow does it, what the
    published demo used) or `area` (cv2, the mean of the covered pixels; the calmest when an image shrinks).
    """

    size: int
    resize: Resize = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(f"The image resize {self.resize!r} is unknown; use one of {', '.join(RESIZES)}.")

    def __call__(self, rgb: np.ndarray) -> FloatArray:
        """uint8 HxWx3 RGB to float32 3xSxS."""
        square = self._stretch(rgb)
        normal = (square.astype(np.float32) / 255.0 - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def _stretch(self, rgb: np.ndarray) -> np.ndarray:
        if rgb.shape[:2] == (self.size, self.size):
            return rgb
        if self.resize == "bicubic":
            return _bicubic(rgb, self.size)
        method = cv2.INTER_AREA if self.resize == "area" else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(rgb), (self.size, self.size), interpolation=method)


@lru_cache(maxsize=16)
def _bicubic_weights(source: int, target: int) -> FloatArray:
    """Antialiased bicubic (a = -0.5) resampling weights, target x source; the kernel widens when the image shrinks."""
    scale = max(source / target, 1.0)
    centre = (np.arange(target) + 0.5) * source / target
    distance = np.abs((np.arange(source)[None] + 0.5 - centre[:, None]) / scale)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _to_bytes(image: FloatArray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _bicubic(rgb: np.ndarray, size: int) -> np.ndarray:
    """Stretch by separable bicubic resampling, rounded to bytes after each axis as Pillow does."""
    across, down = _bicubic_weights(rgb.shape[1], size), _bicubic_weights(rgb.shape[0], size)
    wide = _to_bytes(np.einsum("hwc,sw->hsc", rgb.astype(np.float32), across, optimize=True))
    return _to_bytes(np.einsum("hsc,th->tsc", wide.astype(np.float32), down, optimize=True))
