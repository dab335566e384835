"""Autostart beside a client that manages the node, or configures it while its model is being loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from groma_ros.grounding.grounder import Grounder
from groma_ros.node import process
from groma_ros.node.node import GromaNode
from tests.node.robot import PATIENCE

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
SERVICE = "managed/change"
"""What the lifecycle service is remapped to."""


class Stage:
    """A node with autostart, a lifecycle manager beside it, and a model that is loaded on request."""

    def __init__(self, grounder: Grounder) -> None:
        self._grounder = grounder
        self.loads = 0
        self.loaded = threading.Event()
        self.broken = False
        self.node = GromaNode(self._load)
        self._helper = rclpy.create_node("manager")
        self._client = self._helper.create_client(ChangeState, SERVICE)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(self._helper)
        self.autostart = process.Autostart(self.node)
        self.failure = ""

    def _load(self, *choice: Any) -> Grounder:
        self.loads += 1
        assert self.loaded.wait(PATIENCE)
        if self.broken:
            self.loaded.clear()
            raise ValueError("The model folder is empty.")
        return self._grounder

    @property
    def state(self) -> str:
        return str(self.node._state_machine.current_state[1])

    def turn(self) -> None:
        """One iteration of the process's loop."""
        self.failure = self.failure or self.autostart.step()
        self._executor.spin_once(timeout_sec=0.02)

    def until(self, done: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, self.state
            self.turn()

    def request(self, label: str) -> Future:
        request = ChangeState.Request()
        request.transition.label = label
        self.until(self._client.service_is_ready)
        return self._client.call_async(request)

    def waits(self, count: int) -> bool:
        return self.node._lifecycle_requests.waiting == count

    def load_for_request(self) -> None:
        """Let the model be loaded once a request waits for it; before, the node would go on by itself."""
        self.until(lambda: self.waits(1))
        self.loaded.set()

    def close(self) -> None:
        self.loaded.set()
        self._executor.shutdown()
        self.node.finish()
        self.node.destroy_node()
        self._helper.destroy_node()


@pytest.fixture
def stage(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    arguments = ["--ros-args", "-p", "threads:=1", "-r", f"~/change_state:={SERVICE}"]
    rclpy.init(args=arguments, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    stage = Stage(Grounder.load(TINY, backend="onnx", threads=1))
    yield stage
    stage.close()
    rclpy.shutdown()


def test_alone_it_goes_to_active(stage: Stage) -> None:
    for _ in range(5):
        stage.turn()
    assert stage.state == "unconfigured"
    stage.loaded.set()
    stage.until(lambda: stage.state == "active")
    assert stage.loads == 1 and not stage.failure


def test_what_somebody_else_configured_is_activated_in_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MANAGER_SECONDS", PATIENCE)
    answer = stage.request("configure")
    stage.load_for_request()
    stage.until(answer.done)
    assert answer.result().success and stage.state == "inactive"
    monkeypatch.setattr(process, "MANAGER_SECONDS", 0.5)
    stage.until(lambda: stage.state == "active")
    assert stage.loads == 1
    # A client that requests a transition which autostart has made meanwhile gets a success.
    late = stage.request("activate")
    stage.until(late.done)
    assert late.result().success and stage.state == "active" and not stage.failure


def test_a_manager_activates_what_it_configured_and_keeps_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MANAGER_SECONDS", PATIENCE)
    for label, state in (
        ("configure", "inactive"),
        ("activate", "active"),
        ("deactivate", "inactive"),
        ("cleanup", "unconfigured"),
    ):
        answer = stage.request(label)
        if label == "configure":
            stage.load_for_request()
        stage.until(answer.done)
        assert answer.result().success and stage.state == state
    monkeypatch.setattr(process, "MANAGER_SECONDS", 0.5)
    end = time.monotonic() + 1.0
    stage.until(lambda: time.monotonic() > end)
    assert stage.state == "unconfigured" and stage.loads == 1 and not stage.failure


def test_what_was_cleaned_up_before_it_was_active_stays_so(stage: Stage) -> None:
    for label in ("configure", "cleanup"):
        answer = stage.request(label)
        if label == "configure":
            stage.load_for_request()
        stage.until(answer.done)
        assert answer.result().success
    for _ in range(10):
        stage.turn()
    assert stage.state == "unconfigured" and stage.loads == 1 and not stage.failure


def test_a_load_that_fails_for_somebody_else_is_not_done_again_in_the_executor(stage: Stage) -> None:
    stage.broken = True
    answers = [stage.request("configure") for _ in range(2)]
    stage.until(lambda: stage.waits(2))
    stage.loaded.set()
    stage.until(lambda: any(answer.done() for answer in answers))
    # The other request has a load of its own, and the executor goes on meanwhile.
    stage.until(lambda: stage.loads == 2)
    start = time.monotonic()
    for _ in range(5):
        stage.turn()
    assert time.monotonic() - start < PATIENCE / 2 and stage.waits(1)
    stage.loaded.set()
    stage.until(lambda: stage.failure and all(answer.done() for answer in answers))
    assert not any(answer.result().success for answer in answers)
    assert stage.failure == "The model folder is empty." and stage.state == "unconfigured"
