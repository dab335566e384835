"""Convert the node's messages to our dataclasses; `groma_ros.node.conversions` is the inverse."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from vision_msgs.msg import BoundingBox2D

from groma_ros.msg import Grounding as GroundingMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import STATUS_CODES
from groma_ros.srv import Ask
from groma_ros.types import Detection, Goal, Grounding, TextSpan

STATUSES = {code: status for status, code in STATUS_CODES.items()}


def diagnostics_from_message(message: DiagnosticArray) -> dict[str, dict[str, str]]:
    """Convert a report to a mapping: status name (e.g. "groma: grounding"), then key, to value."""
    return {status.name: {item.key: item.value for item in status.values} for status in message.status}


def groundings_from_message(message: GroundingArray) -> list[Grounding]:
    """Convert a message to one answer per goal, in the order the goals were set; boxes xyxy in camera
    pixels."""
    return [grounding_from_message(item) for item in message.groundings]


def grounding_from_message(message: GroundingMessage) -> Grounding:
    """Convert the answer to one goal. Region indices are positions in the message, because the node does not
    publish its own."""
    return Grounding(
        Goal(message.goal, message.kind or "auto"),
        tuple(_detection(item, number) for number, item in enumerate(message.detections)),
        message.present,
        message.margin,
        status=STATUSES.get(message.status, "stale"),
        alternatives=tuple(_detection(item, number) for number, item in enumerate(message.alternatives)),
    )


def answer_spans(question: str, response: Ask.Response) -> Grounding:
    """Convert a response of ~/ask: its text, the boxes it names, and the phrases that name them."""
    detections = tuple(_detection(item, number) for number, item in enumerate(response.detections))
    places = zip(response.starts, response.ends, strict=True)
    spans = tuple(
        TextSpan(response.answer[start:end], int(start), int(end), (number,))
        for number, (start, end) in enumerate(places)
        if end > start
    )
    return Grounding(Goal(question, "chat"), detections, 1.0, 0.0, response.answer, spans)


def corners(box: BoundingBox2D) -> tuple[float, float, float, float]:
    """Convert a message's box to xyxy. The node's boxes may be empty but are never rotated."""
    centre, half = box.center.position, (box.size_x / 2, box.size_y / 2)
    return centre.x - half[0], centre.y - half[1], centre.x + half[0], centre.y + half[1]


def _detection(message: Any, number: int) -> Detection:
    return Detection(corners(message.bbox), message.results[0].hypothesis.score, number, message.id)
