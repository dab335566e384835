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
from demo.ros_common import LATCHED, run_node
from groma_ros.camera_geometry import matrix_from_quaternion

Array = NDArray[np.float64]

SPEED, TURN = 0.55, 1.0
NEAR, ALIGNED = 0.12, 0.08
"""Position and angle tolerance of a reached pose: metres, radians."""
_LOOK_AHEAD = 0.45
_REPLAN = 0.8  # seconds of the simulated clock
_STUCK, _MOVING = 6.0, 0.3
"""A base that stays within these metres for these seconds is stuck; a detour may lead away from the goal."""
_PUSHING, _STILL = 1.0, 0.03
"""Driving forward for these seconds within these metres means pushing against something."""
_BACK, _BACK_SPEED = 1.2, -0.35
"""The base then backs off for these seconds at this speed, metres per second."""
_STRIDE = 6  # step between the depth pixels that are used


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
        if self._poses and (np.hypot(pose[1] - self._poses[-1][1], pose[2] - self._poses[-1][2]) > 0.5):
            self._map, self._poses = None, []  # the base was moved: another episode
        self._poses = [*self._poses[-200:], pose]

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
        if self._map is None:
            self._map = FloorMap(here)
        self._map.see(world, here)
        self._publish_map(message.header.stamp)

    def _publish_map(self, stamp: Any) -> None:
        assert self._map is not None
        message = OccupancyGrid()
        message.header.frame_id, message.header.stamp = "map", stamp
        message.info.resolution, message.info.width, message.info.height = (
            CELL,
            self._map.count,
            self._map.count,
        )
        message.info.origin.position.x, message.info.origin.position.y = (float(v) for v in self._map.low)
        message.data = array("b", self._map.cells.T.tobytes())
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
        way: list[Array] = []
        planned = moved = -1e9
        begun = since = None
        anchor: Array = np.full(2, np.inf)
        back = -1e9  # end of backing off
        spot = target
        turning = False
        while rclpy.ok() and number == self._number and not handle.is_cancel_requested:
            time.sleep(0.01)
            if not self._poses:
                continue
            now, x, y, turn = self._poses[-1]
            here = np.array([x, y])
            begun = now if begun is None else begun
            if not turning and (now - planned > _REPLAN or not way) and self._map is not None:
                self._map.stand(here)
                way, planned = self._map.way(here, target), now
            left = float(np.hypot(*((way[-1] if way else target) - here)))
            gap = float(np.hypot(*(target - here)))
            if not float(np.hypot(*(here - anchor))) < _MOVING:
                anchor, moved = here, now
            self._tell(handle, here, turn, now - begun, left)
            if turning or left < NEAR:
                turning = True
                error = _wrapped(heading - turn)
                if abs(error) < ALIGNED:
                    return gap < 0.8
                self._go(0.0, float(np.clip(1.8 * error, -TURN, TURN)))
                continue
            if now - moved > _STUCK:
                return gap < 0.5
            if now < back:
                self._go(_BACK_SPEED, 0.0)
                continue
            ahead = next((p for p in way if float(np.hypot(*(p - here))) > _LOOK_AHEAD), way[-1])
            error = _wrapped(float(np.arctan2(*(ahead - here)[::-1])) - turn)
            fast = SPEED * max(0.0, float(np.cos(error))) ** 2 if abs(error) < 1.0 else 0.0
            speed = min(fast, 0.15 + left)
            if since is None or speed < 0.1 or float(np.hypot(*(here - spot))) > _STILL:
                spot, since = here, now
            elif now - since > _PUSHING and self._map is not None:
                self._map.touch(here, turn)
                way, since, back = [], None, now + _BACK
            self._go(speed, float(np.clip(2.0 * error, -TURN, TURN)))
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


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


if __name__ == "__main__":
    run_node(Driver, threads=3)
