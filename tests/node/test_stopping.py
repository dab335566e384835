"""A frame that takes longer to answer than a transition may wait, in a node of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import rclpy
from numpy.typing import NDArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header

from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import GroundingArray
from groma_ros.node import node as node_module
from groma_ros.node.conversions import image_message
from groma_ros.node.node import GromaNode
from groma_ros.types import Frame, Goal, Grounding, Scene


class Slow:
    """A grounder that answers only on request."""

    def __init__(self, grounder: Grounder) -> None:
        self.check, self.runtime = grounder.check, grounder.runtime
        self.familiarity = grounder.familiarity
        self.min_presence = 0.0
        self.asked, self.go_on = threading.Event(), threading.Event()
        self._grounder = grounder

    def perceive(self, frame: Frame) -> Scene:
        return self._grounder.perceive(frame)

    def ground(self, view: Frame | Scene, goals: Sequence[Goal]) -> list[Grounding]:
        self.asked.set()
        assert self.go_on.wait(60)
        return self._grounder.ground(view, goals)


@pytest.fixture
def context(domain: int) -> Iterator[None]:
    rclpy.init(
        args=["--ros-args", "-p", "goals:=['the mug']"],
        domain_id=domain,
        signal_handler_options=SignalHandlerOptions.NO,
    )
    yield
    rclpy.shutdown()


def test_a_second_thread_never_asks_the_grounder(
    context: None, grounder: Grounder, picture: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "STOP_SECONDS", 0.05)
    slow = Slow(grounder)
    node = GromaNode(lambda *_: slow)  # type: ignore[arg-type]
    done, failed = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
    try:
        assert (node.trigger_configure(), node.trigger_activate()) == (done, done)
        listener = node.create_subscription(GroundingArray, "~/groundings", lambda message: None, 1)
        end = time.monotonic() + 30
        while not slow.asked.wait(0.1) and time.monotonic() < end:
            node._on_image(0, image_message(Header(), picture))
        assert slow.asked.is_set()
        first = node._pipeline
        node.destroy_subscription(listener)
        assert node.trigger_deactivate() == done
        assert node.trigger_activate() == failed
        assert "still being answered; activate again" in node.failure
        slow.go_on.set()
        assert first is not None and first.stop(60)
        assert node.trigger_activate() == done
        assert node._pipeline is not first
    finally:
        slow.go_on.set()
        node.finish()
        node.destroy_node()
