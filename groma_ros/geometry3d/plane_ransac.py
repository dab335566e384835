"""Find planes in a point cloud, such as the surface that objects stand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import Points
from groma_ros.types import FloatArray, Intrinsics

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_TRIPLES = 128
_BATCH = 32
_MISSED = 0.001
_SAMPLES = 1500
_LEAST = 60
_ROUNDS = 4
_CLOSEST = 0.0015
_SMALL = 200_000  # multiplications; OpenBLAS starts threads above 262,144
_SLIVER = 1e-6  # square metres
_NOWHERE = 1e30  # metres; products with infinity are no number in kernels of OpenBLAS that pad with zeros


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


def quantile(values: NDArray[np.floating], share: float) -> float:
    """The linear quantile of values (N,) as of numpy, which takes longer to call than to compute."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    part = values.copy()
    part.partition((low, high))
    return float(part[low]) + (place - low) * (float(part[high]) - float(part[low]))


def quantiles(rows: Array, share: float) -> Array:
    """The `quantile` of each row of values (K, N); float64 K."""
    place = share * (rows.shape[1] - 1)
    low = int(place)
    high = min(low + 1, rows.shape[1] - 1)
    part = rows.copy()
    part.partition((low, high), 1)
    return np.asarray(part[:, low] + (place - low) * (part[:, high] - part[:, low]))


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The matrix product of two matrices of the same type, float32 or float64, computed in this thread.

    For a large one numpy's BLAS starts threads, which go on spinning afterwards for longer than a whole box
    takes: OpenCV computes it, in three times the time of one thread of BLAS.
    """
    if a.size * b.shape[1] <= _SMALL:
        return np.asarray(a @ b)
    nothing: Any = None
    return np.asarray(cv2.gemm(a, b, 1.0, nothing, 0.0))


def _tolerance(points: Points) -> Array:
    """Maximum distance in metres of a point from its plane while the noise is unknown. Depth error grows with
    the square of the distance."""
    return np.asarray(0.004 + 0.004 * points[:, 2] ** 2)


def _consensus(points: Points, tolerance: Array, rng: np.random.Generator) -> Mask:
    """The largest set of points on one plane, among planes through three random points: `_TRIPLES`, or as
    many as find the largest set but for a chance of `_MISSED`."""
    homogeneous = np.ones((4, len(points)), np.float32)
    homogeneous[:3] = points.T
    planes = _through(homogeneous[:3, rng.integers(0, len(points), (3, _TRIPLES))])
    bound = tolerance.astype(np.float32)
    best, inside = 0, np.zeros(len(points), np.bool_)
    for start in range(0, _TRIPLES, _BATCH):
        distances = product(planes[start : start + _BATCH], homogeneous)
        near = np.abs(distances, out=distances) < bound
        counts = cv2.reduce(near.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        found = int(counts.argmax())
        if counts[found] > best:
            best, inside = int(counts[found]), near[found]
        if (1 - (best / len(points)) ** 3) ** (start + _BATCH) < _MISSED:
            break
    return inside


def _through(triples: FloatArray) -> FloatArray:
    """Planes (K, 4), unit normal and offset, through triples of points (3 coordinates, 3 points, K). No point
    is near the plane of a triple that is nearly on a line."""
    a = triples[:, 0]
    (ux, uy, uz), (vx, vy, vz) = triples[:, 1] - a, triples[:, 2] - a
    planes = np.empty((4, ux.size), np.float32)
    normals = planes[:3]
    normals[0], normals[1], normals[2] = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    lengths = np.sqrt(np.add.reduce(normals * normals, 0))
    flat = lengths <= _SLIVER
    lengths[flat] = 1
    normals /= lengths
    planes[3] = -np.add.reduce(normals * a, 0)
    planes[:3, flat], planes[3, flat] = 0, _NOWHERE
    return planes.T


def _refined(points: Points, inside: Mask, allowed: Array) -> Plane:
    """Refit the plane through points repeatedly to those close to it, as the noise becomes known. allowed:
    maximum distance of each."""
    homogeneous = np.ones((4, len(points)))
    homogeneous[:3] = points.T
    # Near points weigh more, since depth error grows with the square of the distance.
    weights = 1 / (homogeneous[2] * homogeneous[2])
    plane: Array = np.zeros(4)
    noise = 0.0
    for _ in range(_ROUNDS):
        plane = _fit(homogeneous, weights * inside)
        distance = np.abs(product(plane[None], homogeneous)[0])
        noise = 1.4826 * quantile(distance[distance < allowed], 0.5)
        closer = distance < np.minimum(allowed, max(_CLOSEST, 3 * noise))
        if (closer == inside).all():
            break
        inside = closer
    plane = plane if plane[3] > 0 else -plane
    return Plane(plane[:3], float(plane[3]), noise)


def _fit(homogeneous: Array, weights: Array) -> Array:
    """Least squares: unit normal and offset of a plane, for points (4, N), the fourth coordinate 1."""
    moments = product(homogeneous * weights, homogeneous.T)
    centre = moments[3, :3] / moments[3, 3]
    spread = moments[:3, :3] - moments[3, 3] * (centre[:, None] * centre)
    plane = np.empty(4)
    plane[:3] = normal = np.linalg.eigh(spread)[1][:, 0]
    plane[3] = -(normal @ centre)
    return plane
