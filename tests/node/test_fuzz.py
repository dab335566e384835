"""Malformed and oversized messages on every input topic: the node survives, counts them, and answers the next
valid image."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.node.conversions import image_message, to_nanoseconds
from groma_ros.types import Frame, Goal
from tests.node.robot import ATTEMPTS, Robot, start_node

MUTANTS = 60
GOAL = "the red mug"
TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("fuzz") / "log.txt"
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "min_presence": 0.0,
        "answer_wait": 30.0,
        "carry": False,
    }
    with ExitStack() as stack:
        yield start_node(stack, domain, log, parameters)


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(TINY, min_presence=0.0, backend="onnx", threads=1)


def mutants(good: bytes, seed: int) -> Iterator[bytes]:
    """Cut, overwritten, and random bytes; lengths that claim gigabytes.

    Never empty: Fast DDS keeps a sample without bytes from a reliable reader, and with it all that this
    writer sends later.
    """
    rng = random.Random(seed)
    yield from (b"\0", good[:4], good[: len(good) // 2], good + b"\0" * 100_000)
    for _ in range(MUTANTS):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(min(len(data), 120))] = rng.randrange(256)
        yield bytes(data)
    for place in range(4, min(len(good) - 4, 80), 4):
        for word in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80"):
            yield good[:place] + word + good[place + 4 :]
    for _ in range(10):
        yield rng.randbytes(rng.randint(1, 300))


def unreadable(data: bytes, kind: Any) -> bool:
    try:
        deserialize_message(data, kind)
    except Exception:
        return True
    return False


def samples(picture: NDArray[Any]) -> dict[str, Any]:
    info = CameraInfo(
        width=64,
        height=48,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0],
    )
    header = Header(frame_id="camera")
    return {
        "image": image_message(header, picture),
        "depth": Image(header=header, height=48, width=64, encoding="16UC1", step=128, data=bytes(48 * 128)),
        "camera_info": info,
        "groma/goal": String(data=GOAL),
    }


@pytest.mark.parametrize(
    ("topic", "count"),
    [
        ("image", "refused image: malformed"),
        ("depth", "refused depth: malformed"),
        ("camera_info", "refused depth: camera_info malformed"),
        ("groma/goal", "refused goal: malformed"),
    ],
)
def test_what_is_no_message_is_counted(
    robot: Robot, node: Child, grounder: Grounder, picture: NDArray[Any], topic: str, count: str
) -> None:
    robot.meet(node)
    message = samples(picture)[topic]
    qos = 100 if topic == "groma/goal" else qos_profile_sensor_data
    publisher = robot.node.create_publisher(type(message), topic, qos)
    robot.until(publisher.get_subscription_count, f"the match on {topic}")
    robot.spin(1.0)  # the other end sees the match a moment later
    shown = 0.8 if topic != "groma/goal" else 0.1
    for _ in range(ATTEMPTS):
        before, bad = robot.settled(count), 0
        for data in mutants(serialize_message(message), seed=11):
            bad += unreadable(data, type(message))
            publisher.publish(data)
            time.sleep(0.01)  # a reader that cannot keep up loses messages, of the goals all but the last ten
        assert bad > 20
        counted = robot.settled(count) - before
        assert counted <= bad
        if counted >= shown * bad:
            break
    assert counted >= shown * bad, f"{bad} refusals of {topic}"
    robot.node.destroy_publisher(publisher)
    answers_well(robot, node, grounder, picture)


def test_oversized_messages_are_refused(
    robot: Robot, node: Child, grounder: Grounder, picture: NDArray[Any]
) -> None:
    robot.meet(node)
    goals, images = robot.count("refused goals"), robot.count("refused images")
    long = String(data="mug " * 1_000_000)
    robot.repeat(
        lambda: robot.goals.publish(long),
        lambda: robot.count("refused goals") > goals,
        "the refusal of a long goal",
    )
    claims = [(2**31 - 1, 2**31 - 1, 12), (2**32 - 1, 1, 2**32 - 1), (20_000, 20_000, 60_000)]
    for width, height, step in claims:
        message = robot.image(picture)
        message.width, message.height, message.step = width, height, step
        send = partial(robot.images.publish, message)
        robot.repeat(send, lambda: robot.count("refused images") > images, f"the refusal of {width}x{height}")  # noqa: B023
        images = robot.count("refused images")
    answers_well(robot, node, grounder, picture)


def answers_well(robot: Robot, node: Child, grounder: Grounder, picture: NDArray[Any]) -> None:
    """The node runs, and a good image gets the model's own answer."""
    assert node.running
    robot.send_goals(GOAL)
    message = robot.image(picture)
    _, answer = robot.ask(message)
    (wanted,) = grounder.ground(Frame(picture), [Goal(GOAL)])
    (found,) = answer.groundings
    assert to_nanoseconds(answer.header.stamp) == to_nanoseconds(message.header.stamp)
    assert found.present == pytest.approx(wanted.present, abs=1e-4) and len(found.detections) == len(
        wanted.detections
    )
