"""`Watchdog`, `Arm` and `Base` over DDS, with a robot in a separate thread and context."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from nav2_msgs.action import NavigateToPose
from nav_msgs.msg import Odometry
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String

from demo.ros_common import pose_message, time_message
from examples import go_to, pick
from examples.ask import Answer, GoalChanged, RobotError, RobotLost, Watchdog
from examples.go_to import Base
from examples.pick import Arm, Picker
from groma_ros.client.demo.processes import dds_environment
from tests.domains import own_domain
from tests.examples.test_pick import BASE, CAN

DOMAIN = own_domain()
DOWN = (1.0, 0.0, 0.0, 0.0)
PATIENCE = 60.0
"""Wall seconds to wait for anything; a busy machine is slow."""


class Robot:
    """An arm and a base that do not move, and a Nav2, which publish their poses 50 times a second. Commands
    are recorded."""

    def __init__(self, stack: ExitStack) -> None:
        context = Context()
        rclpy.init(context=context, domain_id=DOMAIN, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(context.try_shutdown)
        self.node = rclpy.create_node("robot", context=context)
        self._hand = self.node.create_publisher(PoseStamped, "hand_pose", 10)
        self._joints = self.node.create_publisher(JointState, "joint_states", 10)
        self._odometry = self.node.create_publisher(Odometry, "odom", 20)
        # As README sends a goal: ros2 topic pub --once /groma/goal ...
        self.goals = self.node.create_publisher(String, "/groma/goal", 10)
        group = ReentrantCallbackGroup()
        self.node.create_subscription(PoseStamped, "hand_target", self._on_target, 10, callback_group=group)
        self.node.create_subscription(Float64, "gripper_opening", self._on_opening, 10, callback_group=group)
        self.node.create_timer(0.02, self._tick, callback_group=group)
        self._server = ActionServer(
            self.node,
            NavigateToPose,
            "navigate_to_pose",
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=group,
        )
        self.stamp, self._joints_at = 1.0, 0.0
        self.over = threading.Event()
        self.reset()
        executor = MultiThreadedExecutor(num_threads=6, context=context)
        executor.add_node(self.node)
        thread = threading.Thread(target=executor.spin)
        thread.start()
        stack.callback(thread.join)
        stack.callback(executor.shutdown)
        stack.callback(self.reset)

    def reset(self) -> None:
        """Reset to the initial state; drives that were not cancelled end."""
        self.over.set()
        self.over = threading.Event()
        self.speaks, self.goal = True, None  # type: bool, str | None
        self.speed = 1.0  # of its clock
        self.place = np.array([0.4, 0.0, 0.5])
        self.opening, self.joints_period = 0.08, 0.02  # metres; seconds, 0: no joint states are published
        self.accepts, self.ends = threading.Event(), threading.Event()
        self.accepts.set()
        self.targets: list[Any] = []
        self.openings: list[float] = []
        self.sent = self.cancelled = 0
        self.on_drive: Callable[[], Any] = lambda: None
        self.outcomes: list[str] = []

    def _tick(self) -> None:
        self.stamp += 0.02 * self.speed
        if self.speaks:
            stamp = time_message(self.stamp)
            self._hand.publish(pose_message(BASE, stamp, self.place, np.diag([1.0, -1.0, -1.0])))
            odometry = Odometry()
            odometry.header.stamp = stamp
            odometry.pose.pose.orientation.w = 1.0
            self._odometry.publish(odometry)
            if self.joints_period and self.stamp >= self._joints_at + self.joints_period:
                self._joints_at = self.stamp
                joint = "panda_finger_joint1"
                self._joints.publish(JointState(name=[joint], position=[self.opening / 2]))
        if self.goal is not None:
            self.goals.publish(String(data=self.goal))

    def _on_target(self, message: PoseStamped) -> None:
        self.targets.append(message)

    def _on_opening(self, message: Float64) -> None:
        self.openings.append(message.data)

    def _on_goal(self, goal: Any) -> GoalResponse:
        self.sent += 1
        self.accepts.wait(PATIENCE)
        return GoalResponse.ACCEPT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        self.cancelled += 1
        return CancelResponse.ACCEPT

    def _execute(self, handle: Any) -> NavigateToPose.Result:
        ends, over = self.ends, self.over
        self.on_drive()
        while not handle.is_cancel_requested and not over.is_set():
            time.sleep(0.01)
        if over.is_set():
            handle.abort()
            return NavigateToPose.Result()
        ends.wait(PATIENCE)
        handle.canceled()
        self.outcomes.append("cancelled")
        return NavigateToPose.Result()


@pytest.fixture(scope="module")
def running() -> Iterator[Robot]:
    patch = pytest.MonkeyPatch()
    for name, value in dds_environment().items():
        patch.setenv(name, value)
    with ExitStack() as stack:
        stack.callback(patch.undo)
        rclpy.init(domain_id=DOMAIN, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.shutdown)
        yield Robot(stack)


@pytest.fixture
def robot(running: Robot) -> Iterator[Robot]:
    yield running
    running.ends.set()
    running.accepts.set()
    running.reset()


@pytest.fixture
def node(running: Robot) -> Iterator[Node]:
    made = rclpy.create_node("bridge")
    yield made
    made.destroy_node()


def until(done: Callable[[], Any], node: Node | None = None) -> None:
    """Wait until `done()` holds, spinning a node."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        if node is None:
            time.sleep(0.02)
        else:
            rclpy.spin_once(node, timeout_sec=0.02)


def met(robot: Robot, node: Node, what: str = "move") -> bool:
    """Whether goals arrive at a bridge, and its commands at the robot, as both ends see it."""
    told = {"move": "hand_target", "grip": "gripper_opening", "drive": "odom"}[what]
    one = robot.node.count_publishers(told) == 1 and node.count_subscribers(told) == 1
    goals = robot.goals.get_subscription_count() == 1 and node.count_publishers("/groma/goal") == 1
    return goals and one


def test_a_goal_that_is_sent_to_the_node_is_reported_once(robot: Robot, node: Node) -> None:
    dog = Watchdog(node, "arm", PATIENCE)
    dog.follow("the red can")
    robot.goal = "the red can"
    until(lambda: robot.goals.get_subscription_count() == 1)
    for _ in range(20):
        dog.spin()
    robot.goal = "the lemon"
    with pytest.raises(GoalChanged) as raised:
        until(dog.spin)
    assert str(raised.value) == "'the lemon' was requested instead of 'the red can'."
    for _ in range(20):
        dog.spin()


@pytest.mark.parametrize("what", ["move", "grip", "drive"])
def test_a_goal_that_is_sent_during_a_question_is_reported_before_anything_moves(
    robot: Robot, node: Node, what: str
) -> None:
    driven: Any = Base(node) if what == "drive" else Arm(node, BASE)
    driven.follow("the red can")
    driven.clock()
    until(lambda: met(robot, node, what), node)
    robot.goals.publish(String(data="the lemon"))
    time.sleep(0.5)  # nobody listens, as during a question
    with pytest.raises(GoalChanged):
        if what == "move":
            driven.move(robot.place, DOWN)
        elif what == "grip":
            driven.grip(0.0)
        else:
            driven.go(np.array([2.0, 0.0]), 0.0)
    time.sleep(0.2)  # anything that was sent would have arrived by now
    assert (robot.targets, robot.openings, robot.sent) == ([], [], 0)


def test_a_move_is_not_at_its_end_because_the_hand_was_there_before_the_question(
    robot: Robot, node: Node
) -> None:
    arm, there = Arm(node, BASE), robot.place.copy()
    until(lambda: met(robot, node), node)
    arm.move(there, DOWN)
    until(lambda: robot.targets)
    robot.place = there + [0.3, 0.0, 0.0]
    time.sleep(0.5)  # nobody listens, as during a question
    now = robot.stamp
    with pytest.raises(RobotError, match=r"The arm did not reach its goal in time \(30 cm away\)"):
        arm.move(there, DOWN, 0.3)
    assert arm.clock() > now + 0.3
    robot.place = there
    time.sleep(0.5)
    now = robot.stamp
    arm.grip(0.05)
    assert now + 0.3 <= arm.clock() < now + 4.0  # from now on by the clock: earlier messages do not count


def test_fingers_whose_opening_is_told_once_a_second_are_waited_for(robot: Robot, node: Node) -> None:
    arm = Arm(node, BASE)
    until(lambda: met(robot, node, "grip") and arm.opening == pytest.approx(0.08), node)
    robot.joints_period, robot.opening = 1.0, 0.0  # closed on nothing, which has not been published yet
    start = arm.clock()
    arm.grip(0.0)
    assert arm.opening == 0.0 and 1.0 <= arm.clock() - start < 4.5
    robot.joints_period = 0.0
    with pytest.raises(RobotError, match="opening is not known: no finger_joint1 in joint_states"):
        arm.grip(0.0)


def test_an_arm_that_does_not_get_there_is_told_to_stay(robot: Robot, node: Node) -> None:
    robot.speed = 10.0
    arm = Arm(node, BASE)
    until(lambda: met(robot, node), node)
    outcome = Picker(arm, lambda goal: CAN).pick("the red can")
    assert outcome.cause == "not reached"
    assert outcome.sentence.endswith(" cm away). It was told to stay where it is.")
    until(lambda: len(robot.targets) == 2)
    first, last = (message.pose.position for message in robot.targets)
    assert (first.x, first.y, first.z) == pytest.approx((0.5, 0.1, 0.24))
    assert (last.x, last.y, last.z) == pytest.approx(robot.place)
    turn = robot.targets[1].pose.orientation
    assert abs(turn.x) == pytest.approx(1.0) and robot.targets[1].header.frame_id == BASE


def test_an_arm_that_was_never_heard_is_told_nothing(
    robot: Robot, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot.speaks, robot.goal = False, "the lemon"
    monkeypatch.setattr(pick, "LOST_SECONDS", PATIENCE)
    outcome = Picker(Arm(node, BASE), lambda goal: CAN).pick("the red can")
    assert outcome.cause == "goal changed"
    monkeypatch.setattr(pick, "LOST_SECONDS", 1.0)
    robot.goal = None
    other = rclpy.create_node("other_bridge")
    outcome = Picker(Arm(other, BASE), lambda goal: CAN).pick("the red can")
    other.destroy_node()
    assert outcome.cause == "arm lost" and robot.targets == []
    assert outcome.sentence == "The arm has not been heard for 1 s. No further commands are sent."


def test_a_drive_is_cancelled_where_the_base_is_not_heard_any_more(
    robot: Robot, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go_to, "LOST_SECONDS", 1.0)
    robot.ends.set()
    robot.on_drive = lambda: setattr(robot, "speaks", False)
    base = Base(node)
    until(lambda: base._pose is not None, node)
    with pytest.raises(RobotLost, match="The base has not been heard for 1 s."):
        base.go(np.array([2.0, 0.0]), 0.0)
    assert robot.cancelled == 1
    until(lambda: robot.outcomes == ["cancelled"])


def test_an_interrupted_drive_is_cancelled(robot: Robot, node: Node) -> None:
    robot.ends.set()
    base = Base(node)
    until(lambda: base._pose is not None, node)
    robot.on_drive = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        base.go(np.array([2.0, 0.0]), 0.0)
    assert robot.cancelled == 1
    until(lambda: robot.outcomes == ["cancelled"])


@pytest.mark.parametrize("program", ["pick", "go_to"])
def test_an_interrupted_program_stops_the_robot(robot: Robot, program: str, tmp_path: Path) -> None:
    """Ctrl-C in a terminal, on the way: run as `python -m`, with an answer that needs no node."""
    answer = "'panda_link0', [0.5, 0.1, 0.05], (1.0, 0, 0, 0), (0.06, 0.05, 0.1)"
    if program == "go_to":
        answer = "'map', [3.0, 0.0, 0.0], (0, 0, 0, 1.0), (0.5, 0.5, 1.0)"
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import runpy, sys, numpy as np\n"
        "from examples import ask\n"
        f"frame, place, turn, size = {answer}\n"
        "found = ask.Answer('x', 'present', '', 1.0, 1.0, frame, np.array(place), turn, size)\n"
        "ask.GoalAsker.ask = lambda self, goal, timeout=0.0: found\n"
        f"sys.argv = ['x', 'the can']\nrunpy.run_module('examples.{program}', run_name='__main__')\n"
    )
    robot.ends.set()
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE) as process:
        until(lambda: robot.targets or robot.sent)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1].decode()
    assert said == "Interrupted; no further commands are sent to the robot.\n" and process.returncode == 130
    if program == "pick":
        until(lambda: len(robot.targets) == 2)
        stay = robot.targets[1].pose.position
        assert (stay.x, stay.y, stay.z) == pytest.approx(tuple(robot.place))
    else:
        until(lambda: robot.outcomes == ["cancelled"])


@pytest.mark.parametrize("why", ["time", "goal"])
def test_a_drive_that_ends_early_is_over_when_the_bridge_goes_on(robot: Robot, node: Node, why: str) -> None:
    robot.ends.set()
    base = Base(node)
    base.follow("the chair")
    until(lambda: robot.goals.get_subscription_count() == 1, node)
    if why == "time":
        assert not base.go(np.array([2.0, 0.0]), 0.0, 0.5)
    else:
        robot.on_drive = lambda: setattr(robot, "goal", "the door")
        with pytest.raises(GoalChanged):
            base.go(np.array([2.0, 0.0]), 0.0)
    assert (robot.sent, robot.cancelled, robot.outcomes) == (1, 1, ["cancelled"])


def test_a_nav2_that_answers_nothing_is_waited_for_so_long_only(
    robot: Robot, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go_to, "ANSWER_SECONDS", 1.0)
    base = Base(node)
    robot.accepts.clear()
    with pytest.raises(RobotError, match="navigate_to_pose did not accept a goal within 1 s"):
        base.go(np.array([2.0, 0.0]), 0.0)
    assert robot.sent == 1 and robot.cancelled == 0
    robot.accepts.set()  # too late: it is cancelled
    until(lambda: robot.cancelled == 1, node)
    with pytest.raises(RobotError, match="did not end a cancelled goal within 1 s"):
        base.go(np.array([2.0, 0.0]), 0.0, 0.1)
    assert robot.sent == 2 and robot.cancelled >= 2


def test_a_goal_that_is_taken_back_on_the_way_is_the_outcome(robot: Robot, node: Node) -> None:
    base = Base(node)
    seen = Answer("x", "present", "", 1.0, 1.0, "map", np.array([3.0, 0.0, 0.0]), size=(0.5, 0.5, 1.0))
    robot.ends.set()
    robot.on_drive = lambda: setattr(robot, "goal", "")
    outcome = go_to.Seeker(base, lambda goal: seen).go_to("the chair")
    assert outcome.cause == "goal changed"
    assert outcome.sentence == "The goal 'the chair' was withdrawn. The base stopped where it was."
