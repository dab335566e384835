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
"""Ratio of the shorter to the longer side from which measurement noise decides which one is the longer."""
ROUND_BEFORE = 0.7
"""The same ratio for an object whose jaw axis is known: one measurement of sides that differ more than they
do must not turn the hand by a quarter."""
HOLD = np.cos(np.radians(15))
"""Cosine of the largest rotation of a round box that is attributed to measurement noise."""
ANY_TURN = np.pi**2 / 12
"""Variance in rad^2 of a rotation that is unknown up to half a turn."""
MAX_AXES = 256
"""Maximum number of objects whose jaw axis is stored."""


class JawAxes:
    """Latest jaw axis of each object, by any hashable key. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._axes: OrderedDict[Hashable, Array] = OrderedDict()

    def get(self, key: Hashable) -> Array | None:
        """Return the x axis of an object's last pose, float64 (3,); None if it has none."""
        with self._lock:
            return self._axes.get(key)

    def keep(self, key: Hashable, pose: Pose) -> None:
        """Store the x axis of an object's pose."""
        with self._lock:
            self._axes[key] = matrix_from_quaternion(pose.quaternion)[:, 0]
            self._axes.move_to_end(key)
            while len(self._axes) > MAX_AXES:
                self._axes.popitem(last=False)


def is_round(box: Box3D, ratio: float = ROUND) -> bool:
    """Whether the two horizontal sides are nearly equal, so that the rotation about the box's z is
    unknown."""
    shorter, longer = sorted(box.size[:2])
    return shorter >= ratio * longer


def turn_covariance(box: Box3D) -> Array:
    """Covariance (6, 6) of the box's pose (x, y, z, rotations about the frame's x, y, z): for a round box the
    rotation about its own z is unknown. For other boxes it is 0, which means unknown."""
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
    """Compute the approach pose of a box, in the frame of the box and the camera's position.

    above: for a hand. z points down into the object, against the box's own up; x lies along its shorter side,
    the direction in which a gripper closes. front: for a base. z points up, x horizontally from the camera
    towards the object. standoff: distance in metres from the box's centre, back along the approach direction.
    up: up direction of the frame, for front; None uses the box's own. former: x axis of the object's previous
    pose, float64 (3,), which above continues. Raises ValueError for an approach that is not one of
    `APPROACHES`.
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
    """Axis along which a hand from above closes: over the shorter side. A gripper can be turned by half a
    turn, and over a round object by any angle; the axis closest to the former one is chosen."""
    if former is None:
        return axes[:, 1] if axes[0, 1] >= 0 else -axes[:, 1]
    sides = [axes[:, 1], axes[:, 0]] if is_round(box, ROUND_BEFORE) else [axes[:, 1]]
    x = max((sign * side for side in sides for sign in (1.0, -1.0)), key=lambda side: float(side @ former))
    if not is_round(box) or x @ former >= HOLD:
        return x
    return _level(former, axes[:, 2], x)


def _level(direction: Array, up: Array, instead: Array) -> Array:
    """Horizontal part of a direction as a unit vector; of `instead` if the direction is vertical."""
    for candidate in (direction, instead, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])):
        level = candidate - up * (candidate @ up)
        length = float(np.linalg.norm(level))
        if length > 1e-6 * max(1.0, float(np.linalg.norm(candidate))):
            return np.asarray(level / length)
    raise AssertionError("one of two axes is level enough")
