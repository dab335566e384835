"""Subscriptions of a camera: callbacks that only store messages, and count malformed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from time import monotonic
from typing import Any

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import (
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from groma_ros.io.rectification import rectification
from groma_ros.io.stamp_buffer import DepthAndInfo, StampBuffer
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.node.image_view import read_compressed, read_image
from groma_ros.node.parameters import Parameters
from groma_ros.node.qos_check import mismatch
from groma_ros.node.topics import COMPRESSED_DEPTH, camera_topics

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # not in Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

REQUESTS = QoSProfile(depth=256)
"""QoS of services and actions: the default keeps ten requests and replies, and drops those beyond when many
clients call at once."""
MALFORMED = "malformed"
"""Cause under which malformed messages are counted."""
MAX_SUGGESTIONS = 5
"""Maximum number of topics that a warning suggests."""


VIEWS: dict[Any, Callable[[bytes], Any]] = {Image: read_image, CompressedImage: read_compressed}
"""Messages that are read in place instead of being deserialized."""


def listen(
    node: Node,
    kind: Any,
    topic: str,
    callback: Callable[[Any], None],
    malformed: Callable[[str], None],
    qos: QoSProfile | int,
    events: Any = None,
    reliability_overridable: bool = True,
) -> Subscription:
    """Subscribe to a topic with an overridable quality of service.

    callback: called with each message, or a view of an image; malformed: called with a sentence for bytes
    that are not a message of this type; events: `SubscriptionEventCallbacks`; reliability_overridable:
    whether qos_overrides.* may set the reliability.
    """
    read = VIEWS.get(kind)

    def take(data: bytes) -> None:
        try:
            view = read(data) if read is not None else None
            message = view if view is not None else deserialize_message(data, kind)
        except Exception as error:  # middlewares raise different types, depending on the distribution
            name, reason = (
                f"{kind.__module__.split('.')[0]}/{kind.__name__}",
                " ".join(str(error).split()) or type(error).__name__,
            )
            malformed(f"A message of {len(data)} bytes on {topic} is not a {name}: {reason[:120]}.")
            return
        callback(message)

    policies = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.DURABILITY]
    if reliability_overridable:
        policies.append(QoSPolicyKind.RELIABILITY)
    return node.create_subscription(
        kind,
        topic,
        take,
        qos,
        raw=True,
        # rclpy's default event handlers are left out, see `qos_check`.
        event_callbacks=events or SubscriptionEventCallbacks(use_default_callbacks=False),
        qos_overriding_options=QoSOverridingOptions(policies),
    )


def reliability_is_overridden(node: Node, topic: str) -> bool:
    """Whether qos_overrides.* sets the reliability of the subscription of a topic, to whatever value."""
    name = f"qos_overrides.{topic}.subscription.reliability"
    if node.has_parameter(name):
        return True  # declared by an earlier subscription, which is so only where it was set
    given = node.declare_parameter(name, "").value
    node.undeclare_parameter(name)
    return bool(given)


IMAGES = {"raw": Image, "compressed": CompressedImage}
DEPTHS = {"raw": Image, COMPRESSED_DEPTH: CompressedImage}
WATCH_SECONDS = 1.0
"""Period of the checks of an image topic's publishers."""
SILENT_SECONDS = 5.0
"""Time without an image after which a warning explains why."""
WARNING_SECONDS = 30.0
"""Minimum time between these warnings, and between those of lost images."""
MAX_LOST = 0.2
"""Share of the images of a second that may be lost on the way before the log warns."""
LEAST_LOST = 5
"""Lost images of a second from which the log warns."""


class CameraInputs:
    """Input topics of one camera: `image`, `depth` and `camera_info`, in the camera's namespace if it has a
    name.

    settings: uses image_transport, depth_transport, image_reliability and rectified. on_image: called with
    each image, or with None for one that could not be read; refuse: called with what was refused ("image" or
    "depth"), a cause and a sentence.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        settings: Parameters,
        on_image: Callable[[Any], None],
        refuse: Callable[[str, str, str], None],
    ) -> None:
        self._node, self._camera, self._settings = node, camera, settings
        self._on_image, self._refuse = on_image, refuse
        self._topics = camera_topics(node, camera, settings.image_transport, settings.depth_transport)
        self._depth, self._info = StampBuffer(), StampBuffer()
        self._guessed = False
        self.lost = 0
        """Images that the middleware reports as lost on the way."""
        self.incompatible = 0
        """Publishers of the image topic whose quality of service does not match."""
        self.silence = ""
        """Why no image has come for `SILENT_SECONDS`, a sentence; "" while images come."""
        self._newest = self._warned = monotonic()
        self._came, self._last_second = 0, (0, 0)
        self._lost_warned = -WARNING_SECONDS
        self._shared = 0
        """How many times in a row the image topic was seen to have several publishers."""
        # A reliability from qos_overrides.* takes precedence over image_reliability.
        self._overridden = reliability_is_overridden(node, self._topics.image)
        self._image_input = self._listen_image(settings.image_reliability == "reliable")
        self._depth_input = self._listen(
            DEPTHS[settings.depth_transport], self._topics.depth, self._depth, MALFORMED
        )
        self._info_input = self._listen(
            CameraInfo, self._topics.camera_info, self._info, f"camera_info {MALFORMED}"
        )
        self._timer = node.create_timer(
            WATCH_SECONDS, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    @property
    def topic(self) -> str:
        """Full name of the image topic."""
        return self._topics.image

    def reserve(self, stamp: int) -> None:
        """Keep depth and camera_info for the image with this stamp (ns) until `pair`, however long that
        takes."""
        self._depth.reserve(stamp)
        self._info.reserve(stamp)

    def pair(self, stamp: int, tolerance: float, wait: float) -> DepthAndInfo:
        """Return the depth image and camera_info for the image with this stamp (ns).

        Their stamps differ from it by at most `tolerance` seconds. Waits up to `wait` seconds for depth if
        the topic has a publisher. Without a camera_info near the stamp the newest one is used, because it
        rarely changes.
        """
        depth = self._depth.find(
            stamp, tolerance, wait if self._node.count_publishers(self._topics.depth) else 0.0
        )
        info = self._info.find(stamp, tolerance)
        return DepthAndInfo(depth, info if info is not None else self._info.latest())

    def is_rectified(self, info: CameraInfo | None) -> bool:
        """Whether P of this camera_info applies to the images, rather than K; a guess is logged once."""
        if info is None:
            return False
        found = rectification(self._settings.rectified, self._topics.image, info)
        if found.guess and not self._guessed:
            self._guessed = True
            self._node.get_logger().warning(found.guess)
        return found.rectified

    def status(self) -> dict[str, object]:
        """Keys and values about the image topic for /diagnostics."""
        reliable = self._image_input.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        return {
            "image topic": self._topics.image,
            "depth topic": self._topics.depth,
            "camera_info topic": self._topics.camera_info,
            "rectified": self._settings.rectified,
            "image reliability": "reliable" if reliable else "best_effort",
            "image publishers": self._node.count_publishers(self._topics.image),
            "lost images": self.lost,
            "incompatible image publishers": self.incompatible,
        }

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_timer(self._timer)
        for subscription in (self._image_input, self._depth_input, self._info_input):
            self._node.destroy_subscription(subscription)

    def _listen(self, kind: Any, topic: str, buffer: StampBuffer, cause: str) -> Subscription:
        def keep(message: Any) -> None:
            size = len(message.data) if hasattr(message, "data") else 0
            buffer.put(to_nanoseconds(message.header.stamp), message, size)

        malformed = partial(self._refuse, "depth", cause)
        return listen(self._node, kind, topic, keep, malformed, qos_profile_sensor_data)

    def _listen_image(self, reliable: bool) -> Subscription:
        qos = copy(qos_profile_sensor_data)
        qos.reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT

        def malformed(sentence: str) -> None:
            self._on_image(None)
            self._refuse("image", MALFORMED, sentence)

        def take(message: Any) -> None:
            self._newest, self.silence = monotonic(), ""
            self._came += 1
            self._on_image(message)

        def lost(event: Any) -> None:
            self.lost += int(event.total_count_change)

        def incompatible(event: Any) -> None:
            self.incompatible += int(event.total_count_change)

        events = SubscriptionEventCallbacks(
            message_lost=lost, incompatible_qos=incompatible, use_default_callbacks=False
        )
        kind = IMAGES[self._settings.image_transport]
        return listen(self._node, kind, self._topics.image, take, malformed, qos, events, self._overridden)

    # Publishers come and go: with image_reliability auto the subscription follows what they offer, and a
    # silent camera is explained in the log.

    def _watch(self) -> None:
        publishers = self._node.get_publishers_info_by_topic(self._topics.image)
        if self._settings.image_reliability == "auto" and publishers and not self._overridden:
            offered = all(item.qos_profile.reliability == ReliabilityPolicy.RELIABLE for item in publishers)
            if offered != (self._image_input.qos_profile.reliability == ReliabilityPolicy.RELIABLE):
                self._node.destroy_subscription(self._image_input)
                self._image_input = self._listen_image(offered)
        self._shared = self._shared + 1 if len(publishers) > 1 else 0
        # At the second look: the names of a new publisher's node come a moment after it, and the publisher of
        # a driver that restarts may overlap with its former one.
        if self._shared == 2:
            names = sorted(f"{item.node_namespace.rstrip('/')}/{item.node_name}" for item in publishers)
            self._node.get_logger().warning(
                f"{len(publishers)} publishers send images on {self._topics.image} ({', '.join(names)}): "
                "they are answered as those of one camera, and objects get new ids wherever their stamps or "
                "sizes differ. Give each camera a topic of its own (parameter cameras)."
            )
        now = monotonic()
        silent = now - self._newest
        if silent >= SILENT_SECONDS:
            self.silence = self._explain(silent, publishers)
            if now - self._warned >= SILENT_SECONDS:
                self._warned = now + WARNING_SECONDS - SILENT_SECONDS
                self._node.get_logger().warning(self.silence)
        self._warn_of_losses(now)

    def _warn_of_losses(self, now: float) -> None:
        """Log that many images of the last second were lost on the way, and what helps."""
        came, lost = (a - b for a, b in zip((self._came, self.lost), self._last_second, strict=True))
        self._last_second = self._came, self.lost
        if lost < LEAST_LOST or lost < MAX_LOST * (came + lost) or now - self._lost_warned < WARNING_SECONDS:
            return
        self._lost_warned = now
        self._node.get_logger().warning(
            f"{lost} of {came + lost} images on {self._topics.image} were lost on the way within a second: "
            "large images need config/fastdds.xml (see docs/robot.md) or image_reliability reliable."
        )

    def _explain(self, seconds: float, publishers: Sequence[Any]) -> str:
        """Explain from the ROS graph why no image arrives."""
        kind = IMAGES[self._settings.image_transport]
        wanted = f"sensor_msgs/msg/{kind.__name__}"
        name = f"Camera {self._camera}: no" if self._camera else "No"
        start = f"{name} image came on {self._topics.image} for {seconds:.0f} s: "
        if not publishers:
            found = [
                topic
                for topic, types in sorted(self._node.get_topic_names_and_types())
                if wanted in types and self._node.count_publishers(topic)
            ]
            own = f"{self._node.get_fully_qualified_name()}/"
            found = [topic for topic in found if not topic.startswith(own)][:MAX_SUGGESTIONS]
            if not found:
                return (
                    start + f"nobody publishes it, nor another topic of {wanted}. Start the camera's driver."
                )
            others = ", ".join(found)
            return start + f"nobody publishes it. Topics of {wanted}: {others}. Remap image to one of them."
        types = sorted({item.topic_type for item in publishers})
        if wanted not in types:
            return start + (
                f"its publishers send {', '.join(types)} and the node reads {wanted}: set image_transport to "
                "raw or compressed to match."
            )
        ours = self._image_input.qos_profile
        for item in publishers:
            offered = item.qos_profile
            if reason := mismatch(offered, ours):
                return start + (
                    f"the publisher {item.node_namespace.rstrip('/')}/{item.node_name} offers "
                    f"{offered.reliability.name.lower()} and {offered.durability.name.lower()}, the node "
                    f"asks for {ours.reliability.name.lower()} and {ours.durability.name.lower()} "
                    f"({reason}). Set image_reliability to best_effort, or change the "
                    "publisher."
                )
        count = "a publisher has" if len(publishers) == 1 else f"{len(publishers)} publishers have"
        return start + (
            f"{count} a matching quality of service, and nothing of it arrived. Large images may need "
            "config/fastdds.xml (see docs/robot.md)."
        )
