"""Colours of objects, and muted colours of everything else. RGB in 0..1."""

from __future__ import annotations

import colorsys

import numpy as np

from groma_ros.simulation.shapes import Array

_RGB = {
    "red": (0.80, 0.06, 0.06),
    "orange": (0.97, 0.42, 0.03),
    "yellow": (0.95, 0.84, 0.08),
    "green": (0.09, 0.56, 0.14),
    "blue": (0.08, 0.20, 0.82),
    "purple": (0.43, 0.10, 0.62),
    "white": (0.94, 0.94, 0.94),
    "black": (0.14, 0.14, 0.14),
    "pink": (0.97, 0.50, 0.70),
    "cyan": (0.10, 0.80, 0.86),
}
COLOURS = tuple(_RGB)
_MORE_RGB = {"brown": (0.42, 0.22, 0.09), "grey": (0.48, 0.48, 0.48)}


def paint(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """Draw a shade of a named colour (one of `COLOURS`) that is still recognisable as that colour."""
    h, s, v = colorsys.rgb_to_hsv(*_RGB[colour])
    hue = (h + rng.uniform(-0.012, 0.012)) % 1.0
    saturation = s * rng.uniform(0.9, 1.0) if s > 0 else 0.0
    value = min(1.0, v * rng.uniform(0.9, 1.08))
    return colorsys.hsv_to_rgb(hue, saturation, value)


def unusual_paint(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """Draw a shade of a named colour that `paint` never draws: farther in hue, paler or darker."""
    h, s, v = colorsys.rgb_to_hsv(*_RGB[colour])
    hue = (h + rng.choice([-1, 1]) * rng.uniform(0.014, 0.024)) % 1.0
    saturation = s * rng.uniform(0.78, 0.88) if s > 0 else rng.uniform(0.03, 0.07)
    return colorsys.hsv_to_rgb(hue, saturation, min(1.0, v * rng.uniform(0.78, 0.88)))


def wide_paint(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """Draw a shade of a named colour (one of `COLOURS`, brown or grey) from a wider range than `paint`."""
    h, s, v = colorsys.rgb_to_hsv(*(_RGB | _MORE_RGB)[colour])
    hue = (h + rng.uniform(-0.016, 0.016)) % 1.0
    saturation = s * rng.uniform(0.78, 1.0) if s > 0 else rng.uniform(0.0, 0.06)
    least = {
        "white": 0.9,
        "black": 0.4,
        "yellow": 0.85,
        "orange": 0.88,
        "pink": 0.88,
        "cyan": 0.8,
        "brown": 0.75,
    }.get(colour, 0.72)
    return colorsys.hsv_to_rgb(hue, saturation, min(1.0, v * rng.uniform(least, 1.08)))


def muted(rng: np.random.Generator) -> Array:
    """A random colour without much saturation."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5) ** 1.2, rng.uniform(0.3, 0.9)))


def contrast(colour: Array, others: list[Array]) -> float:
    """Smallest distance in RGB from `colour` to the others; infinity if there are none."""
    return min((float(np.linalg.norm(colour - other)) for other in others), default=float("inf"))
