"""What the node listens to of a camera: callbacks that only store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from groma_ros.io.stamp_buffer import DepthAndInfo, StampBuffer
from groma_ros.node.conversions import to_nanoseconds

REQUESTS = QoSProfile(depth=256)
"""Of services and actions: the usual profile holds ten requests and as many replies, and loses those of more
callers at once."""
MALFORMED = "malformed"
"""The cause under which such messages are counted."""


def listen(
    node: Node,
    kind: Any,
    topic: str,
    callback: Callable[[Any], None],
    malformed: Callable[[str], None],
    qos: QoSProfile | int,
) -> Subscription:
    """Subscribe to a topic, its quality of service overridable.

    callback: called with each message; malformed: with a sentence for bytes that are not a message of this
    kind.
    """

    def take(data: bytes) -> None:
        try:
            message = deserialize_message(data, kind)
        except Exception as error:  # the middleware raises types that differ between distributions
            name, reason = (
                f"{kind.__module__.split('.')[0]}/{kind.__name__}",
                " ".join(str(error).split()) or type(error).__name__,
            )
            malformed(f"A message of {len(data)} bytes on {topic} is not a {name}: {reason[:120]}.")
            return
        callback(message)

    overridable = QoSOverridingOptions.with_default_policies()
    return node.create_subscription(kind, topic, take, qos, raw=True, qos_overriding_options=overridable)


IMAGES = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}


class CameraInputs:
    """The topics of one camera, `image` and so on; `left/image` for a camera named left.

    on_image: called with each image, and with None for one that could not be read; refuse: takes what was
    refused ("image" or "depth"), a cause and a sentence.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        transport: str,
        on_image: Callable[[Any], None],
        refuse: Callable[[str, str, str], None],
    ) -> None:
        self._node, self._refuse = node, refuse
        self._prefix = f"{camera}/" if camera else ""
        self._depth, self._info = StampBuffer(), StampBuffer()
        kind, topic = IMAGES[transport]
        self._image_input = self._listen(kind, topic, on_image, self._unreadable(on_image))
        self._depth_input = self._listen(
            Image, "depth", partial(self._keep, self._depth), partial(refuse, "depth", MALFORMED)
        )
        self._info_input = self._listen(
            CameraInfo,
            "camera_info",
            partial(self._keep, self._info),
            partial(refuse, "depth", f"camera_info {MALFORMED}"),
        )

    @property
    def topic(self) -> str:
        """The full name of the image's topic."""
        return str(self._image_input.topic_name)

    def pair(self, stamp: int, tolerance: float, wait: float) -> DepthAndInfo:
        """The depth image and camera_info of the image of a stamp (ns), their stamps at most `tolerance`
        seconds from it.

        Waits up to `wait` seconds for depth that somebody publishes. Where no camera_info is near, the newest
        counts: it seldom changes.
        """
        depth = self._depth.find(
            stamp, tolerance, wait if self._node.count_publishers(self._depth_input.topic_name) else 0.0
        )
        info = self._info.find(stamp, tolerance)
        return DepthAndInfo(depth, info if info is not None else self._info.latest())

    def destroy(self) -> None:
        """Stop listening."""
        for subscription in (self._image_input, self._depth_input, self._info_input):
            self._node.destroy_subscription(subscription)

    def _listen(
        self, kind: Any, topic: str, callback: Callable[[Any], None], malformed: Callable[[str], None]
    ) -> Subscription:
        return listen(self._node, kind, self._prefix + topic, callback, malformed, qos_profile_sensor_data)

    def _unreadable(self, on_image: Callable[[Any], None]) -> Callable[[str], None]:
        def refuse(sentence: str) -> None:
            on_image(None)
            self._refuse("image", MALFORMED, sentence)

        return refuse

    @staticmethod
    def _keep(buffer: StampBuffer, message: Any) -> None:
        buffer.put(to_nanoseconds(message.header.stamp), message)
