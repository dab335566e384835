"""A goal of `~/ground` that is cancelled, or whose node is deactivated, while the language model looks: in a
node of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import rclpy
from action_msgs.msg import GoalStatus
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from groma_ros.grounding.grounder import Grounder
from groma_ros.node.node import GromaNode
from groma_ros.srv import Ask
from groma_ros.types import Frame, Goal, Grounding, Scene
from tests.node.robot import Robot
from tests.node.services.test_ground import Caller

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


class Gate:
    """A grounder whose language model answers on request. looked: it was asked."""

    def __init__(self, grounder: Grounder) -> None:
        self.check, self.runtime, self.perceive = grounder.check, grounder.runtime, grounder.perceive
        self.familiarity = grounder.familiarity
        self.min_presence = 0.0
        self.looked, self.go_on = threading.Event(), threading.Event()
        self._grounder = grounder

    def ground(self, view: Frame | Scene, goals: Sequence[Goal]) -> list[Grounding]:
        self.looked.set()
        assert self.go_on.wait(60)
        return self._grounder.ground(view, goals)


@pytest.fixture(scope="module")
def tiny() -> Grounder:
    return Grounder.load(TINY, backend="onnx", threads=1)


@pytest.fixture
def gate(tiny: Grounder) -> Gate:
    return Gate(tiny)


@pytest.fixture
def node(domain: int, gate: Gate) -> Iterator[GromaNode]:
    """Active, and spun by a thread of its own."""
    rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = GromaNode(lambda *_: gate)  # type: ignore[arg-type]
    node.trigger_configure()
    node.trigger_activate()
    executor, end = SingleThreadedExecutor(), threading.Event()
    executor.add_node(node)

    def spin() -> None:
        while not end.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    gate.go_on.set()
    end.set()
    thread.join(20)
    executor.shutdown()
    node.finish()
    node.destroy_node()
    rclpy.shutdown()


def looked_at(caller: Caller, gate: Gate, picture: NDArray[Any]) -> Any:
    """A goal that is being answered by the language model."""
    handle = caller.send("the mug", 60.0)

    def sent() -> bool:
        caller.robot.images.publish(caller.robot.image(picture))
        caller.robot.spin(0.1)
        return gate.looked.is_set() and "looking" in caller.stages

    caller.robot.until(sent, "the model's look")
    return handle


def test_a_goal_is_cancelled_while_the_model_looks(
    robot: Robot, node: GromaNode, gate: Gate, picture: NDArray[Any]
) -> None:
    caller = Caller(robot)
    handle = looked_at(caller, gate, picture)
    cancelled = handle.cancel_goal_async()
    robot.until(cancelled.done, "the cancelling")
    status, result = caller.result(handle)
    assert (status, result.message) == (GoalStatus.STATUS_CANCELED, "The goal was cancelled.")
    assert not gate.go_on.is_set() and caller.stages == ["waiting", "looking"]
    # The next goal waits for the model, and is then answered.
    gate.go_on.set()
    status, result = caller.result(caller.send("the mug"), picture)
    assert (
        status in (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED)
        and result.header.frame_id == "camera"
    )
    caller.client.destroy()


def test_deactivating_ends_what_is_open_with_a_sentence(
    robot: Robot, node: GromaNode, gate: Gate, picture: NDArray[Any]
) -> None:
    caller = Caller(robot)
    handle = looked_at(caller, gate, picture)
    question = robot.client(Ask, "groma/ask").call_async(Ask.Request())
    robot.spin(0.5)
    gate.go_on.set()
    node._condition.notify_all()
    # From the executor's thread, as a lifecycle manager does it.
    assert node.executor is not None
    node.executor.create_task(node.trigger_deactivate)
    status, result = caller.result(handle)
    robot.until(question.done, "the answer to the question")
    assert status in (GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_SUCCEEDED)
    assert result.success or result.message == "The node is not active."
    asked = robot.call(Ask, "groma/ask", Ask.Request())
    assert (asked.success, asked.message) == (False, "The node is not active.")
    status, result = caller.result(caller.send("the mug"))
    assert (status, result.message) == (GoalStatus.STATUS_ABORTED, "The node is not active.")
    caller.client.destroy()
