"""Estimate the ground that an object of any shape covers from its visible side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.geometry3d.plane_ransac import product, quantiles
from groma_ros.types import FloatArray, Intrinsics

Array = NDArray[np.float64]

_SAMPLES = 300
_STEPS = 4
_ROUNDING = 1e-5
"""Rounding error of products of two coordinates in float32, as a share of the square of the largest one."""
# Cost of doubling the covered ground, as a share of counterparts that contradict the depth
_GROWTH = 0.03
# distance in metres in front of the visible surface from which a counterpart certainly does not exist
_CLEARLY = 0.02


@dataclass(frozen=True, eq=False)
class SurfaceView:
    """A window of a depth image, HxW metres, with its own intrinsics."""

    depth: FloatArray
    camera: Intrinsics

    def clearance(self, x: Array, y: Array, z: Array) -> Array:
        """Distance in metres by which points in the optical frame lie in front of the surface seen at their
        pixels; negative behind it, NaN where depth is unknown. The coordinates have any shape."""
        height, width = self.depth.shape
        with np.errstate(divide="ignore", invalid="ignore"):
            column, row = x / z, y / z
            column *= self.camera.fx
            column += self.camera.cx + 0.5
            row *= self.camera.fy
            row += self.camera.cy + 0.5
            known = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0)
            # Of those that are not known the pixel is undefined and set to one that exists.
            pixels = row.astype(np.int32)
            pixels *= width
            pixels += column.astype(np.int32)
        pixels *= known
        ahead: Array = self.depth.take(pixels) - z
        ahead[~known] = np.nan
        return ahead


@dataclass(frozen=True, eq=False)
class Axes:
    """A frame on the support."""

    origin: Array
    """(3,), in the optical frame."""
    rows: Array
    """3x3, the axes: away from the camera, to its left, up."""

    def to_local(self, points: Points) -> Points:
        """Transform points (N, 3) from the optical frame to this one."""
        return _transformed(points, self.rows, -self.rows @ self.origin)

    def to_optical(self, points: Points) -> Points:
        """Transform points (N, 3) from this frame to the optical frame."""
        return _transformed(points, self.rows.T, self.origin)


def _transformed(points: Points, rotation: Array, shift: Array) -> Points:
    """Compute rotation @ p + shift for points (..., 3); each coordinate is contiguous in the result."""
    if not points.size:  # OpenCV rejects empty arrays
        return np.zeros(points.shape)
    coordinates = np.ascontiguousarray(points.reshape(-1, 3).T, np.float64)
    turned = product(np.ascontiguousarray(rotation, np.float64), coordinates)
    turned += np.reshape(shift, (3, 1))
    return np.asarray(turned.T.reshape(points.shape))


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
        """The rectangle around points (N, 2) with one side at a given angle."""
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        turned = points @ turn.T
        low, high = turned.min(0), turned.max(0)
        centre, sides = turn.T @ ((low + high) / 2), high - low
        return (
            cls(centre, sides, angle)
            if sides[0] >= sides[1] * (1 - 1e-6)
            else cls(centre, sides[::-1], angle + np.pi / 2)
        )


def hidden_counterparts(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Points:
    """The hidden counterparts (M, 3) of points (N, 3, in the axes' frame), rotated by 180 degrees about a
    vertical axis.

    Most objects on a table look similar from behind and from the front. The axis is chosen where the fewest
    counterparts contradict the depth image, and among equals where they add the least area. Only hidden
    counterparts are returned, so that a handle is not doubled. slack: depth error, metres.
    """
    centre = _half_turn_axis(local, axes, view, slack)
    turned = _turned(local, centre)
    return turned[view.clearance(*axes.to_optical(turned).T) <= slack]


def _half_turn_axis(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Array:
    """Search the axis from coarse to fine over the ground covered by the points and the ground behind it."""
    points = local[:: max(1, len(local) // _SAMPLES)]
    low, high = (quantiles(points.T[:2], share) for share in (0.005, 0.995))
    span = np.maximum(high - low, 1e-3)
    # The counterpart of p is 2 c - p on the ground: the part that does not depend on the axis c.
    fixed = axes.to_optical(points * (-1.0, -1.0, 1.0)).T.astype(np.float32)

    def cost(candidates: Array) -> Array:
        moved = 2 * (axes.rows[:2].T @ candidates.T)
        x, y, z = moved[:, :, None].astype(np.float32) + fixed[:, None]
        wrong = view.clearance(x, y, z)
        wrong -= np.float32(slack)
        wrong *= np.float32(1 / _CLEARLY)
        # NaN is unknown depth, which contradicts nothing: np.fmax turns it into 0.
        wrong = np.minimum(np.fmax(wrong, 0, out=wrong), 1, out=wrong).mean(1)
        reach = np.maximum(high, 2 * candidates - low) - np.minimum(low, 2 * candidates - high)
        return np.asarray(wrong + _GROWTH * ((reach / span).prod(1) - 1))

    centre, step = (low + high) / 2, span.max() / 8
    behind = 4  # steps; the hidden part is on the far side
    for _ in range(_STEPS):
        grid = np.mgrid[-2 : behind + 1, -2:3].reshape(2, -1).T
        candidates = centre + grid * step
        centre = candidates[int(cost(candidates).argmin())]
        step, behind = step / 2.2, 2
    return np.asarray(centre)


def _turned(points: Points, centre: Array) -> Points:
    x, y, z = points.T
    return np.stack([2 * centre[0] - x, 2 * centre[1] - y, z]).T


def smallest_rectangle(points: Points) -> Footprint:
    """The smallest rectangle around the first two coordinates of points (N, 2 or more)."""
    hull = convex_hull(points)
    _, _, degrees = cv2.minAreaRect((hull * 1000).astype(np.float32))
    return Footprint.along(hull, float(np.deg2rad(degrees)))


def convex_hull(points: Points) -> Array:
    """Corners (M, 2) of the convex hull of the first two coordinates of points (N, 2 or more), metres.

    Most points lie inside the octagon of the farthest points in eight directions, and are discarded first
    (Akl and Toussaint, 1978).
    """
    flat = np.ones((3, len(points)), np.float32)
    flat[:2] = points[:, :2].T * 1000  # OpenCV works in float32: millimetres
    x, y, _ = flat
    along = x, x + y, y, y - x  # four of eight directions, the others are their opposites
    farthest = [*(item.argmax() for item in along), *(item.argmin() for item in along)]
    corners = flat[:2, [*farthest, farthest[0]]]
    across, up = corners[:, 1:] - corners[:, :-1]
    # Keep points on a side, and points so close to it that rounding decides on which side they are.
    near = _ROUNDING * np.abs(corners).max() ** 2
    sides = np.empty((8, 3), np.float32)
    sides[:, 0], sides[:, 1] = up, -across
    sides[:, 2] = near - (up * corners[0, :-1] - across * corners[1, :-1])
    point = (up == 0) & (across == 0)  # two of the eight are the same
    if point.any() and not point.all():
        sides[point, 2] = -1
    outside = cv2.reduce(product(sides, flat), 0, cv2.REDUCE_MAX)[0] >= 0
    hull = cv2.convexHull(np.ascontiguousarray(flat[:2, outside].T))
    return np.asarray(hull[:, 0].astype(np.float64) / 1000)
