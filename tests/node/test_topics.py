"""Names of a camera's topics under every way of remapping them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from groma_ros.node.topics import CameraTopics, camera_topics


@pytest.fixture
def context(domain: int) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    context.shutdown()


@pytest.mark.parametrize(
    ("rules", "transports", "expected"),
    [
        ((), ("raw", "raw"), ("/image", "/depth", "/camera_info")),
        (
            (),
            ("compressed", "compressedDepth"),
            ("/image/compressed", "/depth/compressedDepth", "/camera_info"),
        ),
        (
            ("image:=/cam/image_raw",),
            ("compressed", "raw"),
            ("/cam/image_raw/compressed", "/depth", "/cam/camera_info"),
        ),
        (
            ("image:=/cam/image_raw/compressed",),
            ("compressed", "raw"),
            ("/cam/image_raw/compressed", "/depth", "/cam/camera_info"),
        ),
        (
            ("image:=/cam/image_raw", "image/compressed:=/other", "camera_info:=/info"),
            ("compressed", "raw"),
            ("/other", "/depth", "/info"),
        ),
        (
            ("image/compressed:=/cam/image_raw/compressed",),
            ("compressed", "raw"),
            ("/cam/image_raw/compressed", "/depth", "/cam/camera_info"),
        ),
        (
            ("image/compressed:=/cam/image_raw/compressed",),
            ("raw", "raw"),
            ("/image", "/depth", "/camera_info"),
        ),
        (
            ("depth:=/cam/depth/image", "depth/compressedDepth:=/zipped"),
            ("raw", "compressedDepth"),
            ("/image", "/zipped", "/camera_info"),
        ),
        (
            ("depth:=/cam/depth/image",),
            ("raw", "compressedDepth"),
            ("/image", "/cam/depth/image/compressedDepth", "/camera_info"),
        ),
        (
            ("image:=picture", "__ns:=/arm"),
            ("raw", "raw"),
            ("/arm/picture", "/arm/depth", "/arm/camera_info"),
        ),
    ],
)
def test_a_remapped_image_carries_its_relatives(
    context: Context, rules: tuple[str, ...], transports: tuple[str, str], expected: tuple[str, str, str]
) -> None:
    arguments = ["--ros-args", *(part for rule in rules for part in ("-r", rule))]
    node = Node("groma", context=context, cli_args=arguments if rules else None)
    assert camera_topics(node, "", *transports) == CameraTopics(*expected)


def test_several_cameras_have_topics_of_their_own(context: Context) -> None:
    arguments = ["--ros-args", "-r", "left/image:=/l/image_raw", "-r", "right/depth:=/r/depth"]
    node = Node("groma", context=context, cli_args=arguments)
    assert camera_topics(node, "left", "raw", "raw") == CameraTopics(
        "/l/image_raw", "/left/depth", "/l/camera_info"
    )
    right = CameraTopics("/right/image/compressed", "/r/depth", "/right/camera_info")
    assert camera_topics(node, "right", "compressed", "raw") == right
