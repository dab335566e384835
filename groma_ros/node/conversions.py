"""Convert between messages and our dataclasses.

Message fields are assigned bytes, never arrays: assigning an array is a hundred times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
    VisionInfo,
)

from groma_ros.io.depth_images import (
    check_registered,
    compressed_to_depth,
    image_to_depth,
    intrinsics_from_info,
)
from groma_ros.io.images import compressed_to_rgb, header_size
from groma_ros.msg import Goal as GoalMessage
from groma_ros.msg import Grounding as GroundingMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.bridge import message_to_rgb
from groma_ros.node.goal_set import GoalSet
from groma_ros.node.image_view import CompressedView
from groma_ros.types import Detection, Frame, Goal, Grounding, GroundingStatus, Scene

NANOSECONDS = 1_000_000_000
STATUS_CODES: dict[GroundingStatus, int] = {
    "pending": GroundingMessage.PENDING,
    "present": GroundingMessage.PRESENT,
    "absent": GroundingMessage.ABSENT,
    "ambiguous": GroundingMessage.AMBIGUOUS,
    "stale": GroundingMessage.STALE,
}
"""Constants of groma_ros/msg/Grounding by status."""


COMPRESSED = (CompressedImage, CompressedView)
HEADER_BYTES = 4096
"""Beginning of a compressed image in which its size is looked for."""


def image_size(message: Any) -> tuple[int, int] | None:
    """Width and height of a raw or compressed image without decoding it; None where the beginning of a file
    does not tell."""
    if isinstance(message, COMPRESSED):
        return header_size(bytes(message.data[:HEADER_BYTES]))
    return int(message.width), int(message.height)


def frame_from_image(message: Any) -> Frame:
    """Convert a raw or compressed image, or a view of one, to a frame. Raises `images.ImageError` for one
    that cannot be decoded."""
    compressed = isinstance(message, COMPRESSED)
    rgb = compressed_to_rgb(message.data, message.format) if compressed else message_to_rgb(message)
    return Frame(rgb, to_nanoseconds(message.header.stamp), message.header.frame_id)


def with_depth(frame: Frame, depth: Any, info: CameraInfo | None, rectified: bool = False) -> Frame:
    """Add depth and intrinsics to a frame, where given. Raises `images.ImageError` if they do not match it.

    depth: 16UC1 in millimetres or 32FC1 in metres, raw or compressedDepth, or a view of it, registered to the
    frame; rectified: use P of the camera_info instead of K.
    """
    if info is None:
        return frame
    intrinsics = intrinsics_from_info(info, rectified)
    if depth is None:
        return replace(frame, intrinsics=intrinsics)
    if isinstance(depth, COMPRESSED):
        metres = compressed_to_depth(depth.data, depth.format)
    else:
        metres = image_to_depth(depth)
    height, width = frame.rgb.shape[:2]
    check_registered(Header(frame_id=frame.frame_id), width, height, metres, depth.header, intrinsics)
    return replace(frame, depth=metres, intrinsics=intrinsics)


def to_nanoseconds(stamp: Time) -> int:
    """Convert a stamp to nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def to_time(nanoseconds: int) -> Time:
    """Convert nanoseconds to a stamp."""
    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def goal_from_message(message: GoalMessage) -> Goal:
    """Convert a goal without checking it; see `check_goals`."""
    return Goal(message.text.strip(), message.kind or "auto", message.min_score)


def detections_message(groundings: GroundingArray) -> Detection2DArray:
    """Boxes of all answers of a message in camera pixels, in the order of the goals, best first within each
    goal. They are the same objects as in that message."""
    return Detection2DArray(
        header=groundings.header,
        detections=[box for item in groundings.groundings for box in item.detections],
    )


def groundings_message(
    header: Header,
    groundings: Sequence[Grounding],
    goals_version: int,
    answered: int | None = None,
    numbered: bool = False,
) -> GroundingArray:
    """One answer per goal, absent goals included. answered: stamp (ns) of the frame the language model
    answered on; None before its first answer; numbered: the class of a box is the number of its goal, as in
    `label_message`, instead of its text."""
    message = GroundingArray(header=header, goals_version=goals_version)
    message.answered = Time() if answered is None else to_time(answered)
    message.groundings = [
        grounding_message(header, item, str(number) if numbered else "")
        for number, item in enumerate(groundings)
    ]
    return message


def proposals_message(header: Header, scene: Scene) -> Detection2DArray:
    """All regions of a scene, in the order of their names; class_id is "object", the score is the
    objectness."""
    pairs = zip(scene.boxes, scene.objectness, strict=True)
    boxes = [
        Detection((float(a), float(b), float(c), float(d)), float(score), i)
        for i, ((a, b, c, d), score) in enumerate(pairs)
    ]
    return Detection2DArray(
        header=header, detections=[detection_message(header, "object", item) for item in boxes]
    )


def box_corners(box: BoundingBox2D) -> tuple[float, float, float, float]:
    """Convert a message's box to xyxy. Raises ValueError for a rotated box or one without a size."""
    centre, half = box.center.position, (box.size_x / 2, box.size_y / 2)
    if box.center.theta:
        raise ValueError(f"A region is turned by {box.center.theta:.3f} rad; regions are upright boxes.")
    if not (half[0] > 0 and half[1] > 0):
        raise ValueError(f"A region has the size {box.size_x} x {box.size_y} pixels; both must be above 0.")
    return centre.x - half[0], centre.y - half[1], centre.x + half[0], centre.y + half[1]


def label_message(stamp: Time, goal_set: GoalSet, min_score: float) -> LabelInfo:
    """The standing goals as classes, numbered from 0 in their order; frame_id names the goal set, e.g. "goals
    3"."""
    header = Header(stamp=stamp, frame_id=f"goals {goal_set.version}")
    classes = [VisionClass(class_id=index, class_name=goal.text) for index, goal in enumerate(goal_set.goals)]
    return LabelInfo(header=header, class_map=classes, threshold=min_score)


def vision_message(stamp: Time, goal_set: GoalSet, method: str, location: str) -> VisionInfo:
    """Describe the detector: its method, and the topic and version of its labels."""
    header = Header(stamp=stamp, frame_id=f"goals {goal_set.version}")
    return VisionInfo(
        header=header, method=method, database_location=location, database_version=goal_set.version
    )


def image_message(header: Header, rgb: NDArray[Any]) -> Image:
    """Convert a uint8 HxWx3 image to an rgb8 message."""
    height, width = rgb.shape[:2]
    message = Image(
        header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width
    )
    message.data = np.ascontiguousarray(rgb, np.uint8).tobytes()
    return message


def grounding_message(header: Header, grounding: Grounding, class_id: str = "") -> GroundingMessage:
    """The answer to one goal. class_id: class of its boxes, by default the goal's text."""
    goal = grounding.goal
    class_id = class_id or goal.text
    message = GroundingMessage(
        goal=goal.text,
        kind=goal.kind,
        status=STATUS_CODES[grounding.status],
        present=float(grounding.present),
        margin=float(grounding.margin),
    )
    message.detections = _detections(header, class_id, grounding.detections)
    message.alternatives = _detections(header, class_id, grounding.alternatives)
    return message


def _detections(header: Header, class_id: str, detections: Sequence[Detection]) -> list[Detection2D]:
    best_first = sorted(detections, key=lambda item: -item.score)
    return [detection_message(header, class_id, item) for item in best_first]


def detection_message(header: Header, text: str, detection: Detection) -> Detection2D:
    """One box; text: class of the box."""
    x1, y1, x2, y2 = (float(value) for value in detection.box)
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = text, float(detection.score)
    # Parts that are handed to a constructor are built twice: it makes the default ones all the same.
    message = Detection2D(results=[result], id=detection.track_id)
    message.header = header
    message.bbox.size_x, message.bbox.size_y = x2 - x1, y2 - y1
    centre = message.bbox.center.position
    centre.x, centre.y = (x1 + x2) / 2, (y1 + y2) / 2
    return message
