"""Estimate the ground that an object of any shape covers from its visible side."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.types import FloatArray, Intrinsics

Array = NDArray[np.float64]

_SAMPLES = 300
_STEPS = 4
_DIRECTIONS = np.array([[1, 0], [1, 1], [0, 1], [-1, 1]], np.float32)
"""Four of the eight directions of `convex_hull`, anticlockwise; the others are their opposites."""
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

    def clearance(self, points: Points) -> Array:
        """Distance in metres by which points (N, 3) lie in front of the surface seen at their pixels;
        negative behind it, NaN where depth is unknown."""
        height, width = self.depth.shape
        x, y, z = np.asarray(points, np.float64).T
        with np.errstate(divide="ignore", invalid="ignore"):
            column = np.rint(x / z * self.camera.fx + self.camera.cx)
            row = np.rint(y / z * self.camera.fy + self.camera.cy)
        known = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        ahead = np.full(len(points), np.nan)
        pixels = row[known].astype(np.intp) * width + column[known].astype(np.intp)
        ahead[known] = self.depth.ravel()[pixels] - z[known]
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
    """Compute rotation @ p + shift for points (..., 3).

    Uses OpenCV, in this thread: a matrix product in numpy's BLAS starts threads that keep spinning for longer
    than the whole 3D box takes.
    """
    if not points.size:  # OpenCV rejects empty arrays
        return np.zeros(points.shape)
    matrix = np.column_stack([rotation, shift])
    flat = cv2.transform(np.ascontiguousarray(points, np.float64).reshape(-1, 1, 3), matrix)
    return np.asarray(flat.reshape(points.shape))


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

    Most objects on a table look similar from behind and from the front. The axis is chosen where the fewest
    counterparts contradict the depth image, and among equals where they add the least area. Only hidden
    counterparts are kept, so that a handle is not doubled. slack: depth error, metres.
    """
    centre = _half_turn_axis(local, axes, view, slack)
    turned = _turned(local, centre)
    hidden = view.clearance(axes.to_optical(turned)) <= slack
    return np.concatenate([local, turned[hidden]])


def _half_turn_axis(local: Points, axes: Axes, view: SurfaceView, slack: float) -> Array:
    """Search the axis from coarse to fine over the ground covered by the points and the ground behind it."""
    points = local[:: max(1, len(local) // _SAMPLES)]
    low, high = np.quantile(points[:, :2], [0.005, 0.995], axis=0)
    span = np.maximum(high - low, 1e-3)

    def cost(candidates: Array) -> Array:
        turned = np.empty((len(candidates), *points.shape))
        turned[..., :2] = 2 * candidates[:, None] - points[:, :2]
        turned[..., 2] = points[:, 2]
        ahead = view.clearance(axes.to_optical(turned.reshape(-1, 3))).reshape(len(candidates), -1)
        # NaN is unknown depth, which contradicts nothing: np.fmax turns it into 0.
        wrong = np.minimum(np.fmax((ahead - slack) / _CLEARLY, 0.0), 1.0).mean(1)
        reach = np.maximum(high, 2 * candidates - low) - np.minimum(low, 2 * candidates - high)
        return np.asarray(wrong + _GROWTH * ((reach / span).prod(1) - 1))

    centre, step = (low + high) / 2, span.max() / 8
    behind = 4  # steps; the hidden part is on the far side
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
    hull = convex_hull(points)
    _, _, degrees = cv2.minAreaRect((hull * 1000).astype(np.float32))
    return Footprint.along(hull, float(np.deg2rad(degrees)))


def convex_hull(points: Points) -> Array:
    """Corners (M, 2) of the convex hull of the first two coordinates of points (N, 2 or more), metres.

    Most points lie inside the octagon of the farthest points in eight directions, and are discarded first
    (Akl and Toussaint, 1978).
    """
    # OpenCV works in float32, so use millimetres.
    flat = np.ascontiguousarray(points[:, :2].T * 1000, np.float32)
    along = np.einsum("ij,jk->ik", _DIRECTIONS, flat)  # no BLAS, see `_transformed`
    corners = flat[:, np.concatenate([along.argmax(1), along.argmin(1)])]
    sides = np.roll(corners, -1, axis=1) - corners
    outwards = np.stack([sides[1], -sides[0]], 1)
    # Keep points on a side, and points so close to it that rounding decides on which side they are.
    near = _ROUNDING * np.abs(corners).max() ** 2
    outside = (np.einsum("ij,jk->ik", outwards, flat) >= (outwards.T * corners).sum(0)[:, None] - near).any(0)
    hull = cv2.convexHull(np.ascontiguousarray(flat[:, outside].T))
    return np.asarray(hull[:, 0].astype(np.float64) / 1000)
