"""Where frames are in one another: tf2, which robots have and the wheels of `make setup` do not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from groma_ros.camera_geometry import matrix_from_quaternion

Array = NDArray[np.float64]

_POLL_SECONDS = 0.005


class TransformError(ValueError):
    """A transform that is not known, in a sentence."""


class Transforms:
    """Listens to /tf and /tf_static. Raises ImportError with a sentence where tf2_ros is not installed."""

    def __init__(self, node: Node, target: str) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ImportError(
                f"The parameter target_frame is {target!r}, and tf2_ros, which knows frames, is not "
                f"installed ({error}): install it "
                "(apt-get install ros-$ROS_DISTRO-tf2-ros-py), or leave target_frame empty for poses in the "
                "camera's frame."
            ) from error
        self.target = target
        self._buffer: Any = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def find(self, source: str, stamp: Any, wait: float) -> tuple[Array, Array]:
        """Rotation 3x3 and translation 3 that turn points of `source` at a stamp into points of the target.

        Waits up to `wait` seconds, of the wall: a simulated clock may stand still. Raises TransformError.
        """
        end = time.monotonic() + wait
        while True:
            try:
                return matrices(self._buffer.lookup_transform(self.target, source, Time.from_msg(stamp)))
            except Exception as error:  # tf2's own types; none of them may end a frame
                if time.monotonic() >= end:
                    problem = " ".join(str(error).split()).rstrip(".")
                    raise TransformError(
                        f"The frame {source!r} is not known in {self.target!r} (target_frame): {problem}."
                    ) from error
            time.sleep(_POLL_SECONDS)

    def destroy(self) -> None:
        """Stop listening."""
        unregister: Callable[[], None] | None = getattr(self._listener, "unregister", None)
        if unregister is not None:
            unregister()


def matrices(message: TransformStamped) -> tuple[Array, Array]:
    """A transform message as rotation 3x3 and translation 3."""
    rotation, shift = message.transform.rotation, message.transform.translation
    turn = matrix_from_quaternion((rotation.x, rotation.y, rotation.z, rotation.w))
    return turn, np.array([shift.x, shift.y, shift.z])
