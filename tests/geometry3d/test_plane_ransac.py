"""Planes in point clouds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.camera_geometry import backproject
from groma_ros.geometry3d.plane_ransac import find_planes
from tests.geometry3d.solids import Cuboid, Ground, look, render


def cloud(
    rng: np.random.Generator, normal: NDArray[Any], distance: float, count: int, noise: float = 0.0
) -> NDArray[Any]:
    """Points of the plane normal . p = distance (in front of the camera), within about half a metre."""
    side = np.cross(normal, [0.3, 0.5, 0.8])
    side = side / np.linalg.norm(side)
    flat = rng.uniform(-0.5, 0.5, (count, 2)) @ np.stack([side, np.cross(normal, side)])
    points: NDArray[Any] = flat + normal * distance + normal * noise * rng.standard_normal((count, 1))
    return points


@pytest.mark.parametrize("seed", range(5))
def test_the_plane_is_found_among_other_points_and_faces_the_camera(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=3) * 0.4 + [0, 0, 1]
    normal = normal / np.linalg.norm(normal)
    points = np.concatenate(
        [cloud(rng, normal, 1.2, 3000, 0.001), rng.uniform(-0.5, 0.5, (2500, 3)) + [0, 0, 1.2]]
    )
    plane = next(find_planes(rng.permutation(points)))
    np.testing.assert_allclose(plane.normal, -normal, atol=0.004)
    assert plane.offset == pytest.approx(1.2, abs=0.002) and plane.offset > 0
    assert plane.noise == pytest.approx(0.001, rel=0.5)
    assert plane.height(np.zeros(3)) == pytest.approx(1.2, abs=0.002)  # the camera itself is above


def test_two_levels_are_two_planes_the_larger_first() -> None:
    frame, labels = render([Ground(), Cuboid((0, 0, 0), (0.3, 0.2, 0.1))], look(0.4, 1.0, 0.7))
    assert frame.depth is not None and frame.intrinsics is not None
    points = backproject(frame.depth, frame.intrinsics)
    planes = list(find_planes(points))
    heights = [np.median(plane.height(points[labels == 0])) for plane in planes[:2]]
    assert heights == pytest.approx([0.0, -0.1], abs=1e-3)
    assert all(plane.noise < 1e-4 for plane in planes[:2])
    for plane in planes:
        heights_of = plane.height_of(frame.depth, frame.intrinsics)
        np.testing.assert_allclose(heights_of, plane.height(points), atol=1e-6)
    again = list(find_planes(points))
    assert all(
        (a.normal == b.normal).all() and a.offset == b.offset for a, b in zip(planes, again, strict=True)
    )


def test_too_few_points_or_none_hold_no_plane() -> None:
    assert list(find_planes(np.full((20, 30, 3), np.nan))) == []
    assert list(find_planes(np.zeros((0, 3)))) == []
    assert list(find_planes(np.random.default_rng(0).uniform(0.5, 1, (50, 3)))) == []
    assert list(find_planes(np.tile([0.1, 0.2, 0.7], (500, 1)))) == []
    assert list(find_planes(np.linspace([0.0, 0.0, 1.0], [1.0, 1.0, 2.0], 500, dtype=np.float64))) == []
