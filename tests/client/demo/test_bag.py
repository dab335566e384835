"""Bags as CDR bytes, and message definitions generated from the message classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from groma_ros.client.demo.bag import Record, message_class, read_bag, topic_of, write_bag
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import groundings_message
from groma_ros.types import Detection, Goal, Grounding


@pytest.fixture
def message() -> GroundingArray:
    found = Grounding(Goal("the cup"), (Detection((1.0, 2.0, 5.0, 8.0), 0.75, 0),), 0.5, 0.25)
    return groundings_message(Header(frame_id="camera"), [found], 3)


def test_what_is_written_is_read_in_the_order_of_time(tmp_path: Path, message: GroundingArray) -> None:
    topics = [topic_of("/a", GroundingArray), topic_of("/b", Detection2DArray)]
    records = [
        Record("/a", 20, serialize_message(message)),
        Record("/b", 10, serialize_message(Detection2DArray(header=message.header))),
        Record("/a", 5, serialize_message(GroundingArray())),
    ]
    write_bag(tmp_path / "bag.mcap", topics, records)
    bag = read_bag(tmp_path / "bag.mcap")
    assert [(item.topic, item.time) for item in bag.records] == [("/a", 5), ("/b", 10), ("/a", 20)]
    assert bag.topics == {topic.name: topic for topic in topics}
    assert (
        bag.topics_of("groma_ros/msg/GroundingArray") == ["/a"] and bag.topics_of("std_msgs/msg/String") == []
    )
    assert deserialize_message(bag.records[2].data, GroundingArray) == message


def test_rosbags_decodes_it_with_the_stored_definition(tmp_path: Path, message: GroundingArray) -> None:
    write_bag(
        tmp_path / "bag.mcap",
        [topic_of("/a", GroundingArray)],
        [Record("/a", 20, serialize_message(message))],
    )
    with AnyReader([tmp_path / "bag.mcap"]) as reader:
        ((connection, time, data),) = reader.messages()
        decoded: Any = reader.deserialize(data, connection.msgtype)
    assert time == 20 and decoded.goals_version == 3 and decoded.header.frame_id == "camera"
    (grounding,) = decoded.groundings
    assert (grounding.goal, grounding.present, grounding.margin) == ("the cup", 0.5, 0.25)
    assert (
        grounding.detections[0].bbox.center.position.y == 5.0 and grounding.detections[0].bbox.size_x == 4.0
    )
    assert grounding.detections[0].results[0].hypothesis.score == 0.75


def test_definitions_support_all_kinds_of_arrays() -> None:
    lines = topic_of("/c", CameraInfo).definition.splitlines()
    assert {
        "std_msgs/Header header",
        "float64[] d",
        "float64[9] k",
        "sensor_msgs/RegionOfInterest roi",
        "bool do_rectify",
    } <= set(lines)


def test_the_shipped_bag_is_a_camera() -> None:
    bag = read_bag(Path(__file__).resolve().parents[3] / "demo" / "tabletop.mcap")
    assert len(bag.topics_of("sensor_msgs/msg/CompressedImage")) == 1
    assert [item.time for item in bag.records] == sorted(item.time for item in bag.records)


def test_what_is_no_bag_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.mcap does not exist\."):
        read_bag(tmp_path / "none.mcap")
    text = tmp_path / "text.mcap"
    text.write_text("this is no bag")
    with pytest.raises(ValueError, match="cannot be read"):
        read_bag(text)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes((Path(__file__).resolve().parents[3] / "demo" / "tabletop.mcap").read_bytes()[:50_000])
    with pytest.raises(ValueError, match="cannot be read"):
        read_bag(cut)


def test_a_type_that_is_not_installed_is_named() -> None:
    assert message_class("sensor_msgs/msg/CameraInfo") is CameraInfo
    with pytest.raises(ImportError, match="install the package no_such_msgs"):
        message_class("no_such_msgs/msg/Thing")
