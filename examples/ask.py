"""Ask the node one goal and have its answer as plain values, in the frame of its `target_frame`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from groma_ros.client.groma_client import FindResult, GromaClient

WALL_SECONDS = 30.0
"""A node that does not answer for so long, by the wall's clock, is lost."""


class NodeLost(RuntimeError):
    """The node does not answer; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The node's answer to a goal."""

    goal: str
    status: str
    """present, absent or ambiguous."""
    message: str
    """Why the goal was not found, one sentence."""
    present: float = 0.0
    margin: float = 1.0
    frame: str = ""
    """Of position and quaternion; "" where there is no pose, as without depth."""
    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """The middle of the thing's box, metres."""
    quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the thing's box, metres: its longer side, the one across it, and its height."""
    box: tuple[float, float, float, float] | None = None
    """xyxy, camera pixels."""


class GoalAsker:
    """Asks through a client of the node."""

    def __init__(self, client: GromaClient) -> None:
        self._client = client

    def ready(self, timeout: float) -> None:
        """Wait until the node is active. Raises NodeLost."""
        try:
            self._client.wait_until_active(timeout)
        except TimeoutError as error:
            raise NodeLost(str(error)) from error

    def ask(self, goal: str, timeout: float = 0.0) -> Answer:
        """The answer about the next image, or the first within `timeout` seconds that is not "absent".

        Raises NodeLost where the node is not there or ends while it looks, ValueError for a goal that it
        refuses.
        """
        try:
            self._client.find(goal, timeout)
            return from_result(goal, self._client.result(timeout + WALL_SECONDS))
        except TimeoutError as error:
            raise NodeLost(str(error)) from error


def from_result(goal: str, result: FindResult) -> Answer:
    """A result of the client as plain values. An answer that found nothing is "absent"."""
    grounding = result.grounding
    if grounding.status not in ("present", "ambiguous") or not grounding.detections:
        return Answer(goal, "absent", result.message, grounding.present, grounding.margin)
    pose = result.target_pose
    if pose is None or not result.detections_3d:
        box = grounding.detections[0].box
        return Answer(goal, grounding.status, "", grounding.present, grounding.margin, box=box)
    place, turn, size = pose.pose.position, pose.pose.orientation, result.detections_3d[0].bbox.size
    return Answer(
        goal,
        grounding.status,
        result.message,
        grounding.present,
        grounding.margin,
        pose.header.frame_id,
        np.array([place.x, place.y, place.z]),
        (turn.x, turn.y, turn.z, turn.w),
        (size.x, size.y, size.z),
        grounding.detections[0].box,
    )
