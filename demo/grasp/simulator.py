"""Simulator of the grasping demo: robosuite's Panda and a camera as ROS topics.

Published: camera/image, camera/depth, camera/camera_info, camera_pose (latched, in the robot's base frame),
hand_pose, joint_states, /clock. Subscribed: hand_target (target pose of the hand), gripper_opening (metres; 0
closes). Runs in `.venv-sim`: python -m demo.grasp.simulator
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from demo.ros_common import pose_message, time_message
from demo.simulator_node import PICTURE_PERIOD, SimulatorNode, goal_document, serve
from groma_ros.simulation.robosuite_cell import STEP, GraspCell

BASE, CAMERA = "panda_link0", "camera_color_optical_frame"
_FINGER = "panda_finger_joint1"


class PandaNode(SimulatorNode):
    """ROS interface of the grasping cell."""

    def __init__(self) -> None:
        super().__init__("panda_simulator", CAMERA)
        self.cell: GraspCell | None = None
        self._hand = self.create_publisher(PoseStamped, "hand_pose", 10)
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(PoseStamped, "hand_target", self._on_target, 10)
        self.create_subscription(Float64, "gripper_opening", self._on_opening, 10)
        self._stale = True

    @property
    def seconds(self) -> float:
        return float(self.cell.seconds) if self.cell else 0.0

    @property
    def has_episode(self) -> bool:
        return self.cell is not None

    def reset(self, seed: int) -> dict[str, Any]:
        self._started = self.now + 1.0
        if self.cell is not None:
            self.cell.close()
            self.cell = None
        self.cell = GraspCell(seed)
        self._film, self._stale = [], True
        episode = self.cell.episode
        k = episode.camera
        pose = pose_message(BASE, time_message(self.now), k.position, k.rotation)
        self._camera_pose.publish(pose)
        self._show()
        objects = [
            {"kind": o.kind, "colour": o.colour, "box": list(o.box), "position": list(o.position)}
            for o in episode.objects
        ]
        camera = {"position": list(k.position), "rotation": k.rotation.tolist()}
        return {
            "goal": goal_document(episode.goal),
            "objects": objects,
            "layout": episode.layout,
            "camera": camera,
            "time": self.now,
        }

    def finish(self, film: str) -> dict[str, Any]:
        assert self.cell is not None
        self._show()
        self.save_film(film)
        return {**self.cell.score(), "pictures": len(self._film), "seconds": self.cell.seconds}

    def advance(self) -> None:
        if self.cell is None:
            return
        still = self.cell.is_still
        self.cell.step()
        self._stale = self._stale or not still
        self._camera.tick(self.now)
        stamp = time_message(self.now)
        self._hand.publish(pose_message(BASE, stamp, *self.cell.hand()))
        joints = {**self.cell.joints(), _FINGER: self.cell.opening() / 2}
        state = JointState(name=list(joints), position=[float(value) for value in joints.values()])
        state.header.stamp = stamp
        self._joints.publish(state)
        if self.now - self._pictured >= PICTURE_PERIOD:
            self._show()

    def _show(self) -> None:
        assert self.cell is not None
        if self._stale or self._view is None:
            self._view = self.cell.picture()
            self._film.append(cv2.resize(self._view[0], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
            self._stale = False
        self._pictured = self.now
        rgb, depth = self._view
        self._camera.publish(self.now, rgb, depth, self.cell.episode.camera.intrinsics)

    def _on_target(self, message: PoseStamped) -> None:
        if message.header.frame_id != BASE:
            self.get_logger().error(
                f"A target in the frame {message.header.frame_id!r} is refused; use {BASE}."
            )
            return
        place, turn = message.pose.position, message.pose.orientation
        values = (place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w)
        if self.cell is None or not np.isfinite(values).all() or abs(np.linalg.norm(values[3:]) - 1) > 0.01:
            self.get_logger().error("A target that is no pose, or that comes before an episode, is refused.")
            return
        self.cell.command(np.array(values[:3]), values[3:])

    def _on_opening(self, message: Float64) -> None:
        if self.cell is not None and np.isfinite(message.data):
            self.cell.open_to(message.data)

    def other_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer the requests score and nudge."""
        assert self.cell is not None
        if request["do"] == "score":
            return self.cell.score()
        if request["do"] == "nudge":
            x, y = request["shift"]
            self.cell.nudge(int(request["object"]), (float(x), float(y)))
            return {}
        return super().other_request(request)

    def wall_step(self) -> float:
        """A world at rest runs in real time, a moving one as fast as it can be computed."""
        return STEP if self.cell is None or self.cell.is_still else 0.0


if __name__ == "__main__":
    serve(PandaNode)
