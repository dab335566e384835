"""Between messages and the project's dataclasses. Arrays never go into a message field: bytes do (a hundred times faster)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose

from groma_ros.msg import Goal as GoalMessage
from groma_ros.msg import Grounding as GroundingMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.images import compressed_to_rgb, image_to_rgb
from groma_ros.node.statistics import Snapshot
from groma_ros.types import Detection, Frame, Goal, Grounding

NANOSECONDS = 1_000_000_000


def frame_from_image(message: Image | CompressedImage) -> Frame:
    """The frame of a raw or compressed image. Raises `images.ImageError` with a sentence for one that cannot be read."""
    compressed = isinstance(message, CompressedImage)
    rgb = compressed_to_rgb(message.data, message.format) if compressed else image_to_rgb(message)
    return Frame(rgb, to_nanoseconds(message.header.stamp), message.header.frame_id)


def to_nanoseconds(stamp: Time) -> int:
    """A stamp as one number."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def goal_from_message(message: GoalMessage) -> Goal:
    """A goal as it was sent; it is checked where all goals are."""
    return Goal(message.text.strip(), message.kind or "auto", message.min_score)


def detections_message(header: Header, groundings: Sequence[Grounding]) -> Detection2DArray:
    """All boxes of all goals, in the order of the goals and the best first within one; boxes in camera pixels."""
    return Detection2DArray(header=header, detections=[box for item in groundings for box in _detections(header, item)])


def groundings_message(header: Header, groundings: Sequence[Grounding], goals_version: int) -> GroundingArray:
    """One answer a goal, absent goals included."""
    answers = [_grounding(header, item) for item in groundings]
    return GroundingArray(header=header, goals_version=goals_version, groundings=answers)


def image_message(header: Header, rgb: np.ndarray) -> Image:
    """A uint8 HxWx3 picture as rgb8."""
    height, width = rgb.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.data = np.ascontiguousarray(rgb, np.uint8).tobytes()
    return message


def diagnostic_message(name: str, level: bytes, summary: str, goals: int, goals_version: int, counts: Snapshot) -> DiagnosticStatus:
    """The node's counts for /diagnostics: one key a count, one a refusal's cause, one a stage's median latency."""
    values: dict[str, object] = {
        "goals": goals,
        "goals_version": goals_version,
        "received": counts.received,
        "answered": counts.answered,
        "dropped": counts.dropped,
        "refused images": sum(count for cause, count in counts.refused.items() if cause.startswith("image: ")),
        "refused goals": sum(count for cause, count in counts.refused.items() if cause.startswith("goal: ")),
        **{f"refused {cause}": count for cause, count in sorted(counts.refused.items())},
        **{f"median ms {stage}": f"{value:.1f}" for stage, value in counts.median_ms.items()},
    }
    status = DiagnosticStatus(level=level, name=name, message=summary, hardware_id="")
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return status


def _grounding(header: Header, grounding: Grounding) -> GroundingMessage:
    goal = grounding.goal
    message = GroundingMessage(goal=goal.text, kind=goal.kind, present=float(grounding.present), margin=float(grounding.margin))
    message.detections = _detections(header, grounding)
    return message


def _detections(header: Header, grounding: Grounding) -> list[Detection2D]:
    best_first = sorted(grounding.detections, key=lambda item: -item.score)
    return [_detection(header, grounding.goal.text, item) for item in best_first]


def _detection(header: Header, text: str, detection: Detection) -> Detection2D:
    x1, y1, x2, y2 = (float(value) for value in detection.box)
    box = BoundingBox2D(size_x=x2 - x1, size_y=y2 - y1)
    box.center.position.x, box.center.position.y = (x1 + x2) / 2, (y1 + y2) / 2
    hypothesis = ObjectHypothesis(class_id=text, score=float(detection.score))
    return Detection2D(header=header, results=[ObjectHypothesisWithPose(hypothesis=hypothesis)], bbox=box, id=detection.track_id)
