"""A map of the floor from depth images: free and occupied cells, and paths through free space."""

from __future__ import annotations

import heapq

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CELL = 0.1
UNKNOWN, FREE, OCCUPIED = -1, 0, 100
"""As in nav_msgs/OccupancyGrid."""
_LOW, _HIGH = 0.08, 1.7  # heights above the floor in metres between which points are obstacles
_FAR = 5.0
_SECTOR = float(np.deg2rad(1.5))  # width of a direction
_UNKNOWN_COST = 2.5
_SURE = 3  # depth points that make a cell an obstacle for good
_STEPS = [(i, j, float(np.hypot(i, j))) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


class FloorMap:
    """A square grid around the base's initial position. size: side length in metres; radius: of the base."""

    def __init__(self, origin: Array, size: float = 40.0, radius: float = 0.25) -> None:
        self.count = round(size / CELL)
        self.low = np.asarray(origin, np.float64) - size / 2
        self.cells = np.full((self.count, self.count), UNKNOWN, np.int8)
        self._radius = radius
        self._hits = np.zeros((self.count, self.count), np.int16)

    def cell(self, place: Array) -> tuple[int, int]:
        """Indices (x, y) of the cell of a position."""
        i, j = np.clip(((place - self.low) / CELL).astype(int), 0, self.count - 1)
        return int(i), int(j)

    def place(self, cell: tuple[int, int]) -> Array:
        """Centre of a cell."""
        return self.low + (np.array(cell) + 0.5) * CELL

    def see(self, points: Array, eye: Array) -> None:
        """Add world points (P, 3) of a depth image taken from `eye` (x, y).

        Between the eye and the nearest point in each direction the floor is free, also where it is too close
        to be in the picture.
        """
        away = points[:, :2] - eye
        distance = np.hypot(*away.T)
        near = distance < _FAR
        thing = near & (points[:, 2] > _LOW) & (points[:, 2] < _HIGH)
        floor = near & (points[:, 2] <= _LOW)
        clear = self._clear(away[thing | floor], distance[thing | floor]) + eye
        seen = np.concatenate([points[floor, :2], clear])
        for cell in np.unique(((seen - self.low) / CELL).astype(int), axis=0):
            self._free(tuple(cell))
        indices = ((points[thing, :2] - self.low) / CELL).astype(int)
        inside = ((indices >= 0) & (indices < self.count)).all(1)
        found, counts = np.unique(indices[inside], axis=0, return_counts=True)
        for (i, j), hits in zip(found, counts):
            self._hits[i, j] += min(int(hits), 10)
            if self._hits[i, j] >= _SURE:
                self.cells[i, j] = OCCUPIED
        self.stand(eye)

    def _clear(self, away: Array, distance: Array) -> Array:
        """Positions relative to the eye, half a cell apart, up to the nearest point of each direction."""
        if not len(distance):
            return np.empty((0, 2))
        sector = ((np.arctan2(away[:, 1], away[:, 0]) + np.pi) / _SECTOR).astype(int)
        nearest = np.full(sector.max() + 1, np.inf)
        np.minimum.at(nearest, sector, distance)
        sectors = np.flatnonzero(np.isfinite(nearest))
        reach = np.arange(0.0, _FAR, CELL / 2)
        ray, step = np.nonzero(reach < nearest[sectors, None] - CELL)
        angle = (sectors[ray] + 0.5) * _SECTOR - np.pi
        clear: Array = reach[step, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return clear

    def stand(self, place: Array) -> None:
        """Mark the floor under the base as free."""
        reach = int(self._radius / CELL) + 1
        i, j = self.cell(place)
        for a in range(i - reach, i + reach + 1):
            for b in range(j - reach, j + reach + 1):
                self._free((a, b))

    def touch(self, place: Array, heading: float) -> None:
        """Mark what the base pushes against as an obstacle, which no depth image has shown: the cells that
        touch the front of the base. heading: radians."""
        for angle in heading + np.linspace(-0.5, 0.5, 9):
            front = place + (self._radius + CELL / 2) * np.array([np.cos(angle), np.sin(angle)])
            self._hits[self.cell(front)] = _SURE
            self.cells[self.cell(front)] = OCCUPIED

    def _free(self, cell: tuple[int, int]) -> None:
        i, j = cell
        if 0 <= i < self.count and 0 <= j < self.count and self._hits[i, j] < _SURE:
            self.cells[i, j] = FREE

    def blocked(self, room: float = 0.08) -> NDArray[np.bool_]:
        """Cells in which the centre of the base cannot be. room: distance in metres to keep from
        obstacles."""
        reach = int(np.ceil((self._radius + room) / CELL))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        return np.asarray(cv2.dilate((self.cells == OCCUPIED).astype(np.uint8), disc) > 0)

    def way(self, start: Array, goal: Array, room: float = 0.08) -> list[Array]:
        """Path from start to the reachable cell nearest the goal; empty if the base cannot move at all.

        Unknown floor may be crossed at a higher cost.
        """
        blocked = self.blocked(room)
        first, last = self.cell(start), self.cell(goal)
        here = np.hypot(*(np.indices(blocked.shape).transpose(1, 2, 0) - first).transpose(2, 0, 1))
        blocked[here < 3] = False  # a base too close to an obstacle must be able to leave it
        best, came = {first: 0.0}, {first: first}
        queue = [(0.0, 0.0, first)]
        nearest, nearest_gap = first, float(np.hypot(first[0] - last[0], first[1] - last[1]))
        while queue:
            _, so_far, cell = heapq.heappop(queue)
            if so_far > best[cell]:
                continue
            gap = float(np.hypot(cell[0] - last[0], cell[1] - last[1]))
            if gap < nearest_gap:
                nearest, nearest_gap = cell, gap
            if cell == last or len(best) > 20000:
                break
            for i, j, length in _STEPS:
                step = (cell[0] + i, cell[1] + j)
                if not (0 <= step[0] < self.count and 0 <= step[1] < self.count) or blocked[step]:
                    continue
                cost = so_far + length * (1.0 if self.cells[step] == FREE else _UNKNOWN_COST)
                if cost < best.get(step, np.inf):
                    best[step], came[step] = cost, cell
                    ahead = float(np.hypot(step[0] - last[0], step[1] - last[1]))
                    heapq.heappush(queue, (cost + ahead, cost, step))
        path = [nearest]
        while path[-1] != first:
            path.append(came[path[-1]])
        return [self.place(cell) for cell in reversed(path)]
