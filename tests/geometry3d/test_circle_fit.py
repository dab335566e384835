"""Circle fits to outlines, and the decision whether an object is round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.geometry3d.circle_fit import Circle, arc, find_circle, find_round, outline, round_footprint
from groma_ros.geometry3d.footprint import convex_hull


def ring(
    radius: float, start: float, stop: float, at: tuple[float, float] = (0.0, 0.0), count: int = 80
) -> NDArray[Any]:
    """Points (N, 2) on an arc, radians."""
    angles = np.linspace(start, stop, count)
    points: NDArray[Any] = radius * np.stack([np.cos(angles), np.sin(angles)], 1) + at
    return points


@pytest.mark.parametrize("span", [np.pi, 1.5 * np.pi, 2 * np.pi])
@pytest.mark.parametrize("start", [0.0, 1.0, 4.0])
def test_an_arc_gives_its_circle(start: float, span: float) -> None:
    rng = np.random.default_rng(3)
    rim = ring(0.04, start, start + span, (0.3, -0.2)) + 0.0004 * rng.standard_normal((80, 2))
    circle = find_circle(rim, 0.0015)
    assert circle is not None and circle.share == 1
    np.testing.assert_allclose(circle.centre, (0.3, -0.2), atol=4e-4)
    assert circle.radius == pytest.approx(0.04, abs=4e-4)


def test_a_third_of_the_outline_may_be_something_else() -> None:
    rim = np.concatenate(
        [
            ring(0.04, 0.6, 5.7),
            np.linspace([0.04, 0.02], [0.08, 0], 20),
            np.linspace([0.08, 0], [0.04, -0.02], 20),
        ]
    )
    circle = find_circle(rim, 0.0015)
    assert circle is not None
    np.testing.assert_allclose(circle.centre, (0, 0), atol=1e-3)
    assert 0.6 < circle.share < 0.8


def test_few_points_or_a_line_have_no_circle() -> None:
    assert find_circle(ring(0.04, 0, 6, count=8), 0.001) is None
    assert find_circle(np.linspace([0, 0], [0.1, 0.1], 50, dtype=np.float64), 0.001) is None


def test_an_outline_is_even_and_convex() -> None:
    square = np.random.default_rng(1).uniform(0, 0.1, (4000, 2))
    rim = outline(convex_hull(square))
    steps = np.linalg.norm(np.diff(rim, axis=0), axis=1)
    assert steps.max() < 0.0016 and len(rim) == pytest.approx(0.4 / 0.0015, rel=0.05)


def test_the_outline_of_a_vertical_line_is_a_point() -> None:
    line = np.tile([0.3, 0.2], (50, 1))
    np.testing.assert_allclose(outline(convex_hull(line)), [[0.3, 0.2]], rtol=1e-6)


def test_an_arc_is_measured_around_the_centre() -> None:
    assert arc(ring(1.0, 0, 2 * np.pi, (5, 5)), np.array([5.0, 5.0])) == pytest.approx(2 * np.pi)
    assert arc(ring(1.0, 0.1, np.pi - 0.1), np.zeros(2)) == pytest.approx(np.pi, abs=0.2)


def can(radius: float, height: float, handle: float = 0.0) -> NDArray[Any]:
    """The visible half of a can that stands at (0.01, 0.02): its near side and its top; a handle of a length
    to the left."""
    near = np.concatenate(
        [
            np.column_stack([ring(radius, np.pi / 2, 1.5 * np.pi), np.full(80, z)])
            for z in np.linspace(0, height, 40)
        ]
    )
    top = np.concatenate(
        [np.column_stack([ring(r, 0, 2 * np.pi), np.full(80, height)]) for r in np.linspace(0, radius, 20)]
    )
    y = np.linspace(radius, radius + handle, 20 if handle else 0)
    grip = np.column_stack([np.zeros(len(y)), y, np.full(len(y), height / 2)])
    points: NDArray[Any] = np.concatenate([near, top, grip]) + [0.01, 0.02, 0]
    return points


def rounded(points: NDArray[Any]) -> Circle | None:
    return find_round(points, convex_hull(points), 0.0015)


def test_a_can_is_round_and_its_box_is_square() -> None:
    circle = rounded(can(0.04, 0.1))
    assert circle is not None
    found = round_footprint(can(0.04, 0.1), circle, 0.003)
    np.testing.assert_allclose(found.centre, [0.01, 0.02], atol=1e-3)
    np.testing.assert_allclose(found.sides, [0.08, 0.08], atol=1e-3)


def test_a_handle_makes_one_side_longer_and_does_not_move_the_circle() -> None:
    circle = rounded(can(0.04, 0.1, 0.03))
    assert circle is not None
    np.testing.assert_allclose(circle.centre, [0.01, 0.02], atol=1e-3)
    found = round_footprint(can(0.04, 0.1, 0.03), circle, 0.003)
    np.testing.assert_allclose(found.sides, [0.11, 0.08], atol=2e-3)
    np.testing.assert_allclose(found.centre, [0.01, 0.035], atol=2e-3)
    assert abs(np.sin(found.angle)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4])
@pytest.mark.parametrize("sides", [(0.08, 0.08), (0.12, 0.06)], ids=str)
def test_a_block_is_not_round(sides: tuple[float, float], angle: float) -> None:
    x, y, z = (
        axis.ravel() for axis in np.meshgrid(*(np.linspace(-0.5, 0.5, 25) * side for side in (*sides, 0.1)))
    )
    c, s = np.cos(angle), np.sin(angle)
    assert rounded(np.column_stack([c * x - s * y, s * x + c * y, z + 0.05])) is None
