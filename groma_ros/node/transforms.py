"""Look up transforms between frames: with tf2 if it is installed, otherwise with our own buffer on the same
topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from groma_ros.camera_geometry import matrix_from_quaternion
from groma_ros.geometry3d.transform_buffer import Transform, TransformBuffer, TransformError
from groma_ros.node.conversions import to_nanoseconds

__all__ = ["TransformError", "Transforms", "matrices"]

Array = NDArray[np.float64]

_POLL_SECONDS = 0.005
_DEPTH = 100  # of both topics, the same as tf2's listener


class Transforms:
    """Listens to /tf and /tf_static.

    Raises ImportError if neither tf2_ros nor tf2_msgs is installed.
    """

    def __init__(self, node: Node) -> None:
        self._frames: _Tf2 | _Own
        try:
            self._frames = _Tf2(node)
        except ImportError:
            self._frames = _Own(node)

    def find(self, target: str, source: str, stamp: Any, wait: float) -> tuple[Array, Array]:
        """Return the rotation (3x3) and translation (3) that transform points of `source` at a stamp into the
        target frame.

        Waits up to `wait` seconds of wall time, since a simulated clock may stand still. Raises
        TransformError.
        """
        end = time.monotonic() + wait
        while True:
            try:
                return self._frames.lookup(target, source, stamp)
            except Exception as error:  # tf2's exception types; a frame must not end with one
                if time.monotonic() >= end:
                    problem = " ".join(str(error).split()).rstrip(".")
                    raise TransformError(
                        f"The frame {source!r} is not known in {target!r} (target_frame): {problem}."
                    ) from error
            time.sleep(_POLL_SECONDS)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._frames.destroy()


class _Tf2:
    """tf2's buffer. Raises ImportError if it is not installed."""

    def __init__(self, node: Node) -> None:
        import tf2_ros

        self._buffer: Any = tf2_ros.Buffer()
        self._listener: Any = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp: Any) -> tuple[Array, Array]:
        return matrices(self._buffer.lookup_transform(target, source, Time.from_msg(stamp)))

    def destroy(self) -> None:
        unregister: Callable[[], None] | None = getattr(self._listener, "unregister", None)
        if unregister is not None:
            unregister()


class _Own:
    """Our own buffer. Raises ImportError if the message package is not installed either."""

    def __init__(self, node: Node) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise ImportError(
                "The parameter target_frame is set, and neither tf2_ros nor tf2_msgs, which tell of frames, "
                "is "
                f"installed ({error}): install them (apt-get install ros-$ROS_DISTRO-tf2-ros-py; without a "
                "ROS "
                "distribution `make setup`), or leave target_frame empty for poses in the camera's frame."
            ) from error
        self._node, self._lock, self._buffer = node, threading.Lock(), TransformBuffer()
        latched = QoSProfile(depth=_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._on_moving, QoSProfile(depth=_DEPTH)),
            node.create_subscription(TFMessage, "/tf_static", self._on_static, latched),
        ]

    def lookup(self, target: str, source: str, stamp: Any) -> tuple[Array, Array]:
        with self._lock:
            return self._buffer.lookup(target, source, to_nanoseconds(stamp))

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_moving(self, message: Any) -> None:
        self._store(message, static=False)

    def _on_static(self, message: Any) -> None:
        self._store(message, static=True)

    def _store(self, message: Any, static: bool) -> None:
        with self._lock:
            for item in message.transforms:
                shift, turn = item.transform.translation, item.transform.rotation
                transform = Transform((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
                stamp = to_nanoseconds(item.header.stamp)
                try:
                    self._buffer.set(item.header.frame_id, item.child_frame_id, stamp, transform, static)
                except TransformError as error:
                    self._node.get_logger().warning(str(error), throttle_duration_sec=10.0)


def matrices(message: TransformStamped) -> tuple[Array, Array]:
    """Convert a transform message to a rotation (3x3) and a translation (3)."""
    rotation, shift = message.transform.rotation, message.transform.translation
    turn = matrix_from_quaternion((rotation.x, rotation.y, rotation.z, rotation.w))
    return turn, np.array([shift.x, shift.y, shift.z])
