"""Ask the node one goal and have its answer as plain values, in the frame of its `target_frame`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.node import Node

from groma_ros.action import Ground
from groma_ros.msg import Goal, Grounding

WALL_SECONDS = 30.0
"""A node that does not answer for so long, by the wall's clock, is lost."""
_PLURAL = ("all ", "every", "both ", "the two ", "any ")


class NodeLost(RuntimeError):
    """The node does not answer; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The node's answer to a goal.

    status: present, absent or ambiguous; present, margin: 0..1; frame: of position and quaternion, "" where
    there is no pose; position: metres, the middle of the thing's box; size: of that box, metres: along the
    longer side, across it, and upwards; box: xyxy pixels; single: whether one thing was meant.
    """

    goal: str
    status: str
    message: str
    present: float = 0.0
    margin: float = 1.0
    frame: str = ""
    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    box: tuple[float, float, float, float] | None = None
    single: bool = True
    stamp: float = 0.0


class GoalAsker:
    """A client of `~/ground`."""

    def __init__(self, node: Node, name: str = "groma") -> None:
        self._node, self._name = node, name
        self._client = ActionClient(node, Ground, f"/{name}/ground")

    def ready(self, timeout: float) -> None:
        """Wait for the node. Raises NodeLost."""
        if not self._client.wait_for_server(timeout_sec=timeout):
            raise NodeLost(f"The node {self._name} does not answer; is it active?")

    def ask(self, goal: str, timeout: float = 0.0) -> Answer:
        """The answer about the next image, or the first within `timeout` seconds that is not "absent".

        Raises NodeLost where the node is not there, or ends while it looks.
        """
        self.ready(5.0)
        whole = int(timeout)
        request = Ground.Goal(
            goal=Goal(text=goal), timeout=Duration(sec=whole, nanosec=int((timeout - whole) * 1e9))
        )
        handle = self._result(self._client.send_goal_async(request), timeout)
        if not handle.accepted:
            raise NodeLost(f"The node {self._name} does not take goals now.")
        wrapped = self._result(handle.get_result_async(), timeout)
        if wrapped.status not in (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED):
            raise NodeLost(f"The node {self._name} gave the goal up (status {wrapped.status}).")
        return answer(goal, wrapped.result)

    def _result(self, future: rclpy.Future, timeout: float) -> object:
        end = time.monotonic() + WALL_SECONDS + timeout
        while not future.done():
            rclpy.spin_once(self._node, timeout_sec=0.05)
            if time.monotonic() > end:
                raise NodeLost(f"The node {self._name} has not answered for {WALL_SECONDS:.0f} s.")
        return future.result()


def answer(goal: str, result: Ground.Result) -> Answer:
    """A result of `~/ground` as plain values."""
    grounding = result.grounding
    single = not goal.lower().startswith(_PLURAL)
    if grounding.status not in (Grounding.PRESENT, Grounding.AMBIGUOUS):
        return Answer(goal, "absent", result.message, grounding.present, grounding.margin, single=single)
    best = grounding.detections[0].bbox if grounding.detections else None
    box = None
    if best is not None:
        x, y = best.center.position.x, best.center.position.y
        box = (x - best.size_x / 2, y - best.size_y / 2, x + best.size_x / 2, y + best.size_y / 2)
    header, pose = result.target_pose.header, result.target_pose.pose
    size = result.detections_3d[0].bbox.size if result.detections_3d else None
    return Answer(
        goal,
        "ambiguous" if grounding.status == Grounding.AMBIGUOUS else "present",
        result.message,
        grounding.present,
        grounding.margin,
        header.frame_id if size is not None else "",
        np.array([pose.position.x, pose.position.y, pose.position.z]),
        (pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w),
        (size.x, size.y, size.z) if size is not None else (0.0, 0.0, 0.0),
        box,
        single,
        result.header.stamp.sec + result.header.stamp.nanosec * 1e-9,
    )
