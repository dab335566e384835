"""Velocities that take a base along paths of a floor map to a pose, and off what it pushes against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.navigate.floor_map import FloorMap

Array = NDArray[np.float64]

SPEED, TURN = 0.55, 1.0
NEAR, ALIGNED = 0.12, 0.08
"""Position and angle tolerance of a reached pose: metres, radians."""
_LOOK_AHEAD = 0.45
_REPLAN = 0.8  # seconds
_STUCK, _MOVING = 6.0, 0.3
"""A base that stays within these metres for these seconds is stuck; a detour may lead away from the goal."""
_LONGEST_TURN = 12.0  # seconds; half a turn takes 5
_PUSHING, _STILL = 1.0, 0.03
"""Driving forward for these seconds within these metres means pushing against something."""
_BACK, _BACK_SPEED = 1.2, -0.35
"""The base then backs off for these seconds at this speed, metres per second."""


class Pursuit:
    """One drive to a pose. target: (x, y) in the map, metres; heading: radians."""

    def __init__(self, target: Array, heading: float) -> None:
        self._target, self._heading = target, heading
        self.left = np.inf
        """Distance in metres to the end of the path."""
        self.reached: bool | None = None
        """None while it drives, then whether the base is at the pose."""
        self._way: list[Array] = []
        self._planned = self._moved = -1e9  # times of the path and of the last move
        self._back = -1e9  # end of backing off
        self._anchor: Array = np.full(2, np.inf)  # where it was at the time of moving
        self._spot, self._since = target, -1e9  # where it began to push against something, and when
        self._turning = False
        self._arrived = 0.0  # time at which it began to turn

    def command(self, now: float, here: Array, turn: float, floor: FloorMap | None) -> tuple[float, float]:
        """Forward speed, metres per second, and rotation to the left, radians per second.

        now: seconds; here, turn: position and heading of the base; floor: the map so far, to which obstacles
        are added that the base pushes against.
        """
        if not self._turning and floor is not None and (now - self._planned > _REPLAN or not self._way):
            floor.stand(here)
            self._way, self._planned = floor.way(here, self._target), now
        end = self._way[-1] if self._way else self._target
        self.left = float(np.hypot(*(end - here)))
        if self._turning or self.left < NEAR:
            return self._turn(now, here, turn)
        if not float(np.hypot(*(here - self._anchor))) < _MOVING:
            self._anchor, self._moved = here, now
        if now - self._moved > _STUCK:
            self.reached = float(np.hypot(*(self._target - here))) < 0.5
            return 0.0, 0.0
        if now < self._back:
            return _BACK_SPEED, 0.0
        return self._follow(now, here, turn, floor)

    def _turn(self, now: float, here: Array, turn: float) -> tuple[float, float]:
        """Turn to the heading at the end of the path, for `_LONGEST_TURN` seconds at most."""
        self._arrived = self._arrived if self._turning else now
        self._turning = True
        error = _wrapped(self._heading - turn)
        aligned = abs(error) < ALIGNED
        if aligned or now - self._arrived > _LONGEST_TURN:
            self.reached = aligned and float(np.hypot(*(self._target - here))) < 0.8
            return 0.0, 0.0
        return 0.0, float(np.clip(1.8 * error, -TURN, TURN))

    def _follow(self, now: float, here: Array, turn: float, floor: FloorMap | None) -> tuple[float, float]:
        """Drive towards the point of the path that is `_LOOK_AHEAD` away."""
        ways = self._way or [self._target]
        ahead = next((place for place in ways if float(np.hypot(*(place - here))) > _LOOK_AHEAD), ways[-1])
        error = _wrapped(float(np.arctan2(*(ahead - here)[::-1])) - turn)
        fast = SPEED * max(0.0, float(np.cos(error))) ** 2 if abs(error) < 1.0 else 0.0
        speed = min(fast, 0.15 + self.left)
        if speed < 0.1 or float(np.hypot(*(here - self._spot))) > _STILL:
            self._spot, self._since = here, now
        elif now - self._since > _PUSHING and floor is not None:
            floor.touch(here, turn)
            self._way, self._spot, self._back = [], np.full(2, np.inf), now + _BACK
        return speed, float(np.clip(2.0 * error, -TURN, TURN))


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
