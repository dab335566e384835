"""The recording of answers: read by rosbags, decoded by ROS, compared with the records and the node's
messages."""

from dataclasses import replace
from pathlib import Path

import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from groma_ros.geometry3d.approach_pose import target_pose
from groma_ros.io.message_definitions import typestore
from groma_ros.replay.recording import LATCHED, NODE, TOPICS, write_recording
from groma_ros.replay.records import BoxRecord, FrameRecord, GoalRecord, PlaceRecord
from groma_ros.types import Box3D

MUG, CUP = BoxRecord((10.0, 12.0, 50.0, 60.0), 0.9, "4"), BoxRecord((100.25, 10.0, 150.5, 61.0), 0.8)
RECORDS = [
    FrameRecord(
        0,
        1_000,
        5_000_000_007,
        "camera",
        640,
        480,
        True,
        5_000_000_007,
        "",
        (
            GoalRecord("mugs", "all", 0.95, 0.5, (MUG, CUP)),
            GoalRecord("the ball", "auto", 0.2, 0.1, ()),
        ),
    ),
    FrameRecord(1, 2_000, 5_100_000_000, "camera", 0, 0, False, None, "truncated", ()),
    FrameRecord(
        2,
        3_000,
        5_200_000_000,
        "caméra",
        640,
        480,
        False,
        5_000_000_007,
        "",
        (
            GoalRecord("mugs", "all", 0.9, 0.5, (MUG,)),
            GoalRecord("the ball", "auto", 0.7, 0.1, (CUP,)),
        ),
    ),
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "detections.mcap"
    with path.open("wb") as stream:
        write_recording(stream, RECORDS, ("mugs", "the ball"), "groma-tiny")
    return path


def test_the_file_is_what_rosbag2_and_foxglove_expect(recording: Path) -> None:
    with recording.open("rb") as stream:
        reader = make_reader(stream)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        found = {
            channel.topic: (summary.schemas[channel.schema_id], channel)
            for channel in summary.channels.values()
        }
        assert set(found) == {f"{NODE}/{name}" for name in (*TOPICS, *LATCHED)}
        assert (
            "durability: transient_local" in found[f"{NODE}/label_info"][1].metadata["offered_qos_profiles"]
        )
        for name, kind in TOPICS.items():
            schema, channel = found[f"{NODE}/{name}"]
            assert (schema.name, schema.encoding, channel.message_encoding) == (kind, "ros2msg", "cdr")
            assert "reliability: reliable" in channel.metadata["offered_qos_profiles"]
            assert "MSG: vision_msgs/Detection2D" in schema.data.decode()
        times = [(channel.topic, message.log_time) for _, channel, message in reader.iter_messages()]
        wanted = [(f"{NODE}/{name}", 1_000) for name in LATCHED] + [
            (f"{NODE}/{name}", time) for time in (1_000, 3_000) for name in TOPICS
        ]
        assert times == wanted


def test_ros_itself_reads_the_messages(recording: Path) -> None:
    """The bytes are decoded by rclpy with the generated types, and each says what its record says."""
    from rclpy.serialization import deserialize_message
    from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

    from groma_ros.msg import GroundingArray
    from groma_ros.node.conversions import to_nanoseconds

    with Reader(recording) as reader:
        found = {
            name: [
                deserialize_message(data, kind)
                for link, _, data in reader.messages()
                if link.topic == f"{NODE}/{name}"
            ]
            for name, kind in (
                ("detections", Detection2DArray),
                ("groundings", GroundingArray),
                ("label_info", LabelInfo),
                ("vision_info", VisionInfo),
            )
        }
    (labels,), (vision,) = found["label_info"], found["vision_info"]
    assert [(item.class_id, item.class_name) for item in labels.class_map] == [(0, "mugs"), (1, "the ball")]
    assert (vision.method, vision.database_location, vision.database_version) == (
        "Groma, groma-tiny",
        "/groma/label_info",
        0,
    )
    answered = [record for record in RECORDS if not record.refused]
    for record, message, boxes in zip(answered, found["groundings"], found["detections"], strict=True):
        for header in (message.header, boxes.header):
            assert (to_nanoseconds(header.stamp), header.frame_id) == (record.stamp, record.frame_id)
        assert [(item.goal, item.kind) for item in message.groundings] == [
            (goal.goal, goal.kind) for goal in record.goals
        ]
        assert [item.present for item in message.groundings] == pytest.approx(
            [goal.present for goal in record.goals]
        )
        assert to_nanoseconds(message.answered) == record.answered
        wanted = [(goal.goal, box) for goal in record.goals for box in goal.detections]
        assert [item for answer in message.groundings for item in answer.detections] == boxes.detections
        for item, (text, box) in zip(boxes.detections, wanted, strict=True):
            centre, size = item.bbox.center.position, (item.bbox.size_x, item.bbox.size_y)
            assert (
                centre.x - size[0] / 2,
                centre.y - size[1] / 2,
                centre.x + size[0] / 2,
                centre.y + size[1] / 2,
            ) == box.box
            (result,) = item.results
            assert (result.hypothesis.class_id, result.hypothesis.score, item.id) == (text, box.score, box.id)
            assert result.pose.pose.orientation.w == 1.0 and item.header == boxes.header


def test_the_schemas_are_those_of_the_installed_messages() -> None:
    """Field by field, of every type the topics use."""
    from groma_ros.client.demo.bag import message_class

    store = typestore()
    kinds = [name for name in store.types if name.startswith(("vision_msgs/", "groma_ros/msg/Grounding"))]
    assert set(TOPICS.values()) <= set(kinds)
    for kind in kinds:
        generated = message_class(kind).get_fields_and_field_types()
        assert [name for name, _ in store.fielddefs[kind][1]] == list(generated), kind


def test_boxes_in_space(tmp_path: Path) -> None:
    """Of a camera with depth: a message an image, with the boxes that have a place."""
    from geometry_msgs.msg import PoseStamped
    from rclpy.serialization import deserialize_message
    from vision_msgs.msg import Detection3DArray

    placed = replace(MUG, place=PlaceRecord((0.1, 0.2, 1.0), (0.0, 0.6, 0.0, 0.8), (0.3, 0.1, 0.2)))
    first = replace(
        RECORDS[0], goals=(replace(RECORDS[0].goals[0], detections=(placed, CUP)), RECORDS[0].goals[1])
    )
    path = tmp_path / "detections.mcap"
    with path.open("wb") as stream:
        write_recording(stream, [first, *RECORDS[1:]], ("mugs", "the ball"), "groma-tiny", with_depth=True)
    with Reader(path) as reader:
        one, two = (
            deserialize_message(data, Detection3DArray)
            for link, _, data in reader.messages()
            if link.topic.endswith("_3d")
        )
        (target,) = (
            deserialize_message(data, PoseStamped)
            for link, _, data in reader.messages()
            if link.topic.endswith("_pose")
        )
    (item,) = one.detections
    centre, turn, size = item.bbox.center.position, item.bbox.center.orientation, item.bbox.size
    assert ((centre.x, centre.y, centre.z), (turn.x, turn.y, turn.z, turn.w)) == (
        (0.1, 0.2, 1.0),
        (0.0, 0.6, 0.0, 0.8),
    )
    assert (size.x, size.y, size.z) == (0.3, 0.1, 0.2)
    (result,) = item.results
    assert (result.hypothesis.class_id, result.hypothesis.score, item.id) == ("mugs", 0.9, "4")
    wanted = target_pose(Box3D(placed.place.centre, placed.place.quaternion, placed.place.size))  # type: ignore[union-attr]
    assert target.header == one.header and [target.pose.position.x, target.pose.position.z] == [0.1, 1.0]
    assert [target.pose.orientation.x, target.pose.orientation.w] == [
        wanted.quaternion[0],
        wanted.quaternion[3],
    ]
    assert result.pose.pose == item.bbox.center and item.header == one.header and two.detections == []


def test_the_same_records_give_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    with (tmp_path / "again.mcap").open("wb") as stream:
        write_recording(stream, RECORDS, ("mugs", "the ball"), "groma-tiny")
    assert (tmp_path / "again.mcap").read_bytes() == recording.read_bytes()
