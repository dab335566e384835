"""Where a base stands before an object, on the floor of the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.ask import Answer
from examples.evidence import FAR, Place

Array = NDArray[np.float64]

STANDOFF = 0.55
"""Distance in metres that the base keeps from an object's near side."""
CONFIRM, CONFIRM_TALL, CONFIRM_MOST = 1.6, 2.2, 3.5
"""Distance from an object's near side at which it is asked for again on the way: in metres, in heights of the
object if that is more, so that it fits the picture, and at most, in metres."""


def confirm(place: Place) -> float:
    """Distance in metres from a place's near side at which its object fits the picture."""
    most = min(CONFIRM_MOST, FAR - min(place.answer.size[:2]) / 2 - 0.1)
    return max(CONFIRM, min(CONFIRM_TALL * place.height, most))


def before(answer: Answer, here: Array, standoff: float = STANDOFF, side: float = 0.0) -> tuple[Array, float]:
    """Position at this distance from an object's near side, and the heading that faces it: on the side it is
    seen from, or turned around the object by an angle in radians."""
    way = answer.position[:2] - here
    heading = angle(way) + side
    away = float(np.hypot(*way))
    # On its own side the base never drives backwards.
    away -= gap(answer, here) - standoff if side else max(0.0, gap(answer, here) - standoff)
    return answer.position[:2] - away * np.array([np.cos(heading), np.sin(heading)]), heading


def gap(answer: Answer, here: Array) -> float:
    """Distance in metres from the base to an object, at most: that to the circle within its outline, because
    its rotation is not known."""
    return float(np.hypot(*(answer.position[:2] - here))) - min(answer.size[:2]) / 2


def angle(way: Array) -> float:
    """Direction of a vector (x, y) on the floor, radians from the x axis of the map."""
    return float(np.arctan2(way[1], way[0]))
