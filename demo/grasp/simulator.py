"""The robot's side of the demonstration: robosuite's Panda and a camera as ROS topics.

Out: camera/image, camera/depth, camera/camera_info, camera_pose (latched, in the robot's base frame),
hand_pose, joint_states, /clock. In: hand_target (where the hand should go), gripper_opening (metres; 0
closes). Runs in `.venv-sim`: python -m demo.grasp.simulator
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from demo.camera_topics import LATCHED, CameraTopics, pose_message, time_message
from demo.simulator_process import Requests
from groma_ros.simulation.robosuite_cell import STEP, GraspCell

BASE, CAMERA = "panda_link0", "camera_color_optical_frame"
_PICTURE_PERIOD = 0.4  # seconds of the simulated clock while the arm moves
_FINGER = "panda_finger_joint1"


class PandaNode(Node):
    """The cell as topics. The clock goes on through all episodes."""

    def __init__(self) -> None:
        super().__init__("panda_simulator")
        self.cell: GraspCell | None = None
        self._camera = CameraTopics(self, CAMERA)
        self._camera_pose = self.create_publisher(PoseStamped, "camera_pose", LATCHED)
        self._hand = self.create_publisher(PoseStamped, "hand_pose", 10)
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(PoseStamped, "hand_target", self._on_target, 10)
        self.create_subscription(Float64, "gripper_opening", self._on_opening, 10)
        self._started, self._pictured, self._stale = 1.0, -1.0, True
        self._view: Any = None
        self._film: list[Any] = []

    @property
    def now(self) -> float:
        """Seconds of the simulated clock."""
        return self._started + (self.cell.seconds if self.cell else 0.0)

    def reset(self, seed: int) -> dict[str, Any]:
        """Start the episode of a seed; what is asked and what is true."""
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
        goal = {"text": episode.goal.text, "kind": episode.goal.kind, "targets": list(episode.goal.targets)}
        camera = {"position": list(k.position), "rotation": k.rotation.tolist()}
        return {
            "goal": goal,
            "objects": objects,
            "layout": episode.layout,
            "camera": camera,
            "time": self.now,
        }

    def finish(self, film: str) -> dict[str, Any]:
        """What became of the episode; its pictures are written where `film` is a folder."""
        assert self.cell is not None
        self._show()
        if film:
            folder = Path(film)
            folder.mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(self._film):
                cv2.imwrite(str(folder / f"{index:03d}.jpg"), picture[..., ::-1])
        return {**self.cell.score(), "pictures": len(self._film), "seconds": self.cell.seconds}

    def advance(self) -> None:
        """One step of the world and what is to be said about it."""
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
        if self.now - self._pictured >= _PICTURE_PERIOD:
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


def handle(node: PandaNode, request: dict[str, Any]) -> dict[str, Any]:
    """The referee's requests: reset, score, finish, nudge."""
    if request["do"] == "reset":
        return node.reset(int(request["seed"]))
    if node.cell is None:
        raise ValueError("No episode has been started.")
    if request["do"] == "score":
        return node.cell.score()
    if request["do"] == "finish":
        return node.finish(request.get("film", ""))
    if request["do"] == "nudge":
        x, y = request["shift"]
        node.cell.nudge(int(request["object"]), (float(x), float(y)))
        return {}
    raise ValueError(f"There is no request {request['do']!r}.")


def main() -> None:
    """Serve until the referee's line closes."""
    requests = Requests()
    rclpy.init()
    node = PandaNode()
    try:
        while not requests.closed:
            start = time.monotonic()
            request = requests.poll()
            if request is not None:
                try:
                    requests.answer(**handle(node, request))
                except Exception as error:  # whatever it is, the referee gets an answer
                    requests.answer(error=f"{type(error).__name__}: {error}")
            for _ in range(4):
                rclpy.spin_once(node, timeout_sec=0)
            node.advance()
            still = node.cell is None or node.cell.is_still
            # A world at rest goes on at the speed of the wall, a moving one as fast as it can be computed.
            time.sleep(max(0.0, STEP - (time.monotonic() - start)) if still else 0.0)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
