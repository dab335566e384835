"""Publishers of a camera's outputs."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo, VisionInfo

from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import (
    detections_message,
    groundings_message,
    image_message,
    label_message,
    proposals_message,
    vision_message,
)
from groma_ros.node.detections_3d import Detections3D, detections_3d_message
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import GoalSet, NodeConfig
from groma_ros.node.markers import marker_array_type, markers_message
from groma_ros.node.qos_check import NO_EVENTS
from groma_ros.tracking.questions import TrackedAnswer
from groma_ros.visualization import draw_groundings

ANSWERS = {
    "detections": (Detection2DArray, 10),
    "groundings": (GroundingArray, 10),
}
TOPICS_3D = {
    "detections_3d": (Detection3DArray, 10),
    "target_pose": (PoseStamped, 10),
}
"""Topics that require depth, other than the markers."""
_MARKER_ARRAY = marker_array_type()
MARKERS = {"debug/markers": (_MARKER_ARRAY, 1)} if _MARKER_ARRAY is not None else {}
PICTURES = {"proposals": (Detection2DArray, 10), "debug/image": (Image, 1)}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def create(node: LifecycleNode, kind: Any, name: str, qos: QoSProfile | int) -> LifecyclePublisher:
    """Create a reliable publisher that is silent while the node is inactive and allows QoS overrides."""
    publisher: LifecyclePublisher = node.create_lifecycle_publisher(
        kind,
        name,
        qos,
        event_callbacks=NO_EVENTS,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )
    return publisher


class CameraOutputs:
    """Output topics of one camera: `~/detections` etc., or `~/left/detections` etc. for a camera named
    left."""

    def __init__(self, node: LifecycleNode, camera: str) -> None:
        self._node = node
        inside = f"~/{camera.strip('/')}/" if camera else "~/"
        topics = {**ANSWERS, **TOPICS_3D, **MARKERS, **PICTURES}
        self._topics = {
            name: create(node, kind, inside + name, depth) for name, (kind, depth) in topics.items()
        }

    def subscribed(self, *names: str) -> bool:
        """Whether one of these topics has a subscriber."""
        return any(self._topics[name].get_subscription_count() > 0 for name in names)

    def wanted(self, config: NodeConfig) -> bool:
        """Whether any output is subscribed to, or must be drawn."""
        return self.subscribed(*ANSWERS, *TOPICS_3D, *MARKERS, "proposals") or self._drawn(config)

    @property
    def detections_3d_wanted(self) -> bool:
        """Whether an output that requires depth is subscribed to."""
        return self.subscribed(*TOPICS_3D, *MARKERS)

    @property
    def proposals_wanted(self) -> bool:
        """Whether the regions, which do not depend on goals, are subscribed to."""
        return self.subscribed("proposals")

    @property
    def answers_wanted(self) -> bool:
        """Whether the 2D answers are subscribed to."""
        return self.subscribed(*ANSWERS)

    def publish_answers(self, header: Header, tracked: TrackedAnswer, config: NodeConfig) -> None:
        """Publish the 2D answers for an image to topics that have a subscriber."""
        if not self.answers_wanted:
            return
        message = groundings_message(
            header, tracked.groundings, tracked.version, tracked.answered, config.settings.numbered
        )
        if self.subscribed("groundings"):
            self._topics["groundings"].publish(message)
        if self.subscribed("detections"):
            self._topics["detections"].publish(detections_message(message))

    def publish_pictures(self, view: ImageResult, config: NodeConfig, rate: float = 0.0) -> None:
        """Publish the regions and the overlay of a processed image. rate: outputs per second, shown in the
        overlay."""
        header, tracked = view.header, view.tracked
        assert tracked is not None
        if view.scene is not None and self.proposals_wanted:
            self._topics["proposals"].publish(proposals_message(header, view.scene))
        if self._drawn(config):
            age = f", answer {tracked.age:.1f} s old" if tracked.answered is not None else ""
            note = f"goals {tracked.version}, {rate:.1f} Hz{age}"
            self._topics["debug/image"].publish(
                image_message(header, draw_groundings(view.frame.rgb, view.groundings, note=note))
            )

    def publish_detections_3d(self, detections: Detections3D, config: NodeConfig) -> None:
        """Publish the 3D outputs of a frame with depth; `target_pose` only if there is a target."""
        if self.subscribed("detections_3d"):
            self._topics["detections_3d"].publish(detections_3d_message(detections, config.settings.numbered))
        if detections.target is not None:
            self._topics["target_pose"].publish(detections.target)
        if MARKERS and self.subscribed(*MARKERS):
            self._topics["debug/markers"].publish(markers_message(detections))

    def _drawn(self, config: NodeConfig) -> bool:
        return config.settings.debug_image and self.subscribed("debug/image")

    def destroy(self) -> None:
        """Close the topics."""
        for publisher in self._topics.values():
            self._node.destroy_lifecycle_publisher(publisher)


class Labels:
    """`~/label_info` and `~/vision_info`: the goals behind the detections' classes; latched."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._labels = create(node, LabelInfo, "~/label_info", LATCHED)
        self._vision = create(node, VisionInfo, "~/vision_info", LATCHED)

    def publish(self, goal_set: GoalSet, min_score: float, model: str) -> None:
        """Publish the labels of the standing goals."""
        stamp = self._node.get_clock().now().to_msg()
        self._labels.publish(label_message(stamp, goal_set, min_score))
        self._vision.publish(vision_message(stamp, goal_set, model, self._labels.topic_name))

    def destroy(self) -> None:
        """Close the topics."""
        for publisher in (self._labels, self._vision):
            self._node.destroy_lifecycle_publisher(publisher)
