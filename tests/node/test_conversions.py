"""Messages by value."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from groma_ros.io.images import ImageError
from groma_ros.msg import Goal as GoalMessage
from groma_ros.node.conversions import (
    detections_message,
    frame_from_image,
    goal_from_message,
    groundings_message,
    image_message,
    label_message,
    to_nanoseconds,
)
from groma_ros.node.goal_set import GoalSet
from groma_ros.types import Detection, Goal, Grounding

RGB = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture
def header() -> Header:
    header = Header(frame_id="camera_optical_frame")
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 999_999_999
    return header


@pytest.fixture
def groundings() -> list[Grounding]:
    detections = (
        Detection((10.0, 20.0, 30.0, 60.0), 0.25, 3),
        Detection((0.5, 1.5, 2.0, 2.5), 0.75, 1, "track 4"),
    )
    return [Grounding(Goal("boxes", "all"), detections, 0.9, 0.5), Grounding(Goal("the cup"), (), 0.1, 0.0)]


def test_a_picture_goes_there_and_back(header: Header) -> None:
    message = image_message(header, RGB[:, ::-1])
    assert (message.encoding, message.step, message.header) == ("rgb8", 21, header)
    frame = frame_from_image(message)
    np.testing.assert_array_equal(frame.rgb, RGB[:, ::-1])
    assert (frame.stamp, frame.frame_id) == (1_700_000_000_999_999_999, "camera_optical_frame")
    assert np.shares_memory(frame.rgb, np.frombuffer(message.data, np.uint8))


def test_a_compressed_picture_is_decoded(header: Header) -> None:
    message = CompressedImage(
        header=header, format="png", data=bytes(cv2.imencode(".png", RGB[:, :, ::-1])[1])
    )
    frame = frame_from_image(message)
    np.testing.assert_array_equal(frame.rgb, RGB)
    assert frame.stamp == to_nanoseconds(header.stamp) and frame.frame_id == header.frame_id


@pytest.mark.parametrize(
    "message", [Image(), CompressedImage(), CompressedImage(format="jpeg", data=b"\xff\xd8\xff\xd9")]
)
def test_an_empty_message_is_refused(message: Image | CompressedImage) -> None:
    with pytest.raises(ImageError) as caught:
        frame_from_image(message)
    assert caught.value.cause in ("encoding", "empty", "truncated")


def test_detections_are_pixels_best_first_with_the_goals_text(
    header: Header, groundings: list[Grounding]
) -> None:
    message = detections_message(groundings_message(header, groundings, 1))
    assert message.header == header and len(message.detections) == 2
    best, second = message.detections
    assert (best.bbox.center.position.x, best.bbox.center.position.y, best.bbox.size_x, best.bbox.size_y) == (
        1.25,
        2.0,
        1.5,
        1.0,
    )
    assert (second.bbox.center.position.x, second.bbox.center.position.y) == (20.0, 40.0)
    assert (second.bbox.size_x, second.bbox.size_y, second.bbox.center.theta) == (20.0, 40.0, 0.0)
    assert [item.results[0].hypothesis.score for item in message.detections] == [0.75, 0.25]
    assert all(item.header == header and len(item.results) == 1 for item in message.detections)
    assert {item.results[0].hypothesis.class_id for item in message.detections} == {"boxes"}
    assert [item.id for item in message.detections] == ["track 4", ""]


def test_classes_may_be_the_numbers_of_the_labels(header: Header, groundings: list[Grounding]) -> None:
    message = groundings_message(header, [groundings[1], groundings[0]], 1, numbered=True)
    labels = label_message(header.stamp, GoalSet(tuple(item.goal for item in groundings[::-1])), 0.0)
    names = {str(item.class_id): item.class_name for item in labels.class_map}
    classes = {item.results[0].hypothesis.class_id for item in detections_message(message).detections}
    assert classes == {"1"} and names["1"] == "boxes"
    assert [item.goal for item in message.groundings] == ["the cup", "boxes"]


def test_groundings_hold_absent_goals_too(header: Header, groundings: list[Grounding]) -> None:
    message = groundings_message(header, groundings, 7)
    assert message.header == header and message.goals_version == 7
    found, absent = message.groundings
    assert (found.goal, found.kind, absent.goal, absent.kind) == ("boxes", "all", "the cup", "auto")
    assert (found.present, found.margin) == (pytest.approx(0.9), 0.5) and absent.present == pytest.approx(0.1)
    assert (
        found.detections == detections_message(groundings_message(header, groundings, 1)).detections
        and list(absent.detections) == []
    )


def test_goals_are_read_as_they_were_sent() -> None:
    goal = goal_from_message(GoalMessage(text=" the cup\n", min_score=0.25))
    assert (goal.text, goal.kind, goal.min_score) == ("the cup", "auto", 0.25)
    assert goal_from_message(GoalMessage(text="x", kind="all")).kind == "all"
