"""Find planes in a point cloud, such as the surface that objects stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.types import FloatArray, Intrinsics

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

    def height_of(self, depth: FloatArray, camera: Intrinsics) -> FloatArray:
        """Height of each pixel of a depth image (HxW, metres) above the plane, metres; NaN where the depth is
        NaN. Equal to `height` of its 3D points, without computing them."""
        x, y, z = self.normal
        across = x * (np.arange(depth.shape[1]) - camera.cx) / camera.fx
        down = y * (np.arange(depth.shape[0]) - camera.cy) / camera.fy
        slope = (across + (down[:, None] + z)).astype(np.float32)
        slope *= depth
        slope += np.float32(self.offset)
        return np.asarray(slope)


def find_planes(points: Points, most: int = 3, share: float = 0.08) -> Iterator[Plane]:
    """Find up to `most` planes in points (..., 3) of the optical frame, the one with the most points first;
    NaN points are skipped. The next one is searched for only when it is requested.

    share: minimum share of all points on a plane. RANSAC (Fischler and Bolles, 1981) with a generator of its
    own, so equal points give equal planes.
    """
    rest: Points = points.reshape(-1, 3)
    rest = rest[evenly(np.isfinite(rest[:, 2]))]
    least = max(_LEAST, share * len(rest))
    rng = np.random.default_rng(len(rest))
    for _ in range(most):
        if len(rest) < least:
            return
        tolerance = _tolerance(rest)
        inside = _consensus(rest, tolerance, rng)
        if np.count_nonzero(inside) < least:
            return
        plane = _refined(rest, inside, tolerance)
        yield plane
        # Points within the initial tolerance belong to this plane and must not form another one.
        rest = rest[np.abs(plane.height(rest)) >= tolerance]


def evenly(known: Mask) -> NDArray[np.intp]:
    """Flat indices of evenly spaced true pixels of a mask: all of them, or 1,500 to 3,000, as `find_planes`
    uses."""
    indices = np.flatnonzero(known)
    return indices[:: max(1, len(indices) // _SAMPLES)]


def _tolerance(points: Points) -> Array:
    """Maximum distance in metres of a point from its plane while the noise is unknown. Depth error grows with
    the square of the distance."""
    return np.asarray(0.004 + 0.004 * points[:, 2] ** 2)


def _consensus(points: Points, tolerance: Array, rng: np.random.Generator) -> Mask:
    """The largest set of points on one plane, among planes through three random points."""
    flat, bound = points.astype(np.float32), tolerance.astype(np.float32)
    a, b, c = flat[rng.integers(0, len(points), (3, _TRIPLES))]
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    normals[lengths > 0] /= lengths[lengths > 0, None]
    distances = np.einsum("ij,kj->ik", normals, flat)  # without BLAS, see footprint.py
    distances -= np.einsum("ij,ij->i", normals, a)[:, None]
    inside = np.abs(distances, out=distances) < bound
    counts = np.where(lengths > _SLIVER, np.count_nonzero(inside, axis=1), 0)
    best = int(counts.argmax())
    return np.asarray(inside[best] & bool(counts[best]))


def _refined(points: Points, inside: Mask, allowed: Array) -> Plane:
    """Refit the plane through points repeatedly to those close to it, as the noise becomes known. allowed:
    maximum distance of each."""
    normal: Array = np.zeros(3)
    offset, noise = 0.0, 0.0
    for _ in range(_ROUNDS):
        normal, offset = _fit(points[inside])
        distance = np.abs(points @ normal + offset)
        noise = 1.4826 * float(np.median(distance[distance < allowed]))
        closer = distance < np.minimum(allowed, max(_CLOSEST, 3 * noise))
        if (closer == inside).all():
            break
        inside = closer
    return Plane(normal, offset, noise) if offset > 0 else Plane(-normal, -offset, noise)


def _fit(points: Points) -> tuple[Array, float]:
    """Least squares: unit normal and offset. Near points weigh more, since depth error grows with the square
    of the distance."""
    weight = points[:, 2] ** -2
    centre = weight @ points / weight.sum()
    out = points - centre
    normal = np.linalg.eigh((out * weight[:, None]).T @ out)[1][:, 0]
    return normal, -float(normal @ centre)
