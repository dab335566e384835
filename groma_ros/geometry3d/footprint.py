"""Estimate the ground that an object of any shape covers from its visible side."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points, project
from groma_ros.types import FloatArray, Intrinsics

Array = NDArray[np.float64]

_SAMPLES = 300
_STEPS = 4
# What the doubling of the ground covered costs, in shares of counterparts that are seen not to be there
_GROWTH = 0.03
_CLEARLY = 0.02  # metres in front of what is seen from which a counterpart is surely not there


@dataclass(frozen=True, eq=False)
class SurfaceView:
    """A window of a depth image, HxW metres, with its own intrinsics."""

    depth: FloatArray
    camera: Intrinsics

    def clearance(self, points: Points) -> Array:
        """Distance in metres by which points (N, 3) lie in front of the surface seen at their pixels;
        negative behind it, NaN where depth is unknown."""
        pixels = project(points, self.camera)
        height, width = self.depth.shape
        known = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(1)
        column, row = np.rint(pixels[known]).astype(np.int64).T
        seen = np.full(len(points), np.nan)
        seen[known] = self.depth[row, column]
        return seen - points[:, 2]


@dataclass(frozen=True, eq=False)
class Axes:
    """A frame on the support."""

    origin: Array
    """(3,), in the optical frame."""
    rows: Array
    """3x3, the axes: away from the camera, to its left, up."""

    def to_local(self, points: Points) -> Points:
        """Transform points (N, 3) from the optical frame to this one."""
        return np.asarray((points - self.origin) @ self.rows.T)

    def to_optical(self, points: Points) -> Points:
        """Transform points (N, 3) from this frame to the optical frame."""
        return np.asarray(points @ self.rows + self.origin)


@dataclass(frozen=True, eq=False)
class Footprint:
    """A rectangle on the support, in its frame."""

    centre: Array
    """(2,), metres."""
    sides: Array
    """(2,), metres, the longer one first."""
    angle: float
    """Direction of the longer side, radians."""

    @classmethod
    def along(cls, points: Array, angle: float) -> Footprint:
        """The rectangle around points (N, 2) with one side at an angle."""
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        turned = points @ turn.T
        low, high = turned.min(0), turned.max(0)
        centre, sides = turn.T @ ((low + high) / 2), high - low
        return (
            cls(centre, sides, angle)
            if sides[0] >= sides[1] * (1 - 1e-6)
            else cls(centre, sides[::-1], angle + np.pi / 2)
        )


def complete(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Points:
    """Add hidden counterparts to points (N, 3, in the axes' frame), rotated by 180 degrees about a vertical
    axis.

    Most objects on a table look similar from behind and from the front. The axis chosen is where the fewest
    counterparts contradict the depth image; among equals, where they add least area. Only counterparts that
    are hidden are kept, so a handle is not doubled. slack: depth error, metres.
    """
    centre = _half_turn_axis(local, axes, view, slack)
    turned = _turned(local, centre)
    hidden = view.clearance(axes.to_optical(turned)) <= slack
    return np.concatenate([local, turned[hidden]])


def _half_turn_axis(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Array:
    """Search the axis from coarse to fine over the ground that the points cover and what lies behind."""
    points = local[:: max(1, len(local) // _SAMPLES)]
    low, high = np.quantile(points[:, :2], [0.005, 0.995], axis=0)
    span = np.maximum(high - low, 1e-3)

    def cost(candidates: Array) -> Array:
        turned = np.concatenate([_turned(points, at) for at in candidates])
        ahead = view.clearance(axes.to_optical(turned)).reshape(len(candidates), -1) - slack
        wrong = np.clip(np.nan_to_num(ahead, nan=0.0) / _CLEARLY, 0, 1).mean(1)
        reach = np.maximum(high, 2 * candidates - low) - np.minimum(low, 2 * candidates - high)
        return np.asarray(wrong + _GROWTH * ((reach / span).prod(1) - 1))

    centre, step = (low + high) / 2, span.max() / 8
    behind = 4  # steps; the hidden part lies away from the camera
    for _ in range(_STEPS):
        grid = np.stack(np.meshgrid(np.arange(-2, behind + 1), np.arange(-2, 3), indexing="ij"), -1).reshape(
            -1, 2
        )
        candidates = centre + grid * step
        centre = candidates[int(cost(candidates).argmin())]
        step, behind = step / 2.2, 2
    return np.asarray(centre)


def _turned(points: Points, centre: Array) -> Points:
    return np.column_stack([2 * centre - points[:, :2], points[:, 2]])


def smallest_rectangle(points: Points) -> Footprint:
    """The smallest rectangle around the first two coordinates of points (N, 2 or more)."""
    flat = points[:, :2]
    hull = cv2.convexHull(np.ascontiguousarray(flat * 1000, np.float32))[
        :, 0
    ]  # OpenCV works in float32: millimetres
    _, _, degrees = cv2.minAreaRect(hull)
    return Footprint.along(hull.astype(np.float64) / 1000, float(np.deg2rad(degrees)))
