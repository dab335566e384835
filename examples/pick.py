"""Grasp an object named in words: ask the node for a goal, check its answer, and command an arm.

The node's `target_pose` must be in the arm's base frame (parameter `target_frame`); the box in
`detections_3d` determines how wide the gripper must open. `Arm` controls the simulated Panda of `make
demo-grasp`; for your own arm replace its methods `move`, `grip` and `stop` (with MoveIt: a MoveGroup goal, a
GripperCommand, and cancelling that goal, see docs/grasping.md). The arm moves on a sure answer only, and
closes its fingers if a second one, given with the hand above the object, names the same object.

    .venv/bin/python -m examples.pick "the red can"
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64

from examples.ask import (
    Answer,
    GoalChanged,
    NodeLost,
    Outcome,
    RobotError,
    RobotLost,
    Watchdog,
    run_example,
)
from groma_ros.camera_geometry import matrix_from_quaternion, quaternion_from_matrix

Array = NDArray[np.float64]
Quaternion = tuple[float, float, float, float]

PRESENT, MARGIN = 0.7, 0.5
"""Minimum presence and margin of an answer that moves the arm."""
CONFIRMED = 0.5
"""Minimum mean probability of an object, in the first answer and in the one from above, to be grasped."""
AMBIGUOUS, UNSURE = "ambiguous", "unsure"
"""Causes that another image may change."""
ANSWERS = 3
"""Maximum number of images on which a goal is asked until an answer is sure."""
WIDEST = 0.075
"""Maximum width of an object, metres."""
APPROACH, LIFT = 0.14, 0.2
"""Approach height above the object's top, and lifting height, metres."""
FINGERS = 0.03
"""Depth of the fingertips below the object's top, metres."""
REACH = (0.25, 0.85)
"""Minimum and maximum reach of the arm from its base, along the table, metres."""
_TURN_WEIGHT = 0.05  # metres by which a hand's turn counts as a movement: 2.3 degrees as 2 mm
MOVED, FOLLOWED = 0.03, 0.15
"""An object that moved by at least the first distance is approached again; one beyond the second is taken for
a different object. Metres."""
CLOSED = 0.004
"""Maximum opening in metres at which the fingers hold nothing."""
HOLD_SECONDS = 2.5
LOST_SECONDS = 5.0
"""Wall time without messages after which the arm is considered lost."""


class Arm:
    """An arm with a gripper, controlled over topics. Poses are those of the point between the fingertips, in
    the arm's base frame."""

    def __init__(self, node: Node, frame: str = "panda_link0") -> None:
        self.frame = frame
        self._node = node
        self._target = node.create_publisher(PoseStamped, "hand_target", 10)
        self._opening = node.create_publisher(Float64, "gripper_opening", 10)
        self._watchdog = Watchdog(node, "arm", LOST_SECONDS)
        node.create_subscription(PoseStamped, "hand_pose", self._on_pose, 1)
        node.create_subscription(JointState, "joint_states", self._on_joints, 1)
        self._pose: PoseStamped | None = None
        self.opening = 0.0
        self._openings = 0  # number of messages with the opening

    def move(self, position: Array, quaternion: Quaternion, timeout: float = 12.0) -> None:
        """Move to a pose and wait until it is reached. Raises RobotError after `timeout` seconds of the arm's
        clock, RobotLost, and GoalChanged."""
        self._watchdog.catch_up()
        goal = PoseStamped()
        goal.header.frame_id = self.frame
        goal.pose.position.x, goal.pose.position.y, goal.pose.position.z = (
            float(value) for value in position
        )
        turn = goal.pose.orientation
        turn.x, turn.y, turn.z, turn.w = quaternion
        self._target.publish(goal)
        wanted = matrix_from_quaternion(quaternion)
        start, still = self.clock(), _Still(0.002)

        def reached() -> bool:
            here, rotation = self.pose()
            near = float(np.linalg.norm(here - position)) < 0.012
            turned = float(np.trace(rotation.T @ wanted)) > 2.97  # within ten degrees
            # Something may keep the hand a little from its goal, as a bin's floor does.
            pose = np.concatenate([here, _TURN_WEIGHT * rotation.ravel()])
            resting = still.since(self.clock(), pose) > 0.6 and float(np.linalg.norm(here - position)) < 0.05
            return (near and turned) or resting

        while not reached():
            if self.clock() - start > timeout:
                here, _ = self.pose()
                away = float(np.linalg.norm(here - position))
                raise RobotError(f"The arm did not reach its goal in time ({100 * away:.0f} cm away).")
            self._watchdog.spin()

    def stop(self) -> None:
        """Stop at the current pose. Sends nothing to an arm that was never heard and so was never moved. Does
        not raise."""
        if self._pose is not None:
            stay = PoseStamped(pose=self._pose.pose)
            stay.header.frame_id = self.frame
            self._target.publish(stay)

    def follow(self, goal: str | None) -> None:
        """Raise GoalChanged, once, when another goal is sent; None: stop watching."""
        self._watchdog.follow(goal)

    def grip(self, opening: float) -> None:
        """Open the fingers to this width in metres, or close them on the object (0), and wait until they
        stop, at most 4 s of the arm's clock. Raises RobotError if their opening is not published
        meanwhile, RobotLost, and GoalChanged."""
        self._watchdog.catch_up()
        self._opening.publish(Float64(data=float(opening)))
        start, still = self.clock(), _Still(0.0008)
        # The first opening may have been queued since before the command, the second has not.
        told, fresh = self._openings, self._openings + 2
        rested = 0.0
        while self.clock() - start < 0.3 or rested < 0.3:
            if self.clock() - start > 4.0:
                if self._openings < fresh:
                    raise RobotError(
                        "The gripper's opening is not known: no finger_joint1 in joint_states for 4 s."
                    )
                return
            self._watchdog.spin()
            # An opening published twice a second says nothing about the time in between.
            if self._openings > told and self._openings >= fresh:
                rested = still.since(self.clock(), np.array([self.opening]))
                told = self._openings

    def wait(self, seconds: float) -> None:
        """Wait for a time of the arm's clock. Raises RobotLost and GoalChanged."""
        start = self.clock()
        while self.clock() - start < seconds:
            self._watchdog.spin()

    def pose(self) -> tuple[Array, Array]:
        """Position and 3x3 rotation of the hand, about `LOST_SECONDS` old at most. Waits for the first and,
        after a pause such as a question, for a new pose. Raises RobotLost, or GoalChanged."""
        while self._pose is None:
            self._watchdog.spin()
        self._watchdog.refresh()
        place, turn = self._pose.pose.position, self._pose.pose.orientation
        rotation = matrix_from_quaternion((turn.x, turn.y, turn.z, turn.w))
        return np.array([place.x, place.y, place.z]), rotation

    def clock(self) -> float:
        """Time of the newest pose, seconds of the arm's clock. Waits for the first pose, see `pose`."""
        while self._pose is None:
            self._watchdog.spin()
        return float(self._pose.header.stamp.sec + self._pose.header.stamp.nanosec * 1e-9)

    def _on_pose(self, message: PoseStamped) -> None:
        self._pose = message
        self._watchdog.heard()

    def _on_joints(self, message: JointState) -> None:
        for name, position in zip(message.name, message.position):
            if "finger_joint1" in name:
                self.opening = 2 * float(position)
                self._openings += 1


class _Still:
    """Measures how long a value has stayed within a tolerance."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._value: Array | None = None
        self._time = 0.0

    def since(self, now: float, value: Array) -> float:
        if self._value is None or float(np.linalg.norm(value - self._value)) > self._tolerance:
            self._value, self._time = value, now
        return now - self._time


class Picker:
    """Picks up the object of a goal. ask: any callable that answers a goal, e.g. `GoalAsker.ask`."""

    def __init__(self, arm: Arm, ask: Callable[[str], Answer]) -> None:
        self._arm, self._ask = arm, ask

    def pick(self, goal: str) -> Outcome:
        """Ask, approach, close, lift, hold, put down. Nothing moves before the answer has been checked. An
        interrupt stops the arm where it is, with the object it holds."""
        answer: Answer | None = None
        try:
            self._arm.follow(goal)
            self._arm.clock()
            answer, refused = self._first_answer(goal)
            if refused is not None:
                return Outcome(*refused, answer)
            return self._grasp(goal, answer)
        except GoalChanged as error:
            self._arm.stop()
            return Outcome("goal changed", f"{error} The arm stopped where it was.", answer)
        except NodeLost as error:
            return Outcome("node lost", str(error), answer)
        except ValueError as error:
            return Outcome("refused", str(error), answer)
        except RobotLost as error:
            return Outcome("arm lost", f"{error} No further commands are sent.", answer)
        except RobotError as error:
            self._arm.stop()
            return Outcome("not reached", f"{error} It was told to stay where it is.", answer)
        except BaseException:  # an interrupt, or a fault of this program
            self._arm.stop()
            raise

    def _first_answer(self, goal: str) -> tuple[Answer, tuple[str, str] | None]:
        """Ask on up to `ANSWERS` images until the answer is neither unsure nor ambiguous. Returns the last
        answer, and why it is refused."""
        answer = self._ask(goal)
        for _ in range(ANSWERS - 1):
            refused = check(answer, self._arm.frame)
            if refused is None or refused[0] not in (AMBIGUOUS, UNSURE):
                break
            answer = self._ask(goal)
        return answer, check(answer, self._arm.frame)

    def _grasp(self, goal: str, answer: Answer) -> Outcome:
        arm = self._arm
        above, turn = self._go_above(answer)
        again = self._ask(goal)
        if check(again, arm.frame) is None and has_moved(answer, again):
            answer = again
            above, turn = self._go_above(answer)
        if confirmation(answer, again) < CONFIRMED:  # the hand stays above it
            return Outcome("not confirmed", disagreement(answer, again), again)
        grasp_depth = min(answer.size[2] / 2, FINGERS)
        at = answer.position + [0, 0, answer.size[2] / 2 - grasp_depth]
        arm.move(at, turn)
        held = False
        try:
            arm.grip(0.0)
            held = arm.opening >= CLOSED
            if held:
                arm.move(at + [0, 0, LIFT], turn)
                arm.wait(HOLD_SECONDS)
        except GoalChanged:
            self._put_down(at, above, turn)
            raise
        if not held:
            arm.grip(0.08)
            arm.move(above, turn)
            return Outcome("missed", "The fingers closed on nothing.", answer)
        if arm.opening < CLOSED:
            return Outcome("dropped", "The object slipped out of the fingers.", answer)
        self._put_down(at, above, turn)
        return Outcome("", "Lifted and put down.", answer)

    def _go_above(self, answer: Answer) -> tuple[Array, Quaternion]:
        """Open the fingers 3 cm wider than an object and move above it. Returns that pose."""
        self._arm.grip(min(0.08, answer.size[1] + 0.03))
        turn = nearest_turn(answer.quaternion, self._arm.pose()[1])
        above = answer.position + [0, 0, answer.size[2] / 2 + APPROACH]
        self._arm.move(above, turn)
        return above, turn

    def _put_down(self, at: Array, above: Array, turn: Quaternion) -> None:
        """Put down what the fingers hold, even if another goal is sent meanwhile."""
        self._arm.follow(None)
        self._arm.move(at + [0, 0, 0.005], turn)
        self._arm.grip(0.08)
        self._arm.move(above, turn)


def has_moved(answer: Answer, again: Answer) -> bool:
    """Whether a later answer is the same object at a slightly different position.

    The hand is in the picture by then: an answer far away or of another size is another object that matches
    the goal, or the arm, and a hidden one is missing.
    """
    shift = float(np.linalg.norm(again.position[:2] - answer.position[:2]))
    alike = all(0.5 <= new / max(old, 1e-6) <= 2.0 for old, new in zip(answer.size, again.size))
    return MOVED < shift <= FOLLOWED and alike


def confirmation(answer: Answer, again: Answer) -> float:
    """Mean probability that an object is meant, from the answer that led the hand above it and the one given
    there. If the goal means several objects, another one of them may be named there; a box without a pose
    says nothing."""
    if again.status == "absent":
        second = again.present
    elif not again.frame:
        second = answer.chance
    else:
        second = again.chance if answer.count > 1 or _is_same(answer, again) else again.rest
    return (answer.chance + second) / 2


def disagreement(answer: Answer, again: Answer) -> str:
    """A sentence about two answers that do not confirm each other."""
    if again.status == "absent":
        named = f"with the hand above it, nothing matches (presence {again.present:.2f})"
    elif _is_same(answer, again):
        named = f"the answer from above it is unsure (margin {again.margin:.2f})"
    else:
        x, y = again.position[:2]
        named = f"with the hand above it, the object at ({x:.2f}, {y:.2f}) is named instead"
    x, y = answer.position[:2]
    return f"The object at ({x:.2f}, {y:.2f}) is not grasped for {answer.goal!r}: {named}."


def _is_same(answer: Answer, again: Answer) -> bool:
    return float(np.linalg.norm(again.position[:2] - answer.position[:2])) <= FOLLOWED


def nearest_turn(quaternion: Quaternion, hand: Array) -> Quaternion:
    """The pose's rotation, or the one with its fingers exchanged, whichever is closer to the hand's current
    rotation."""
    rotation = matrix_from_quaternion(quaternion)
    if float(rotation[:, 0] @ hand[:, 0]) >= 0:
        return quaternion
    return quaternion_from_matrix(rotation * [-1, -1, 1])


def check(answer: Answer, frame: str) -> tuple[str, str] | None:
    """Return the reason to refuse an answer, as a cause and a sentence; None if it may be acted on."""
    if answer.status == "absent":
        return "absent", answer.message
    # Of several objects that are meant, as in "all the red ones", any will do.
    if answer.status == "ambiguous" or (answer.count == 1 and answer.margin < MARGIN):
        return (
            AMBIGUOUS,
            f"Several objects match {answer.goal!r} nearly equally well (margin {answer.margin:.2f}); "
            "describe the object more precisely.",
        )
    if answer.present < PRESENT:
        return (
            UNSURE,
            f"Whether {answer.goal!r} is there is not sure enough to move (presence {answer.present:.2f}, "
            f"needed {PRESENT}); describe the object in other words.",
        )
    if not answer.frame:
        return "no pose", answer.message or "The answer has a box and no pose: does the node receive depth?"
    if answer.frame != frame:
        return (
            "no pose",
            f"The pose is in {answer.frame}, not in {frame}: set the node's target_frame to {frame}.",
        )
    if answer.size[1] > WIDEST:
        return (
            "too wide",
            f"The object is {100 * answer.size[1]:.0f} cm wide; the gripper takes at most "
            f"{100 * WIDEST:.1f} cm.",
        )
    away = float(np.hypot(*answer.position[:2]))
    if not REACH[0] <= away <= REACH[1]:
        return (
            "out of reach",
            f"The object is {away:.2f} m from the arm, which reaches {REACH[0]} to {REACH[1]} m.",
        )
    return None


if __name__ == "__main__":
    sys.exit(
        run_example(
            "pick",
            'Say what to pick up: python -m examples.pick "the red can"',
            lambda node, asker, goal: Picker(Arm(node), asker.ask).pick(goal),
        )
    )
