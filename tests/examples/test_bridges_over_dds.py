"""The bridges with a real node: no depth, depth of another size, an object out of reach, a node that
exits."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.context import Context

from demo.camera_topics import CameraTopics
from demo.session import Setup, start_node
from examples import ask
from examples.ask import Answer, GoalAsker
from examples.go_to import Seeker
from examples.pick import Picker
from groma_ros.client.demo.processes import dds_environment
from groma_ros.client.groma_client import GromaClient
from groma_ros.simulation.dataset import scene_goals
from groma_ros.simulation.scenes import SceneRenderer
from tests.domains import own_domain
from tests.examples.test_go_to import StandInBase
from tests.examples.test_pick import StandInArm

DOMAIN = own_domain()
CAMERA = "camera_color_optical_frame"
SURE: dict[str, Any] = {"status": "present", "present": 0.95, "margin": 0.9}
"""What a sure answer has, whatever the model thinks."""


class Stage:
    """A camera in front of a rendered table, ten pictures per second in a thread, and the node that sees it.

    depth: "right", "small" (half the width and height) or "none"; shown: whether pictures are published.
    """

    def __init__(self, stack: ExitStack, log: Path) -> None:
        with SceneRenderer(640, 480) as renderer:
            sample = renderer.render(7_700_003)
        self.goal = next(goal.text for goal in scene_goals(sample) if goal.kind == "attribute")
        self.sample = sample
        self.depth, self.shown = "right", True
        context = Context()
        rclpy.init(context=context, domain_id=DOMAIN)
        stack.callback(context.try_shutdown)
        node = rclpy.create_node("stage", context=context)
        stack.callback(node.destroy_node)
        self._topics = CameraTopics(node, CAMERA)
        self._depth = self._topics._depth
        # The answers' frame is the camera's: the stand-ins take it for the arm's base or the map.
        self.process = stack.enter_context(start_node(log, Setup("stage", "", CAMERA, "", "above"), ""))
        self._stop = threading.Event()
        thread = threading.Thread(target=self._show)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._stop.set)
        self.asker = GoalAsker(stack.enter_context(GromaClient(domain_id=DOMAIN)))
        self.asker.ready(240.0)

    def _show(self) -> None:
        depth = self.sample.depth
        depths = {"right": depth, "small": depth[::2, ::2], "none": depth}
        seconds = 10.0
        while not self._stop.wait(0.1):
            seconds += 0.1
            self._topics.tick(seconds)
            if self.shown:
                self._topics._depth = self._depth if self.depth != "none" else _Nobody()
                self._topics.publish(seconds, self.sample.rgb, depths[self.depth], self.sample.intrinsics)

    def answer(self, depth: str, has_pose: bool) -> Answer:
        """The first answer with this kind of depth: pictures in progress still have the previous kind."""
        self.depth = depth
        for _ in range(20):
            answer = self.asker.ask(self.goal, 20.0)
            if bool(answer.frame) == has_pose:
                return answer
        raise AssertionError(f"with depth {depth!r} the answer stays {answer}")


class _Nobody:
    """A publisher that publishes nothing."""

    def publish(self, message: Any) -> None:
        pass


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    patch = pytest.MonkeyPatch()
    for name, value in {"ROS_DOMAIN_ID": str(DOMAIN), **dds_environment()}.items():
        patch.setenv(name, value)
    with ExitStack() as stack:
        stack.callback(patch.undo)
        yield Stage(stack, tmp_path_factory.mktemp("stage") / "node.log")


def test_a_thing_with_depth_has_a_pose_and_may_be_out_of_reach(stage: Stage) -> None:
    answer = stage.answer("right", True)
    assert answer.frame == CAMERA and 0.3 < answer.position[2] < 2 and min(answer.size) > 0.01
    arm = StandInArm()
    arm.frame = CAMERA
    narrow = dataclasses.replace(answer, **SURE, size=(0.06, 0.05, 0.1))
    pick = Picker(arm, lambda goal: narrow).pick(stage.goal)  # type: ignore[arg-type]
    away = float(np.hypot(*answer.position[:2]))
    assert away < 0.25  # beside the optical axis, which is nearer than the arm reaches
    assert pick.cause == "out of reach" and f"The object is {away:.2f} m from the arm" in pick.sentence
    assert not arm.moves and not arm.grips


@pytest.mark.parametrize(
    ("depth", "sentence"),
    [
        (
            "none",
            "An image came without depth within 0.02 s of its stamp, so no 3D positions are available.",
        ),
        (
            "small",
            "The depth image is of 320x240 pixels and the image of 640x480: register depth to the image.",
        ),
    ],
)
def test_without_depth_of_its_size_nothing_moves(stage: Stage, depth: str, sentence: str) -> None:
    answer = stage.answer(depth, False)
    assert answer.status != "absent" and answer.box is not None
    answer = dataclasses.replace(answer, **SURE)
    arm = StandInArm()
    arm.frame = CAMERA
    pick = Picker(arm, lambda goal: answer).pick(stage.goal)  # type: ignore[arg-type]
    assert pick.cause == "no pose" and not arm.moves and not arm.grips
    assert pick.sentence == sentence
    base = StandInBase()
    trip = Seeker(base, lambda goal: answer).go_to(stage.goal)  # type: ignore[arg-type]
    assert trip.cause == "not found" and all(not place.any() for place, _ in base.goes)


def test_a_node_that_dies_while_it_is_asked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "WALL_SECONDS", 4.0)
    stage.depth, stage.shown = "right", False  # so the node waits for a picture
    time.sleep(1.5)  # one may be on its way
    killer = threading.Timer(2.0, os.kill, (stage.process.pid, signal.SIGKILL))
    killer.start()
    arm = StandInArm()
    pick = Picker(arm, stage.asker.ask).pick(stage.goal)  # type: ignore[arg-type]
    killer.join()
    assert pick.cause == "node lost", pick
    # On a busy machine it may exit before it has accepted the goal.
    assert pick.sentence in (
        "The search did not end within 4 s.",
        "The node did not accept the goal within 30 s.",
    )
    assert not arm.moves and not stage.process.running
