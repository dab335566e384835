"""Synthetic scenes for tests of tracking: objects with distinct tokens at given positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import Scene

SECOND = 1_000_000_000
WIDTH, HEIGHT = 640, 480


def look(name: str) -> NDArray[Any]:
    """The token of an object, a unit vector that no other has."""
    token = np.random.default_rng([ord(char) for char in name]).normal(size=32)
    return (token / np.linalg.norm(token)).astype(np.float32)


def scene(
    seconds: float,
    objects: Mapping[str, tuple[float, float]],
    size: float = 60.0,
    noise: float = 0.0,
    **fields: int,
) -> Scene:
    """Objects by name with the centres of their boxes, pixels, at a time. noise: of the tokens."""
    rng = np.random.default_rng(abs(round(seconds * 1000)))
    boxes = [(x - size / 2, y - size / 2, x + size / 2, y + size / 2) for x, y in objects.values()]
    tokens = [look(name) + noise * rng.normal(size=32) for name in objects]
    shape: dict[str, Any] = {"width": WIDTH, "height": HEIGHT} | fields
    return Scene(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(boxes), np.float32),
        np.zeros((1, 32), np.float32),
        np.array(tokens, np.float32).reshape(-1, 32),
        None,
        **shape,
        stamp=round(seconds * SECOND),
    )
