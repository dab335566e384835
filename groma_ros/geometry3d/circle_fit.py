"""Detect objects that are round about a vertical axis (balls, bottles, bowls, mugs, cones), whose visible
half determines the whole."""

from __future__ import annotations

from dataclasses import dataclass

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
    widest = rim[[rim[:, 1].argmin(), rim[:, 1].argmax()], 0].mean()
    half = np.ptp(local[:, 1]) / 2
    near = find_circle(rim[rim[:, 0] <= widest + 0.002], error)
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
    ring = np.concatenate([hull, hull[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*(ring[1:] - ring[:-1]).T))])
    if not along[-1] > 0:
        return hull[:1]
    at = np.arange(0, along[-1], max(_SPACING, along[-1] / 400))
    return np.stack([np.interp(at, along, ring[:, axis]) for axis in (0, 1)]).T


def find_circle(rim: Array, error: float) -> Circle | None:
    """The circle on which most of an outline (N, 2) lies, within `error` or 4 % of half the outline's extent;
    None for too few points."""
    if len(rim) < 12:
        return None
    error = max(error, _WITHIN * float(np.ptp(rim, axis=0).max()) / 2)
    centres, radii = _through(rim[np.random.default_rng(len(rim)).integers(0, len(rim), (3, _TRIPLES))])
    if not len(centres):
        return None
    x, y = rim.T
    best = _most_on(x, y, centres, radii, error)
    centre, radius = centres[best], float(radii[best])
    inside = _on(x, y, centre, radius, error)
    for _ in range(3):
        if np.count_nonzero(inside) < 8:
            return None
        centre, radius = _fit_circle(x[inside], y[inside])
        before, inside = inside, _on(x, y, centre, radius, error)
        if (inside == before).all():
            break
    return Circle(centre, radius, np.count_nonzero(inside) / len(x))


def _through(triples: Array) -> tuple[Array, Array]:
    """Centres (K, 2) and radii (K,) of the circles through triples of points (3, K, 2) that are not nearly on
    a line: a centre is the intersection of the bisectors of two chords (Cramer's rule)."""
    (ax, ay), (bx, by), (cx, cy) = triples.transpose(0, 2, 1)
    ux, uy, vx, vy = bx - ax, by - ay, cx - ax, cy - ay
    cross = ux * vy - uy * vx
    apart = np.abs(cross) > 1e-6
    ux, uy, vx, vy, ax, ay, cross = (item[apart] for item in (ux, uy, vx, vy, ax, ay, cross))
    # From a, half the square of each chord is its product with the way to the centre.
    ru, rv = (ux * ux + uy * uy) / 2, (vx * vx + vy * vy) / 2
    x, y = (ru * vy - rv * uy) / cross, (ux * rv - vx * ru) / cross
    return np.stack([ax + x, ay + y], 1), np.hypot(x, y)


def _most_on(x: Array, y: Array, centres: Array, radii: Array, error: float) -> int:
    """Index of the circle with the most points within `error` of it.

    |d - r| < e is |d^2 - r^2 - e^2| < 2 r e where r > e, and d^2 for all points and circles is one product.
    """
    middle_x, middle_y = x.mean(), y.mean()
    x, y, a, b = x - middle_x, y - middle_y, centres[:, 0] - middle_x, centres[:, 1] - middle_y
    circles = np.stack([a * a + b * b - radii * radii - error * error, -2 * a, -2 * b, np.ones(len(a))], 1)
    points = np.stack([np.ones(len(x)), x, y, x * x + y * y])
    away = product(circles.astype(np.float32), points.astype(np.float32))
    near = np.abs(away, out=away) < (2 * error * radii)[:, None].astype(np.float32)
    return int(cv2.reduce(near.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).argmax())


def _on(x: Array, y: Array, centre: Array, radius: float, error: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(_distances(x, y, centre) - radius) < error)


def _distances(x: Array, y: Array, centre: Array) -> Array:
    """Distances of points from a centre."""
    return np.asarray(np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2))


def _fit_circle(x: Array, y: Array) -> tuple[Array, float]:
    """Least squares fit of x^2 + y^2, which is linear in the centre (I. Kasa, 1976)."""
    middle = np.array([x.mean(), y.mean()])
    x, y = x - middle[0], y - middle[1]
    square = x * x + y * y
    # With the mean as origin, the normal equations of the centre do not depend on the radius.
    xx, xy, yy = float(x @ x), float(x @ y), float(y @ y)
    right, left = float(square @ x) / 2, float(square @ y) / 2
    determinant = xx * yy - xy * xy
    if determinant > 1e-12 * (xx + yy) ** 2:
        a, b = (yy * right - xy * left) / determinant, (xx * left - xy * right) / determinant
    else:  # on a line
        a, b = np.linalg.lstsq([[xx, xy], [xy, yy]], [right, left], rcond=None)[0]
    return middle + (a, b), float(np.sqrt(square.mean() + a * a + b * b))


def arc(points: Points, centre: Array) -> float:
    """Angle in radians that points (N, 2 or more) span as seen from the centre. Large clouds
    are subsampled."""
    points = points[:: max(1, len(points) // _ARC_POINTS)]
    turn = np.arctan2(points[:, 1] - centre[1], points[:, 0] - centre[0])
    sectors = ((turn + np.pi) / (2 * np.pi) * _SECTORS).astype(np.int64) % _SECTORS
    return float(np.count_nonzero(np.bincount(sectors, minlength=_SECTORS)) / _SECTORS * 2 * np.pi)
