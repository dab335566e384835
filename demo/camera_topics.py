"""A simulated camera as ROS topics, and the simulated clock. Also runs in `.venv-sim`, so it imports only
common messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from demo.ros_common import time_message
from groma_ros.types import Intrinsics


class CameraTopics:
    """Publishes `image`, `depth` and `camera_info` under `camera/`, and /clock. frame: the camera's
    optical frame."""

    def __init__(self, node: Node, frame: str) -> None:
        self.frame = frame
        self._image: Any = node.create_publisher(Image, "camera/image", qos_profile_sensor_data)
        self._depth: Any = node.create_publisher(Image, "camera/depth", qos_profile_sensor_data)
        self._info: Any = node.create_publisher(CameraInfo, "camera/camera_info", qos_profile_sensor_data)
        self._clock: Any = node.create_publisher(Clock, "/clock", 10)

    def tick(self, seconds: float) -> None:
        """Publish the time."""
        self._clock.publish(Clock(clock=time_message(seconds)))

    def publish(
        self, seconds: float, rgb: NDArray[np.uint8], depth: NDArray[np.float32], k: Intrinsics
    ) -> None:
        """Publish a picture. rgb: uint8 HxWx3; depth: float32 HxW metres; k: intrinsics whose pixel origin is
        the picture's corner, as in the simulators."""
        stamp = time_message(seconds)
        k = replace(k, cx=k.cx - 0.5, cy=k.cy - 0.5)  # camera_info counts from the centre of the first pixel
        info = CameraInfo(width=k.width, height=k.height, distortion_model="plumb_bob")
        info.k = [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0]
        info.p = [k.fx, 0.0, k.cx, 0.0, 0.0, k.fy, k.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        info.d, info.r = [0.0] * 5, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.header.stamp, info.header.frame_id = stamp, self.frame
        self._info.publish(info)
        self._depth.publish(self._picture(stamp, np.ascontiguousarray(depth, np.float32), "32FC1", 4))
        self._image.publish(self._picture(stamp, np.ascontiguousarray(rgb), "rgb8", 3))

    def _picture(self, stamp: Time, pixels: Any, encoding: str, size: int) -> Image:
        height, width = pixels.shape[:2]
        message = Image(height=height, width=width, encoding=encoding, step=width * size, is_bigendian=0)
        message.header.stamp, message.header.frame_id = stamp, self.frame
        message.data = pixels.tobytes()
        return message
