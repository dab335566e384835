"""Pinhole projection and rotations: round trips, against SciPy, and by property."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from groma_ros.camera_geometry import (
    backproject,
    backproject_pixels,
    corners,
    matrix_from_quaternion,
    moved,
    project,
    quaternion_from_matrix,
)
from groma_ros.types import Box3D, Intrinsics

CAMERAS = [
    Intrinsics(600, 610, 320.5, 240.25, 640, 480),
    Intrinsics(200, 150, 30, 90, 64, 48),
    Intrinsics(1400, 1400, 959.5, 539.5, 64, 36),
]


@pytest.mark.parametrize("camera", CAMERAS, ids=str)
def test_a_pixel_comes_back_from_its_point(camera: Intrinsics) -> None:
    depth = np.random.default_rng(1).uniform(0.2, 9, (20, 30)).astype(np.float32)
    points = backproject(depth, camera)
    np.testing.assert_allclose(points[..., 2], depth)
    rows, columns = np.mgrid[0:20, 0:30]
    np.testing.assert_allclose(project(points, camera), np.stack([columns, rows], -1), atol=1e-9)
    some = np.array([0, 29, 30, 411, 599])
    np.testing.assert_allclose(backproject_pixels(depth, some, camera), points.reshape(-1, 3)[some])


def test_the_middle_of_the_first_pixel_is_zero_and_axes_are_right_down_forward() -> None:
    camera = Intrinsics(100, 200, 1, 0, 3, 2)
    points = backproject(np.full((2, 3), 2, np.float32), camera)
    np.testing.assert_allclose(points[0, 1], [0, 0, 2])
    np.testing.assert_allclose(points[0, 2], [0.02, 0, 2])
    np.testing.assert_allclose(points[1, 1], [0, 0.01, 2])


def test_what_is_unknown_or_behind_the_camera_is_nan() -> None:
    camera = CAMERAS[0]
    assert np.isnan(backproject(np.array([[np.nan]], np.float32), camera)).all()
    assert np.isnan(project(np.array([[0.1, 0.1, -1.0], [0, 0, 0]]), camera)).all()


def test_rotations_are_scipys() -> None:
    half_turns = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.6, 0.8, 0, 0]]
    for rotation in Rotation.concatenate([Rotation.random(200, rng=3), Rotation.from_quat(half_turns)]):
        matrix = rotation.as_matrix()
        quaternion = quaternion_from_matrix(matrix)
        assert quaternion[3] >= 0 and np.linalg.norm(quaternion) == pytest.approx(1)
        assert abs(np.dot(quaternion, rotation.as_quat())) == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(matrix_from_quaternion(quaternion), matrix, atol=1e-9)
        x, y, z, w = quaternion
        longer = (2.5 * x, 2.5 * y, 2.5 * z, 2.5 * w)
        np.testing.assert_allclose(matrix_from_quaternion(longer), matrix, atol=1e-9)


def test_corners_span_the_box_and_move_with_it() -> None:
    rng = np.random.default_rng(5)
    for rotation in Rotation.random(20, rng=4):
        box = Box3D((0.3, -0.2, 1.5), tuple(Rotation.random(rng=rng).as_quat()), (0.3, 0.2, 0.1))
        points = corners(box)
        np.testing.assert_allclose(points.mean(0), box.centre, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(points[[1, 2, 4]] - points[0], axis=1), box.size)
        shift = rng.normal(size=3)
        np.testing.assert_allclose(
            corners(moved(box, rotation.as_matrix(), shift)), rotation.apply(points) + shift, atol=1e-9
        )
