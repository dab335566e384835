"""The node's states in this process: many cycles leave nothing behind, a failure is an error with a
sentence."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header

from groma_ros.grounding.grounder import Grounder
from groma_ros.msg import GroundingArray
from groma_ros.node import node as node_module
from groma_ros.node.conversions import image_message
from groma_ros.node.diagnostics import memory_mb
from groma_ros.node.node import GromaNode
from groma_ros.runtime.options import RuntimeOptions

DONE, FAILED, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
CYCLES = 50


@pytest.fixture(scope="module")
def tiny() -> Grounder:
    return Grounder.load(TINY, backend="onnx", threads=1)


@pytest.fixture
def context(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    arguments = [
        "--ros-args",
        "-p",
        "goals:=['the mug']",
        "-p",
        "cameras:=[left, right]",
        "-p",
        "threads:=1",
        "-p",
        "backend:=onnx",
    ]
    # A busy machine may need more than the second that a node waits for the frame in progress.
    monkeypatch.setattr(node_module, "STOP_SECONDS", 60.0)
    rclpy.init(args=arguments, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    yield
    rclpy.shutdown()


def label(node: GromaNode) -> str:
    return str(node._state_machine.current_state[1])


def entities(node: GromaNode) -> tuple[int, ...]:
    """Number of entities of each kind that a node can open."""
    kinds = (node.publishers, node.subscriptions, node.services, node.clients, node.timers, node.waitables)
    return tuple(len(list(kind)) for kind in kinds)


def test_fifty_cycles_leave_nothing_behind(context: None, tiny: Grounder, picture: NDArray[Any]) -> None:
    node = GromaNode(lambda *_: tiny)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    heard: list[GroundingArray] = []
    listener = rclpy.create_node("listener")
    listener.create_subscription(GroundingArray, "/groma/left/groundings", heard.append, 10)
    executor.add_node(listener)
    counts, memory, threads = [], [], []
    try:
        for cycle in range(CYCLES):
            assert (node.trigger_configure(), node.trigger_activate()) == (DONE, DONE)
            end = time.monotonic() + 30
            while True:
                node._on_image(0, image_message(Header(frame_id=str(cycle)), picture))
                executor.spin_once(timeout_sec=0.01)
                # Discovery of a new publisher takes a while, so only some cycles wait for their answer.
                if cycle % 10 or (heard and heard[-1].header.frame_id == str(cycle)):
                    break
                assert time.monotonic() < end, "no answer in this cycle"
            assert (node.trigger_deactivate(), node.trigger_cleanup()) == (DONE, DONE)
            counts.append(entities(node))
            threads.append(threading.active_count())
            gc.collect()
            memory.append(memory_mb())
        assert len(set(counts)) == 1 and len(set(threads)) == 1
        # The first cycles fill caches; 1 MiB a cycle would be the leak of one picture or one publisher's
        # history.
        assert max(memory[-5:]) - max(memory[5:15]) < 8
        assert label(node) == "unconfigured" and not node._cleanup_steps and node._grounder is None
    finally:
        executor.shutdown()
        node.finish()
        node.destroy_node()
        listener.destroy_node()


def test_every_cycle_gives_its_own_model_back(context: None, picture: NDArray[Any]) -> None:
    loaded: list[weakref.ref[Grounder]] = []

    def load(*choice: Any) -> Grounder:
        grounder = Grounder.load(*choice)
        loaded.append(weakref.ref(grounder))
        return grounder

    node = GromaNode(load)
    gc.disable()  # the collector's own pace, which hides or shows a leak by luck, plays no part
    try:
        for _ in range(3):
            assert (node.trigger_configure(), node.trigger_activate()) == (DONE, DONE)
            node._on_image(0, image_message(Header(), picture))
            assert (node.trigger_deactivate(), node.trigger_cleanup()) == (DONE, DONE)
            assert [reference() for reference in loaded if reference() is not None] == []
    finally:
        gc.enable()
        node.finish()
        node.destroy_node()


def test_a_model_that_cannot_be_loaded_is_an_error_that_can_be_mended(context: None, tiny: Grounder) -> None:
    attempts: list[Any] = []

    def load(*choice: Any) -> Grounder:
        attempts.append(choice)
        if len(attempts) == 1:
            raise ValueError("The model folder nowhere does not exist.")
        if len(attempts) == 2:
            raise RuntimeError("out of memory")
        return tiny

    node = GromaNode(load)
    try:
        before = entities(node)
        assert (
            node.trigger_configure() == ERROR and node.failure == "The model folder nowhere does not exist."
        )
        assert label(node) == "unconfigured" and entities(node) == before
        assert node.trigger_configure() == ERROR and node.failure == "RuntimeError: out of memory"
        assert node.trigger_configure() == DONE and node.failure == "" and label(node) == "inactive"
        assert attempts[0] == ("", RuntimeOptions(backend="onnx", threads=1))
    finally:
        node.finish()
        node.destroy_node()


def test_an_error_when_activating_gives_everything_back(
    context: None, tiny: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = GromaNode(lambda *_: tiny)
    before, threads = entities(node), threading.active_count()
    try:
        assert node.trigger_configure() == DONE

        def refuse(*_: Any, **__: Any) -> None:
            raise ValueError("The topic cannot be opened.")

        monkeypatch.setattr(node, "create_subscription", refuse)
        assert node.trigger_activate() == ERROR and node.failure == "The topic cannot be opened."
        assert (
            label(node) == "unconfigured" and entities(node) == before and threading.active_count() == threads
        )
        monkeypatch.undo()
        assert (node.trigger_configure(), node.trigger_activate()) == (DONE, DONE)
    finally:
        node.finish()
        node.destroy_node()
    assert threading.active_count() == threads
