"""Depth of simple solids by ray casting, in any camera: independent ground truth for 3D boxes, metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import Frame, Intrinsics

CAMERA = Intrinsics(500.0, 500.0, 159.5, 119.5, 320, 240)


@dataclass(frozen=True)
class Cuboid:
    """An upright box. at: middle of its base; yaw: radians."""

    at: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0

    def cast(self, start: NDArray[Any], rays: NDArray[Any]) -> NDArray[Any]:
        turn = turned(self.yaw)
        centre = np.array(self.at) + [0, 0, self.size[2] / 2]
        o, d = (start - centre) @ turn, rays @ turn
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (-np.array(self.size) / 2 - o) / d, (np.array(self.size) / 2 - o) / d
        near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        return np.where((near <= far) & (near > 0), near, np.inf)


@dataclass(frozen=True)
class Ball:
    """A ball. at: its lowest point."""

    at: tuple[float, float, float]
    radius: float

    def cast(self, start: NDArray[Any], rays: NDArray[Any]) -> NDArray[Any]:
        o = start - (np.array(self.at) + [0, 0, self.radius])
        a, b, c = (rays**2).sum(-1), (rays * o).sum(-1), o @ o - self.radius**2
        root = b * b - a * c
        return np.where(root >= 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


@dataclass(frozen=True)
class Ground:
    """A level plane."""

    z: float = 0.0

    def cast(self, start: NDArray[Any], rays: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(divide="ignore"):
            t = (self.z - start[2]) / rays[..., 2]
        return np.where(t > 0, t, np.inf)


def turned(yaw: float) -> NDArray[Any]:
    """3x3 rotation about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def look(
    azimuth: float, elevation: float, distance: float, roll: float = 0.0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A camera that looks at the origin: position, and 3x3 with its axes right, down, forward as columns.
    Radians, metres."""
    back = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    down = np.cross(-back, right)
    c, s = np.cos(roll), np.sin(roll)
    return distance * back, np.stack([c * right + s * down, c * down - s * right, -back], 1)


def render(
    solids: Sequence[object], pose: tuple[NDArray[Any], NDArray[Any]], camera: Intrinsics = CAMERA
) -> tuple[Frame, NDArray[Any]]:
    """A frame with depth (float32, NaN where a ray hits nothing), and which solid each pixel shows, -1 for
    none."""
    start, axes = pose
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = (
        np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(rows.shape)], -1)
        @ axes.T
    )
    depths = np.stack([solid.cast(start, rays) for solid in solids])  # type: ignore[attr-defined]
    nearest = depths.min(0)
    labels = np.where(np.isfinite(nearest), depths.argmin(0), -1)
    depth = np.where(np.isfinite(nearest), nearest, np.nan).astype(np.float32)
    rgb = np.zeros((camera.height, camera.width, 3), np.uint8)
    return Frame(rgb, frame_id="camera", depth=depth, intrinsics=camera), labels


def box_of(labels: NDArray[Any], index: int) -> tuple[float, float, float, float]:
    """The xyxy box around a solid's pixels, ends exclusive."""
    rows, columns = np.nonzero(labels == index)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def to_world(point: Sequence[float], pose: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
    """A point of the optical frame in the world."""
    return np.asarray(pose[0] + pose[1] @ np.asarray(point))
