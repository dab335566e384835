"""What the node listens to of a camera: callbacks that only store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from groma_ros.node.conversions import to_nanoseconds
from groma_ros.node.pairing import Buffer, Pair

IMAGES = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}


class CameraInputs:
    """The topics of one camera, `image` and so on; `left/image` for a camera named left. on_image: called with each image."""

    def __init__(self, node: Node, camera: str, transport: str, on_image: Callable[[Any], None]) -> None:
        self._node = node
        self._prefix = f"{camera}/" if camera else ""
        self._depth, self._info = Buffer(), Buffer()
        kind, topic = IMAGES[transport]
        self._image_input = self._subscribe(kind, topic, on_image)
        self._depth_input = self._subscribe(Image, "depth", lambda message: self._keep(self._depth, message))
        self._info_input = self._subscribe(CameraInfo, "camera_info", lambda message: self._keep(self._info, message))

    @property
    def topic(self) -> str:
        """The full name of the image's topic."""
        return str(self._image_input.topic_name)

    def pair(self, stamp: int, tolerance: float, wait: float) -> Pair:
        """The depth image and camera_info of the image of a stamp (ns), their stamps at most `tolerance` seconds from it.

        Waits up to `wait` seconds for depth that somebody publishes. Where no camera_info is near, the newest counts: it seldom
        changes.
        """
        depth = self._depth.find(stamp, tolerance, wait if self._node.count_publishers(self._depth_input.topic_name) else 0.0)
        info = self._info.find(stamp, tolerance)
        return Pair(depth, info if info is not None else self._info.latest())

    def destroy(self) -> None:
        """Stop listening."""
        for subscription in (self._image_input, self._depth_input, self._info_input):
            self._node.destroy_subscription(subscription)

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> Subscription:
        overridable = QoSOverridingOptions.with_default_policies()
        return self._node.create_subscription(
            kind, self._prefix + topic, callback, qos_profile_sensor_data, qos_overriding_options=overridable
        )

    @staticmethod
    def _keep(buffer: Buffer, message: Any) -> None:
        buffer.put(to_nanoseconds(message.header.stamp), message)
