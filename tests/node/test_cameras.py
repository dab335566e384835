"""Two cameras, one model: which frames are answered on which topics, silence without subscribers, and latched
topics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from groma_ros.client.demo.processes import Child
from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import Goal as GoalMessage
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import box_corners, to_nanoseconds
from groma_ros.srv import Ask, SetGoals
from groma_ros.types import Frame
from tests.node.robot import Robot, start_node

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("cameras") / "log.txt"
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "cameras": "[left, arm/right]",
        "min_presence": 0.0,
        "answer_wait": 30.0,
        "qos_overrides./groma/left/detections.publisher.reliability": "best_effort",
    }
    with ExitStack() as stack:
        yield start_node(stack, domain, log, parameters)


class Eyes:
    """Two cameras, and the messages received about each."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.images = {
            name: robot.node.create_publisher(Image, f"{name}/image", qos_profile_sensor_data)
            for name in ("left", "arm/right")
        }
        robot.until(
            lambda: (
                all(item.get_subscription_count() for item in self.images.values())
                and len(robot.reports) == 3
            ),
            "the node",
        )
        robot.spin(0.3)

    def listen(self, kind: type, name: str, qos: QoSProfile | int = 10) -> list[Any]:
        heard: list[Any] = []
        subscription = self.robot.node.create_subscription(kind, name, heard.append, qos)
        self.robot.until(lambda: self.robot.node.count_subscribers(subscription.topic_name) > 0, "a match")
        self.robot.spin(1.0)
        return heard

    def send(self, name: str, picture: NDArray[Any], done: Any, what: str) -> list[int]:
        """Send a picture every fifth of a second until done; returns the stamps."""
        stamps = []

        def sent() -> bool:
            message = self.robot.image(picture, name)
            stamps.append(to_nanoseconds(message.header.stamp))
            self.images[name].publish(message)
            self.robot.spin(0.2)
            return bool(done())

        self.robot.until(sent, what)
        return stamps

    def count(self, camera: str, key: str) -> int:
        return int(self.robot.reports[f"groma: camera {camera}"].get(key, "0"))

    def goals(self, *texts: str) -> SetGoals.Response:
        return self.robot.call(
            SetGoals, "groma/set_goals", SetGoals.Request(goals=[GoalMessage(text=text) for text in texts])
        )


def _answered(item: GroundingArray) -> bool:
    return to_nanoseconds(item.answered) > 0


@pytest.fixture
def eyes(robot: Robot, node: Child) -> Eyes:
    return Eyes(robot)


def test_nothing_is_looked_at_while_nobody_listens(eyes: Eyes, picture: NDArray[Any]) -> None:
    assert eyes.goals("the mug").success
    eyes.send("left", picture, lambda: eyes.count("left", "skipped") >= 3, "skipped frames")
    values = eyes.robot.reports["groma: camera left"]
    assert values["answered"] == "0" and "median ms perceive" not in values
    # A question is a reason to perceive, but only for its camera.
    answer = eyes.robot.call(Ask, "groma/ask", Ask.Request(camera="left"))
    assert answer.success and answer.header.frame_id == "left"
    refused = eyes.robot.call(Ask, "groma/ask", Ask.Request(camera="arm/right"))
    assert (refused.success, refused.message) == (False, "No image has come yet.")
    unknown = eyes.robot.call(Ask, "groma/ask", Ask.Request(camera="top")).message
    assert unknown == "There is no camera 'top'; the cameras are left, arm/right (parameter cameras)."
    report = eyes.robot.reports["groma: grounding"]
    assert (report["backend"], report["device"], report["gpu"]) == ("onnx", "cpu", "none") and float(
        report["memory MiB"]
    ) > 50
    eyes.robot.until(
        lambda: "median ms perceive" in eyes.robot.reports["groma: camera left"], "the one that was looked at"
    )
    assert eyes.count("left", "answered") == 0


def test_each_camera_is_answered_on_its_own_topics(eyes: Eyes, picture: NDArray[Any]) -> None:
    version = eyes.goals("the mug", "the box").goals_version
    left = eyes.listen(GroundingArray, "groma/left/groundings")
    right = eyes.listen(GroundingArray, "groma/arm/right/groundings")
    seen = eyes.send(
        "left", picture, lambda: sum(_answered(item) for item in left) >= 3, "answers on the left"
    )
    assert not right
    eyes.send("arm/right", picture, lambda: right, "answers on the right")
    assert {item.header.frame_id for item in left} == {"left"} and {
        item.header.frame_id for item in right
    } == {"arm/right"}
    stamps = [to_nanoseconds(item.header.stamp) for item in left]
    assert set(stamps) <= set(seen) and stamps == sorted(stamps)
    assert all(item.goals_version == version for item in left)
    # Outputs are pending until the language model has answered; later ones name the answered image.
    first = [_answered(item) for item in left].index(True)
    assert all(one.status == one.PENDING for item in left[:first] for one in item.groundings)
    answered = [to_nanoseconds(item.answered) for item in left[first:]]
    assert set(answered) <= set(seen) and answered == sorted(answered)
    assert all(stamp <= image for stamp, image in zip(answered, stamps[first:], strict=True))


def test_proposals_are_all_regions_goals_or_not(eyes: Eyes, picture: NDArray[Any]) -> None:
    version = eyes.goals().goals_version
    proposals, groundings = (
        eyes.listen(Detection2DArray, "groma/left/proposals"),
        eyes.listen(GroundingArray, "groma/left/groundings"),
    )

    def newest() -> list[GroundingArray]:
        return [item for item in groundings if item.goals_version == version]

    eyes.send("left", picture, lambda: proposals and newest(), "proposals")
    scene = Grounder.load(TINY, backend="onnx", threads=1).perceive(Frame(picture))
    found = proposals[0].detections
    np.testing.assert_allclose([box_corners(item.bbox) for item in found], scene.boxes, atol=1e-2)
    assert [item.results[0].hypothesis.score for item in found] == pytest.approx(
        scene.objectness.tolist(), abs=1e-4
    )
    assert {item.results[0].hypothesis.class_id for item in found} == {"object"}
    assert not newest()[0].groundings


def test_the_goals_are_told_to_late_listeners_with_their_version(eyes: Eyes) -> None:
    version = eyes.goals("the mug", "the box").goals_version
    labels, vision = (
        eyes.listen(LabelInfo, "groma/label_info", LATCHED),
        eyes.listen(VisionInfo, "groma/vision_info", LATCHED),
    )
    eyes.robot.until(lambda: labels and vision, "the latched labels")
    assert [(item.class_id, item.class_name) for item in labels[-1].class_map] == [
        (0, "the mug"),
        (1, "the box"),
    ]
    assert (vision[-1].database_version, vision[-1].database_location) == (version, "/groma/label_info")
    assert labels[-1].header.frame_id == f"goals {version}"
    assert not eyes.goals("").success
    assert eyes.goals("the ball").goals_version == version + 1
    eyes.robot.until(
        lambda: vision[-1].database_version == version + 1 and len(labels[-1].class_map) == 1,
        "the new labels",
    )


def test_a_new_threshold_is_told_with_the_labels(eyes: Eyes) -> None:
    labels = eyes.listen(LabelInfo, "groma/label_info", LATCHED)
    eyes.goals("the mug")
    eyes.robot.until(lambda: labels, "the latched labels")

    def told(score: float) -> bool:
        return bool(labels[-1].threshold == pytest.approx(score))

    for score in (0.4, 0.0):
        change = [Parameter("min_score", value=score).to_parameter_msg()]
        request = SetParametersAtomically.Request(parameters=change)
        changed = eyes.robot.call(SetParametersAtomically, "groma/set_parameters_atomically", request)
        assert changed.result.successful
        eyes.robot.until(partial(told, score), "the new threshold")


def test_topics_services_and_qualities_are_there(eyes: Eyes) -> None:
    node = eyes.robot.node

    def names() -> set[str]:
        return {name.removeprefix("/groma/") for name, _ in node.get_topic_names_and_types()}

    each = ("detections", "groundings", "proposals", "detections_3d", "target_pose", "debug/image")
    wanted = {f"{camera}/{topic}" for camera in ("left", "arm/right") for topic in each}
    wanted |= {"goal", "label_info", "vision_info", "ground/_action/feedback"}
    eyes.robot.until(lambda: wanted <= names(), "the discovery of all topics")
    (left,) = node.get_publishers_info_by_topic("/groma/left/detections")
    (right,) = node.get_publishers_info_by_topic("/groma/arm/right/detections")
    assert left.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert right.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    for topic in ("image", "depth", "camera_info"):
        (info,) = node.get_subscriptions_info_by_topic(f"/left/{topic}")
        assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_parameters_change_all_together_or_not_at_all(eyes: Eyes, picture: NDArray[Any]) -> None:
    def change(**values: Any) -> tuple[bool, str]:
        request = SetParametersAtomically.Request(
            parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        )
        result = eyes.robot.call(SetParametersAtomically, "groma/set_parameters_atomically", request).result
        return result.successful, result.reason

    version = eyes.goals("the mug").goals_version
    groundings = eyes.listen(GroundingArray, "groma/left/groundings")
    for wrong in ({"min_score": 3.0}, {"goals": ["x" * 2000]}, {"precision": "int8"}):
        successful, reason = change(**{"min_presence": 0.25, "goals": ["the ball"], "max_rate": 5.0, **wrong})
        assert not successful and reason
    eyes.send("left", picture, lambda: groundings, "an answer")
    assert (groundings[-1].goals_version, groundings[-1].groundings[0].goal) == (version, "the mug")
    assert change(goals=["the ball"], max_rate=2.0, answer_period=5.0) == (True, "")
    eyes.send(
        "left", picture, lambda: groundings[-1].groundings[0].goal == "the ball", "the new goal's answer"
    )
    assert groundings[-1].goals_version == version + 1
    eyes.send("left", picture, lambda: eyes.count("left", "dropped max_rate") > 2, "frames above the rate")
    assert change(max_rate=0.0, answer_period=0.0)[0]
