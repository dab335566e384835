"""Client results converted to the plain values that the bridges use."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String
from vision_msgs.msg import Detection3D

from examples.ask import (
    Answer,
    GoalAsker,
    GoalChanged,
    NodeLost,
    Outcome,
    RobotLost,
    Watchdog,
    from_result,
    run_example,
)
from groma_ros.client.groma_client import FindResult
from groma_ros.types import Detection, Goal, Grounding
from tests.domains import own_domain


def result(status: str, pose: PoseStamped | None = None, found: int = 1) -> FindResult:
    boxes = tuple(Detection((10.0, 20.0, 30.0, 60.0), 0.8, i) for i in range(found))
    grounding = Grounding(Goal("the can"), boxes, 0.9, 0.05, status=status)  # type: ignore[arg-type]
    solid = Detection3D()
    solid.bbox.size.x, solid.bbox.size.y, solid.bbox.size.z = 0.1, 0.06, 0.12
    solids = [solid] if pose is not None else []
    return FindResult(bool(found), "" if found else "It is absent.", 5, "camera", grounding, solids, pose)


def pose() -> PoseStamped:
    made = PoseStamped()
    made.header.frame_id, made.pose.position.x, made.pose.orientation.w = "base", 0.5, 1.0
    return made


@pytest.mark.parametrize("status", ["present", "ambiguous"])
def test_an_answer_with_a_pose(status: str) -> None:
    answer = from_result("the can", result(status, pose()))
    assert (answer.status, answer.frame, answer.size) == (status, "base", (0.1, 0.06, 0.12))
    assert answer.position == pytest.approx([0.5, 0, 0]) and answer.box == (10, 20, 30, 60)


def test_an_answer_without_depth_has_a_box_and_no_frame() -> None:
    answer = from_result("the can", result("present"))
    assert answer.frame == "" and answer.box == (10, 20, 30, 60)


def test_an_answer_tells_how_many_objects_it_has_and_how_likely_the_best_one_is() -> None:
    answer = from_result("all cans", result("present", pose(), found=3))
    assert answer.count == 3 and from_result("the can", result("present")).count == 1
    # The runner-up is meant too, so the margin says nothing.
    assert (answer.chance, answer.rest) == (pytest.approx(0.9), 0.5)
    # A presence of 0.9, of which the best has 0.05 more than the runner-up.
    one = from_result("the can", result("present", pose()))
    assert (one.chance, one.rest) == (pytest.approx(0.475), pytest.approx(0.425))
    absent = from_result("the can", result("absent", found=0))
    assert absent.chance == absent.rest == 0.9


@pytest.mark.parametrize("status", ["absent", "stale", "pending"])
def test_whatever_is_no_answer_is_absent(status: str) -> None:
    answer = from_result("the can", result(status, found=0))
    assert answer.status == "absent" and answer.message == "It is absent."


def test_missing_answer_is_a_lost_node() -> None:
    class Silent:
        def find(self, goal: str, timeout: float) -> None:
            raise TimeoutError("No node /groma was found within 30 s.")

    with pytest.raises(NodeLost, match="No node /groma"):
        GoalAsker(Silent()).ask("the can")  # type: ignore[arg-type]


class Wall:
    """A wall clock that a spin of 0.05 s moves on, and a node that keeps its subscription's callback."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        self.callback: Any = None
        monkeypatch.setattr(time, "monotonic", lambda: self.seconds)
        monkeypatch.setattr(rclpy, "spin_once", self.spin_once)

    def spin_once(self, node: Any, timeout_sec: float) -> None:
        self.seconds += timeout_sec

    def create_subscription(self, kind: Any, topic: str, callback: Any, depth: int) -> None:
        assert (kind, topic, depth) == (String, "/groma/goal", 1)
        self.callback = callback


def test_a_silent_robot_is_lost_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    dog = Watchdog(wall, "arm", 5.0)  # type: ignore[arg-type]
    with pytest.raises(RobotLost, match="The arm has not been heard for 5 s"):
        for _ in range(200):
            dog.spin()
    assert wall.seconds == pytest.approx(105.05)
    dog.heard()
    dog.spin()


def test_time_in_which_nobody_listened_is_not_the_robots_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    dog = Watchdog(wall, "arm", 5.0)  # type: ignore[arg-type]
    dog.spin()
    wall.seconds += 20.0  # a question to a slow node
    for _ in range(90):
        dog.spin()
    with pytest.raises(RobotLost):
        for _ in range(20):
            dog.spin()


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ("the red can", ""),
        ("the lemon\n the red can ", ""),
        ("the lemon\nthe cup", "'the lemon' was requested instead of 'the red can'."),
        ("", "The goal 'the red can' was withdrawn."),
    ],
)
def test_another_goal_is_reported_once(monkeypatch: pytest.MonkeyPatch, sent: str, sentence: str) -> None:
    wall = Wall(monkeypatch)
    dog = Watchdog(wall, "arm", 5.0)  # type: ignore[arg-type]
    wall.callback(String(data="the cup"))  # before anything is followed
    dog.follow("the red can")
    dog.spin()
    wall.callback(String(data=sent))
    if sentence:
        with pytest.raises(GoalChanged) as raised:
            dog.spin()
        assert str(raised.value) == sentence
    dog.spin()
    for _ in range(3):  # `ros2 topic pub` says it every second
        wall.callback(String(data=sent))
        dog.spin()
    dog.follow("the cup")
    wall.callback(String(data="the bin"))
    with pytest.raises(GoalChanged):
        dog.spin()


def test_the_newest_goal_decides_and_nothing_is_reported_where_nothing_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = Wall(monkeypatch)
    dog = Watchdog(wall, "arm", 5.0)  # type: ignore[arg-type]
    dog.follow("the red can")
    wall.callback(String(data="the lemon"))
    wall.callback(String(data="the red can"))
    dog.spin()
    dog.follow(None)
    wall.callback(String(data="the lemon"))
    dog.spin()


def test_catching_up_takes_two_messages_of_the_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    dog = Watchdog(wall, "arm", 5.0)  # type: ignore[arg-type]
    spins: list[float] = []

    def spin_once(node: Any, timeout_sec: float) -> None:
        wall.spin_once(node, timeout_sec)
        spins.append(wall.seconds)
        if len(spins) in (2, 5):
            dog.heard()

    monkeypatch.setattr(rclpy, "spin_once", spin_once)
    dog.catch_up()
    assert len(spins) == 5
    dog.refresh()
    assert len(spins) == 5, "it was spun a moment ago"
    wall.seconds += 20.0  # a question to a slow node: what was heard before it is old
    with pytest.raises(RobotLost):
        dog.refresh()


def test_ros_arguments_are_no_part_of_the_goal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own_domain()))
    remap = ["--ros-args", "-r", "hand_pose:=arm/pose", "--"]
    asked: list[str] = []

    def act(node: Any, asker: GoalAsker, goal: str) -> Outcome:
        asked.append(goal)
        assert node.resolve_topic_name("hand_pose") == "/arm/pose"
        return Outcome("", "Done.", Answer(goal, "absent", ""))

    monkeypatch.setattr(sys, "argv", ["pick.py", "the", "red", *remap, "can"])
    assert run_example("pick", "Say what.", act) == 0
    assert asked == ["the red can"] and capsys.readouterr().out == "Done.\n"
    monkeypatch.setattr(sys, "argv", ["pick.py", *remap])
    assert run_example("pick", "Say what.", act) == 1 and len(asked) == 1
    assert capsys.readouterr().err == "Say what.\n"
    for option in ("-h", "--help"):  # no goal: nothing may move
        monkeypatch.setattr(sys, "argv", ["pick.py", option])
        assert run_example("pick", "Say what.", act) == 0 and len(asked) == 1
        assert capsys.readouterr().out == "Say what.\n"
    monkeypatch.setattr(sys, "argv", ["pick.py", "the can", "--ros-args", "-p", "nonsense"])
    assert run_example("pick", "Say what.", act) == 1 and len(asked) == 1
    said = capsys.readouterr().err
    assert said.startswith("The ROS arguments cannot be read: ") and "'-p nonsense'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_rclpy_turns_into_another_error_is_an_interrupt(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own_domain()))
    monkeypatch.setattr(sys, "argv", ["pick.py", "the can"])
    before = signal.getsignal(number)

    def act(node: Any, asker: GoalAsker, goal: str) -> Outcome:
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except KeyboardInterrupt:
            raise RuntimeError("Unable to convert call argument to Python object") from None
        raise AssertionError("no signal came")

    assert run_example("pick", "Say what.", act) == 130
    assert capsys.readouterr().err == "Interrupted; no further commands are sent to the robot.\n"
    assert signal.getsignal(number) == before


def test_a_fault_without_a_signal_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(own_domain()))
    monkeypatch.setattr(sys, "argv", ["pick.py", "the can"])

    def act(node: Any, asker: GoalAsker, goal: str) -> Outcome:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        run_example("pick", "Say what.", act)
