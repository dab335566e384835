"""Images, regions and 3D boxes of a running node's camera, for programs that display them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray, Detection3DArray

from groma_ros.client.groma_client import Answers, GromaClient
from groma_ros.client.messages import corners
from groma_ros.io.images import ImageError
from groma_ros.io.rectification import rectification
from groma_ros.io.stamp_buffer import StampBuffer
from groma_ros.node.conversions import frame_from_image, to_nanoseconds, with_depth
from groma_ros.types import Box3D, FloatArray, Frame

KEPT = 60
"""Number of images, and of messages about them, that are kept until the rest of them has arrived."""
IMAGE_TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """An image with everything the node published about it."""

    frame: Frame
    answers: Answers
    regions: FloatArray
    """float32 Nx4 xyxy, camera pixels; empty if the node's regions were not received."""
    boxes: tuple[tuple[str, Box3D], ...] | None
    """3D boxes with the text of their goal; None if none were received. The node publishes them last, and
    none for an image without depth."""


class CameraView:
    """Subscribes to one camera of a node. Depth and 3D boxes are separate subscriptions, because a node
    computes 3D boxes only for subscribers.

    Images are decoded only on request.
    """

    def __init__(self, client: GromaClient, node_name: str, camera: str = "") -> None:
        """node_name: with its namespace; camera: name of a camera, for a node with several."""
        self._client, self._camera = client, camera
        self._prefix = "/".join(filter(None, ("", node_name.strip("/"), camera.strip("/"))))
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._depth_subscriptions: list[Any] = []
        self._depth, self._infos = StampBuffer(), StampBuffer()
        self._topic = ""
        self._depth_source: tuple[str, str, str] | None = None
        """Depth topic, camera_info topic and `rectified`; None while not subscribed."""
        self.depth_tolerance = 0.0
        """Maximum difference in seconds between the stamps of an image and its depth and camera_info: the
        node's parameter sync_tolerance."""
        self._images: OrderedDict[int, Any] = OrderedDict()
        self._regions: OrderedDict[int, Any] = OrderedDict()
        self._boxes: OrderedDict[int, Any] = OrderedDict()

    @property
    def topic(self) -> str:
        """The subscribed image topic (regions are subscribed with it); "" if none."""
        return self._topic

    @property
    def depth_source(self) -> tuple[str, str, str] | None:
        """The subscribed depth topic, camera_info topic and `rectified` (3D boxes are subscribed with them);
        None if none."""
        return self._depth_source

    def message_type(self, topic: str) -> type | None:
        """Return the message type of an image topic; None if it has no publisher."""
        found = dict(self._client.node.get_topic_names_and_types()).get(topic, [])
        return next((IMAGE_TYPES[name] for name in found if name in IMAGE_TYPES), None)

    def subscribe(self, topic: str, kind: type) -> None:
        """Subscribe to an image topic and to the node's regions."""
        self.unsubscribe()
        node, wanted = self._client.node, QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(kind, topic, self._keep_image, wanted),
            node.create_subscription(Detection2DArray, f"{self._prefix}/proposals", self._keep_regions, 10),
        ]
        self._topic = topic

    def subscribe_depth(self, topic: str, kind: type, info_topic: str, rectified: str) -> None:
        """Subscribe to depth, camera_info and the node's 3D boxes, which later frames then have.

        rectified: the node's parameter, see `io.rectification`.
        """
        self.unsubscribe_depth()
        node, qos = self._client.node, qos_profile_sensor_data
        self._depth_subscriptions = [
            node.create_subscription(kind, topic, partial(_put, self._depth), qos),
            node.create_subscription(CameraInfo, info_topic, partial(_put, self._infos), qos),
            node.create_subscription(Detection3DArray, f"{self._prefix}/detections_3d", self._keep_boxes, 10),
        ]
        self._depth_source = topic, info_topic, rectified

    def unsubscribe_depth(self) -> None:
        """Unsubscribe from depth and 3D boxes, and drop those received."""
        for subscription in self._depth_subscriptions:
            self._client.node.destroy_subscription(subscription)
        with self._lock:
            self._depth_subscriptions, self._depth_source = [], None
            self._depth, self._infos = StampBuffer(), StampBuffer()
            self._boxes.clear()

    def unsubscribe(self) -> None:
        """Unsubscribe, and drop everything received."""
        self.unsubscribe_depth()
        for subscription in self._subscriptions:
            self._client.node.destroy_subscription(subscription)
        with self._lock:
            self._subscriptions, self._topic = [], ""
            self._images.clear()
            self._regions.clear()

    def is_complete(self, stamp: int) -> bool:
        """Whether the image of a stamp (ns), its regions and, if subscribed to, its 3D boxes have arrived."""
        with self._lock:
            placed = self._depth_source is None or stamp in self._boxes
            return stamp in self._images and stamp in self._regions and placed

    def frame(self, answers: Answers) -> CameraFrame | None:
        """Return the image with this stamp (ns) and everything received about it; None if it has not arrived
        or cannot be read."""
        with self._lock:
            image = self._images.get(answers.stamp)
            regions, boxes = self._regions.get(answers.stamp), self._boxes.get(answers.stamp)
        if image is None:
            return None
        try:
            frame = self._with_depth(frame_from_image(image))
        except ImageError:
            return None
        found = [corners(item.bbox) for item in regions.detections] if regions is not None else []
        placed = tuple(_placed(item) for item in boxes.detections) if boxes is not None else None
        return CameraFrame(frame, answers, np.array(found, np.float32).reshape(-1, 4), placed)

    def _with_depth(self, frame: Frame) -> Frame:
        """Return the frame with its depth, if depth is subscribed to, has arrived and matches it."""
        if (source := self._depth_source) is None:
            return frame
        depth = self._depth.find(frame.stamp, self.depth_tolerance)
        info = self._infos.find(frame.stamp, self.depth_tolerance) or self._infos.latest()
        if info is None:
            return frame
        try:
            return with_depth(frame, depth, info, rectification(source[2], self._topic, info).rectified)
        except ImageError:
            return frame  # the node reports in its diagnostics what is wrong with the depth

    def _keep_image(self, message: Any) -> None:
        self._keep(self._images, message)

    def _keep_regions(self, message: Detection2DArray) -> None:
        self._keep(self._regions, message)

    def _keep_boxes(self, message: Detection3DArray) -> None:
        self._keep(self._boxes, message)

    def _keep(self, kept: OrderedDict[int, Any], message: Any) -> None:
        with self._lock:
            kept[to_nanoseconds(message.header.stamp)] = message
            while len(kept) > KEPT:
                kept.popitem(last=False)


def _put(buffer: StampBuffer, message: Any) -> None:
    buffer.put(to_nanoseconds(message.header.stamp), message, len(getattr(message, "data", ())))


def _placed(item: Any) -> tuple[str, Box3D]:
    at, turn, size = item.bbox.center.position, item.bbox.center.orientation, item.bbox.size
    box = Box3D((at.x, at.y, at.z), (turn.x, turn.y, turn.z, turn.w), (size.x, size.y, size.z))
    return (item.results[0].hypothesis.class_id if item.results else ""), box
