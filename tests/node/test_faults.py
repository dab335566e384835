"""Faults around a node: cameras that restart, clocks that jump, frames of every kind, many simultaneous
callers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from groma_ros.action import Ground
from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.picture_files import read_picture
from groma_ros.msg import Goal as GoalMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import box_corners, image_message, to_nanoseconds, to_time
from groma_ros.node.subscriptions import REQUESTS
from groma_ros.srv import Ask, SetGoals
from groma_ros.types import Frame, Goal
from tests.node.robot import Robot, start_node
from tests.node.services.test_ground import Caller
from tests.small import blocks

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
SECOND = 1_000_000_000
CLIENTS = 50


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("faults") / "log.txt"
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "min_presence": 0.0,
        "answer_wait": 30.0,
        "carry": False,
        "max_goals": 128,
        "max_asks": 2 * CLIENTS,
    }
    with ExitStack() as stack:
        yield start_node(stack, domain, log, parameters)


@pytest.fixture
def met(robot: Robot, node: Child) -> Robot:
    """The robot, connected to the node, with goals set."""
    robot.meet(node)
    robot.send_goals("the red mug\nall the boxes")
    return robot


def at(stamp: int, picture: NDArray[Any]) -> Image:
    return image_message(Header(stamp=to_time(stamp), frame_id="camera"), picture)


def test_a_camera_that_restarts_is_heard_again(met: Robot, picture: NDArray[Any]) -> None:
    met.ask(met.image(picture))
    for _ in range(2):
        met.node.destroy_publisher(met.images)
        met.spin(0.5)
        met.images = met.node.create_publisher(Image, "image", qos_profile_sensor_data)
        met.until(met.images.get_subscription_count, "the match")
        message = met.image(picture)
        assert met.ask(message)[1].header == message.header


@pytest.mark.parametrize(
    "stamps",
    [
        pytest.param([500 * SECOND, 501 * SECOND, 20 * SECOND, 21 * SECOND], id="a bag that loops"),
        pytest.param([0, 0], id="stamps of zero"),
        pytest.param(
            [900 * SECOND, 900 * SECOND - SECOND // 5, 900 * SECOND + SECOND // 5], id="out of order"
        ),
        pytest.param([2**31 * SECOND - 1, 1], id="the end of time"),
    ],
)
def test_every_stamp_is_answered_as_it_is(met: Robot, stamps: list[int]) -> None:
    grounder = Grounder.load(TINY, min_presence=0.0, backend="onnx", threads=1)
    for number, stamp in enumerate(stamps):
        met.detections.clear()
        met.groundings.clear()
        picture = blocks(number + 1)
        detections, groundings = met.ask(at(stamp, picture))
        wanted = grounder.ground(Frame(picture), [Goal("the red mug"), Goal("all the boxes")])
        assert to_nanoseconds(groundings.header.stamp) == to_nanoseconds(groundings.answered) == stamp
        assert [item.present for item in groundings.groundings] == pytest.approx(
            [item.present for item in wanted], abs=1e-4
        )
        found = sorted(box_corners(item.bbox) for item in detections.detections)
        assert np.allclose(found, sorted(item.box for one in wanted for item in one.detections), atol=0.05)


def test_sizes_and_encodings_may_change_from_frame_to_frame(met: Robot, picture: NDArray[Any]) -> None:
    for height, width, encoding in (
        (48, 64, "rgb8"),
        (480, 640, "bgr8"),
        (33, 91, "mono8"),
        (48, 64, "rgb8"),
    ):
        pixels = np.resize(picture, (height, width, 3))
        message = met.image(pixels)
        message.encoding = encoding
        if encoding == "mono8":
            message.step, message.data = width, pixels[:, :, 0].tobytes()
        _, groundings = met.ask(message)
        boxes = [box_corners(item.bbox) for one in groundings.groundings for item in one.detections]
        assert boxes and all(
            0 <= a < c <= width + 0.01 and 0 <= b < d <= height + 0.01 for a, b, c, d in boxes
        )


def test_a_hundred_goals_are_answered_together(met: Robot, picture: NDArray[Any]) -> None:
    texts = [f"the red mug number {index}" for index in range(100)]
    response = met.call(
        SetGoals, "groma/set_goals", SetGoals.Request(goals=[GoalMessage(text=text) for text in texts])
    )
    assert response.success
    _, groundings = met.ask(met.image(picture))
    assert [
        item.goal for item in groundings.groundings
    ] == texts and groundings.goals_version == response.goals_version
    refused = met.call(
        SetGoals, "groma/set_goals", SetGoals.Request(goals=[GoalMessage(text=f"{i}") for i in range(129)])
    )
    assert (refused.success, refused.goals_version) == (
        False,
        response.goals_version,
    ) and "at most 128 may stand" in refused.message


def test_fifty_callers_at_once_all_get_an_answer(met: Robot, picture: NDArray[Any]) -> None:
    met.ask(met.image(picture))
    # A client's reader gets the answers to all others too: ten of those that it has not taken yet would push
    # its own out.
    asks = [met.node.create_client(Ask, "groma/ask", qos_profile=REQUESTS) for _ in range(CLIENTS)]
    sets = [met.node.create_client(SetGoals, "groma/set_goals", qos_profile=REQUESTS) for _ in range(CLIENTS)]
    # One client for all goals: each would hear the feedback and the status of every other's.
    action = ActionClient(
        met.node,
        Ground,
        "groma/ground",
        goal_service_qos_profile=REQUESTS,
        result_service_qos_profile=REQUESTS,
    )
    met.knock(*asks, *sets)
    met.knock_action(action)
    answers: list[Any] = [client.call_async(Ask.Request(kind="describe")) for client in asks]
    answers += [
        client.call_async(SetGoals.Request(goals=[GoalMessage(text=f"mug {i}")]))
        for i, client in enumerate(sets)
    ]
    goals = [
        action.send_goal_async(Ground.Goal(goal=GoalMessage(text="the red mug"))) for _ in range(CLIENTS)
    ]
    met.until(lambda: all(item.done() for item in goals), "the acceptance of the goals")
    results = [item.result().get_result_async() for item in goals]

    def done() -> bool:
        if not all(item.done() for item in results):
            met.images.publish(met.image(picture))
            met.spin(0.2)
        return all(item.done() for item in (*answers, *results))

    met.until(done, "all answers")
    assert all(item.result().success for item in answers), {item.result().message for item in answers}
    assert {item.result().status for item in results} == {GoalStatus.STATUS_SUCCEEDED}
    versions = [item.result().goals_version for item in answers[CLIENTS:]]
    assert len(set(versions)) == CLIENTS and max(versions) - min(versions) == CLIENTS - 1
    action.destroy()
    for client in (*asks, *sets):
        met.node.destroy_client(client)


def test_two_publishers_of_one_topic_are_both_answered(met: Robot, picture: NDArray[Any]) -> None:
    first, second = met.images, met.node.create_publisher(Image, "image", qos_profile_sensor_data)
    met.until(second.get_subscription_count, "the match")
    for publisher, side in ((first, 1), (second, -1), (first, 1), (second, -1)):
        met.images = publisher
        message = met.image(picture[:, ::side])
        assert met.ask(message)[1].header == message.header
    met.images = first
    met.node.destroy_publisher(second)


def test_a_process_that_was_halted_goes_on(met: Robot, node: Child, picture: NDArray[Any]) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            met.images.publish(met.image(picture))
            met.spin(0.1)
        waiting = met.node.create_client(SetGoals, "groma/set_goals")
        answer = waiting.call_async(SetGoals.Request(goals=[GoalMessage(text="the red mug")]))
        met.spin(1.0)
        assert not answer.done(), "nothing is answered by a process that is halted"
    finally:
        os.kill(node.pid, signal.SIGCONT)
    message = met.image(picture)
    assert met.ask(message)[1].header == message.header and node.running
    met.node.destroy_client(waiting)


def test_the_goal_of_a_client_that_left_ends(met: Robot, domain: int) -> None:
    with Robot(domain) as other:
        caller = Caller(other)
        caller.send("the red mug", 600.0)
        met.until(lambda: met.count("questions") == 1, "the goal that waits for an image")
        caller.client.destroy()
    met.until(lambda: met.count("questions") == 0, "the end of the goal")


def test_texts_that_are_refused_are_not_kept(met: Robot) -> None:
    text, ask = "x" * 1_000_000, met.client(Ask, "groma/ask")
    action = ActionClient(met.node, Ground, "groma/ground")
    met.knock_action(action)

    def refuse(count: int) -> None:
        for _ in range(count):
            answers = [
                ask.call_async(Ask.Request(question=text)),
                ask.call_async(Ask.Request(kind=text)),
                ask.call_async(Ask.Request(question="why?", session=text)),
                action.send_goal_async(Ground.Goal(goal=GoalMessage(text=text))),
                action.send_goal_async(Ground.Goal(goal=GoalMessage(text="the mug"), camera=text)),
            ]
            met.until(lambda answers=answers: all(item.done() for item in answers), "all refusals")  # type: ignore[misc]
            assert not any(item.result().success for item in answers[:3])
            assert not any(item.result().accepted for item in answers[3:])

    refuse(5)  # buffers of the middleware
    before = met.count_now("memory MiB")
    refuse(30)
    assert met.count_now("memory MiB") < before + 50, "150 MB of text were sent"
    action.destroy()


def test_pictures_and_words_far_from_training_are_told(met: Robot, node: Child) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    usual, _ = read_picture(str(TINY.parents[1] / "demo" / "frame.png"))

    def unusual() -> float:
        return float(met.diagnostics.get("unusual picture", "nan"))

    met.send_goals("the red mug\nthe stethoscope beside the\x1b[2J laptop")
    # The tests before have shown pictures of noise: their count ends with a usual one.
    met.repeat(lambda: met.images.publish(met.image(usual)), lambda: unusual() <= 1, "a usual picture")
    shown = len(node.output())
    one = met.image(noise)
    met.repeat(lambda: met.images.publish(one), lambda: unusual() > 1, "the report of an unusual picture")
    met.until(lambda: met.diagnostics["unknown words"] == "stethoscope j laptop", "the report of words")
    warning = "is unlike the pictures that the model learned from"
    met.spin(6.5)
    assert warning not in node.output()[shown:], "one picture is not five"
    for _ in range(20):
        met.images.publish(met.image(noise))
        met.spin(1.1)
        if warning in node.output()[shown:]:
            break
    assert node.output()[shown:].count(warning) == 1
    met.send_goals("the stethoscope beside the\x1b[2J laptop")
    met.spin(2.2)
    assert node.output().count("never learned the words stethoscope, j, laptop of the goal") == 1
    assert "\x1b[2J" not in node.output()


def test_answers_after_all_of_it_are_the_models_own(met: Robot, node: Child, picture: NDArray[Any]) -> None:
    answer: GroundingArray = met.ask(met.image(picture))[1]
    wanted = Grounder.load(TINY, min_presence=0.0, backend="onnx", threads=1).ground(
        Frame(picture), [Goal("the red mug")]
    )
    assert answer.groundings[0].present == pytest.approx(wanted[0].present, abs=1e-4)
    assert node.running and "Traceback" not in node.output()
