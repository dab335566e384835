"""As many outputs as images in real time, over DDS, while the language model answers once a second at
best."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from groma_ros.client.groma_client import images_in_progress
from groma_ros.node.conversions import image_message, to_nanoseconds, to_time
from tests.node.robot import Robot, start_node

HZ, IMAGES, SLOWNESS = 10, 50, 1.0
SECOND = 1_000_000_000


def all_counted(robot: Robot) -> bool:
    """True once the diagnostics count every image that was sent, with none in progress; images of a repeated
    first question may arrive late."""
    return robot.count("received") == robot.sent and not images_in_progress(robot.diagnostics)


def test_every_image_has_its_output_while_the_language_model_is_slow(
    robot: Robot, tmp_path: Path, graph_model: Path, picture: NDArray[Any]
) -> None:
    # Reliable and deep, so that what is lost is lost by the node; a machine that is busy for some seconds is
    # no matter either.
    parameters = {
        "model": graph_model,
        "backend": "onnx",
        "threads": 1,
        "min_presence": 0.0,
        "goals": "['the mug', 'all the boxes']",
        "track_max_coast": 10.0,
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": 100,
    }
    robot.node.destroy_publisher(robot.images)
    robot.images = robot.node.create_publisher(Image, "image", QoSProfile(depth=100))
    with ExitStack() as stack:
        child = start_node(
            stack, robot.domain, tmp_path / "log.txt", parameters, "tests.node.slow_node", [str(SLOWNESS)]
        )
        robot.meet(child)
        first = robot.ask(robot.image(picture))[1]  # nothing can be said before the first answer
        counted = "the counts of all images"
        robot.until(lambda: all_counted(robot), counted)
        before = {key: robot.count(key) for key in ("received", "answered", "carried", "dropped")}
        begin, start = to_nanoseconds(first.header.stamp) + SECOND, time.monotonic()
        sent = [begin + number * SECOND // HZ for number in range(IMAGES)]
        for number, stamp in enumerate(sent):
            robot.spin(max(0.001, start + number / HZ - time.monotonic()))
            robot.send(
                image_message(Header(stamp=to_time(stamp), frame_id="camera"), np.roll(picture, number, 1))
            )
        robot.until(
            lambda: robot.groundings[-1].header.stamp == to_time(sent[-1]), "the output for the last image"
        )
        passed = time.monotonic() - start
        robot.until(lambda: all_counted(robot), counted)
        change = {key: robot.count(key) - count for key, count in before.items()}
    heard = [item for item in robot.groundings if to_nanoseconds(item.header.stamp) in sent]
    stamps = [to_nanoseconds(item.header.stamp) for item in heard]
    assert stamps == sent, "one each, in order"
    assert change["answered"] + change["carried"] == change["received"] == IMAGES and change["dropped"] == 0
    # The language model's answers are those of a second ago, and the output says so.
    ages = [stamp - to_nanoseconds(item.answered) for stamp, item in zip(stamps, heard, strict=True)]
    assert (
        max(ages) >= SLOWNESS * SECOND
        and len({to_nanoseconds(item.answered) for item in heard}) <= passed / SLOWNESS + 3
    )
    assert all(len(item.groundings) == 2 and item.groundings[0].detections for item in heard)
