"""`~/ground` over DDS: found, absent, too late, cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from numpy.typing import NDArray
from rclpy.action import ActionClient

from groma_ros.action import Ground
from groma_ros.boxes import box_iou
from groma_ros.client.demo.processes import Child
from groma_ros.msg import Goal as GoalMessage
from groma_ros.node.conversions import box_corners
from groma_ros.simulation.scenes import SceneRenderer, SceneSample
from tests.node.robot import Robot, start_node

TINY = Path(__file__).parents[3] / "engines" / "groma-tiny"


@pytest.fixture(scope="module")
def scene() -> SceneSample:
    with SceneRenderer(224, 224, supersample=2) as renderer:
        return renderer.render(7_700_001)


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("ground") / "log.txt"
    with ExitStack() as stack:
        yield start_node(stack, domain, log, {"model": TINY, "backend": "onnx", "threads": 1})


class Caller:
    """An action client that keeps what it hears.

    It reads the topic of the feedback itself, because rclpy's client drops feedback that arrives after the
    result, as it may on a busy machine.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self._goal: list[int] = []
        self._feedback: list[tuple[list[int], str]] = []
        self._listener = robot.node.create_subscription(
            Ground.Impl.FeedbackMessage,
            "groma/ground/_action/feedback",
            self._hear,
            10,
        )
        # After the listener: the node that answers it has discovered both.
        self.client = ActionClient(robot.node, Ground, "groma/ground")
        robot.knock_action(self.client)

    def send(self, text: str, seconds: float = 0.0, **fields: Any) -> Any:
        goal = Ground.Goal(goal=GoalMessage(text=text, **fields))
        goal.timeout.sec, goal.timeout.nanosec = int(seconds // 1), int(seconds % 1 * 1e9)
        sent = self.client.send_goal_async(goal)
        self.robot.until(sent.done, "the acceptance of a goal")
        assert sent.result().accepted
        self._goal = list(sent.result().goal_id.uuid)
        return sent.result()

    def _hear(self, message: Any) -> None:
        self._feedback.append((list(message.goal_id.uuid), message.feedback.stage))

    @property
    def stages(self) -> list[str]:
        """The stages of the last goal that were heard so far."""
        return [stage for goal, stage in self._feedback if goal == self._goal]

    def close(self) -> None:
        self.client.destroy()
        self.robot.node.destroy_subscription(self._listener)

    def result(self, handle: Any, picture: NDArray[Any] | None = None) -> tuple[int, Ground.Result]:
        """The status and the result; the picture is sent until they are there."""
        future = handle.get_result_async()

        def done() -> bool:
            if picture is not None and not future.done():
                self.robot.images.publish(self.robot.image(picture))
                self.robot.spin(0.1)
            return bool(future.done())

        self.robot.until(done, "the result of a goal")
        return future.result().status, future.result().result

    def heard(self, *stages: str) -> bool:
        """Whether these were the stages: feedback may arrive after the result."""
        self.robot.until(lambda: len(self.stages) >= len(stages), "the feedback")
        return self.stages == [*stages]


@pytest.fixture
def caller(robot: Robot, node: Child) -> Iterator[Caller]:
    robot.meet(node)
    caller = Caller(robot)
    yield caller
    caller.close()


def unique(scene: SceneSample) -> Any:
    """An object that is the only one of its colour and kind."""
    names = [(item.colour, item.kind) for item in scene.objects]
    return next(item for item in scene.objects if names.count((item.colour, item.kind)) == 1)


def test_a_goal_is_found_and_told_of_by_stage(caller: Caller, scene: SceneSample) -> None:
    item = unique(scene)
    status, result = caller.result(caller.send(f"the {item.colour} {item.kind}"), scene.rgb)
    assert status == GoalStatus.STATUS_SUCCEEDED and result.success
    assert result.message == "An image came without camera_info, so no 3D positions are available."
    (found,) = result.grounding.detections
    assert box_iou(np.array([box_corners(found.bbox)]), np.array([item.box]))[0, 0] > 0.7
    assert (
        result.grounding.present > 0.5
        and result.header.frame_id == "camera"
        and found.header == result.header
    )
    assert caller.heard("waiting", "looking", "answered")


def test_an_absent_goal_is_looked_for_until_its_time_is_over(caller: Caller, scene: SceneSample) -> None:
    colour = next(
        name for name in ("purple", "orange", "cyan") if name not in {item.colour for item in scene.objects}
    )
    status, result = caller.result(caller.send(f"the {colour} mug"), scene.rgb)
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert (
        f"The goal 'the {colour} mug' is absent (presence 0." in result.message
        and result.grounding.present < 0.5
    )
    status, result = caller.result(caller.send(f"the {colour} mug", 4.0), scene.rgb)
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False) and "is absent" in result.message
    caller.robot.until(lambda: "answered" in caller.stages, "the feedback")


def test_without_images_the_time_runs_out(caller: Caller) -> None:
    status, result = caller.result(caller.send("the mug", 0.7))
    assert (status, result.success, result.message) == (
        GoalStatus.STATUS_ABORTED,
        False,
        "No image was answered in time.",
    )
    assert caller.heard("waiting")


def test_a_goal_is_cancelled_while_it_waits(caller: Caller) -> None:
    handle = caller.send("the mug", 60.0)
    caller.robot.until(lambda: caller.stages, "the first feedback")
    cancelled = handle.cancel_goal_async()
    caller.robot.until(cancelled.done, "the cancelling")
    status, result = caller.result(handle)
    assert (status, result.success, result.message) == (
        GoalStatus.STATUS_CANCELED,
        False,
        "The goal was cancelled.",
    )


def test_cancelling_what_is_answered_already_changes_nothing(caller: Caller, scene: SceneSample) -> None:
    item = unique(scene)
    handle = caller.send(f"the {item.colour} {item.kind}")
    status, result = caller.result(handle, scene.rgb)
    assert status == GoalStatus.STATUS_SUCCEEDED
    cancelled = handle.cancel_goal_async()
    caller.robot.until(cancelled.done, "the answer to the cancelling")
    assert (
        cancelled.result().return_code == CancelGoal.Response.ERROR_GOAL_TERMINATED
        and not cancelled.result().goals_canceling
    )
    assert caller.result(handle) == (GoalStatus.STATUS_SUCCEEDED, result)
    assert caller.result(caller.send("the mug", 0.7))[0] == GoalStatus.STATUS_ABORTED, "the action goes on"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"text": ""}, "The goal is empty"),
        ({"text": "mug", "kind": "chat"}, "is of kind chat, whose answer is words"),
        ({"text": "mug", "min_score": 3.0}, "min_score is 3.0"),
    ],
)
def test_a_wrong_goal_is_aborted_with_a_sentence(
    caller: Caller, fields: dict[str, Any], sentence: str
) -> None:
    status, result = caller.result(caller.send(**fields))
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False) and sentence in result.message
