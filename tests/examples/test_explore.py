"""What a base has not looked at yet, on small maps."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray

from examples.explore import frontiers, is_known

FREE, WALL, UNKNOWN = 0, 100, -1


def map_of(cells: NDArray[np.int8]) -> OccupancyGrid:
    """Rows along y, columns along x, 0.1 m each, from (-1, -3)."""
    grid = OccupancyGrid()
    grid.info.resolution = 0.1
    grid.info.height, grid.info.width = cells.shape
    grid.info.origin.position.x, grid.info.origin.position.y = -1.0, -3.0
    grid.data = array("b", cells.tobytes())
    return grid


@pytest.mark.parametrize("free", [FREE, 30])
def test_frontiers_lie_where_free_floor_ends_unseen(free: int) -> None:
    """Maps of some mappers grade the probability of an obstacle from 0 to 100."""
    cells = np.full((60, 80), UNKNOWN, np.int8)
    cells[20:40, 10:50] = free
    cells[20:40, 10] = WALL
    cells[20, 10:50] = cells[39, 10:50] = WALL
    found = frontiers(map_of(cells), np.array([1.0, 0.0]))
    assert len(found) == 1
    # The open end is at column 49, between the two walls.
    assert found[0] == pytest.approx([3.95, -0.05], abs=0.15)


HERE = np.zeros(2)
FIRST, SECOND = (np.array([-0.9, 0.25]), 0.0), (np.array([-0.9, -0.26]), 0.0)
"""Two views in the same direction, 0.51 m apart."""


@pytest.mark.parametrize(
    ("views", "heading", "known"),
    [
        ([], 0.0, False),
        ([FIRST], 0.0, False),
        ([FIRST, SECOND], 0.0, True),
        ([FIRST, (FIRST[0] + 0.1, 0.0)], 0.0, False),  # one position
        ([FIRST, SECOND], np.pi / 2, False),  # they looked along the other corridor
        ([FIRST, (SECOND[0], np.pi)], 0.0, False),
    ],
)
def test_a_direction_is_known_after_views_from_two_positions(
    views: list[Any], heading: float, known: bool
) -> None:
    cells = np.full((60, 80), WALL, np.int8)
    cells[24:37, 0:36] = FREE  # 1.3 m wide, narrow enough for both views to see all of it, up to 2.6 m ahead
    cells[24:56, 4:17] = FREE
    assert is_known(map_of(cells), views, HERE, heading) is known


def test_unexplored_floor_is_not_known_and_a_wall_in_front_is_once_it_was_looked_at() -> None:
    cells = np.full((60, 80), FREE, np.int8)
    cells[:, 36:] = UNKNOWN
    assert not is_known(map_of(cells), [FIRST, SECOND], HERE, 0.0)
    cells[:, 16:18] = WALL  # 0.6 m ahead: no floor to look at, but what stands beside the base
    assert not is_known(map_of(cells), [], HERE, 0.0)
    assert not is_known(map_of(cells), [(HERE, np.pi / 2)], HERE, 0.0)
    assert is_known(map_of(cells), [(HERE, 0.3)], HERE, 0.0)


def test_an_inflated_obstacle_under_the_base_hides_nothing() -> None:
    cells = np.full((60, 80), WALL, np.int8)
    cells[24:37, 0:36] = FREE
    cells[28:33, 8:13] = WALL  # within 0.25 m of the base
    assert not is_known(map_of(cells), [(HERE, 0.0)], HERE, 0.0)  # the floor ahead was seen once
