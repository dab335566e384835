"""Compute a pose from which a robot can reach an oriented box."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion, quaternion_from_matrix
from groma_ros.types import Box3D, Pose

Array = NDArray[np.float64]
APPROACHES = ("above", "front")
ROUND = 0.85
"""Ratio of the shorter to the longer side from which the two cannot be told apart by their measure."""
HOLD = np.cos(np.radians(15))
"""Cosine of the turn from which the side of a round box is taken for noise of its measure."""
ANY_TURN = np.pi**2 / 12
"""Variance of a turn of which nothing is known but that half a turn is no difference, rad^2."""
MAX_AXES = 256
"""Objects whose jaw axis is remembered."""


class JawAxes:
    """The newest jaw axis of each object, by any key that names it. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._axes: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable) -> Array | None:
        """The x axis of an object's last pose, float64 3; None for an object that had none."""
        with self._lock:
            return self._axes.get(key)

    def keep(self, key: Hashable, pose: Pose) -> None:
        """Remember the x axis of an object's pose."""
        with self._lock:
            self._axes[key] = matrix_from_quaternion(pose.quaternion)[:, 0]
            self._axes.move_to_end(key)
            while len(self._axes) > MAX_AXES:
                self._axes.popitem(last=False)


def is_round(box: Box3D) -> bool:
    """Whether a hand may as well close over another side: the turn of the box about its z is not known."""
    shorter, longer = sorted(box.size[:2])
    return shorter >= ROUND * longer


def turn_covariance(box: Box3D) -> Array:
    """Covariance 6x6 of the box's pose (x, y, z, turns about the frame's x, y, z): of a round one, whose turn
    about its own z is not known. Of others 0, which says nothing."""
    covariance = np.zeros((6, 6))
    if is_round(box):
        axis = matrix_from_quaternion(box.quaternion)[:, 2]
        covariance[3:, 3:] = ANY_TURN * np.outer(axis, axis)
    return covariance


def target_pose(
    box: Box3D,
    approach: str = "above",
    standoff: float = 0.0,
    camera: tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: tuple[float, float, float] | None = None,
    former: Array | None = None,
) -> Pose:
    """The approach pose of a box, in the frame in which the box and the camera's position are given.

    above: for a hand. z points down into the object, against the box's own up; x lies along its shorter side,
    the direction in which a gripper closes. front: for a base. z points up, x horizontally from the camera
    towards the object. standoff: distance in metres from the box's centre, back along the approach direction.
    up: up direction of the frame, for front; None takes the box's own. former: x axis of the pose that the
    same object had before, float64 3; above continues it. Raises ValueError for an approach that is not one
    of `APPROACHES`.
    """
    if approach not in APPROACHES:
        raise ValueError(f"The approach {approach!r} is unknown; use one of {', '.join(APPROACHES)}.")
    axes = matrix_from_quaternion(box.quaternion)
    centre = np.asarray(box.centre)
    if approach == "above":
        z = -axes[:, 2]
        x = _jaw_axis(box, axes, former)
        position = centre - standoff * z
    else:
        z = axes[:, 2] if up is None else np.asarray(up) / np.linalg.norm(up)
        x = _level(centre - np.asarray(camera), z, axes[:, 0])
        position = centre - standoff * x
    rotation = np.stack([x, np.cross(z, x), z], 1)
    a, b, c = (float(value) for value in position)
    return Pose((a, b, c), quaternion_from_matrix(rotation))


def _jaw_axis(box: Box3D, axes: Array, former: Array | None) -> Array:
    """The axis along which a hand from above closes: over the shorter side. A gripper can be turned by half,
    and over a round object by any angle: the axis nearest the former one is taken."""
    if former is None:
        return axes[:, 1] if axes[0, 1] >= 0 else -axes[:, 1]
    sides = [axes[:, 1], axes[:, 0]] if is_round(box) else [axes[:, 1]]
    x = max((sign * side for side in sides for sign in (1.0, -1.0)), key=lambda side: float(side @ former))
    if not is_round(box) or x @ former >= HOLD:
        return x
    return _level(former, axes[:, 2], x)


def _level(direction: Array, up: Array, instead: Array) -> Array:
    """The horizontal part of a direction as a unit vector; that of `instead` if the direction is vertical."""
    for candidate in (direction, instead, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])):
        level = candidate - up * (candidate @ up)
        length = float(np.linalg.norm(level))
        if length > 1e-6 * max(1.0, float(np.linalg.norm(candidate))):
            return np.asarray(level / length)
    raise AssertionError("one of two axes is level enough")
