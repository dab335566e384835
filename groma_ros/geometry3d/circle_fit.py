"""Detect objects that are round about a vertical axis (balls, bottles, bowls, mugs, cones), whose visible
half determines the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.geometry3d.footprint import Footprint, convex_hull
from groma_ros.geometry3d.plane_ransac import product

Array = NDArray[np.float64]

_SPACING = 0.0015
_TRIPLES = 64
_WITHIN = 0.04
_NEAR_SHARE, _ALONE_SHARE, _TOP_SHARE = 0.75, 0.85, 0.7
_TOP = 0.12  # of the height
_TOP_ARC = 1.4 * np.pi
_SECTORS = 36
_ARC_POINTS = 1000  # to twice as many


@dataclass(frozen=True, eq=False)
class Circle:
    """The largest circle of an object about a vertical axis, metres."""

    centre: Array
    radius: float
    share: float
    """Share of the outline that lies on the circle."""


def find_round(local: Points, hull: Array, error: float) -> Circle | None:
    """Fit the circle of an object that is round about a vertical axis; None if it is not round.

    local: Nx3, metres, in the frame of `footprint.Axes`, with the support at 0; hull: their `convex_hull`;
    error: depth error in metres.
    Two outlines are tried: that of the near half, which the object itself never hides, and that of the top,
    which for a mug excludes the handle.
    """
    top = float(local[:, 2].max())
    rim = outline(hull)
    x, y = rim.T
    left, right = y.argmin(), y.argmax()
    widest = (x[left] + x[right]) / 2
    across = local[:, 1]
    half = (across.max() - across.min()) / 2
    near = find_circle(rim[x <= widest + 0.002], error)
    if near is not None and (near.share < _NEAR_SHARE or near.radius > 1.1 * half + error):
        near = None
    cap = local[local[:, 2] > top - max(_TOP * top, 2 * error)]
    upper = find_circle(outline(convex_hull(cap)), error) if len(cap) > 12 else None
    if upper is not None and (upper.share < _TOP_SHARE or arc(cap, upper.centre) < _TOP_ARC):
        upper = None
    if near is None:
        return upper if upper is not None and upper.radius > 0.4 * half else None
    if upper is None:
        beyond = _distances(local[:, 0], local[:, 1], near.centre) > 1.15 * near.radius + error
        return near if near.share > _ALONE_SHARE and np.count_nonzero(beyond) < 0.02 * len(beyond) else None
    if np.linalg.norm(near.centre - upper.centre) < 0.15 * near.radius + error:
        return near
    return upper if upper.radius > 0.75 * near.radius else None


def round_footprint(local: Points, circle: Circle, error: float) -> Footprint:
    """The square around the circle. Where the object extends beyond it, as with a handle, one side points
    there."""
    out = _distances(local[:, 0], local[:, 1], circle.centre) > 1.1 * circle.radius + error
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = circle.centre + circle.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    if np.count_nonzero(out) <= 8:
        return Footprint.along(ring, 0.0)
    beyond = local[out, :2]
    x, y = beyond.mean(0) - circle.centre
    return Footprint.along(np.concatenate([ring, beyond]), float(np.arctan2(y, x)))


def outline(hull: Array) -> Array:
    """Sample a convex hull (N, 2) at equal distances; (M, 2)."""
    ring = np.empty((2, len(hull) + 1))
    ring[:, :-1] = hull.T
    ring[:, -1] = hull[0]
    x, y = ring
    along = np.zeros(len(x))
    np.hypot(x[1:] - x[:-1], y[1:] - y[:-1]).cumsum(out=along[1:])
    if not along[-1] > 0:
        return hull[:1]
    at = np.arange(0, along[-1], max(_SPACING, along[-1] / 400))
    samples = np.empty((2, len(at)))
    samples[0], samples[1] = np.interp(at, along, x), np.interp(at, along, y)
    return samples.T


def find_circle(rim: Array, error: float) -> Circle | None:
    """The circle on which most of an outline (N, 2) lies, within `error` or 4 % of half the outline's extent;
    None for too few points."""
    if len(rim) < 12:
        return None
    rim = np.ascontiguousarray(rim.T)
    error = max(error, _WITHIN * float((rim.max(1) - rim.min(1)).max()) / 2)
    x, y, radii = _through(rim[:, _triples(rim.shape[1])])
    if not len(radii):
        return None
    best = _most_on(rim, x, y, radii, error)
    centre, radius = np.array([x[best], y[best]]), float(radii[best])
    inside = _on(rim, centre, radius, error)
    for _ in range(3):
        if np.count_nonzero(inside) < 8:
            return None
        centre, radius = _fit_circle(rim[:, inside])
        before, inside = inside, _on(rim, centre, radius, error)
        if (inside == before).all():
            break
    return Circle(centre, radius, np.count_nonzero(inside) / rim.shape[1])


@lru_cache(maxsize=512)
def _triples(count: int) -> NDArray[np.int64]:
    """Indices (3, K) of random triples among a number of points, the same at every call."""
    triples = np.random.default_rng(count).integers(0, count, (3, _TRIPLES))
    triples.flags.writeable = False  # it is shared by all calls
    return triples


def _through(triples: Array) -> tuple[Array, Array, Array]:
    """Centres x, y (K,) and radii (K,) of the circles through triples of points (2, 3, K) that are not nearly
    on a line: a centre is the intersection of the bisectors of two chords (Cramer's rule)."""
    a = triples[:, 0]
    (ux, uy), (vx, vy) = triples[:, 1] - a, triples[:, 2] - a
    cross = ux * vy - uy * vx
    # From a, half the square of each chord is its product with the way to the centre.
    ru, rv = (ux * ux + uy * uy) / 2, (vx * vx + vy * vy) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        way = np.stack([(ru * vy - rv * uy) / cross, (ux * rv - vx * ru) / cross])
    apart = np.abs(cross) > 1e-6
    way, a = way[:, apart], a[:, apart]
    return *(a + way), np.hypot(*way)


def _most_on(rim: Array, x: Array, y: Array, radii: Array, error: float) -> int:
    """Index of the circle with the most points (2, N) within `error` of it.

    |d - r| < e is |d^2 - r^2 - e^2| < 2 r e where r > e, and d^2 for all points and circles is one product.
    """
    middle = np.add.reduce(rim, 1) / rim.shape[1]
    px, py = rim - middle[:, None]
    a, b = x - middle[0], y - middle[1]
    circles = np.ones((len(a), 4), np.float32)
    circles[:, 0] = a * a + b * b - radii * radii - error * error
    circles[:, 1], circles[:, 2] = -2 * a, -2 * b
    points = np.ones((4, len(px)), np.float32)
    points[1], points[2], points[3] = px, py, px * px + py * py
    away = product(circles, points)
    near = np.abs(away, out=away) < (2 * error * radii)[:, None].astype(np.float32)
    return int(cv2.reduce(near.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).argmax())


def _on(rim: Array, centre: Array, radius: float, error: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(_distances(rim[0], rim[1], centre) - radius) < error)


def _distances(x: Array, y: Array, centre: Array) -> Array:
    """Distances of points from a centre."""
    x, y = x - centre[0], y - centre[1]
    return np.asarray(np.sqrt(x * x + y * y))


def _fit_circle(points: Array) -> tuple[Array, float]:
    """Least squares fit of x^2 + y^2 for points (2, N), which is linear in the centre (I. Kasa, 1976)."""
    middle = np.add.reduce(points, 1) / points.shape[1]
    x, y = points - middle[:, None]
    square = x * x + y * y
    # With the mean as origin, the normal equations of the centre do not depend on the radius.
    xx, xy, yy = float(x @ x), float(x @ y), float(y @ y)
    right, left = float(square @ x) / 2, float(square @ y) / 2
    determinant = xx * yy - xy * xy
    if determinant > 1e-12 * (xx + yy) ** 2:
        a, b = (yy * right - xy * left) / determinant, (xx * left - xy * right) / determinant
    else:  # on a line
        a, b = np.linalg.lstsq([[xx, xy], [xy, yy]], [right, left], rcond=None)[0]
    return middle + (a, b), math.sqrt(float(np.add.reduce(square)) / len(square) + a * a + b * b)


def arc(points: Points, centre: Array) -> float:
    """Angle in radians that points (N, 2 or more) span as seen from the centre. Large clouds
    are subsampled."""
    points = points[:: max(1, len(points) // _ARC_POINTS)]
    turn = np.arctan2(points[:, 1] - centre[1], points[:, 0] - centre[0])
    sectors = ((turn + np.pi) / (2 * np.pi) * _SECTORS).astype(np.int64) % _SECTORS
    return float(np.count_nonzero(np.bincount(sectors, minlength=_SECTORS)) / _SECTORS * 2 * np.pi)
