"""The grasping bridge: rejected answers and errors. The arm is a stand-in that records commands."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from examples.ask import Answer, GoalChanged, NodeLost, RobotError, RobotLost
from examples.pick import Arm, Picker, check, confirmation, nearest_turn
from groma_ros.camera_geometry import matrix_from_quaternion, quaternion_from_matrix
from groma_ros.simulation.shapes import rotation_z

BASE = "panda_link0"
CAN = Answer(
    "the red can",
    "present",
    "",
    0.9,
    0.8,
    BASE,
    np.array([0.5, 0.1, 0.05]),
    (1.0, 0, 0, 0),
    (0.06, 0.05, 0.1),
)


class StandInArm:
    """An arm that reaches everything; the fingers close on what is at `thing` (x, y)."""

    frame = BASE

    def __init__(self, thing: tuple[float, float] = (0.5, 0.1)) -> None:
        self.thing, self.opening = np.array(thing), 0.08
        self.moves: list[Any] = []
        self.grips: list[float] = []
        self.place = np.array([0.4, 0.0, 0.5])
        self.fails_at = self.grip_fails_at = -1
        self.fails_with: Exception = RobotLost("The arm has not been heard for 5 s.")
        self.followed: list[str | None] = []
        self.stopped = self.waited = 0
        self.fails_in_wait = False

    def follow(self, goal: str | None) -> None:
        self.followed.append(goal)
        if goal is None and isinstance(self.fails_with, GoalChanged):
            self.fails_at = self.grip_fails_at = -1

    def stop(self) -> None:
        self.stopped += 1

    def clock(self) -> float:
        return 0.0

    def pose(self) -> tuple[Any, Any]:
        return self.place, np.eye(3)

    def move(self, position: Any, quaternion: Any, timeout: float = 12.0) -> None:
        if len(self.moves) == self.fails_at:
            self.fails_at = -1
            raise self.fails_with
        self.moves.append(np.array(position))
        self.place = np.array(position)

    def grip(self, opening: float) -> None:
        self.grips.append(opening)
        held = np.hypot(*(self.place[:2] - self.thing)) < 0.02
        self.opening = (0.05 if held else 0.0) if opening == 0 else opening
        if len(self.grips) - 1 == self.grip_fails_at:
            self.grip_fails_at = -1
            raise self.fails_with

    def wait(self, seconds: float) -> None:
        self.waited += 1
        if self.fails_in_wait:
            self.fails_in_wait = False
            raise self.fails_with


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"status": "absent", "message": "The goal 'x' is absent (presence 0.03)."}, "absent"),
        ({"status": "ambiguous"}, "ambiguous"),
        ({"margin": 0.19}, "ambiguous"),
        ({"present": 0.69}, "unsure"),
        ({"frame": ""}, "no pose"),
        ({"frame": "", "message": "Depth is 3 s late."}, "no pose"),
        ({"frame": "camera"}, "no pose"),
        ({"size": (0.2, 0.15, 0.1)}, "too wide"),
        ({"position": np.array([1.4, 0, 0.05])}, "out of reach"),
        ({"position": np.array([0.1, 0, 0.05])}, "out of reach"),
    ],
)
def test_nothing_moves_on_an_answer_that_is_refused(changes: dict[str, Any], cause: str) -> None:
    arm = StandInArm()
    pick = Picker(arm, lambda goal: dataclasses.replace(CAN, **changes)).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == cause and pick.sentence.endswith((".", "?"))
    assert not arm.moves and not arm.grips


def test_a_thing_is_approached_from_above_lifted_and_put_down() -> None:
    arm = StandInArm()
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "" and pick.answer is CAN
    heights = [float(place[2]) for place in arm.moves]
    assert heights == pytest.approx([0.24, 0.07, 0.27, 0.075, 0.24])
    assert arm.grips == pytest.approx([0.08, 0.0, 0.08])
    assert all(place[:2] == pytest.approx([0.5, 0.1]) for place in arm.moves)


def test_moved_object_is_grasped_at_its_new_place() -> None:
    arm = StandInArm((0.6, 0.0))
    narrow = dataclasses.replace(CAN, size=(0.06, 0.03, 0.1))
    answers = iter([narrow, dataclasses.replace(CAN, position=np.array([0.6, 0.0, 0.05]))])
    pick = Picker(arm, lambda goal: next(answers)).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == ""
    assert arm.moves[2][:2] == pytest.approx([0.6, 0.0])
    assert arm.grips == pytest.approx([0.06, 0.08, 0.0, 0.08])  # open to the new answer's width


@pytest.mark.parametrize(
    "changes",
    [
        {"position": np.array([0.55, 0.1, 0.2]), "size": (0.2, 0.07, 0.3)},  # the hand above the can
        {"position": np.array([0.52, 0.1, 0.05])},  # where it was
        {"status": "absent", "present": 0.2},  # the hand hides it
        {"frame": "", "margin": 0.0},  # the hand hides its depth
        {"status": "ambiguous", "margin": 0.05},
    ],
)
def test_another_answer_from_above_does_not_change_the_place(changes: dict[str, Any]) -> None:
    arm = StandInArm()
    answers = iter([CAN, dataclasses.replace(CAN, **changes)])
    pick = Picker(arm, lambda goal: next(answers)).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "" and pick.answer is CAN
    assert all(place[:2] == pytest.approx([0.5, 0.1]) for place in arm.moves)


@pytest.mark.parametrize(
    ("changes", "count", "probability"),
    [
        ({}, 1, 0.85),
        ({"position": np.array([0.52, 0.1, 0.05]), "margin": 0.1}, 1, (0.85 + 0.5) / 2),
        ({"position": np.array([0.6, -0.1, 0.05])}, 1, (0.85 + 0.05) / 2),
        ({"position": np.array([0.6, -0.1, 0.05])}, 2, (0.9 + 0.85) / 2),  # another can of "all cans"
        ({"status": "absent", "present": 0.1}, 1, (0.85 + 0.1) / 2),
        ({"frame": ""}, 1, 0.85),
    ],
)
def test_probability_of_an_object_after_a_second_answer(
    changes: dict[str, Any], count: int, probability: float
) -> None:
    first = dataclasses.replace(CAN, count=count)
    assert confirmation(first, dataclasses.replace(CAN, **changes)) == pytest.approx(probability)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"position": np.array([0.6, -0.1, 0.05])},
            "with the hand above it, the object at (0.60, -0.10) is named instead.",
        ),
        (
            {"status": "absent", "present": 0.1},
            "with the hand above it, nothing matches (presence 0.10).",
        ),
        ({"present": 0.1, "margin": 0.0}, "the answer from above it is unsure (margin 0.00)."),
    ],
)
def test_an_object_that_the_answer_from_above_does_not_confirm_is_not_grasped(
    changes: dict[str, Any], why: str
) -> None:
    arm = StandInArm()
    answers = iter([CAN, dataclasses.replace(CAN, **changes)])
    pick = Picker(arm, lambda goal: next(answers)).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "not confirmed"
    assert pick.sentence == f"The object at (0.50, 0.10) is not grasped for 'the red can': {why}"
    # The hand stays above it, the fingers stay open.
    assert [float(place[2]) for place in arm.moves] == pytest.approx([0.24])
    assert arm.grips == pytest.approx([0.08])


def test_an_unsure_answer_is_asked_again_before_it_is_refused() -> None:
    unsure = dataclasses.replace(CAN, present=0.6)
    unclear = dataclasses.replace(CAN, status="ambiguous", margin=0.1)
    arm, answers = StandInArm(), iter([unsure, unclear, CAN, CAN])
    assert Picker(arm, lambda goal: next(answers)).pick("the red can").cause == ""  # type: ignore[arg-type]
    arm, answers = StandInArm(), iter([unclear, unclear, unsure, CAN])
    pick = Picker(arm, lambda goal: next(answers)).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "unsure" and "(presence 0.60, needed 0.7)" in pick.sentence and not arm.moves
    arm, answers = StandInArm(), iter([dataclasses.replace(CAN, status="absent"), CAN])
    assert Picker(arm, lambda goal: next(answers)).pick("the red can").cause == "absent"  # type: ignore[arg-type]


def test_empty_gripper_is_reported_as_a_miss() -> None:
    arm = StandInArm((0.9, 0.9))
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "missed" and arm.grips[-1] == 0.08


def test_an_arm_or_a_node_that_is_lost_stops_the_bridge() -> None:
    arm = StandInArm()
    arm.fails_at = 1
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "arm lost" and len(arm.moves) == 1

    def gone(goal: str) -> Answer:
        raise NodeLost("The node groma does not answer; is it active?")

    other = StandInArm()
    assert Picker(other, gone).pick("the red can").cause == "node lost" and not other.moves  # type: ignore[arg-type]


@pytest.mark.parametrize(("moves", "grips"), [(0, [0.08]), (1, [0.08])])
def test_a_goal_that_changes_before_the_grasp_stops_the_arm(moves: int, grips: list[float]) -> None:
    arm = StandInArm()
    arm.fails_at, arm.fails_with = moves, GoalChanged("'the lemon' was requested instead of 'x'.")
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "goal changed" and arm.followed == ["the red can"] and arm.stopped == 1
    assert pick.sentence == "'the lemon' was requested instead of 'x'. The arm stopped where it was."
    assert len(arm.moves) == moves and arm.grips == pytest.approx(grips)


@pytest.mark.parametrize(
    ("when", "lifted"),
    [({"grip_fails_at": 1}, []), ({"fails_at": 2}, []), ({"fails_in_wait": True}, [0.27])],
    ids=["closing", "lifting", "holding"],
)
def test_a_goal_that_changes_while_a_thing_is_held_puts_it_down_first(
    when: dict[str, Any], lifted: list[float]
) -> None:
    arm = StandInArm()
    arm.fails_with = GoalChanged("The goal 'the red can' was withdrawn.")
    for name, value in when.items():
        setattr(arm, name, value)
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "goal changed" and arm.stopped == 1
    assert [float(place[2]) for place in arm.moves] == pytest.approx([0.24, 0.07, *lifted, 0.075, 0.24])
    assert arm.grips == pytest.approx([0.08, 0.0, 0.08])


@pytest.mark.parametrize("when", [{"fails_at": 3}, {"grip_fails_at": 2}, {"fails_at": 4}])
def test_a_goal_that_changes_while_the_thing_is_put_down_is_not_listened_to(when: dict[str, int]) -> None:
    arm = StandInArm()
    arm.fails_with = GoalChanged("The goal 'the red can' was withdrawn.")
    for name, value in when.items():
        setattr(arm, name, value)
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "" and arm.followed == ["the red can", None] and arm.waited == 1
    assert [float(place[2]) for place in arm.moves] == pytest.approx([0.24, 0.07, 0.27, 0.075, 0.24])
    assert arm.grips == pytest.approx([0.08, 0.0, 0.08])


def test_a_goal_that_changes_after_a_miss_has_nothing_to_put_down() -> None:
    arm = StandInArm((0.9, 0.9))
    arm.fails_at, arm.fails_with = 2, GoalChanged("The goal 'the red can' was withdrawn.")
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "goal changed" and arm.stopped == 1 and len(arm.moves) == 2


def test_a_node_that_dies_before_the_hand_goes_down_ends_above_the_thing() -> None:
    arm, asked = StandInArm(), []

    def ask(goal: str) -> Answer:
        asked.append(goal)
        if len(asked) == 2:
            raise NodeLost("The search did not end within 30 s.")
        return CAN

    pick = Picker(arm, ask).pick("the red can")  # type: ignore[arg-type]
    assert (pick.cause, pick.sentence) == ("node lost", "The search did not end within 30 s.")
    assert [float(place[2]) for place in arm.moves] == pytest.approx([0.24]) and pick.answer is CAN


def test_a_pose_that_is_not_reached_stops_the_arm() -> None:
    arm = StandInArm()
    arm.fails_at, arm.fails_with = 0, RobotError("The arm did not reach its goal in time (9 cm away).")
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "not reached" and arm.stopped == 1
    assert (
        pick.sentence
        == "The arm did not reach its goal in time (9 cm away). It was told to stay where it is."
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_or_a_fault_stops_the_arm(error: type[BaseException]) -> None:
    arm = StandInArm()
    arm.fails_at, arm.fails_with = 1, error()  # type: ignore[assignment]
    with pytest.raises(error):
        Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert arm.stopped == 1


def test_an_arm_that_is_lost_is_told_nothing() -> None:
    arm = StandInArm()
    arm.fails_at = 1
    pick = Picker(arm, lambda goal: CAN).pick("the red can")  # type: ignore[arg-type]
    assert pick.cause == "arm lost" and arm.stopped == 0


def test_any_of_several_that_are_meant_will_do() -> None:
    """Their scores are nearly equal, so the margin is near 0."""
    pair = dataclasses.replace(CAN, margin=0.02, count=2)
    assert check(pair, BASE) is None
    assert check(dataclasses.replace(pair, count=1), BASE) == (
        "ambiguous",
        f"Several objects match {CAN.goal!r} nearly equally well (margin 0.02); describe the object more "
        "precisely.",
    )
    other = dataclasses.replace(pair, position=pair.position + [0.3, 0, 0])
    assert confirmation(pair, other) == pytest.approx(pair.present)


def test_a_good_answer_is_not_refused() -> None:
    assert check(CAN, BASE) is None


class TurningHand(Arm):
    """A hand 3 cm from its goal that turns by 0.1 rad at every look, and rests after `turns` looks."""

    def __init__(self, turns: int) -> None:
        self.frame, self.turns, self.looks = BASE, turns, 0
        self._target = self._watchdog = Mock()

    def clock(self) -> float:
        return 0.1 * self.looks

    def pose(self) -> tuple[Any, Any]:
        self.looks += 1
        angle = 1.0 + 0.1 * min(self.looks, self.turns)
        return np.array([0.5, 0.03, 0.3]), rotation_z(angle)


@pytest.mark.parametrize("turns", [0, 20])
def test_a_hand_that_something_keeps_from_its_goal_has_arrived_once_its_turn_rests(turns: int) -> None:
    hand = TurningHand(turns)
    hand.move(np.array([0.5, 0.0, 0.3]), (0.0, 0.0, 0.0, 1.0))
    assert turns + 6 <= hand.looks <= turns + 9  # 0.6 s later


def test_gripper_takes_the_smaller_of_two_rotations() -> None:
    hand = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])  # down, the fingers closing along +y
    for angle in np.deg2rad([-170, -100, -10, 80, 130, 179]):
        x = np.array([np.cos(angle), np.sin(angle), 0])
        z = np.array([0.0, 0, -1])
        wanted = quaternion_from_matrix(np.stack([x, np.cross(z, x), z], 1))
        turned = matrix_from_quaternion(nearest_turn(wanted, hand))
        assert turned[:, 2] == pytest.approx(z)
        assert turned[:, 0] @ hand[:, 0] >= -1e-9
        assert abs(turned[:, 0] @ x) == pytest.approx(1)
