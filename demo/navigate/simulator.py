"""Simulator of the navigation demo: a mobile base in Miniworld's rooms as ROS topics.

Published: camera/image, camera/depth, camera/camera_info, camera_pose (latched, in base_link), odom, /clock.
Subscribed: cmd_vel. Runs in `.venv-sim`: python -m demo.navigate.simulator
"""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry

from demo.ros_common import pose_message, time_message
from demo.simulator_node import PICTURE_PERIOD, SimulatorNode, goal_document, serve
from groma_ros.simulation.miniworld_course import EYE_HEIGHT, EYE_PITCH, STEP, Course

MAP, BASE, CAMERA = "map", "base_link", "camera_color_optical_frame"
SPEEDUP = 4.0
"""Maximum speed of the simulated clock relative to the wall clock while the base moves."""
_FILM_PERIOD = 1.2
_OLD_COMMAND = 0.12  # seconds of the simulated clock
_PATIENCE = 0.4  # seconds of wall time


class BaseNode(SimulatorNode):
    """ROS interface of the rooms."""

    def __init__(self) -> None:
        super().__init__("base_simulator", CAMERA)
        self.course = Course()
        self._odometry = self.create_publisher(Odometry, "odom", 20)
        self.create_subscription(Twist, "cmd_vel", self._on_velocity, 10)
        self._filmed = -1.0
        self._seen_from: Any = None

    @property
    def seconds(self) -> float:
        return float(self.course.seconds)

    @property
    def has_episode(self) -> bool:
        return self.course.episode is not None

    def reset(self, seed: int) -> dict[str, Any]:
        self._started = self.now + 1.0
        self.course.seconds = 0.0
        episode = self.course.reset(seed)
        self._film, self._filmed, self._seen_from = [], -1.0, None
        pitch, forward = EYE_PITCH, np.array([np.cos(EYE_PITCH), 0, np.sin(EYE_PITCH)])
        down = np.array([np.sin(pitch), 0, -np.cos(pitch)])
        rotation = np.stack([np.array([0, -1.0, 0]), down, forward], 1)
        mount = pose_message(BASE, time_message(self.now), np.array([0, 0, EYE_HEIGHT]), rotation)
        self._camera_pose.publish(mount)
        self._publish_odometry()
        self._show()
        names = [f"{thing.colour} {thing.kind.name}".strip() for thing in episode.things]
        places = [list(item.place) for item in episode.house.furniture]
        return {
            "goal": goal_document(episode.goal),
            "time": self.now,
            "layout": episode.layout,
            "objects": [{"name": n, "place": p} for n, p in zip(names, places)],
            "start": list(episode.start),
            "shortest": episode.shortest,
            "in_view": episode.in_view,
        }

    def boxes(self) -> dict[str, Any]:
        """The true box of everything currently in view."""
        assert self.course.episode is not None
        count = len(self.course.episode.things)
        return {"boxes": [self.course.box(index) for index in range(count)], "pose": list(self.course.pose())}

    def finish(self, film: str) -> dict[str, Any]:
        """Return the score; writes the pictures and a map with the path if `film` is a folder."""
        self._film.append(self.course.picture()[0])
        folder = self.save_film(film)
        if folder is not None:
            cv2.imwrite(str(folder / "map.png"), self._map()[..., ::-1])
        return {**self.course.score(), "pictures": len(self._film)}

    def _map(self) -> Any:
        course = self.course
        assert course.episode is not None
        picture, pixel = course.rooms.top_view((480, 360))
        picture = picture.copy()
        way = np.array([pixel(*place) for place in course.trail], np.int32)
        cv2.polylines(picture, [way], False, (255, 60, 200), 2, cv2.LINE_AA)
        cv2.circle(picture, pixel(*course.trail[0]), 5, (40, 90, 255), -1)
        for index in course.episode.goal.targets:
            cv2.circle(picture, pixel(*course.episode.house.furniture[index].place), 16, (40, 220, 60), 2)
        return picture

    def advance(self) -> None:
        if self.course.episode is None:
            return
        self.course.step()
        self._camera.tick(self.now)
        self._publish_odometry()
        if self.now - self._pictured >= PICTURE_PERIOD:
            self._show()

    def _publish_odometry(self) -> None:
        x, y, turn = self.course.pose()
        message = Odometry(child_frame_id=BASE)
        message.header.frame_id, message.header.stamp = MAP, time_message(self.now)
        place, way = message.pose.pose.position, message.pose.pose.orientation
        place.x, place.y, way.z, way.w = x, y, float(np.sin(turn / 2)), float(np.cos(turn / 2))
        message.twist.twist.linear.x, message.twist.twist.angular.z = self.course.velocity()
        self._odometry.publish(message)

    def _show(self) -> None:
        where = self.course.pose()
        if where != self._seen_from:
            self._view, self._seen_from = self.course.picture(), where
            if self.now - self._filmed >= _FILM_PERIOD:
                self._film.append(self._view[0])
                self._filmed = self.now
        self._pictured = self.now
        rgb, depth = self._view
        self._camera.publish(self.now, rgb, depth, self.course.camera().intrinsics)

    def _on_velocity(self, message: Twist) -> None:
        if np.isfinite([message.linear.x, message.angular.z]).all():
            self.course.drive(message.linear.x, message.angular.z)

    def other_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer the request boxes."""
        return self.boxes() if request["do"] == "boxes" else super().other_request(request)

    def before_step(self, start: float) -> None:
        """Wait for a new command, so that a slow machine does not drive far on an outdated one."""
        while not self.course.is_still and self.course.command_age > _OLD_COMMAND:
            rclpy.spin_once(self, timeout_sec=0.02)
            if time.monotonic() - start > _PATIENCE:
                return

    def wall_step(self) -> float:
        """A base at rest runs in real time, a moving one up to `SPEEDUP` times as fast."""
        return STEP / (1.0 if self.course.is_still else SPEEDUP)


if __name__ == "__main__":
    serve(BaseNode)
