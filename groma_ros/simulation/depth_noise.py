"""What depth cameras do to depth: noise, coarse steps, holes, and edges that are lost or bleed into the
background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from groma_ros.types import FloatArray

_EDGE = 0.02  # metres of depth between neighbours


@dataclass(frozen=True)
class DepthNoise:
    """How depth is spoilt.

    deviation: of Gaussian noise at 1 m, metres, growing with the square of the distance as a stereo camera's
    does; step: metres that depth is rounded to, 0 for none; holes: share of single pixels without depth;
    blotches: share of the image without depth in patches of some ten pixels; lost: share of pixels at a depth
    edge without depth; bled: share of them at a depth between the two sides.
    """

    deviation: float = 0.0
    step: float = 0.0
    holes: float = 0.0
    blotches: float = 0.0
    lost: float = 0.0
    bled: float = 0.0


LEVELS = {
    "clean": DepthNoise(),
    "millimetres": DepthNoise(step=0.001),
    "camera": DepthNoise(deviation=0.0015, step=0.001, holes=0.02, blotches=0.02, lost=0.3, bled=0.3),
    "poor": DepthNoise(deviation=0.004, step=0.002, holes=0.1, blotches=0.1, lost=0.3, bled=0.6),
}
"""As rendered; as 16UC1 stores it; about a good active stereo camera on a table; about a bad one."""


def spoil(depth: FloatArray, noise: DepthNoise, rng: np.random.Generator) -> FloatArray:
    """A spoilt copy of depth, float32 HxW metres; NaN where nothing is measured."""
    result = depth.astype(np.float32, copy=True)
    near = np.asarray(cv2.erode(result, np.ones((3, 3), np.uint8)), np.float32)
    far = np.asarray(cv2.dilate(result, np.ones((3, 3), np.uint8)), np.float32)
    edge = far - near > _EDGE
    drawn = rng.random(depth.shape, np.float32)
    bled = edge & (drawn < noise.bled)
    share = rng.random(depth.shape, np.float32)
    result[bled] = (near + share * (far - near))[bled]
    result += noise.deviation * result**2 * rng.standard_normal(depth.shape, np.float32)
    if noise.step:
        result = np.rint(result / noise.step) * np.float32(noise.step)
    result[edge & (drawn > 1 - noise.lost)] = np.nan
    result[rng.random(depth.shape, np.float32) < noise.holes] = np.nan
    if noise.blotches:
        clouds = np.asarray(
            cv2.GaussianBlur(rng.standard_normal(depth.shape, np.float32), (0, 0), 5), np.float32
        )
        result[clouds > np.quantile(clouds, 1 - noise.blotches)] = np.nan
    return result
