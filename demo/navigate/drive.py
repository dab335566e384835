"""A small stand-in for Nav2: serves NavigateToPose by driving the base around the obstacles in the depth
images.

Subscribed: odom, camera/depth, camera/camera_info, camera_pose. Published: cmd_vel, map
(nav_msgs/OccupancyGrid). On a robot Nav2 takes this place; the bridge needs no change.
"""

from __future__ import annotations

import time
from array import array
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from nav2_msgs.action import NavigateToPose
from nav_msgs.msg import OccupancyGrid, Odometry
from numpy.typing import NDArray
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from demo.navigate.floor_map import CELL, FloorMap
from demo.navigate.pursuit import Pursuit
from demo.ros_common import LATCHED, run_node
from groma_ros.camera_geometry import matrix_from_quaternion

Array = NDArray[np.float64]

_STRIDE = 6  # step between the depth pixels that are used


def is_moved(former: tuple[float, ...], pose: tuple[float, ...]) -> bool:
    """Whether the base was moved instead of driving between two poses (seconds, x, y, heading), as to another
    episode: it is elsewhere, faces elsewhere, or the clock went back."""
    turn = float(np.angle(np.exp(1j * (pose[3] - former[3]))))
    return (
        pose[0] < former[0]
        or float(np.hypot(pose[1] - former[1], pose[2] - former[2])) > 0.5
        or abs(turn) > 0.8
    )


class Driver(Node):
    """Drives the base. One goal at a time; a new goal replaces the previous one."""

    def __init__(self) -> None:
        super().__init__("drive")
        group = ReentrantCallbackGroup()
        self._velocity = self.create_publisher(Twist, "cmd_vel", 10)
        self._map_topic = self.create_publisher(OccupancyGrid, "map", LATCHED)
        options: Any = {"callback_group": group}
        self.create_subscription(Odometry, "odom", self._on_odometry, 20, **options)
        self.create_subscription(Image, "camera/depth", self._on_depth, qos_profile_sensor_data, **options)
        self.create_subscription(
            CameraInfo, "camera/camera_info", self._on_info, qos_profile_sensor_data, **options
        )
        self.create_subscription(PoseStamped, "camera_pose", self._on_camera, LATCHED, **options)
        self._poses: list[tuple[float, float, float, float]] = []
        self._k: Any = None
        self._mount: tuple[Array, Array] | None = None
        self._map: FloorMap | None = None
        self._number = 0
        self._server = ActionServer(
            self,
            NavigateToPose,
            "navigate_to_pose",
            self._execute,
            goal_callback=lambda goal: (
                GoalResponse.ACCEPT if goal.pose.header.frame_id == "map" else GoalResponse.REJECT
            ),
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            callback_group=group,
        )

    def _on_odometry(self, message: Odometry) -> None:
        place, way = message.pose.pose.position, message.pose.pose.orientation
        now = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        pose = (now, place.x, place.y, 2 * float(np.arctan2(way.z, way.w)))
        poses = self._poses[-200:]
        if poses and is_moved(poses[-1], pose):
            self._map, poses = None, []
        self._poses = [*poses, pose]  # in one step, since other threads read it

    def _on_info(self, message: CameraInfo) -> None:
        self._k = message.k

    def _on_camera(self, message: PoseStamped) -> None:
        place, turn = message.pose.position, message.pose.orientation
        rotation = matrix_from_quaternion((turn.x, turn.y, turn.z, turn.w))
        self._mount = np.array([place.x, place.y, place.z]), rotation

    def _on_depth(self, message: Image) -> None:
        if self._k is None or self._mount is None or not self._poses:
            return
        stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        pose = min(self._poses, key=lambda item: abs(item[0] - stamp))
        if abs(pose[0] - stamp) > 0.06:
            return
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)[
            ::_STRIDE, ::_STRIDE
        ]
        v, u = np.mgrid[0 : message.height : _STRIDE, 0 : message.width : _STRIDE]
        seen = np.stack(
            [(u - self._k[2]) / self._k[0] * depth, (v - self._k[5]) / self._k[4] * depth, depth], -1
        )
        points = seen.reshape(-1, 3).astype(np.float64)
        shift, rotation = self._mount
        here, turn = np.array(pose[1:3]), pose[3]
        flat = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        world = (points @ rotation.T + shift) @ flat.T + [*here, 0]
        floor = self._map if self._map is not None else FloorMap(here)
        floor.see(world, here)
        self._map = floor
        self._publish_map(floor, message.header.stamp)

    def _publish_map(self, floor: FloorMap, stamp: Any) -> None:
        message = OccupancyGrid()
        message.header.frame_id, message.header.stamp = "map", stamp
        message.info.resolution, message.info.width, message.info.height = (
            CELL,
            floor.count,
            floor.count,
        )
        message.info.origin.position.x, message.info.origin.position.y = (float(v) for v in floor.low)
        message.data = array("b", floor.cells.T.tobytes())
        self._map_topic.publish(message)

    def _execute(self, handle: Any) -> NavigateToPose.Result:
        self._number += 1
        number = self._number
        goal = handle.request.pose.pose
        target = np.array([goal.position.x, goal.position.y])
        heading = 2 * float(np.arctan2(goal.orientation.z, goal.orientation.w))
        try:
            reached = self._drive(handle, number, target, heading)
        finally:
            self._velocity.publish(Twist())
        if handle.is_cancel_requested:
            handle.canceled()
        elif reached:
            handle.succeed()
        else:
            handle.abort()
        return NavigateToPose.Result()

    def _drive(self, handle: Any, number: int, target: Array, heading: float) -> bool:
        """Drive to a position, then turn. False if it was stopped or could not get any closer."""
        pursuit = Pursuit(target, heading)
        begun = None
        while rclpy.ok() and number == self._number and not handle.is_cancel_requested:
            time.sleep(0.01)
            if not self._poses:
                continue
            now, x, y, turn = self._poses[-1]
            here = np.array([x, y])
            begun = now if begun is None else begun
            speed, spin = pursuit.command(now, here, turn, self._map)
            self._tell(handle, here, turn, now - begun, pursuit.left)
            if pursuit.reached is not None:
                return pursuit.reached
            self._go(speed, spin)
        return False

    def _tell(self, handle: Any, here: Array, turn: float, spent: float, left: float) -> None:
        feedback = NavigateToPose.Feedback()
        pose = feedback.current_pose
        pose.header.frame_id = "map"
        pose.pose.position.x, pose.pose.position.y = float(here[0]), float(here[1])
        pose.pose.orientation.z, pose.pose.orientation.w = float(np.sin(turn / 2)), float(np.cos(turn / 2))
        feedback.navigation_time.sec, feedback.distance_remaining = int(spent), left
        handle.publish_feedback(feedback)

    def _go(self, speed: float, turn: float) -> None:
        message = Twist()
        message.linear.x, message.angular.z = speed, turn
        self._velocity.publish(message)


if __name__ == "__main__":
    run_node(Driver, threads=3)
