"""Find planes in a point cloud, such as the surface that objects stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_TRIPLES = 128
_SAMPLES = 1500
_LEAST = 60
_ROUNDS = 4
_CLOSEST = 0.0015
_SLIVER = 1e-6  # square metres


@dataclass(frozen=True, eq=False)
class Plane:
    """The points p with normal . p + offset = 0."""

    normal: Array
    """Unit vector, towards the camera."""
    offset: float
    noise: float
    """Robust standard deviation of its points, metres."""

    def height(self, points: Points) -> Array:
        """Height of points (..., 3) above the plane, metres, positive on the camera's side."""
        return np.asarray(points @ self.normal + self.offset)


def find_planes(points: Points, most: int = 3, share: float = 0.08) -> list[Plane]:
    """Find up to `most` planes in points (..., 3) of the optical frame, the one with the most points first;
    NaN points are skipped.

    share: minimum share of all points on a plane. RANSAC (Fischler and Bolles, 1981) with a generator of its
    own, so equal points give equal planes.
    """
    rest = points.reshape(-1, 3)
    rest = rest[np.isfinite(rest[:, 2])]
    rest = rest[:: max(1, len(rest) // _SAMPLES)]
    least = max(_LEAST, share * len(rest))
    rng = np.random.default_rng(len(rest))
    planes: list[Plane] = []
    while len(planes) < most and len(rest) >= least:
        inside = _consensus(rest, rng)
        if inside.sum() < least:
            break
        plane = _refined(rest, inside)
        planes.append(plane)
        # Points within the first tolerance belong to this plane and must not form another one.
        rest = rest[np.abs(plane.height(rest)) >= _tolerance(rest)]
    return planes


def _tolerance(points: Points) -> Array:
    """Maximum distance of a point from its plane before the noise is known, metres. Depth error grows with
    the square of the distance."""
    return np.asarray(0.004 + 0.004 * points[:, 2] ** 2)


def _consensus(points: Points, rng: np.random.Generator) -> Mask:
    """The largest set of points on one plane, among planes through three random points."""
    a, b, c = points[rng.integers(0, len(points), (3, _TRIPLES))].astype(np.float32)
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    normals[lengths > 0] /= lengths[lengths > 0, None]
    distances = np.abs(normals @ points.T.astype(np.float32) - (normals * a).sum(1)[:, None])
    inside = (distances < _tolerance(points)) & (lengths > _SLIVER)[:, None]
    return np.asarray(inside[int(inside.sum(1).argmax())])


def _refined(points: Points, inside: Mask) -> Plane:
    """Refit the plane through points repeatedly to those close to it, as the noise becomes known."""
    allowed = _tolerance(points)
    normal: Array = np.zeros(3)
    offset, noise = 0.0, 0.0
    for _ in range(_ROUNDS):
        normal, offset = _fit(points[inside])
        distance = np.abs(points @ normal + offset)
        noise = 1.4826 * float(np.median(distance[distance < allowed]))
        inside = distance < np.minimum(allowed, max(_CLOSEST, 3 * noise))
    return Plane(normal, offset, noise) if offset > 0 else Plane(-normal, -offset, noise)


def _fit(points: Points) -> tuple[Array, float]:
    """Least squares: unit normal and offset. Near points weigh more, since depth error grows with the square
    of the distance."""
    weight = 1 / points[:, 2:] ** 2
    centre = (points * weight).sum(0) / weight.sum()
    normal = np.linalg.svd((points - centre) * np.sqrt(weight), full_matrices=False)[2][-1]
    return normal, -float(normal @ centre)
