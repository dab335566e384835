"""Footprints and completion of hidden sides."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.geometry3d.footprint import (
    Axes,
    Footprint,
    SurfaceView,
    convex_hull,
    hidden_counterparts,
    smallest_rectangle,
)
from tests.geometry3d.solids import CAMERA


def rectangle(
    rng: np.random.Generator, length: float, width: float, angle: float, at: tuple[float, float]
) -> NDArray[Any]:
    """Points all over a rectangle, its corners among them."""
    unit = np.concatenate(
        [rng.uniform(-0.5, 0.5, (500, 2)), [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]]
    )
    c, s = np.cos(angle), np.sin(angle)
    points: NDArray[Any] = unit * [length, width] @ np.array([[c, s], [-s, c]]) + at
    return points


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 13))
def test_the_smallest_rectangle_turns_and_moves_with_its_points(angle: float) -> None:
    points = rectangle(np.random.default_rng(2), 0.12, 0.05, angle, (0.4, -0.3))
    found = smallest_rectangle(points)
    np.testing.assert_allclose(found.centre, [0.4, -0.3], atol=1e-4)
    np.testing.assert_allclose(found.sides, [0.12, 0.05], atol=1e-4)
    assert np.sin(found.angle - angle) == pytest.approx(0, abs=1e-3)


def test_the_longer_side_comes_first() -> None:
    points = np.array([[0, 0], [1, 0], [1, 3], [0, 3.0]])
    found = Footprint.along(points, 0.0)
    assert found.sides.tolist() == [3, 1] and found.angle == np.pi / 2 and found.centre.tolist() == [0.5, 1.5]


def test_axes_there_and_back() -> None:
    rows, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    axes, points = Axes(np.array([0.1, 0.2, 0.9]), rows), np.random.default_rng(2).normal(size=(50, 3))
    np.testing.assert_allclose(axes.to_optical(axes.to_local(points)), points, atol=1e-12)
    np.testing.assert_allclose(axes.to_local(axes.origin[None]), [[0, 0, 0]], atol=1e-12)


def test_clearance_is_positive_in_front_of_what_is_seen() -> None:
    view = SurfaceView(np.full((240, 320), 2.0, np.float32), CAMERA)
    ahead = view.clearance(*np.array([[0, 0, 1.5], [0, 0, 2.25], [9, 0, 1.0], [0, 0, -1.0]]).T)
    np.testing.assert_allclose(ahead, [0.5, -0.25, np.nan, np.nan])


def test_only_hidden_counterparts_are_found() -> None:
    """A wall seen from the front: its back is hidden. With nothing but air behind it, nothing may be
    there."""
    axes = Axes(np.array([0, 0, 1.0]), np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]))
    y, z = np.meshgrid(np.linspace(-0.05, 0.05, 30), np.linspace(0.0, 0.1, 30))
    front = np.column_stack([np.zeros(900), y.ravel(), z.ravel()])
    rows, columns = np.mgrid[0:240, 0:320]
    wall = (
        (np.abs((columns - CAMERA.cx) / CAMERA.fx) < 0.052)
        & ((CAMERA.cy - rows) / CAMERA.fy > -0.002)
        & (rows > CAMERA.cy - 52)
    )
    seen = SurfaceView(np.where(wall, 1.0, 3.0).astype(np.float32), CAMERA)
    hidden = hidden_counterparts(front, axes, seen, 0.001)
    assert len(hidden) > 100 and (seen.clearance(*axes.to_optical(hidden).T) <= 0.001).all()
    whole = np.concatenate([front, hidden])
    assert np.ptp(whole[:, 1]) == pytest.approx(0.1, abs=0.004) and whole[:, 0].max() < 0.06


def test_no_points_stay_none_in_the_other_frame() -> None:
    axes = Axes(np.array([0.0, 0, 1]), np.eye(3)[[1, 2, 0]])
    assert axes.to_local(np.zeros((0, 3))).shape == axes.to_optical(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("seed", range(40))
def test_the_hull_of_the_outer_points_is_that_of_all(seed: int) -> None:
    """Clouds of every shape, lines, grids and single points among them."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 4000))
    points = rng.normal(size=(count, 2)) * rng.uniform(1e-4, 1, 2)
    if seed % 3 == 0:
        points = np.round(rng.uniform(0, 0.3, (count, 2)), 2)
    if seed % 5 == 0:
        points[:, 1] = 0.3 * points[:, 0] + 1
    if seed == 7:
        points[:] = points[0]
    hull = cv2.convexHull(np.ascontiguousarray(points * 1000, np.float32))[:, 0]
    found = convex_hull(points)
    assert sorted(map(tuple, (found * 1000).astype(np.float32))) == sorted(map(tuple, hull))
