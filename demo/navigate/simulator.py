"""The base's side of the demonstration: a mobile base in Miniworld's rooms as ROS topics.

Out: camera/image, camera/depth, camera/camera_info, camera_pose (latched, in base_link), odom, /clock. In:
cmd_vel. Runs in `.venv-sim`: python -m demo.navigate.simulator
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry
from rclpy.node import Node

from demo.camera_topics import LATCHED, CameraTopics, pose_message, time_message
from demo.simulator_process import Requests
from groma_ros.simulation.miniworld_course import EYE_HEIGHT, EYE_PITCH, STEP, Course

MAP, BASE, CAMERA = "map", "base_link", "camera_color_optical_frame"
SPEEDUP = 4.0
"""How much faster than the wall's clock the world goes while the base moves, at most."""
_PICTURE_PERIOD = 0.4  # seconds of the simulated clock
_FILM_PERIOD = 1.2
_OLD_COMMAND = 0.12  # seconds of the simulated clock
_PATIENCE = 0.4  # seconds of the wall


class BaseNode(Node):
    """The rooms as topics. The clock goes on through all episodes."""

    def __init__(self) -> None:
        super().__init__("base_simulator")
        self.course = Course()
        self._camera = CameraTopics(self, CAMERA)
        self._camera_pose = self.create_publisher(PoseStamped, "camera_pose", LATCHED)
        self._odometry = self.create_publisher(Odometry, "odom", 20)
        self.create_subscription(Twist, "cmd_vel", self._on_velocity, 10)
        self._started, self._pictured, self._filmed = 1.0, -1.0, -1.0
        self._film: list[Any] = []
        self._view: Any = None
        self._seen_from: Any = None

    @property
    def now(self) -> float:
        """Seconds of the simulated clock."""
        return self._started + self.course.seconds

    def reset(self, seed: int) -> dict[str, Any]:
        """Start the episode of a seed; what is asked and what is true."""
        self._started = self.now + 1.0
        self.course.seconds = 0.0
        episode = self.course.reset(seed)
        self._film, self._filmed, self._seen_from = [], -1.0, None
        pitch, forward = EYE_PITCH, np.array([np.cos(EYE_PITCH), 0, np.sin(EYE_PITCH)])
        down = np.array([np.sin(pitch), 0, -np.cos(pitch)])
        rotation = np.stack([np.array([0, -1.0, 0]), down, forward], 1)
        mount = pose_message(BASE, time_message(self.now), np.array([0, 0, EYE_HEIGHT]), rotation)
        self._camera_pose.publish(mount)
        self._say_where()
        self._show()
        names = [f"{thing.colour} {thing.kind.name}".strip() for thing in episode.things]
        places = [list(item.place) for item in episode.house.furniture]
        goal = {"text": episode.goal.text, "kind": episode.goal.kind, "targets": list(episode.goal.targets)}
        return {
            "goal": goal,
            "time": self.now,
            "layout": episode.layout,
            "objects": [{"name": n, "place": p} for n, p in zip(names, places)],
            "start": list(episode.start),
            "shortest": episode.shortest,
            "in_view": episode.in_view,
        }

    def boxes(self) -> dict[str, Any]:
        """The true box of everything in view now."""
        assert self.course.episode is not None
        count = len(self.course.episode.things)
        return {"boxes": [self.course.box(index) for index in range(count)], "pose": list(self.course.pose())}

    def finish(self, film: str) -> dict[str, Any]:
        """Where the base ended; its pictures and the map with its way are written where `film` is a
        folder."""
        self._film.append(self.course.picture()[0])
        if film:
            folder = Path(film)
            folder.mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(self._film):
                cv2.imwrite(str(folder / f"{index:03d}.jpg"), picture[..., ::-1])
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
        """One step of the world and what is to be said about it."""
        if self.course.episode is None:
            return
        self.course.step()
        self._camera.tick(self.now)
        self._say_where()
        if self.now - self._pictured >= _PICTURE_PERIOD:
            self._show()

    def _say_where(self) -> None:
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


def handle(node: BaseNode, request: dict[str, Any]) -> dict[str, Any]:
    """The referee's requests: reset, boxes, finish."""
    if request["do"] == "reset":
        return node.reset(int(request["seed"]))
    if node.course.episode is None:
        raise ValueError("No episode has been started.")
    if request["do"] == "boxes":
        return node.boxes()
    if request["do"] == "finish":
        return node.finish(request.get("film", ""))
    raise ValueError(f"There is no request {request['do']!r}.")


def main() -> None:
    """Serve until the referee's line closes."""
    requests = Requests()
    rclpy.init()
    node = BaseNode()
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
            # However slow this machine is, the base never drives far on an old command.
            while not node.course.is_still and node.course.command_age > _OLD_COMMAND:
                rclpy.spin_once(node, timeout_sec=0.02)
                if time.monotonic() - start > _PATIENCE:
                    break
            node.advance()
            pace = 1.0 if node.course.is_still else SPEEDUP
            time.sleep(max(0.0, STEP / pace - (time.monotonic() - start)))
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
