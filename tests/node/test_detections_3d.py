"""3D answers as messages, the target in the frame that was asked for, and markers."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from groma_ros.camera_geometry import corners, matrix_from_quaternion, moved
from groma_ros.geometry3d.approach_pose import target_pose
from groma_ros.geometry3d.box3d import place
from groma_ros.node.detections_3d import Detections3D, Detector3D, detections_3d_message
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.markers import markers_message
from groma_ros.node.parameters import Parameters
from groma_ros.node.transforms import Transforms
from groma_ros.types import Detection, Frame, Goal, Grounding
from groma_ros.visualization import colour
from tests.geometry3d.solids import Ball, Cuboid, Ground, box_of, look, render

POSE = look(0.3, 0.6, 0.8)
FRAME, LABELS = render(
    [Ground(), Cuboid((0.0, 0.1, 0.0), (0.1, 0.06, 0.08), 0.3), Ball((0.0, -0.1, 0.0), 0.04)], POSE
)
BOXES = [box_of(LABELS, index) for index in (1, 2)]
NODE: Any = SimpleNamespace()
HEADER = Header(frame_id="camera_optical")
HEADER.stamp.sec, HEADER.stamp.nanosec = 12, 345
BLANK = (0.0, 0.0, 30.0, 30.0)
ANSWERS = [
    Grounding(
        Goal("everything"),
        (Detection(BOXES[0], 0.4, 0, "7"), Detection(BOXES[1], 0.9, 1, "8"), Detection(BLANK, 0.3, 2)),
        1.0,
        0.5,
    ),
    Grounding(Goal("the cup"), (), 0.1, 0.0),
    Grounding(Goal("the block"), (Detection(BOXES[0], 0.8, 0, "7"),), 1.0, 0.5),
]


def solid(
    settings: Parameters | None = None, frame: Frame = FRAME, answers: list[Grounding] = ANSWERS
) -> tuple[Detections3D, list[str]]:
    """The 3D answers, and the causes of refusals."""
    causes: list[str] = []
    made = Detector3D(NODE, settings or Parameters()).of(
        ImageResult(HEADER, frame),
        answers,
        settings or Parameters(),
        lambda cause, sentence: causes.append(cause),
    )
    return made, causes


def test_detections_are_in_the_order_of_goals_and_best_first_and_have_all_of_the_box_in_the_image() -> None:
    made, causes = solid()
    message = detections_3d_message(made)
    assert message.header == HEADER and causes == ["flat"]
    assert [(item.results[0].hypothesis.class_id, item.id) for item in message.detections] == [
        ("everything", "8"),
        ("everything", "7"),
        ("the block", "7"),
    ]
    numbered = detections_3d_message(made, numbered=True).detections
    assert [item.results[0].hypothesis.class_id for item in numbered] == ["0", "0", "2"]
    assert [item.results[0].hypothesis.score for item in message.detections] == pytest.approx([0.9, 0.4, 0.8])
    expected = place(FRAME, BOXES[1]).box
    ball = message.detections[0]
    assert ball.header == HEADER and ball.results[0].pose.pose == ball.bbox.center
    centre, turn, size = ball.bbox.center.position, ball.bbox.center.orientation, ball.bbox.size
    assert (centre.x, centre.y, centre.z) == expected.centre
    assert (turn.x, turn.y, turn.z, turn.w) == expected.quaternion
    assert (size.x, size.y, size.z) == expected.size


def test_the_target_is_the_first_goals_best_box_and_is_absent_with_it() -> None:
    made, _ = solid(Parameters(target_standoff=0.1))
    assert made.target is not None and made.target.header == HEADER
    expected = target_pose(place(FRAME, BOXES[1]).box, "above", 0.1)
    assert (
        made.target.pose.position.y == expected.position[1]
        and made.target.pose.orientation.w == expected.quaternion[3]
    )
    assert solid(answers=ANSWERS[1:])[0].target is None
    assert solid(answers=[])[0] == Detections3D(HEADER, (), None)


class Buffer:
    """Stands in for tf2_ros.Buffer, which exists on a robot only: it knows one transform at one time."""

    known: TransformStamped | None = None
    asked: tuple[str, str, int] | None = None

    def lookup_transform(self, target: str, source: str, time: Any) -> TransformStamped:
        type(self).asked = (target, source, time.nanoseconds)
        if self.known is None:
            raise LookupError(f'"{target}" passed to lookupTransform argument target_frame does not exist.  ')
        return self.known


@pytest.fixture
def tf2(monkeypatch: pytest.MonkeyPatch) -> type[Buffer]:
    module = ModuleType("tf2_ros")
    module.Buffer, module.TransformListener = Buffer, lambda buffer, node: SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    monkeypatch.setattr(Buffer, "known", None)
    return Buffer


@pytest.mark.parametrize("approach", ["above", "front"])
def test_the_target_is_given_in_another_frame(
    tf2: type[Buffer], monkeypatch: pytest.MonkeyPatch, approach: str
) -> None:
    turn, shift = Rotation.from_matrix(POSE[1]), np.array([3.0, -2.0, 1.0])
    message = TransformStamped()
    rotation, translation = message.transform.rotation, message.transform.translation
    rotation.x, rotation.y, rotation.z, rotation.w = (float(value) for value in turn.as_quat())
    translation.x, translation.y, translation.z = (float(value) for value in shift)
    monkeypatch.setattr(tf2, "known", message)
    settings = Parameters(target_frame="map", target_approach=approach, target_standoff=0.3)
    made, causes = solid(settings)
    assert made.target is not None and causes == ["flat"]
    assert tf2.asked == ("map", "camera_optical", 12_000_000_345)
    assert made.target.header.frame_id == "map" and made.target.header.stamp == HEADER.stamp
    box = moved(place(FRAME, BOXES[1]).box, turn.as_matrix(), shift)
    expected = target_pose(box, approach, 0.3, tuple(shift), (0.0, 0.0, 1.0))
    assert made.target.pose.position.x == pytest.approx(expected.position[0])
    found = made.target.pose.orientation
    assert [found.x, found.y, found.z, found.w] == pytest.approx(expected.quaternion)
    # The ball stands on a level ground of the world that the transform leads to.
    assert made.target.pose.position.z == pytest.approx(
        1.0 - POSE[0][2] + 0.04 + (0.3 if approach == "above" else 0.0), abs=0.004
    )
    assert detections_3d_message(made).header == HEADER


def test_a_transform_that_is_not_known_is_refused_and_the_boxes_come_all_the_same(tf2: type[Buffer]) -> None:
    sentences: list[str] = []
    settings = Parameters(target_frame="map", depth_wait=0.02)
    made = Detector3D(NODE, settings).of(
        ImageResult(HEADER, FRAME), ANSWERS[2:], settings, lambda cause, text: sentences.append(text)
    )
    assert made.target is None and len(made.placed) == 1
    assert sentences == [
        "The frame 'camera_optical' is not known in 'map' (target_frame): "
        '"map" passed to lookupTransform argument target_frame does not exist.'
    ]


def test_a_target_frame_without_transform_messages_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tf2_ros", "tf2_msgs", "tf2_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=r"target_frame is set, and neither tf2_ros nor tf2_msgs, .*: install"
    ):
        Transforms(NODE)


def test_a_target_frame_may_be_set_and_cleared_while_the_node_runs(tf2: type[Buffer]) -> None:
    detector = Detector3D(NODE, Parameters())
    plain = detector.of(ImageResult(HEADER, FRAME), ANSWERS[2:], Parameters(), lambda cause, text: None)
    assert plain.target is not None and plain.target.header.frame_id == HEADER.frame_id
    tf2.known = TransformStamped()
    tf2.known.transform.rotation.w = 1.0
    settings = Parameters(target_frame="map")
    detector.configure(settings)
    made = detector.of(ImageResult(HEADER, FRAME), ANSWERS[2:], settings, lambda cause, text: None)
    assert made.target is not None and made.target.header.frame_id == "map"
    again = detector.of(ImageResult(HEADER, FRAME), ANSWERS[2:], Parameters(), lambda cause, text: None)
    assert again.target == plain.target


def test_a_stamp_is_asked_for_as_time() -> None:
    assert Time.from_msg(HEADER.stamp).nanoseconds == 12_000_000_345


def test_markers_show_boxes_edges_names_and_the_target_and_delete_what_was() -> None:
    made, _ = solid()
    markers = markers_message(made).markers
    assert markers[0].action == Marker.DELETEALL and all(item.action == Marker.ADD for item in markers[1:])
    assert all(item.header == HEADER for item in markers)
    kinds = [(item.ns, item.id, item.type) for item in markers[1:]]
    assert len(set((ns, index) for ns, index, _ in kinds)) == len(kinds) == 3 * 3 + 2
    assert all(item.lifetime.sec == 1 for item in markers[1:])
    box = made.placed[1].placement.box
    body, edges, name = (
        next(item for item in markers if (item.ns, item.id) == (kind, 1))
        for kind in ("boxes", "edges", "names")
    )
    assert body.type == Marker.CUBE and (body.scale.x, body.scale.y, body.scale.z) == box.size
    assert (body.pose.position.x, body.pose.position.y, body.pose.position.z) == box.centre
    assert [body.color.r, body.color.g, body.color.b] == pytest.approx([value / 255 for value in colour(0)])
    assert edges.type == Marker.LINE_LIST and len(edges.points) == 24
    ends = np.array([(point.x, point.y, point.z) for point in edges.points])
    assert {tuple(row) for row in ends.round(9)} == {tuple(row) for row in corners(box).round(9)}
    lengths = sorted(np.linalg.norm(ends[::2] - ends[1::2], axis=1))
    np.testing.assert_allclose(lengths, np.repeat(sorted(box.size), 4), atol=1e-9)
    assert name.text == "everything 0.40 #7" and name.type == Marker.TEXT_VIEW_FACING
    arrows = [item for item in markers if item.ns == "target"]
    assert made.target is not None and [item.pose == made.target.pose for item in arrows] == [True, True]
    assert [item.type for item in arrows] == [Marker.ARROW, Marker.ARROW] and arrows[0].points[1].z == 0


def test_markers_of_nothing_still_delete() -> None:
    (only,) = markers_message(Detections3D(HEADER)).markers
    assert only.action == Marker.DELETEALL


def jaw_axis(
    detector: Detector3D, shape: Any, track: str, camera: str = ""
) -> tuple[Detections3D, NDArray[Any]]:
    """What a detector makes of a rendered object, and the jaw axis of its target."""
    frame, labels = render([Ground(), shape], POSE)
    answers = [Grounding(Goal("it"), (Detection(box_of(labels, 1), 0.9, 0, track),), 1.0, 0.5)]
    view = ImageResult(HEADER, frame, camera=camera)
    made = detector.of(view, answers, Parameters(), lambda *refusal: None)
    assert made.target is not None
    turn = made.target.pose.orientation
    return made, matrix_from_quaternion((turn.x, turn.y, turn.z, turn.w))[:, 0]


def test_the_jaw_axis_of_a_track_goes_on_and_a_round_thing_says_that_its_turn_is_unknown() -> None:
    detector = Detector3D(NODE, Parameters())

    def x_axis(shape: Any, track: str) -> NDArray[Any]:
        made, axis = jaw_axis(detector, shape, track)
        (covariance,) = (item.results[0].pose.covariance for item in detections_3d_message(made).detections)
        assert bool(np.any(covariance)) == isinstance(shape, Ball)
        return axis

    axes = [x_axis(Cuboid((0.0, 0.0, 0.0), (0.12, 0.05, 0.08), turn / 5), "3") for turn in range(17)]
    assert min(a @ b for a, b in pairwise(axes)) > np.cos(np.radians(20))
    balls = [x_axis(Ball((0.0, place / 50, 0.0), 0.04), "4") for place in range(6)]
    assert min(a @ b for a, b in pairwise(balls)) > np.cos(np.radians(16))


def test_a_jaw_axis_belongs_to_one_camera_and_to_one_activation() -> None:
    def cuboid(turn: float) -> Cuboid:
        return Cuboid((0.0, 0.0, 0.0), (0.12, 0.05, 0.08), turn)

    # A quarter past the turn at which a new track's axis changes its sign, so that a former axis shows.
    detector = Detector3D(NODE, Parameters())
    alone = jaw_axis(Detector3D(NODE, Parameters()), cuboid(3.4), "3")[1]
    followed = [jaw_axis(detector, cuboid(turn / 5), "3", "left")[1] for turn in range(18)][-1]
    assert followed @ alone < -0.9
    # The other camera has the same frame_id and the same number for its track.
    assert jaw_axis(detector, cuboid(3.4), "3", "right")[1] @ alone > 0.9
    assert jaw_axis(detector, cuboid(3.4), "3", "left")[1] @ alone < -0.9
    detector.forget()
    assert jaw_axis(detector, cuboid(3.4), "3", "left")[1] @ alone > 0.9
