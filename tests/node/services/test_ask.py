"""`~/ask` over DDS: descriptions against the truth of rendered scenes, dialogue against the same model in
this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from vision_msgs.msg import BoundingBox2D

from groma_ros.boxes import box_iou
from groma_ros.client.demo.processes import Child
from groma_ros.grounding.conversation import Conversation
from groma_ros.grounding.grounder import Grounder
from groma_ros.node.conversions import box_corners
from groma_ros.simulation.scenes import SceneRenderer, SceneSample
from groma_ros.srv import Ask
from groma_ros.types import Frame, Goal
from tests.node.robot import Robot, start_node

TINY = Path(__file__).parents[3] / "engines" / "groma-tiny"
SCENES = 6


@pytest.fixture(scope="module")
def scenes() -> list[SceneSample]:
    with SceneRenderer(224, 224, supersample=2) as renderer:
        return [renderer.render(7_700_000 + number) for number in range(SCENES)]


@pytest.fixture(scope="module")
def tiny_node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("tiny") / "log.txt"
    with ExitStack() as stack:
        yield start_node(stack, domain, log, {"model": TINY, "backend": "onnx", "threads": 1})


def region(box: tuple[float, ...]) -> BoundingBox2D:
    message = BoundingBox2D(size_x=float(box[2] - box[0]), size_y=float(box[3] - box[1]))
    message.center.position.x, message.center.position.y = (
        float(box[0] + box[2]) / 2,
        float(box[1] + box[3]) / 2,
    )
    return message


def ask(robot: Robot, **fields: Any) -> Ask.Response:
    return robot.call(Ask, "groma/ask", Ask.Request(**fields))


def test_before_the_first_image_there_is_nothing_to_ask_about(robot: Robot, tiny_node: Child) -> None:
    robot.meet(tiny_node)
    answer = ask(robot)
    assert (answer.success, answer.message) == (False, "No image has come yet.")


def test_descriptions_of_regions_are_true(robot: Robot, tiny_node: Child, scenes: list[SceneSample]) -> None:
    robot.meet(tiny_node)
    right = []
    for scene in scenes:
        header = robot.see(scene.rgb)
        answer = ask(
            robot,
            kind="describe",
            question="what is this?",
            regions=[region(item.box) for item in scene.objects],
        )
        assert answer.success and answer.header == header and answer.message == ""
        lines = answer.answer.split("\n")
        assert [found.results[0].hypothesis.class_id for found in answer.detections] == lines
        assert [answer.answer[a:b] for a, b in zip(answer.starts, answer.ends, strict=True)] == lines
        for found, item in zip(answer.detections, scene.objects, strict=True):
            assert box_iou(np.array([box_corners(found.bbox)]), np.array([item.box]))[0, 0] > 0.9
        right += [
            line.split()[1:] == [item.colour, item.kind]
            for line, item in zip(lines, scene.objects, strict=True)
        ]
    assert len(right) >= 25 and np.mean(right) >= 0.8


def test_what_is_said_of_a_scene_is_true_and_points_at_it(
    robot: Robot, tiny_node: Child, scenes: list[SceneSample]
) -> None:
    robot.meet(tiny_node)
    said, true = 0, 0
    for scene in scenes:
        robot.see(scene.rgb)
        answer = ask(robot)
        assert answer.success and len(answer.detections) == len(answer.starts) == len(answer.ends)
        for found, start, end in zip(answer.detections, answer.starts, answer.ends, strict=True):
            phrase = answer.answer[start:end]
            assert (
                found.results[0].hypothesis.class_id == phrase and 0 < found.results[0].hypothesis.score <= 1
            )
            overlap = box_iou(
                np.array([box_corners(found.bbox)]), np.array([item.box for item in scene.objects])
            )[0]
            best = scene.objects[int(overlap.argmax())]
            said, true = (
                said + 1,
                true + (overlap.max() > 0.5 and phrase.split()[-2:] == [best.colour, best.kind]),
            )
    assert said >= 15 and true / said >= 0.75


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "sing"}, "The kind 'sing' is unknown; use one of auto, describe, chat."),
        (
            {"question": "why?"},
            "This model cannot answer goals of kind chat; it was taught the kinds auto, one, all, describe. "
            "Use another model, such as groma-7b.",
        ),
        ({"camera": "left"}, "There is no camera 'left'; the cameras are one without a name"),
        (
            {"regions": [BoundingBox2D(size_x=3.0)]},
            "A region has the size 3.0 x 0.0 pixels; both must be above 0.",
        ),
        ({"question": "x" * 2000}, "The goal has 2000 characters"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    robot: Robot, tiny_node: Child, scenes: list[SceneSample], fields: dict[str, Any], sentence: str
) -> None:
    robot.meet(tiny_node)
    robot.client(Ask, "groma/ask")  # is refused something, maybe twice, and that is counted
    robot.see(scenes[0].rgb)
    before = robot.count_now("refused asks")
    answer = ask(robot, **fields)
    assert not answer.success and sentence in answer.message and not answer.detections
    assert robot.count_now("refused asks") == before + 1


def test_a_conversation_stays_with_its_first_image(
    other_domain: int, tmp_path: Path, graph_model: Path, picture: NDArray[Any]
) -> None:
    grounder = Grounder.load(graph_model, backend="onnx", threads=1)
    boxes = [(4.0, 6.0, 30.0, 40.0), (32.0, 10.0, 60.0, 44.0)]
    goals = [
        Goal("the red {1} left of {2}", "chat", regions=np.array(boxes, np.float32)),
        Goal("find the mug", "chat"),
    ]
    conversation = Conversation.about(grounder.perceive(Frame(picture)))
    with ExitStack() as stack:
        robot = stack.enter_context(Robot(other_domain))
        parameters = {"model": graph_model, "backend": "onnx", "threads": 1, "max_sessions": 1}
        robot.meet(start_node(stack, robot.domain, tmp_path / "log.txt", parameters))
        first = robot.see(picture)
        for goal in goals:
            expected, conversation = grounder.converse(conversation, goal)
            regions = [region(box) for box in boxes] if goal.regions is not None else []
            answer = ask(robot, question=goal.text, regions=regions, session="talk")
            assert answer.success and answer.header == first, answer.message
            assert answer.answer == expected.text.replace("\0", "\ufffd") and len(answer.answer) > 20
            spans = [(span.start, span.end) for span in expected.spans for _ in span.regions]
            assert list(zip(answer.starts, answer.ends, strict=True)) == spans
            second = robot.see(picture[:, ::-1])
        assert ask(robot, question=goals[1].text).header == second
        # Another session makes the node forget the first, whose name then begins anew, with the newest image.
        assert ask(robot, question="hello", session="other").header == second
        assert ask(robot, question="hello", session="talk").header == second
