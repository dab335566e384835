"""Approach poses, by their axes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from groma_ros.camera_geometry import matrix_from_quaternion, moved
from groma_ros.geometry3d.approach_pose import ANY_TURN, JawAxes, is_round, target_pose, turn_covariance
from groma_ros.types import Box3D

SIDEWAYS = Box3D(
    (0.1, 0.2, 0.8), tuple(Rotation.from_euler("x", 90, degrees=True).as_quat()), (0.12, 0.05, 0.09)
)
"""A thing on a table that a camera sees from the side: up is the frame's -y."""


def test_from_above_z_points_down_into_the_thing_and_the_hand_closes_over_the_shorter_side() -> None:
    pose = target_pose(SIDEWAYS)
    axes = matrix_from_quaternion(pose.quaternion)
    np.testing.assert_allclose(axes[:, 2], [0, 1, 0], atol=1e-9)
    assert abs(axes[:, 0] @ matrix_from_quaternion(SIDEWAYS.quaternion)[:, 1]) == pytest.approx(1)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert pose.position == pytest.approx(SIDEWAYS.centre)
    assert target_pose(SIDEWAYS, standoff=0.15).position == pytest.approx((0.1, 0.05, 0.8))


def test_the_hand_is_turned_the_shorter_way() -> None:
    for rotation in Rotation.random(50, rng=1):
        box = Box3D((0, 0, 1.0), tuple(rotation.as_quat()), (0.2, 0.1, 0.1))
        assert matrix_from_quaternion(target_pose(box).quaternion)[0, 0] >= 0


def test_in_front_x_is_level_and_points_from_the_camera_to_the_thing() -> None:
    box = Box3D((2.0, 1.0, 0.8), (0.0, 0.0, 0.0, 1.0), (0.1, 0.1, 0.2))
    pose = target_pose(box, "front", 0.5, (0.0, 1.0, 1.3), (0.0, 0.0, 1.0))
    np.testing.assert_allclose(matrix_from_quaternion(pose.quaternion), np.eye(3), atol=1e-9)
    assert pose.position == pytest.approx((1.5, 1.0, 0.8))
    other = target_pose(box, "front", 0.5, (2.0, 3.0, 1.3), (0.0, 0.0, 2.0))
    np.testing.assert_allclose(matrix_from_quaternion(other.quaternion)[:, 0], [0, -1, 0], atol=1e-9)
    assert other.position == pytest.approx((2.0, 1.5, 0.8))
    assert other.quaternion[:2] == pytest.approx(
        (0, 0)
    )  # a turn about z alone, as a planner on the ground wants it


def test_in_front_without_an_up_takes_the_things_own() -> None:
    axes = matrix_from_quaternion(target_pose(SIDEWAYS, "front").quaternion)
    np.testing.assert_allclose(axes[:, 2], [0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(axes[:, 0], np.array([0.1, 0, 0.8]) / np.hypot(0.1, 0.8), atol=1e-9)


def test_a_camera_right_above_still_gives_a_pose() -> None:
    box = Box3D((0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.2, 0.1, 0.1))
    axes = matrix_from_quaternion(target_pose(box, "front").quaternion)
    np.testing.assert_allclose(axes, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("approach", ["above", "front"])
def test_the_pose_moves_with_the_box(approach: str) -> None:
    for turn in Rotation.random(20, rng=2):
        shift = np.array([0.3, -1.0, 0.2])
        up, camera = turn.apply([0, -1.0, 0]), tuple(shift)
        before = target_pose(SIDEWAYS, approach, 0.2, up=(0.0, -1.0, 0.0))
        after = target_pose(moved(SIDEWAYS, turn.as_matrix(), shift), approach, 0.2, camera, tuple(up))
        np.testing.assert_allclose(after.position, turn.apply(before.position) + shift, atol=1e-9)
        back = (
            turn.as_matrix().T
            @ matrix_from_quaternion(after.quaternion)
            @ matrix_from_quaternion(before.quaternion).T
        )
        np.testing.assert_allclose(np.abs(np.diag(back)), 1, atol=1e-9)  # the hand may be turned by half


def test_another_approach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The approach 'below' is unknown; use one of above, front\."):
        target_pose(SIDEWAYS, "below")


def turned(degrees: float, size: tuple[float, float, float]) -> Box3D:
    """A box on a table before the camera, turned about its own z."""
    rotation = Rotation.from_euler("x", 120, degrees=True) * Rotation.from_euler("z", degrees, degrees=True)
    return Box3D((0.1, 0.2, 0.8), tuple(rotation.as_quat()), size)


def jaw_turns(boxes: list[Box3D]) -> list[float]:
    """Degrees that the jaw axis turns from each box to the next."""
    memory, axes = JawAxes(), []
    for box in boxes:
        pose = target_pose(box, former=memory.get("7"))
        memory.keep("7", pose)
        axes.append(matrix_from_quaternion(pose.quaternion)[:, 0])
    return [float(np.degrees(np.arccos(np.clip(a @ b, -1, 1)))) for a, b in pairwise(axes)]


def test_the_jaw_axis_goes_on_where_the_box_turns_past_the_frames_axes() -> None:
    long = (0.12, 0.05, 0.09)
    assert max(jaw_turns([turned(3 * step, long) for step in range(130)])) == pytest.approx(3, abs=0.01)
    # The box's own axes are known up to half a turn.
    assert max(jaw_turns([turned(180 * (step % 2) + step, long) for step in range(20)])) == pytest.approx(
        1, abs=0.01
    )
    alone = [target_pose(turned(3 * step, long)) for step in range(130)]
    axes = [matrix_from_quaternion(pose.quaternion)[:, 0] for pose in alone]
    assert min(a @ b for a, b in pairwise(axes)) < -0.9, "what would happen without"


def test_a_round_box_keeps_its_jaw_axis_whatever_its_measured_turn() -> None:
    rng = np.random.default_rng(3)
    sides = rng.uniform(0.09, 0.1, (60, 2))
    boxes = [turned(angle, (a, b, 0.1)) for angle, (a, b) in zip(rng.uniform(0, 90, 60), sides, strict=True)]
    assert all(map(is_round, boxes))
    assert max(jaw_turns(boxes)) <= 15.01
    # Single measurements that call it longer than wide turn nothing either.
    assert max(jaw_turns([turned(90 * (step % 3 == 2), (0.1, 0.08, 0.1)) for step in range(30)])) <= 15.01
    # One that turns slowly is followed, and the axis stays level with the support.
    assert sum(jaw_turns([turned(5 * step, (0.1, 0.1, 0.1)) for step in range(10)])) == pytest.approx(
        45, abs=0.1
    )
    pose = target_pose(boxes[0], former=np.array([0.3, 0.5, 0.1]))
    up = matrix_from_quaternion(boxes[0].quaternion)[:, 2]
    assert abs(matrix_from_quaternion(pose.quaternion)[:, 0] @ up) < 1e-9


def test_sides_that_differ_are_not_round() -> None:
    assert not is_round(turned(0, (0.1, 0.08, 0.3))) and is_round(turned(0, (0.1, 0.086, 0.3)))


def test_the_covariance_of_a_round_box_is_a_turn_about_its_own_z() -> None:
    box = turned(30, (0.1, 0.1, 0.2))
    covariance, up = turn_covariance(box), matrix_from_quaternion(box.quaternion)[:, 2]
    assert not covariance[:3].any() and up @ covariance[3:, 3:] @ up == pytest.approx(ANY_TURN)
    assert np.linalg.eigvalsh(covariance[3:, 3:]) == pytest.approx([0, 0, ANY_TURN], abs=1e-12)
    assert not turn_covariance(turned(30, (0.1, 0.05, 0.2))).any()


def test_axes_of_objects_long_unseen_are_forgotten() -> None:
    memory = JawAxes()
    for number in range(300):
        memory.keep(number, target_pose(SIDEWAYS))
    assert memory.get(0) is None and memory.get(299) is not None and memory.get("other") is None
