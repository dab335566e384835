"""Transform lookups against SciPy and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from groma_ros.geometry3d.transform_buffer import Transform, TransformBuffer, TransformError, slerp

SECOND = 1_000_000_000
STILL = Transform((0, 0, 0), (0, 0, 0, 1))


def transform(x: float, y: float, yaw: float, z: float = 0.0) -> Transform:
    return Transform((x, y, z), (0, 0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))


@pytest.fixture
def robot() -> TransformBuffer:
    """map -> odom -> base -> camera; the base drives from (0, 0) to (2, 0), turning left by a right angle."""
    buffer = TransformBuffer()
    buffer.set("map", "odom", 0, transform(10, 0, 0), static=True)
    buffer.set("odom", "base", 1 * SECOND, transform(0, 0, 0))
    buffer.set("odom", "base", 3 * SECOND, transform(2, 0, np.pi / 2))
    buffer.set("base", "camera", 0, transform(0.5, 0, 0, 1.2), static=True)
    return buffer


def test_a_chain_at_a_known_time(robot: TransformBuffer) -> None:
    rotation, shift = robot.lookup("map", "camera", 3 * SECOND)
    # Two metres along, then half a metre to where the base looks, which is +y.
    np.testing.assert_allclose(shift, [12, 0.5, 1.2], atol=1e-9)
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-9)


def test_between_two_times_place_and_turn_are_interpolated(robot: TransformBuffer) -> None:
    rotation, shift = robot.lookup("odom", "base", 2 * SECOND)
    np.testing.assert_allclose(shift, [1, 0, 0], atol=1e-9)
    expected = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation, expected, atol=1e-9)


def test_the_way_back_is_the_inverse(robot: TransformBuffer) -> None:
    rotation, shift = robot.lookup("map", "camera", 3 * SECOND)
    back, home = robot.lookup("camera", "map", 3 * SECOND)
    np.testing.assert_allclose(back @ rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(back @ shift + home, np.zeros(3), atol=1e-9)


def test_siblings_meet_at_their_parent(robot: TransformBuffer) -> None:
    robot.set("base", "lidar", 0, transform(-0.2, 0, 0, 0.3), static=True)
    _, shift = robot.lookup("lidar", "camera", 0)
    np.testing.assert_allclose(shift, [0.7, 0, 0.9], atol=1e-9)


def test_time_zero_is_the_newest_that_all_links_know(robot: TransformBuffer) -> None:
    robot.set("map", "other", 2 * SECOND, transform(0, 0, 0))
    _, shift = robot.lookup("other", "base", 0)
    np.testing.assert_allclose(shift, [11, 0, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("target", "source", "stamp", "sentence"),
    [
        (
            "map",
            "base",
            4 * SECOND,
            r"newest transform of the frame 'base' is 1\.000 s before the time asked",
        ),
        ("map", "base", SECOND // 2, r"oldest transform of the frame 'base' is 0\.500 s after"),
        ("map", "nowhere", SECOND, r"No transform names the frame 'nowhere'"),
        ("island", "base", SECOND, r"'island' and 'base' are not connected"),
    ],
)
def test_what_is_not_known_is_a_sentence(
    robot: TransformBuffer, target: str, source: str, stamp: int, sentence: str
) -> None:
    robot.set("sea", "island", 0, STILL, static=True)
    with pytest.raises(TransformError, match=sentence):
        robot.lookup(target, source, stamp)


@pytest.mark.parametrize(
    "wrong",
    [Transform((float("nan"), 0, 0), (0, 0, 0, 1)), Transform((0, 0, 0), (0, 0, 0, 0))],
    ids=["not a number", "no rotation"],
)
def test_a_transform_that_is_none_is_refused(robot: TransformBuffer, wrong: Transform) -> None:
    with pytest.raises(TransformError, match="not finite, or no rotation"):
        robot.set("odom", "base", 5 * SECOND, wrong)
    with pytest.raises(TransformError, match="names no two frames"):
        robot.set("odom", "odom", 5 * SECOND, STILL)


def test_frames_in_a_circle_are_a_sentence(robot: TransformBuffer) -> None:
    robot.set("camera", "map", 0, STILL, static=True)
    with pytest.raises(TransformError, match="circle"):
        robot.lookup("map", "camera", SECOND)


def test_old_transforms_are_forgotten_and_time_may_start_anew(robot: TransformBuffer) -> None:
    robot.set("odom", "base", 12 * SECOND, transform(3, 0, 0))
    with pytest.raises(TransformError, match="oldest"):
        robot.lookup("odom", "base", SECOND)
    robot.set("odom", "base", SECOND // 10, transform(-1, 0, 0))
    _, shift = robot.lookup("odom", "base", 0)
    np.testing.assert_allclose(shift, [-1, 0, 0])


def test_slerp_takes_the_shorter_turn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pair = Rotation.random(2, random_state=rng)
        first, second = (tuple(float(v) for v in q) for q in pair.as_quat())
        share = float(rng.random())
        mine = Rotation.from_quat(slerp(first, tuple(-v for v in second), share))  # type: ignore[arg-type]
        expected = Slerp([0, 1], pair)(share)
        assert (mine * expected.inv()).magnitude() < 1e-6
