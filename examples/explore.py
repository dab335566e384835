"""Where a base has not looked yet: unexplored floor, and directions that views have shown already.

Positions are (x, y) in the frame of the map, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from nav_msgs.msg import OccupancyGrid
from numpy.typing import NDArray

from examples.evidence import APART, FAR, FIELD

Array = NDArray[np.float64]

TWICE = 2
"""A direction is known when views from so many positions have shown all that is there."""
_RADIUS = 0.3  # radius of the base plus a margin, metres
_OCCUPIED = 50  # cells above are occupied, cells below 0 unexplored, others free


def frontiers(grid: OccupancyGrid, start: Array) -> list[Array]:
    """Free positions beside unexplored floor that the base can reach, nearest first."""
    size, cell = (grid.info.height, grid.info.width), grid.info.resolution
    cells = np.array(grid.data, np.int8).reshape(size)
    low = np.array([grid.info.origin.position.x, grid.info.origin.position.y])
    reach = int(np.ceil(_RADIUS / cell))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    near_occupied = cv2.dilate((cells > _OCCUPIED).astype(np.uint8), disc) > 0
    free: Any = ((cells >= 0) & ~near_occupied).astype(np.uint8)
    unknown = cv2.dilate((cells < 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    i, j = np.clip(((start - low) / cell).astype(int), 0, np.array(size)[::-1] - 1)
    regions = cv2.connectedComponents(free, connectivity=8)[1]
    around = regions[max(0, j - 3) : j + 4, max(0, i - 3) : i + 4]
    mine = set(np.unique(around)) - {0}
    edge = (free & unknown & np.isin(regions, list(mine))).astype(np.uint8)
    count, labels = cv2.connectedComponents(edge, connectivity=8)
    found = []
    for label in range(1, count):
        rows, columns = np.nonzero(labels == label)
        if len(rows) >= 6:
            middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
            found.append(low + (np.array([columns[middle], rows[middle]]) + 0.5) * cell)
    return sorted(found, key=lambda place: float(np.hypot(*(place - start))))


def is_known(grid: OccupancyGrid, views: Sequence[tuple[Array, float]], here: Array, heading: float) -> bool:
    """Whether earlier views have shown all the floor that is visible from a position in a direction, see
    `TWICE`, and none of it is unexplored. Where no floor is visible, because something stands in front, it is
    known after a view in that direction from there. views: their positions and headings, radians."""
    away, aside = np.meshgrid(np.arange(1.0, FAR, 0.75), heading + np.array([-FIELD, 0.0, FIELD]))
    floor = here + np.stack([away * np.cos(aside), away * np.sin(aside)], -1).reshape(-1, 2)
    floor = floor[~_hidden(grid, here, floor)]
    if (_cells(grid, floor) < 0).any():
        return False
    if len(floor) == 0:
        return any(
            float(np.hypot(*(here - place))) < APART and abs(np.angle(np.exp(1j * (turn - heading)))) <= FIELD
            for place, turn in views
        )
    positions: list[tuple[Array, NDArray[np.bool_]]] = []  # with what was seen from there
    for place, turn in views:
        way = floor - place
        angle = np.angle(np.exp(1j * (np.arctan2(way[:, 1], way[:, 0]) - turn)))
        seen = (np.abs(angle) <= FIELD) & (np.hypot(*way.T) < FAR) & ~_hidden(grid, place, floor)
        for other, already in positions:
            if float(np.hypot(*(place - other))) < APART:
                already |= seen
                break
        else:
            positions.append((place, seen))
    return bool((np.sum([seen for _, seen in positions], axis=0) >= TWICE).all())


def _hidden(grid: OccupancyGrid, eye: Array, places: Array) -> NDArray[np.bool_]:
    """Which of the places (N, 2) are behind or in occupied cells, seen from a position. Cells under the base
    do not count: in a costmap they may be those of inflated obstacles."""
    steps = np.linspace(0.0, 1.0, int(np.ceil(FAR / grid.info.resolution)))[1:, None, None]
    way = steps * (places - eye)
    occupied = _cells(grid, eye + way) > _OCCUPIED
    return np.asarray((occupied & (np.hypot(way[..., 0], way[..., 1]) > _RADIUS)).any(0))


def _cells(grid: OccupancyGrid, places: Array) -> NDArray[np.int8]:
    """Values of the cells at places (..., 2); -1 outside the map."""
    info = grid.info
    cells = np.frombuffer(grid.data, np.int8).reshape(info.height, info.width)
    low = np.array([info.origin.position.x, info.origin.position.y])
    i, j = np.moveaxis(np.floor((places - low) / info.resolution).astype(int), -1, 0)
    inside = (i >= 0) & (i < info.width) & (j >= 0) & (j < info.height)
    found = cells[np.clip(j, 0, info.height - 1), np.clip(i, 0, info.width - 1)]
    return np.asarray(np.where(inside, found, -1), np.int8)
