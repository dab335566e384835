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
from groma_ros.io.images import ImageError
from groma_ros.io.rectification import rectification
from groma_ros.io.stamp_buffer import StampBuffer
from groma_ros.node.conversions import frame_from_image, to_nanoseconds, with_depth
from groma_ros.types import Box3D, FloatArray, Frame

KEPT = 60
"""Images, and boxes of as many, that wait for the other messages about them."""
DEPTH_TOLERANCE = 0.05
"""Seconds between the stamps of an image and its depth."""
KINDS = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One image with all that the node published about it."""

    frame: Frame
    answers: Answers
    regions: FloatArray
    """float32 Nx4 xyxy, camera pixels; empty where the node's regions were not heard."""
    boxes: tuple[tuple[str, Box3D], ...]
    """Boxes in space, each with its goal's text; empty without depth."""


class CameraView:
    """Listens to one camera of a node while `watching`; then nothing is subscribed to.

    Images are decoded only when they are asked for.
    """

    def __init__(self, client: GromaClient, node_name: str, camera: str = "") -> None:
        """node_name: with its namespace; camera: of a node with several."""
        self._client, self._camera = client, camera
        self._prefix = "/".join(filter(None, ("", node_name.strip("/"), camera.strip("/"))))
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._depth_subscriptions: list[Any] = []
        self._depth, self._infos = StampBuffer(), StampBuffer()
        self._topic, self._rectified = "", "auto"
        self._images: OrderedDict[int, Any] = OrderedDict()
        self._regions: OrderedDict[int, Any] = OrderedDict()
        self._boxes: OrderedDict[int, Any] = OrderedDict()

    @property
    def watching(self) -> bool:
        """Whether it listens."""
        return bool(self._subscriptions)

    @property
    def watching_depth(self) -> bool:
        """Whether it listens to depth too."""
        return bool(self._depth_subscriptions)

    def kind_of(self, topic: str) -> type | None:
        """The message type of an image topic that somebody publishes; None where nobody does."""
        found = dict(self._client.node.get_topic_names_and_types()).get(topic, [])
        return next((KINDS[name] for name in found if name in KINDS), None)

    def watch(self, topic: str, kind: type) -> None:
        """Listen to an image topic and to what the node says about it."""
        self.rest()
        self._topic = topic
        node, wanted = self._client.node, QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            node.create_subscription(kind, topic, self._keep_image, wanted),
            node.create_subscription(Detection2DArray, f"{self._prefix}/proposals", self._keep_regions, 10),
            node.create_subscription(Detection3DArray, f"{self._prefix}/detections_3d", self._keep_boxes, 10),
        ]

    def watch_depth(self, topic: str, kind: type, info_topic: str, rectified: str) -> None:
        """Listen to depth and camera_info as well: the frames come with them from now on.

        rectified: the node's parameter, see `io.rectification`.
        """
        self.rest_depth()
        self._rectified = rectified
        node, qos = self._client.node, qos_profile_sensor_data
        self._depth_subscriptions = [
            node.create_subscription(kind, topic, partial(_put, self._depth), qos),
            node.create_subscription(CameraInfo, info_topic, partial(_put, self._infos), qos),
        ]

    def rest_depth(self) -> None:
        """Listen to depth no more."""
        for subscription in self._depth_subscriptions:
            self._client.node.destroy_subscription(subscription)
        self._depth_subscriptions = []
        self._depth, self._infos = StampBuffer(), StampBuffer()

    def rest(self) -> None:
        """Listen no more, and forget what came."""
        self.rest_depth()
        for subscription in self._subscriptions:
            self._client.node.destroy_subscription(subscription)
        with self._lock:
            self._subscriptions = []
            for kept in (self._images, self._regions, self._boxes):
                kept.clear()

    def is_complete(self, stamp: int) -> bool:
        """Whether the image of a stamp (ns) and its regions are here."""
        with self._lock:
            return stamp in self._images and stamp in self._regions

    def frame(self, answers: Answers) -> CameraFrame | None:
        """The image that answers are about with all that was heard about it; None where it has not come or
        cannot be read."""
        with self._lock:
            image = self._images.get(answers.stamp)
            regions, boxes = self._regions.get(answers.stamp), self._boxes.get(answers.stamp)
        if image is None:
            return None
        try:
            frame = self._deep(frame_from_image(image))
        except ImageError:
            return None
        found = [_corners(item) for item in regions.detections] if regions is not None else []
        placed = tuple(_placed(item) for item in boxes.detections) if boxes is not None else ()
        return CameraFrame(frame, answers, np.array(found, np.float32).reshape(-1, 4), placed)

    def _deep(self, frame: Frame) -> Frame:
        """The frame with its depth, where depth is listened to and came and belongs to it."""
        if not self.watching_depth:
            return frame
        depth = self._depth.find(frame.stamp, DEPTH_TOLERANCE)
        info = self._infos.find(frame.stamp, DEPTH_TOLERANCE) or self._infos.latest()
        if info is None:
            return frame
        try:
            return with_depth(frame, depth, info, rectification(self._rectified, self._topic, info).rectified)
        except ImageError:
            return frame  # the node says in its diagnostics what is wrong with the depth

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


def _corners(item: Any) -> tuple[float, float, float, float]:
    centre, half = item.bbox.center.position, (item.bbox.size_x / 2, item.bbox.size_y / 2)
    return centre.x - half[0], centre.y - half[1], centre.x + half[0], centre.y + half[1]


def _placed(item: Any) -> tuple[str, Box3D]:
    at, turn, size = item.bbox.center.position, item.bbox.center.orientation, item.bbox.size
    box = Box3D((at.x, at.y, at.z), (turn.x, turn.y, turn.z, turn.w), (size.x, size.y, size.z))
    return (item.results[0].hypothesis.class_id if item.results else ""), box
