"""The node as a separate process, over DDS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2D, Detection2DArray

from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import Goal as GoalMessage
from groma_ros.node.conversions import to_nanoseconds
from groma_ros.srv import SetGoals
from groma_ros.types import Frame, Goal, Grounding
from groma_ros.visualization import draw_groundings
from tests.node.robot import Robot, start_node

GOALS = "the red mug\nall the boxes\nthe bowl left of the ball"


@pytest.fixture(scope="module")
def node(small_model: Path, domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """One node for all tests here: counts only grow, so tests compare them with what they were."""
    log = tmp_path_factory.mktemp("node") / "log.txt"
    with ExitStack() as stack:
        yield start_node(
            stack,
            domain,
            log,
            {"model": small_model, "min_presence": 0.0, "max_goals": 64, "answer_wait": 30.0, "carry": False},
        )


@pytest.fixture
def met(robot: Robot, node: Child) -> Robot:
    """The robot, connected to the running node."""
    robot.meet(node)
    return robot


def best_first(grounding: Grounding) -> list[tuple[float, float, float, float]]:
    return [item.box for item in sorted(grounding.detections, key=lambda item: -item.score)]


def corners(detection: Detection2D) -> list[float]:
    centre, box = detection.bbox.center.position, detection.bbox
    return [
        centre.x - box.size_x / 2,
        centre.y - box.size_y / 2,
        centre.x + box.size_x / 2,
        centre.y + box.size_y / 2,
    ]


def near(ids: dict[tuple[float, ...], str], box: tuple[float, ...]) -> str:
    """The id of the box closest to this one."""
    return ids[min(ids, key=lambda other: float(np.abs(np.subtract(other, box)).max()))]


def test_boxes_scores_and_headers_are_the_models_own(
    met: Robot, grounder: Grounder, picture: NDArray[Any]
) -> None:
    met.send_goals(GOALS)
    message = met.image(picture, "camera_optical_frame")
    detections, groundings = met.ask(message)
    expected = grounder.ground(Frame(picture), [Goal(text) for text in GOALS.splitlines()])
    assert sum(len(item.detections) for item in expected) >= 3
    assert detections.header == message.header and groundings.header == message.header
    assert groundings.goals_version == met.count("goals_version")
    assert [item.goal for item in groundings.groundings] == GOALS.splitlines()
    for answer, wanted in zip(groundings.groundings, expected, strict=True):
        assert answer.kind == "auto"
        assert (answer.present, answer.margin) == pytest.approx((wanted.present, wanted.margin), abs=1e-5)
        assert len(answer.detections) == len(wanted.detections)
        for found, box in zip(answer.detections, best_first(wanted), strict=True):
            assert corners(found) == pytest.approx(box, abs=1e-2)
            assert found.results[0].hypothesis.class_id == answer.goal and found.header == message.header
        scores = [found.results[0].hypothesis.score for found in answer.detections]
        assert scores == pytest.approx(
            sorted((item.score for item in wanted.detections), reverse=True), abs=1e-4
        )
    assert detections.detections == [found for answer in groundings.groundings for found in answer.detections]


def test_boxes_are_pixels_of_the_camera_whatever_its_size(
    met: Robot, grounder: Grounder, picture: NDArray[Any]
) -> None:
    met.send_goals("the mug")
    wide = np.asarray(cv2.resize(picture, (320, 60), interpolation=cv2.INTER_NEAREST), np.uint8)
    message = met.image(wide)
    message.data, message.step = np.pad(wide.reshape(60, -1), ((0, 0), (0, 40))).tobytes(), 1000
    found = met.ask(message)[0].detections
    expected = best_first(grounder.ground(Frame(wide), [Goal("the mug")])[0])
    assert [corners(item) for item in found] == [pytest.approx(box, abs=1e-2) for box in expected]


def test_only_the_newest_frame_is_answered_and_the_others_are_counted(
    met: Robot, picture: NDArray[Any]
) -> None:
    met.send_goals("\n".join(f"goal number {index}" for index in range(60)))
    met.rest()
    before = {key: met.count(key) for key in ("received", "answered", "dropped")}
    messages = [met.image(picture) for _ in range(40)]
    for message in messages:
        met.images.publish(message)
        met.spin(0.01)
    last = to_nanoseconds(messages[-1].header.stamp)
    met.until(
        lambda: any(to_nanoseconds(item.header.stamp) == last for item in met.groundings),
        "the answer to the last frame",
    )
    met.rest()
    change = {key: met.count(key) - before[key] for key in before}
    sent = [to_nanoseconds(item.header.stamp) for item in messages]
    answered = [stamp for item in met.groundings if (stamp := to_nanoseconds(item.header.stamp)) in sent]
    assert answered == sorted(answered) and len(answered) == change["answered"] >= 2
    assert change["dropped"] >= 5 and change["received"] == change["answered"] + change["dropped"] <= 40


def wrong_images(robot: Robot, picture: NDArray[Any]) -> dict[str, Image]:
    """One image of each kind that must be refused, by its cause in the diagnostics."""
    messages = {
        cause: robot.image(picture) for cause in ("encoding", "step", "length", "empty", "size", "content")
    }
    messages["encoding"].encoding = "rgb9"
    messages["step"].step = 100
    messages["length"].data = messages["length"].data[:-1]
    messages["empty"].width = messages["empty"].height = messages["empty"].step = 0
    messages["empty"].data = b""
    messages["size"].width = messages["size"].height = 2**31
    tiny = robot.image(picture[:1, :1])
    return {**messages, "content": tiny}


def test_wrong_images_are_refused_counted_and_the_next_is_answered(met: Robot, picture: NDArray[Any]) -> None:
    met.send_goals("the mug")
    for cause, message in wrong_images(met, picture).items():
        before = met.count(f"refused image: {cause}")
        send = partial(met.images.publish, message)
        met.repeat(send, lambda: met.count(f"refused image: {cause}") > before, f"the refusal ({cause})")  # noqa: B023
        assert met.ask(met.image(picture))[1].groundings[0].goal == "the mug"


def test_black_frames_are_answered(met: Robot) -> None:
    met.send_goals("the mug")
    assert len(met.ask(met.image(np.zeros((480, 640, 3), np.uint8)))[1].groundings) == 1


ODD_GOALS = [
    "the 🔴🟦 mug",
    "赤いマグカップ",
    "красная кружка",
    "الكوب الأحمر",
    "find <r3> and </s> here",
    "<image><region></roi><p>",
    "[grounding]",
]


def test_goals_of_any_script_and_special_tokens_are_plain_text(
    met: Robot, grounder: Grounder, picture: NDArray[Any]
) -> None:
    met.send_goals("\n".join(ODD_GOALS))
    answers = met.ask(met.image(picture))[1].groundings
    assert [answer.goal for answer in answers] == ODD_GOALS
    expected = grounder.ground(Frame(picture), [Goal(text) for text in ODD_GOALS])
    assert [answer.present for answer in answers] == pytest.approx(
        [item.present for item in expected], abs=1e-5
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\n",
        "word " * 2000,
        "é" * 900,
        "fine goal\n" + "x" * 10_000,
        "\n".join(f"goal {i}" for i in range(65)),
    ],
)
def test_wrong_goals_are_refused_and_the_former_ones_stand(
    met: Robot, picture: NDArray[Any], text: str
) -> None:
    met.send_goals("the mug")
    version, before = met.count("goals_version"), met.count("refused goals")
    met.repeat(
        lambda: met.goals.publish(String(data=text)),
        lambda: met.count("refused goals") > before,
        "the refusal",
    )
    answer = met.ask(met.image(picture))[1]
    assert answer.goals_version == version and [item.goal for item in answer.groundings] == ["the mug"]


def test_the_service_takes_kinds_and_scores_and_says_what_is_wrong(
    met: Robot, grounder: Grounder, picture: NDArray[Any]
) -> None:
    goals = [
        GoalMessage(text="the mug", kind="one"),
        GoalMessage(text="all boxes", kind="all", min_score=0.05),
    ]
    response = met.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=goals))
    assert response.success and response.message == ""
    answer = met.ask(met.image(picture))[1]
    expected = grounder.ground(Frame(picture), [Goal("the mug", "one"), Goal("all boxes", "all", 0.05)])
    assert answer.goals_version == response.goals_version
    assert [(item.kind, len(item.detections)) for item in answer.groundings] == [
        (item.goal.kind, len(item.detections)) for item in expected
    ]
    for goal, sentence in [
        (GoalMessage(text=""), "The goal is empty"),
        (GoalMessage(text="mug", kind="some"), "kind 'some' is unknown"),
        (GoalMessage(text="mug", min_score=2.0), "min_score is 2"),
        (GoalMessage(text="mug", kind="chat"), "is of kind chat, whose answer is words"),
    ]:
        refused = met.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=[goal]))
        assert (
            not refused.success
            and sentence in refused.message
            and refused.goals_version == response.goals_version
        )


def test_parameters_change_what_is_answered(met: Robot, picture: NDArray[Any]) -> None:
    def set_parameter(name: str, value: object) -> bool:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return bool(met.call(SetParameters, "groma/set_parameters", request).results[0].successful)

    assert set_parameter("goals", ["the cup", "the ball"])
    assert [item.goal for item in met.ask(met.image(picture))[1].groundings] == ["the cup", "the ball"]
    try:
        assert set_parameter("min_presence", 1.0)
        detections, groundings = met.ask(met.image(picture))
        assert not detections.detections and all(0 < item.present < 1 for item in groundings.groundings)
    finally:
        assert set_parameter("min_presence", 0.0)
    assert met.ask(met.image(picture))[0].detections
    assert not set_parameter("min_presence", 1.5) and not set_parameter("model", "other")
    assert not set_parameter("goals", ["x" * 10_000])


def test_no_change_of_parameters_leaves_goals_that_cannot_stand(met: Robot) -> None:
    def change(parameter: Parameter) -> tuple[bool, str]:
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg()])
        (result,) = met.call(SetParameters, "groma/set_parameters", request).results
        return result.successful, result.reason

    met.send_goals("the mug\nthe ball\nthe bowl")
    assert change(Parameter("max_goals", value=2)) == (
        False,
        "There are 3 goals, and at most 2 may stand (parameter max_goals).",
    )
    deleted = (False, "The parameter goals cannot be deleted; set it to [] instead.")
    assert change(Parameter("goals")) == deleted
    assert change(Parameter("min_score"))[1].startswith("The parameter min_score cannot be deleted")
    assert change(Parameter("min_score"))[1].startswith("The parameter min_score cannot be deleted")
    assert change(Parameter("goals", value=["the mug"]))[0] and change(Parameter("max_goals", value=2))[0]
    assert change(Parameter("max_goals", value=64))[0]


def test_classes_are_the_goals_or_their_numbers_in_the_labels(met: Robot, picture: NDArray[Any]) -> None:
    def named(way: str) -> set[str]:
        parameter = Parameter("class_id", value=way).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        assert met.call(SetParameters, "groma/set_parameters", request).results[0].successful
        found, _ = met.ask(met.image(picture))
        return {box.results[0].hypothesis.class_id for box in found.detections}

    met.call(SetGoals, "groma/set_goals", SetGoals.Request(goals=[GoalMessage(text=t) for t in "aab"]))
    try:
        assert named("index") == {"0", "1"}, "the goal that was given twice stands once"
    finally:
        assert named("text") == {"a", "b"}


def test_the_debug_image_shows_the_boxes(met: Robot, grounder: Grounder, picture: NDArray[Any]) -> None:
    met.send_goals("the mug")
    drawn: list[Image] = []
    subscription = met.node.create_subscription(
        Image, "groma/debug/image", drawn.append, qos_profile_sensor_data
    )
    # The node draws as soon as it has met the subscription.
    asked: list[tuple[Image, Detection2DArray]] = []

    def ask() -> None:
        image = met.image(picture)
        asked.append((image, met.ask(image)[0]))

    met.repeat(ask, lambda: drawn, "a debug image")
    message, detections = next(item for item in asked if item[0].header == drawn[0].header)
    boxes = detections.detections
    (found,) = grounder.ground(Frame(picture), [Goal("the mug")])
    ids = {tuple(corners(box)): box.id for box in boxes}
    named = [
        replace(
            found, detections=tuple(replace(item, track_id=near(ids, item.box)) for item in found.detections)
        )
    ]
    expected = draw_groundings(picture, named, note="x")
    assert drawn[0].header == message.header and (drawn[0].height, drawn[0].width) == expected.shape[:2]
    shown = np.frombuffer(drawn[0].data, np.uint8).reshape(expected.shape)
    # The last line has the rate in it, which no test can know.
    line = round(34 * 0.4) + 6
    np.testing.assert_array_equal(shown[: -line - 4], expected[: -line - 4])
    assert (shown[-line:] != expected[-line:]).any()
    met.node.destroy_subscription(subscription)


def test_compressed_images_need_the_other_transport(
    other_domain: int, small_model: Path, tmp_path: Path, picture: NDArray[Any], grounder: Grounder
) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(Robot(other_domain))
        parameters = {
            "model": small_model,
            "min_presence": 0.0,
            "image_transport": "compressed",
            "goals": "['the mug']",
        }
        # A simulated clock that never ticks: stamps are the images' own, so the answers come all the same.
        parameters |= {
            "use_sim_time": True,
            "qos_overrides./image/compressed.subscription.reliability": "reliable",
        }
        child = start_node(stack, other.domain, tmp_path / "log.txt", parameters)
        other.meet(child)
        (subscription,) = other.node.get_subscriptions_info_by_topic("/image/compressed")
        assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        png = bytes(cv2.imencode(".png", picture[:, :, ::-1])[1])
        jpeg = bytes(cv2.imencode(".jpg", picture[:, :, ::-1])[1])
        before = other.count("refused image: truncated")
        torn = CompressedImage(header=other.header(), format="jpeg", data=jpeg[:-300])
        other.repeat(
            lambda: other.compressed.publish(torn),
            lambda: other.count("refused image: truncated") > before,
            "the refusal",
        )
        message = CompressedImage(header=other.header("left"), format="png", data=png)
        detections, groundings = other.ask(message)
        assert detections.header == message.header and groundings.goals_version == 0
        expected = best_first(grounder.ground(Frame(picture), [Goal("the mug")])[0])
        assert [corners(item) for item in detections.detections] == [
            pytest.approx(box, abs=1e-2) for box in expected
        ]
