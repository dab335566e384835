"""Detect objects that are round about a vertical axis (balls, bottles, bowls, mugs, cones), whose visible
half determines the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.geometry3d.footprint import Footprint, convex_hull

Array = NDArray[np.float64]

_SPACING = 0.0015
_TRIPLES = 64
_WITHIN = 0.04
_NEAR_SHARE, _ALONE_SHARE, _TOP_SHARE = 0.75, 0.85, 0.7
_TOP = 0.12  # of the height
_TOP_ARC = 1.4 * np.pi
_SECTORS = 36


@dataclass(frozen=True, eq=False)
class Circle:
    """The largest circle of an object about a vertical axis, metres."""

    centre: Array
    radius: float
    share: float
    """Share of the outline that lies on the circle."""


def find_round(local: Points, error: float) -> Circle | None:
    """Fit the circle of an object that is round about a vertical axis; None if it is not round.

    local: Nx3, metres, in the frame of `footprint.Axes`, with the support at 0; error: depth error in metres.
    Two outlines are tried: that of the near half, which the object itself never hides, and that of the top,
    which for a mug excludes the handle.
    """
    top = float(local[:, 2].max())
    rim = outline(local)
    widest = rim[[rim[:, 1].argmin(), rim[:, 1].argmax()], 0].mean()
    half = np.ptp(local[:, 1]) / 2
    near = find_circle(rim[rim[:, 0] <= widest + 0.002], error)
    if near is not None and (near.share < _NEAR_SHARE or near.radius > 1.1 * half + error):
        near = None
    cap = local[local[:, 2] > top - max(_TOP * top, 2 * error)]
    upper = find_circle(outline(cap), error) if len(cap) > 12 else None
    if upper is not None and (upper.share < _TOP_SHARE or arc(cap, upper.centre) < _TOP_ARC):
        upper = None
    if near is None:
        return upper if upper is not None and upper.radius > 0.4 * half else None
    if upper is None:
        beyond = np.linalg.norm(local[:, :2] - near.centre, axis=1) > 1.15 * near.radius + error
        return near if near.share > _ALONE_SHARE and beyond.mean() < 0.02 else None
    if np.linalg.norm(near.centre - upper.centre) < 0.15 * near.radius + error:
        return near
    return upper if upper.radius > 0.75 * near.radius else None


def round_footprint(local: Points, circle: Circle, error: float) -> Footprint:
    """The square around the circle. Where the object extends beyond it, as with a handle, one side points
    there."""
    offset = local[:, :2] - circle.centre
    out = np.linalg.norm(offset, axis=1) > 1.1 * circle.radius + error
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = circle.centre + circle.radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    if out.sum() <= 8:
        return Footprint.along(ring, 0.0)
    x, y = offset[out].mean(0)
    return Footprint.along(np.concatenate([ring, local[out, :2]]), float(np.arctan2(y, x)))


def outline(points: Points) -> Array:
    """Sample the convex hull of points (N, 2 or more) on the ground at equal distances; (M, 2)."""
    hull = convex_hull(points)
    ring = np.concatenate([hull, hull[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(ring, axis=0), axis=1))])
    at = np.arange(0, along[-1], max(_SPACING, along[-1] / 400))
    return np.stack([np.interp(at, along, ring[:, axis]) for axis in (0, 1)], 1)


def find_circle(rim: Array, error: float) -> Circle | None:
    """The circle on which most of an outline (N, 2) lies, within `error` or 4 % of half the outline's extent;
    None for too few points."""
    if len(rim) < 12:
        return None
    error = max(error, _WITHIN * float(np.ptp(rim, axis=0).max()) / 2)
    rng = np.random.default_rng(len(rim))
    a, b, c = rim[rng.integers(0, len(rim), (3, _TRIPLES))]
    # The centre is the intersection of the bisectors of two chords (Cramer's rule).
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    cross = ux * vy - uy * vx
    apart = np.abs(cross) > 1e-6
    if not apart.any():
        return None
    ru, rv = ((a + b) * (b - a)).sum(1) / 2, ((a + c) * (c - a)).sum(1) / 2
    centres = np.stack([ru * vy - rv * uy, ux * rv - vx * ru], 1)[apart] / cross[apart, None]
    radii = _distances(a[apart], centres)
    away = _distances(rim[None], centres[:, None])
    away -= radii[:, None]
    best = int(np.count_nonzero(np.abs(away, out=away) < error, axis=1).argmax())
    centre, radius = centres[best], float(radii[best])
    for _ in range(3):
        inside = _on(rim, centre, radius, error)
        if inside.sum() < 8:
            return None
        centre, radius = _fit_circle(rim[inside])
    return Circle(centre, radius, float(_on(rim, centre, radius, error).mean()))


def _on(rim: Array, centre: Array, radius: float, error: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(_distances(rim, centre) - radius) < error)


def _distances(points: Array, centres: Array) -> Array:
    """Distances of points (..., 2) from centres (..., 2)."""
    x, y = points[..., 0] - centres[..., 0], points[..., 1] - centres[..., 1]
    return np.asarray(np.sqrt(x * x + y * y))


def _fit_circle(points: Array) -> tuple[Array, float]:
    """Least squares fit of x^2 + y^2, which is linear in the centre (I. Kasa, 1976)."""
    middle = points.mean(0)
    offset = points - middle
    square = (offset * offset).sum(1)
    # With the mean as origin, the normal equations of the centre do not depend on the radius.
    x, y = np.linalg.lstsq(2 * offset.T @ offset, square @ offset, rcond=None)[0]
    return middle + (x, y), float(np.sqrt(square.mean() + x * x + y * y))


def arc(points: Points, centre: Array) -> float:
    """Angle in radians that points (N, 2 or more) span as seen from the centre."""
    x, y = (points[:, :2] - centre).T
    sectors = ((np.arctan2(y, x) + np.pi) / (2 * np.pi) * _SECTORS).astype(np.int64) % _SECTORS
    return float(len(np.unique(sectors)) / _SECTORS * 2 * np.pi)
