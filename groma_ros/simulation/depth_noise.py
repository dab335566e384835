"""Noise model of depth cameras: Gaussian noise, quantisation, holes, and edges that are lost or bleed into
the background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from groma_ros.types import FloatArray

_EDGE = 0.02  # metres of depth between neighbours


@dataclass(frozen=True)
class DepthNoise:
    """Parameters of depth noise."""

    deviation: float = 0.0
    """Standard deviation at 1 m, metres; grows with the square of the distance as in a stereo camera."""
    step: float = 0.0
    """Quantisation step, metres; 0 for none."""
    holes: float = 0.0
    """Share of single pixels without depth."""
    blotches: float = 0.0
    """Share of the image without depth in patches of about ten pixels."""
    lost: float = 0.0
    """Share of pixels at depth edges without depth."""
    bled: float = 0.0
    """Share of pixels at depth edges with a depth between the two sides."""


LEVELS = {
    "clean": DepthNoise(),
    "millimetres": DepthNoise(step=0.001),
    "camera": DepthNoise(deviation=0.0015, step=0.001, holes=0.02, blotches=0.02, lost=0.3, bled=0.3),
    "poor": DepthNoise(deviation=0.004, step=0.002, holes=0.1, blotches=0.1, lost=0.3, bled=0.6),
}
"""As rendered; as 16UC1 stores it; about a good active stereo camera on a table; about a bad one."""


def spoil(depth: FloatArray, noise: DepthNoise, rng: np.random.Generator) -> FloatArray:
    """Return a copy of depth (float32 HxW, metres) with noise; NaN where nothing is measured."""
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
