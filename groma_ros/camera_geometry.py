"""Pinhole projection and rotations, in the optical frame: x right, y down, z forward (REP-103)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import Box3D, FloatArray, Intrinsics

Points = NDArray[np.float64]
Matrix = NDArray[np.float64]
Quaternion = tuple[float, float, float, float]


EDGES = tuple((start, start | 1 << axis) for axis in range(3) for start in range(8) if not start >> axis & 1)
"""The twelve edges of a box as pairs of indices into `corners`."""


def backproject(depth: FloatArray, camera: Intrinsics) -> Points:
    """Convert depth (HxW, metres along the optical axis) to points (HxWx3) in the optical frame; NaN where
    depth is NaN.

    Points are at pixel centres. The centre of the first pixel is (0, 0), as in camera_info; box coordinates
    start at its corner.
    """
    across = (np.arange(depth.shape[1]) - camera.cx) / camera.fx
    down = (np.arange(depth.shape[0]) - camera.cy) / camera.fy
    z = np.asarray(depth, np.float64)
    return np.stack([across * z, down[:, None] * z, z], -1)


def backproject_pixels(depth: FloatArray, pixels: NDArray[np.intp], camera: Intrinsics) -> Points:
    """Convert the depth of selected pixels, flat indices (N,) into depth (HxW), to points (N, 3); see
    `backproject`. Each coordinate is contiguous in memory."""
    row = pixels // depth.shape[1]
    column = pixels - row * depth.shape[1]
    points = np.empty((3, len(pixels)))
    points[2] = depth.ravel()[pixels]
    np.multiply((column - camera.cx) / camera.fx, points[2], out=points[0])
    np.multiply((row - camera.cy) / camera.fy, points[2], out=points[1])
    return points.T


def project(points: Points, camera: Intrinsics) -> Points:
    """Project points (..., 3) of the optical frame to pixels (..., 2), x and y; NaN behind the camera. The
    centre of the first pixel is (0, 0)."""
    points = np.asarray(points, np.float64)
    z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
    return np.stack(
        [points[..., 0] / z * camera.fx + camera.cx, points[..., 1] / z * camera.fy + camera.cy], -1
    )


def quaternion_from_matrix(rotation: Matrix) -> Quaternion:
    """Convert a 3x3 rotation matrix to (x, y, z, w) with w >= 0: the eigenvector for eigenvalue 1 of
    Bar-Itzhack's symmetric 4x4 matrix."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, np.float64).tolist()
    upper = [
        [a - e - i, b + d, c + g, h - f],
        [0, e - a - i, f + h, c - g],
        [0, 0, i - a - e, d - b],
        [0, 0, 0, a + e + i],
    ]
    x, y, z, w = np.linalg.eigh(upper, "U")[1][:, -1].tolist()
    return (x, y, z, w) if w >= 0 else (-x, -y, -z, -w)


def matrix_from_quaternion(quaternion: Quaternion) -> Matrix:
    """Convert (x, y, z, w) of any non-zero length to a 3x3 rotation matrix."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def corners(box: Box3D) -> Points:
    """Return the eight corners of a box, 8x3, in its frame. Bits 0, 1 and 2 of a corner's index are its signs
    along x, y and z."""
    signs = np.array([[(index >> axis & 1) * 2 - 1 for axis in range(3)] for index in range(8)])
    points: Points = (
        np.asarray(box.centre) + (signs * np.asarray(box.size) / 2) @ matrix_from_quaternion(box.quaternion).T
    )
    return points


def moved(box: Box3D, rotation: Matrix, translation: NDArray[np.float64]) -> Box3D:
    """Transform a box by p -> rotation @ p + translation."""
    x, y, z = (float(value) for value in rotation @ np.asarray(box.centre) + translation)
    return Box3D(
        (x, y, z), quaternion_from_matrix(rotation @ matrix_from_quaternion(box.quaternion)), box.size
    )
