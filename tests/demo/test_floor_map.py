"""The floor map made from depth images, and paths across it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.navigate.floor_map import FREE, OCCUPIED, UNKNOWN, FloorMap


def floor(low: float, high: float, step: float = 0.05) -> NDArray[Any]:
    x, y = np.meshgrid(np.arange(low, high, step), np.arange(low, high, step))
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)


def wall(x: float, low: float, high: float) -> NDArray[Any]:
    y, z = np.meshgrid(np.arange(low, high, 0.03), np.arange(0, 1.5, 0.1))
    return np.stack([np.full(y.size, x), y.ravel(), z.ravel()], 1)


def test_what_is_seen_is_free_or_occupied_and_the_rest_unknown() -> None:
    grid = FloorMap(np.zeros(2), 12.0)
    grid.see(np.concatenate([floor(-2, 2), wall(1.5, -1, 1)]), np.zeros(2))
    assert grid.cells[grid.cell(np.array([1.0, 0.0]))] == FREE
    assert grid.cells[grid.cell(np.array([1.5, 0.5]))] == OCCUPIED
    assert grid.cells[grid.cell(np.array([4.0, 4.0]))] == UNKNOWN
    assert grid.blocked()[grid.cell(np.array([1.3, 0.5]))]
    assert not grid.blocked()[grid.cell(np.array([0.5, 0.5]))]


def test_floor_too_close_to_be_in_the_picture_is_free_up_to_what_is_seen_behind_it() -> None:
    grid = FloorMap(np.zeros(2), 12.0)
    ahead = floor(-3, 3)
    ahead = ahead[(ahead[:, 0] > 1.4) & (np.abs(ahead[:, 1]) < ahead[:, 0] / 2)]  # a view along x
    grid.see(np.concatenate([ahead, wall(0.9, -0.3, -0.1)]), np.zeros(2))
    for x in np.arange(0.0, 2.0, 0.1):
        assert grid.cells[grid.cell(np.array([x, 0.1]))] == FREE
    beside = np.array([0.7, -0.15]), np.array([1.2, -0.3])  # before and behind the wall
    assert [grid.cells[grid.cell(place)] for place in beside] == [FREE, UNKNOWN]
    assert grid.cells[grid.cell(np.array([-1.0, 0.0]))] == UNKNOWN


def test_the_way_goes_around_a_wall() -> None:
    grid = FloorMap(np.zeros(2), 12.0)
    grid.see(np.concatenate([floor(-3, 3), wall(1.0, -1.5, 3.0)]), np.zeros(2))
    way = np.array(grid.way(np.zeros(2), np.array([2.0, 0.0])))
    assert np.hypot(*(way[-1] - [2.0, 0.0])) < 0.15
    near = way[np.abs(way[:, 0] - 1.0) < 0.2]
    assert len(near) and near[:, 1].max() < -1.5
    length = float(np.hypot(*np.diff(way, axis=0).T).sum())
    assert 3.5 < length < 5.5


def test_a_goal_inside_something_is_approached() -> None:
    grid = FloorMap(np.zeros(2), 12.0)
    block = np.concatenate([wall(x, -0.4, 0.4) for x in (1.6, 1.8, 2.0, 2.2)])
    grid.see(np.concatenate([floor(-3, 3), block]), np.zeros(2))
    way = np.array(grid.way(np.zeros(2), np.array([1.9, 0.0])))
    assert 0.2 < np.hypot(*(way[-1] - [1.9, 0.0])) < 1.0


def test_what_the_base_pushes_against_is_gone_around_though_no_picture_shows_it() -> None:
    grid = FloorMap(np.zeros(2), 12.0)
    grid.see(floor(-3, 3), np.zeros(2))
    goal = np.array([2.0, 0.0])
    assert np.abs(np.array(grid.way(np.zeros(2), goal))[:, 1]).max() < 0.15
    grid.touch(np.zeros(2), 0.0)
    assert grid.cells[grid.cell(np.array([0.3, 0.0]))] == OCCUPIED
    assert grid.cells[grid.cell(np.array([-0.3, 0.0]))] == FREE
    grid.see(floor(-3, 3), np.zeros(2))  # the floor beyond is seen, and it stays an obstacle
    way = np.array(grid.way(np.zeros(2), goal))
    assert np.hypot(*(way[-1] - goal)) < 0.15
    assert np.abs(way[np.abs(way[:, 0] - 0.3) < 0.15, 1]).min() > 0.3
