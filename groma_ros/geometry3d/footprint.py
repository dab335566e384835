"""From the visible side of a thing to the ground that all of it covers, for things of any shape."""

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
    """A part of a depth image, HxW metres, and its own pinhole."""

    depth: FloatArray
    camera: Intrinsics

    def clearance(self, points: Points) -> Array:
        """Metres by which points (N, 3) lie in front of the surface seen there; negative behind it, NaN where
        nothing is known."""
        pixels = project(points, self.camera)
        height, width = self.depth.shape
        known = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(1)
        column, row = np.rint(pixels[known]).astype(np.int64).T
        seen = np.full(len(points), np.nan)
        seen[known] = self.depth[row, column]
        return seen - points[:, 2]


@dataclass(frozen=True, eq=False)
class Axes:
    """A frame on the support. origin: 3, optical frame; rows: 3x3, its axes: away from the camera, to its
    left, up."""

    origin: Array
    rows: Array

    def to_local(self, points: Points) -> Points:
        """Points (N, 3) of the optical frame in this one."""
        return np.asarray((points - self.origin) @ self.rows.T)

    def to_optical(self, points: Points) -> Points:
        """And back."""
        return np.asarray(points @ self.rows + self.origin)


@dataclass(frozen=True, eq=False)
class Footprint:
    """A rectangle on the support, in its frame: centre (2), sides (2), the longer first, and the longer one's
    angle, radians."""

    centre: Array
    sides: Array
    angle: float

    @classmethod
    def along(cls, points: Array, angle: float) -> Footprint:
        """The rectangle around points (N, 2) with a side at an angle."""
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
    """The points (N, 3, in the axes' frame) and their hidden counterparts: turned by half about an upright
    axis.

    Most things that stand on a table look much the same from behind as from the front. The axis is where the
    fewest counterparts would have been seen, and were not; among such places, where they add least. Only
    counterparts that something hides are kept, so a handle is not doubled. slack: metres by which depth errs.
    """
    centre = _half_turn_axis(local, axes, view, slack)
    turned = _turned(local, centre)
    hidden = view.clearance(axes.to_optical(turned)) <= slack
    return np.concatenate([local, turned[hidden]])


def _half_turn_axis(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Array:
    """Coarse to fine over the ground that the points cover and what lies behind it."""
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
    behind = 4  # steps; what is hidden lies away from the camera
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
    """The smallest rectangle around points (N, 2 or more), of which the first two coordinates count."""
    flat = points[:, :2]
    hull = cv2.convexHull(np.ascontiguousarray(flat * 1000, np.float32))[
        :, 0
    ]  # OpenCV works in float32: millimetres
    _, _, degrees = cv2.minAreaRect(hull)
    return Footprint.along(hull.astype(np.float64) / 1000, float(np.deg2rad(degrees)))
