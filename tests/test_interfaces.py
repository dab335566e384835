"""The generated messages: fields and types, on which other nodes depend."""

from __future__ import annotations

import time
from typing import Any

import pytest
import rclpy
from vision_msgs.msg import Detection2DArray

from groma_ros.action import Ground
from groma_ros.msg import Goal, Grounding, GroundingArray
from groma_ros.srv import Ask, SetGoals
from groma_ros.types import GOAL_KINDS
from tests.domains import own_domain

DETECTION_ARRAY_HASH = "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"

FIELDS = {
    Goal: {"text": "string", "kind": "string", "min_score": "float"},
    Grounding: {
        "goal": "string",
        "kind": "string",
        "status": "uint8",
        "present": "float",
        "margin": "float",
        "detections": "sequence<vision_msgs/Detection2D>",
        "alternatives": "sequence<vision_msgs/Detection2D>",
    },
    GroundingArray: {
        "header": "std_msgs/Header",
        "goals_version": "uint32",
        "answered": "builtin_interfaces/Time",
        "groundings": "sequence<groma_ros/Grounding>",
    },
    SetGoals.Request: {"goals": "sequence<groma_ros/Goal>"},
    SetGoals.Response: {"success": "boolean", "message": "string", "goals_version": "uint32"},
    Ask.Request: {
        "question": "string",
        "kind": "string",
        "regions": "sequence<vision_msgs/BoundingBox2D>",
        "session": "string",
        "camera": "string",
    },
    Ask.Response: {
        "success": "boolean",
        "message": "string",
        "header": "std_msgs/Header",
        "answer": "string",
        "detections": "sequence<vision_msgs/Detection2D>",
        "starts": "sequence<uint32>",
        "ends": "sequence<uint32>",
    },
    Ground.Goal: {"goal": "groma_ros/Goal", "timeout": "builtin_interfaces/Duration", "camera": "string"},
    Ground.Result: {
        "success": "boolean",
        "message": "string",
        "header": "std_msgs/Header",
        "grounding": "groma_ros/Grounding",
        "detections_3d": "sequence<vision_msgs/Detection3D>",
        "target_pose": "geometry_msgs/PoseStamped",
    },
    Ground.Feedback: {"stage": "string", "header": "std_msgs/Header", "grounding": "groma_ros/Grounding"},
}


@pytest.mark.parametrize("message", FIELDS, ids=lambda message: message.__name__)
def test_fields_and_types(message: Any) -> None:
    assert message.get_fields_and_field_types() == FIELDS[message]


def test_detection_array_is_the_one_other_nodes_know() -> None:
    """DDS endpoints match by this hash: that of vision_msgs 4.1.1, as upstream releases it."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=own_domain())
    try:
        node = rclpy.create_node("probe", context=context)
        node.create_publisher(Detection2DArray, "detections", 1)
        deadline = time.monotonic() + 10
        while (
            not (endpoints := node.get_publishers_info_by_topic("detections")) and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        assert [str(endpoint.topic_type_hash) for endpoint in endpoints] == [DETECTION_ARRAY_HASH]
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_the_kinds_of_a_goal_are_those_of_the_package() -> None:
    assert (Goal.AUTO, Goal.ONE, Goal.ALL, Goal.DESCRIBE, Goal.CHAT) == GOAL_KINDS
