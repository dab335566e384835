"""Common part of the two simulators: a camera as topics, the film of an episode, and the main loop.

Runs in `.venv-sim`, so it imports only common messages.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from demo.camera_topics import CameraTopics
from demo.ros_common import LATCHED
from demo.simulator_process import Requests

PICTURE_PERIOD = 0.4
"""Simulated time between two pictures of the film."""


class SimulatorNode(Node, ABC):
    """A simulated robot with a camera. The simulated clock continues through all episodes."""

    def __init__(self, name: str, camera_frame: str) -> None:
        super().__init__(name)
        self._camera = CameraTopics(self, camera_frame)
        self._camera_pose = self.create_publisher(PoseStamped, "camera_pose", LATCHED)
        self._started, self._pictured = 1.0, -1.0
        self._film: list[Any] = []
        self._view: Any = None

    @property
    def now(self) -> float:
        """Seconds of the simulated clock."""
        return self._started + self.seconds

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Simulated seconds since the episode started; 0 without an episode."""

    @property
    @abstractmethod
    def has_episode(self) -> bool:
        """Whether an episode has been started."""

    @abstractmethod
    def reset(self, seed: int) -> dict[str, Any]:
        """Start the episode of a seed; returns its goal and ground truth."""

    @abstractmethod
    def finish(self, film: str) -> dict[str, Any]:
        """Return the score of the episode, and write its pictures if `film` is a folder."""

    @abstractmethod
    def advance(self) -> None:
        """Compute one step and publish the new state."""

    @abstractmethod
    def wall_step(self) -> float:
        """Minimum wall time of the next step."""

    def before_step(self, start: float) -> None:
        """Called before each step; start: `time.monotonic` at the start of the loop."""

    def other_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request other than reset and finish. Raises ValueError for an unknown one."""
        raise ValueError(f"There is no request {request['do']!r}.")

    def answer_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the process that counts episodes."""
        if request["do"] == "reset":
            return self.reset(int(request["seed"]))
        if not self.has_episode:
            raise ValueError("No episode has been started.")
        if request["do"] == "finish":
            return self.finish(request.get("film", ""))
        return self.other_request(request)

    def save_film(self, film: str) -> Path | None:
        """Write the pictures of the episode into a folder and return it; None if `film` is empty."""
        if not film:
            return None
        folder = Path(film)
        folder.mkdir(parents=True, exist_ok=True)
        for index, picture in enumerate(self._film):
            cv2.imwrite(str(folder / f"{index:03d}.jpg"), picture[..., ::-1])
        return folder


def goal_document(goal: Any) -> dict[str, Any]:
    """The goal of an episode as JSON values."""
    return {"text": goal.text, "kind": goal.kind, "targets": list(goal.targets)}


def serve(create: Callable[[], SimulatorNode]) -> None:
    """Run a simulator until the other end of its request pipe closes, or until SIGINT or SIGTERM."""
    requests = Requests()
    # ROS's own handlers would shut ROS down while a step still uses it.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = create()
    try:
        while not requests.closed:
            start = time.monotonic()
            request = requests.poll()
            if request is not None:
                try:
                    requests.answer(**node.answer_request(request))
                except Exception as error:  # every request gets an answer
                    requests.answer(error=f"{type(error).__name__}: {error}")
            for _ in range(4):
                rclpy.spin_once(node, timeout_sec=0)
            node.before_step(start)
            node.advance()
            time.sleep(max(0.0, node.wall_step() - (time.monotonic() - start)))
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
