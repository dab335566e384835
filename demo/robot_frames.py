"""Replaces robot_state_publisher: publishes the camera's pose on /tf_static and the base's pose on /tf."""

from __future__ import annotations

import sys

from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from demo.ros_common import LATCHED, run_node


class RobotFrames(Node):
    """camera_pose (in its frame, latched) -> /tf_static; odom -> /tf. camera: the camera's frame."""

    def __init__(self, camera: str) -> None:
        super().__init__("robot_frames")
        self._camera = camera
        self._static = self.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._moving = self.create_publisher(TFMessage, "/tf", 100)
        self.create_subscription(PoseStamped, "camera_pose", self._on_camera, LATCHED)
        self.create_subscription(Odometry, "odom", self._on_odometry, 50)

    def _on_camera(self, message: PoseStamped) -> None:
        transform = TransformStamped(header=message.header, child_frame_id=self._camera)
        place, shift = message.pose.position, transform.transform.translation
        shift.x, shift.y, shift.z = place.x, place.y, place.z
        transform.transform.rotation = message.pose.orientation
        self._static.publish(TFMessage(transforms=[transform]))

    def _on_odometry(self, message: Odometry) -> None:
        transform = TransformStamped(header=message.header, child_frame_id=message.child_frame_id)
        place, shift = message.pose.pose.position, transform.transform.translation
        shift.x, shift.y, shift.z = place.x, place.y, place.z
        transform.transform.rotation = message.pose.pose.orientation
        self._moving.publish(TFMessage(transforms=[transform]))


if __name__ == "__main__":
    run_node(lambda: RobotFrames(sys.argv[1]))
