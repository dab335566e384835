"""Common to pick.py and go_to.py: the node's answer as plain values, errors, and the command line."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

from groma_ros.client.groma_client import FindResult, GromaClient

NODE = "groma"
"""Full name of the node, e.g. "left/groma". It answers goals, and goals sent to its topic `goal` interrupt
the robot."""
WALL_SECONDS = 30.0
"""Wall time without an answer after which the node is considered lost."""
_PAUSE = 1.0  # wall time without spinning after which the robot's silence does not count, seconds


class NodeLost(RuntimeError):
    """The node does not answer; the message is one sentence."""


class RobotError(RuntimeError):
    """The robot cannot execute a command; the message is one sentence."""


class RobotLost(RobotError):
    """No message from the robot has arrived for a while."""


class GoalChanged(RuntimeError):
    """Another goal was sent while the robot moved; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The node's answer to a goal."""

    goal: str
    status: str
    """present, absent or ambiguous."""
    message: str
    """Why the goal was not found or has no pose, a sentence."""
    present: float = 0.0
    margin: float = 1.0
    frame: str = ""
    """Frame of position and quaternion; "" if there is no pose, for example without depth."""
    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """Centre of the object's box, metres."""
    quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Size of the object's box, metres: longer side, shorter side, height."""
    box: tuple[float, float, float, float] | None = None
    """xyxy, camera pixels."""
    count: int = 1
    """Number of objects of the answer; pose, size and box are those of the best one."""

    @property
    def chance(self) -> float:
        """Probability that the best object is meant: the presence p is shared by it and at most the
        runner-up, and the margin m is their difference; hence (p + m) / 2. If the goal means several objects,
        the runner-up is one of them, and the probability is p. For an absent goal, that the goal is present
        and meant one of the objects in view."""
        if self.status == "absent" or self.count > 1:
            return self.present
        return (self.present + self.margin) / 2

    @property
    def rest(self) -> float:
        """Probability that another object in view is meant, as for `chance`; 0.5, which says nothing, if the
        goal means several."""
        if self.status == "absent":
            return self.present
        return (self.present - self.margin) / 2 if self.count == 1 else 0.5


@dataclass(frozen=True)
class Outcome:
    """Result of acting on a goal."""

    cause: str
    """Cause of a failure, in a few words; empty on success."""
    sentence: str
    answer: Answer | None
    """The last answer of the node."""


class Watchdog:
    """Spins a node, and raises RobotLost when the robot's messages stop, or GoalChanged when another goal is
    sent to the topic `goal` of the node `NODE`. Goals set by its service or parameter are not detected.

    name: of the robot, for the error; seconds: wall time of spinning without a message.

    Create it before the robot's subscriptions, and give those a depth of 1, on which `catch_up` relies.
    """

    def __init__(self, node: Node, name: str, seconds: float) -> None:
        self._node, self._name, self._seconds = node, name, seconds
        self._heard = self._spun = time.monotonic()
        self._messages = 0
        self._goal: str | None = None
        self._change = ""
        node.create_subscription(String, f"/{NODE}/goal", self._on_goal, 1)

    def follow(self, goal: str | None) -> None:
        """Watch for goals other than this one until one has been reported; None: stop watching."""
        self._goal, self._change = goal.strip() if goal is not None else None, ""

    def heard(self) -> None:
        """Note that a message of the robot has arrived."""
        self._heard = time.monotonic()
        self._messages += 1

    def catch_up(self) -> None:
        """Process the messages that arrived while nobody was spinning, e.g. during a question to a slow node.
        Afterwards the robot's state is current, and a goal sent in the meantime has been reported. Raises as
        `spin`."""
        # The first message may have been queued since before the goal was sent, the second has not.
        enough = self._messages + 2
        while self._messages < enough:
            self.spin()

    def refresh(self) -> None:
        """Catch up if nobody has been spinning for a second. Raises as `spin`."""
        if time.monotonic() - self._spun > _PAUSE:
            self.catch_up()

    def spin(self) -> None:
        """Process messages for a moment. Raises RobotLost, or GoalChanged once after each `follow`: a
        publisher that repeats the new goal must not interrupt the robot's reaction to it."""
        start = time.monotonic()
        # If nobody has been spinning, e.g. during a question to a slow node, silence says nothing about the
        # robot.
        self._heard = max(self._heard, start) if start - self._spun > _PAUSE else self._heard
        rclpy.spin_once(self._node, timeout_sec=0.05)
        self._spun = time.monotonic()
        if self._change:
            change = self._change
            self.follow(None)
            raise GoalChanged(change)
        if self._spun - self._heard > self._seconds:
            raise RobotLost(f"The {self._name} has not been heard for {self._seconds:.0f} s.")

    def _on_goal(self, message: String) -> None:
        goals = [line.strip() for line in message.data.splitlines() if line.strip()]
        if self._goal is None or self._goal in goals:
            self._change = ""
        elif goals:
            self._change = f"{goals[0]!r} was requested instead of {self._goal!r}."
        else:
            self._change = f"The goal {self._goal!r} was withdrawn."


class GoalAsker:
    """Asks goals through a client of the node."""

    def __init__(self, client: GromaClient) -> None:
        self._client = client

    def ready(self, timeout: float) -> None:
        """Wait until the node is active. Raises NodeLost."""
        try:
            self._client.wait_until_active(timeout)
        except TimeoutError as error:
            raise NodeLost(str(error)) from error

    def ask(self, goal: str, timeout: float = 0.0) -> Answer:
        """Return the answer on the next image, or the first within `timeout` seconds that is not "absent".

        Raises NodeLost if the node is not running or exits, ValueError for a goal that it refuses.
        """
        try:
            self._client.find(goal, timeout)
            return from_result(goal, self._client.result(timeout + WALL_SECONDS))
        except TimeoutError as error:
            raise NodeLost(str(error)) from error


def from_result(goal: str, result: FindResult) -> Answer:
    """Convert a result of the client. A search that found nothing is "absent"."""
    grounding = result.grounding
    if grounding.status not in ("present", "ambiguous") or not grounding.detections:
        return Answer(goal, "absent", result.message, grounding.present, grounding.margin)
    found = Answer(
        goal,
        grounding.status,
        result.message,
        grounding.present,
        grounding.margin,
        box=grounding.detections[0].box,
        count=len(grounding.detections),
    )
    pose = result.target_pose
    if pose is None or not result.detections_3d:
        return found
    place, turn, size = pose.pose.position, pose.pose.orientation, result.detections_3d[0].bbox.size
    return replace(
        found,
        frame=pose.header.frame_id,
        position=np.array([place.x, place.y, place.z]),
        quaternion=(turn.x, turn.y, turn.z, turn.w),
        size=(size.x, size.y, size.z),
    )


def run_example(name: str, usage: str, act: Callable[[Node, GoalAsker, str], Outcome]) -> int:
    """Act on the goal of the command line and print the outcome; returns the exit status: 0, 1, or 130 after
    SIGINT or SIGTERM."""
    try:
        goal = " ".join(remove_ros_args(sys.argv)[1:]).strip()
    except RuntimeError as error:  # raised by rcl
        print(f"The ROS arguments cannot be read: {' '.join(str(error).split())}.", file=sys.stderr)
        return 1
    if goal in ("-h", "--help"):
        print(usage)
        return 0
    if not goal:
        print(usage, file=sys.stderr)
        return 1
    # ROS's own handlers shut it down immediately; the robot could then not be stopped.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signals: list[int] = []

    def interrupt(number: int, _: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    node = rclpy.create_node(name)
    try:
        with GromaClient(NODE) as client:
            outcome = act(node, GoalAsker(client), goal)
    except BaseException:
        # Within a conversion of rclpy (pybind11) an interrupt becomes a RuntimeError: seen once.
        if not signals:
            raise
        print("Interrupted; no further commands are sent to the robot.", file=sys.stderr)
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
    print(outcome.sentence)
    return 0 if not outcome.cause else 1
