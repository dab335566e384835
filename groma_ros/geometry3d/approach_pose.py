"""Compute a pose from which a robot can reach an oriented box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groma_ros.camera_geometry import matrix_from_quaternion, quaternion_from_matrix
from groma_ros.types import Box3D, Pose

Array = NDArray[np.float64]
APPROACHES = ("above", "front")


def target_pose(
    box: Box3D,
    approach: str = "above",
    standoff: float = 0.0,
    camera: tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: tuple[float, float, float] | None = None,
) -> Pose:
    """The approach pose of a box, in the frame in which the box and the camera's position are given.

    above: for a hand. z points down into the object, against the box's own up; x lies along its shorter side,
    the direction in which a gripper closes. front: for a base. z points up, x horizontally from the camera
    towards the object. standoff: distance in metres from the box's centre, back along the approach direction.
    up: up direction of the frame, for front; None takes the box's own. Raises ValueError for an approach that
    is not one of `APPROACHES`.
    """
    if approach not in APPROACHES:
        raise ValueError(f"The approach {approach!r} is unknown; use one of {', '.join(APPROACHES)}.")
    axes = matrix_from_quaternion(box.quaternion)
    centre = np.asarray(box.centre)
    if approach == "above":
        z = -axes[:, 2]
        # A gripper can be turned by half; take the orientation closer to the frame's x.
        x = axes[:, 1] if axes[0, 1] >= 0 else -axes[:, 1]
        position = centre - standoff * z
    else:
        z = axes[:, 2] if up is None else np.asarray(up) / np.linalg.norm(up)
        x = _level(centre - np.asarray(camera), z, axes[:, 0])
        position = centre - standoff * x
    rotation = np.stack([x, np.cross(z, x), z], 1)
    a, b, c = (float(value) for value in position)
    return Pose((a, b, c), quaternion_from_matrix(rotation))


def _level(direction: Array, up: Array, instead: Array) -> Array:
    """The horizontal part of a direction as a unit vector; that of `instead` if the direction is vertical."""
    for candidate in (direction, instead, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])):
        level = candidate - up * (candidate @ up)
        length = float(np.linalg.norm(level))
        if length > 1e-6 * max(1.0, float(np.linalg.norm(candidate))):
            return np.asarray(level / length)
    raise AssertionError("one of two axes is level enough")
