"""Driving along paths, on a base that something stops which no depth image shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.navigate.floor_map import FloorMap
from demo.navigate.pursuit import Pursuit

STEP = 0.05


def free_floor() -> FloorMap:
    floor = FloorMap(np.zeros(2), 12.0)
    x, y = np.meshgrid(np.arange(-3, 5, 0.05), np.arange(-3, 3, 0.05))
    floor.see(np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1), np.zeros(2))
    return floor


def drive(
    pursuit: Pursuit, stopped: Callable[[NDArray[np.float64]], bool], seconds: float = 60.0
) -> tuple[NDArray[np.float64], float, float]:
    """Position, heading and time at the end of a drive that starts at (0, 0) along x."""
    here: NDArray[np.float64] = np.zeros(2)
    floor, turn, now = free_floor(), 0.0, 0.0
    while pursuit.reached is None and now < seconds:
        speed, spin = pursuit.command(now, here, turn, floor)
        turn += spin * STEP
        ahead = here + speed * STEP * np.array([np.cos(turn), np.sin(turn)])
        here = here if stopped(ahead) else ahead
        now += STEP
    return here, turn, now


def test_a_pose_is_reached() -> None:
    pursuit = Pursuit(np.array([2.0, 1.0]), np.pi / 2)
    here, turn, _ = drive(pursuit, lambda ahead: False)
    assert pursuit.reached
    assert here == pytest.approx([2.0, 1.0], abs=0.15) and turn == pytest.approx(np.pi / 2, abs=0.1)


def test_what_stops_the_base_unseen_is_driven_around() -> None:
    """A wall of 2 m across the way, of which the map knows nothing."""
    pursuit = Pursuit(np.array([2.5, 0.0]), 0.0)
    here, _, seconds = drive(pursuit, lambda ahead: 1.0 < ahead[0] < 1.4 and abs(ahead[1]) < 1.0)
    assert pursuit.reached and here == pytest.approx([2.5, 0.0], abs=0.15)
    assert seconds > 10.0  # the free way takes 5


def test_a_base_that_cannot_turn_gives_up() -> None:
    pursuit = Pursuit(np.zeros(2), np.pi)
    now = 0.0
    while pursuit.reached is None and now < 60.0:
        assert pursuit.command(now, np.zeros(2), 0.0, free_floor()) != (0.0, 0.0) or pursuit.reached is False
        now += 1.0
    assert pursuit.reached is False and now == pytest.approx(14.0, abs=1.0)


def test_a_base_that_cannot_move_gives_up() -> None:
    pursuit = Pursuit(np.array([2.5, 0.0]), 0.0)
    here, _, seconds = drive(pursuit, lambda ahead: bool(np.hypot(*ahead) > 0.05))
    assert pursuit.reached is False and float(np.hypot(*here)) < 0.06
    assert seconds == pytest.approx(6.0, abs=0.5)
