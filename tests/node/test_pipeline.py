"""Frames that arrive faster than they can be perceived, in a pipeline of this process: each is published
once, and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import Header

from groma_ros.node.conversions import image_message, to_nanoseconds, to_time
from groma_ros.node.detections_3d import Detector3D
from groma_ros.node.frame_result import ImageResult
from groma_ros.node.goal_set import GoalSet, NodeConfig
from groma_ros.node.parameters import Parameters
from groma_ros.node.pipeline import Camera, Pipeline
from groma_ros.node.statistics import Statistics
from groma_ros.tracking.questions import TrackedAnswer
from groma_ros.tracking.region_tracker import SECOND
from groma_ros.types import Frame, Goal, Grounding, Scene
from tests.tracking.moving import scene
from tests.tracking.test_grounding_tracker import answer, at


class Model:
    """A grounder with a synthetic scene: the objects of a frame move right by 100 pixels per second.

    see, think: let it perceive, let it answer.
    """

    def __init__(self) -> None:
        self.min_presence, self.min_margin = 0.5, 0.0
        self.see, self.think = threading.Semaphore(0), threading.Event()
        self.seen: list[int] = []
        self.asked: list[int] = []

    def perceive(self, frame: Frame) -> Scene:
        assert self.see.acquire(timeout=20)
        self.seen.append(frame.stamp)
        if frame.rgb[0, 0, 0] == 255:
            raise RuntimeError("broken")
        return scene(frame.stamp / SECOND, {"a": (100 + 100 * frame.stamp / SECOND, 100), "b": (400, 300)})

    def ground(self, view: Scene, goals: Sequence[Goal]) -> list[Grounding]:
        self.asked.append(view.stamp)
        assert self.think.wait(20)

        class Asked:
            scene = view
            standing = type("Goals", (), {"goals": goals})

        return answer(Asked)  # type: ignore[arg-type]


class Outputs:
    """Records what would be published. listened: whether there is a subscriber."""

    def __init__(self) -> None:
        self.published: list[tuple[int, TrackedAnswer]] = []
        self.pictured: list[int] = []
        self.listened = True
        self.detections_3d_wanted = self.proposals_wanted = False

    @property
    def answers_wanted(self) -> bool:
        return self.listened

    def wanted(self, config: NodeConfig) -> bool:
        return self.listened

    def publish_answers(self, header: Header, tracked: TrackedAnswer, config: NodeConfig) -> None:
        self.published.append((to_nanoseconds(header.stamp), tracked))

    def publish_pictures(self, view: ImageResult, config: NodeConfig, rate: float) -> None:
        self.pictured.append(to_nanoseconds(view.header.stamp))

    @property
    def stamps(self) -> list[int]:
        return [stamp for stamp, _ in self.published]


class Rig:
    """A pipeline with two cameras."""

    def __init__(self) -> None:
        self.model, self.config = Model(), NodeConfig(GoalSet((Goal("a"),), 3), Parameters(answer_wait=0.0))
        self.refused: list[tuple[str, str]] = []
        self.statistics = Statistics()
        self.cameras = [Camera(name, Outputs(), Statistics()) for name in ("left", "right")]  # type: ignore[arg-type]
        detector_3d = Detector3D(SimpleNamespace(), Parameters())  # type: ignore[arg-type]
        self.pipeline = Pipeline(
            self.model,  # type: ignore[arg-type]
            self.cameras,
            lambda: self.config,
            self._refuse,
            lambda: None,
            detector_3d,
            self.statistics,
        )
        self.outputs: list[Any] = [camera.outputs for camera in self.cameras]

    def _refuse(self, camera: Camera, kind: str, cause: str, sentence: str) -> None:
        self.refused.append((camera.name, cause))

    def send(self, milliseconds: int, camera: int = 0, value: int = 0) -> int:
        picture = np.full((480, 640, 3), value, np.uint8)
        self.pipeline.put(camera, image_message(header(milliseconds), picture))
        return milliseconds * 1_000_000


def header(milliseconds: int) -> Header:
    """Header of an image with this stamp."""
    return Header(stamp=to_time(milliseconds * 1_000_000))


def until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.model.think.set()
    for _ in range(100):
        rig.model.see.release()
    assert rig.pipeline.stop(20) and not rig.pipeline.alive


def answered_once(rig: Rig) -> None:
    """Two frames are processed and answered, so that motion is known."""
    rig.model.think.set()
    for milliseconds in (0, 100):
        rig.model.see.release()
        stamp = rig.send(milliseconds)
        until(lambda: stamp in rig.outputs[0].stamps)  # noqa: B023
        processor = rig.cameras[0].processor
        assert processor is not None
        if processor.tracker._open is not None:
            processor.tracker._open[1].result(20)  # on a busy machine the next frame may come before it


def test_every_frame_is_answered_while_the_model_thinks(rig: Rig) -> None:
    answered_once(rig)
    rig.model.think.clear()
    for milliseconds in range(200, 1200, 100):
        rig.model.see.release()
        stamp = rig.send(milliseconds)
        until(lambda: stamp in rig.outputs[0].stamps)  # noqa: B023
    told = dict(rig.outputs[0].published)
    # The thread of the language model holds the second or the third frame, and an earlier answer stands.
    last = told[1_100_000_000]
    until(lambda: rig.model.asked[-1] != last.answered)  # a busy machine starts that thread later
    asked = rig.model.asked[-1]
    assert last.answered < asked <= 200_000_000 and last.version == 3
    assert last.age == pytest.approx(1.1 - last.answered / SECOND)
    (found,) = told[1_100_000_000].groundings[0].detections
    assert found.box == pytest.approx(at(210, 100))
    assert {item.track_id for at in told.values() for item in at.groundings[0].detections} == {found.track_id}


def test_frames_that_come_while_another_is_looked_at_are_carried_once_and_in_order(rig: Rig) -> None:
    answered_once(rig)
    sent = [rig.send(200)]
    until(lambda: rig.cameras[0].in_progress is not None)
    sent += [rig.send(milliseconds) for milliseconds in (250, 300, 350)]
    assert rig.outputs[0].stamps[2:] == sent[:3], "the one in progress and those that were overtaken"
    boxes = [tracked.groundings[0].detections[0].box for _, tracked in rig.outputs[0].published[2:]]
    assert [box[0] for box in boxes] == pytest.approx([90, 95, 100], abs=0.5)
    rig.model.see.release()
    until(lambda: rig.model.seen[-1] == sent[0])
    rig.model.see.release()
    until(lambda: sent[3] in rig.outputs[0].pictured)  # after it has been counted
    assert rig.outputs[0].stamps == [0, 100_000_000, *sent]
    counts = rig.cameras[0].statistics.snapshot()
    assert (counts.answered, counts.carried, counts.dropped, counts.perceived) == (3, 3, 0, 4)
    assert rig.outputs[0].pictured == [0, 100_000_000, sent[0], sent[3]], "all that were looked at"


def test_without_carrying_they_are_dropped(rig: Rig) -> None:
    rig.config = NodeConfig(rig.config.goal_set, Parameters(answer_wait=0.0, carry=False))
    answered_once(rig)
    for milliseconds in (200, 250, 300):
        rig.send(milliseconds)
        until(lambda: rig.cameras[0].in_progress is not None)
    assert rig.cameras[0].statistics.snapshot().drops == {"newer image": 1}
    for _ in range(2):
        rig.model.see.release()
    until(lambda: len(rig.outputs[0].stamps) == 4)
    assert rig.outputs[0].stamps[2:] == [200_000_000, 300_000_000]


def test_cameras_are_looked_at_in_turn(rig: Rig) -> None:
    rig.model.think.set()
    for camera in (0, 1):
        rig.send(0, camera)
    until(lambda: rig.cameras[0].in_progress is not None)
    for milliseconds in range(50, 400, 50):
        rig.send(milliseconds, 0)
    rig.model.see.release()
    until(lambda: rig.outputs[0].stamps)
    rig.model.see.release()
    until(lambda: rig.outputs[1].stamps)
    assert rig.outputs[1].stamps == [0]
    # All cameras share the language model: its time is the node's, not that of one of them.
    until(lambda: "language" in rig.statistics.snapshot().median_ms)
    assert not any("language" in camera.statistics.snapshot().median_ms for camera in rig.cameras)
    # What came while the first was looked at is answered too: nothing is known yet.
    assert rig.outputs[0].stamps == [milliseconds * 1_000_000 for milliseconds in range(0, 350, 50)]
    assert {item.groundings[0].status for _, item in rig.outputs[0].published} == {"pending"}


def test_images_above_max_rate_are_no_pause_of_the_camera(rig: Rig) -> None:
    processor = rig.cameras[0].processor
    assert processor is not None
    continuity = processor.tracker.regions.continuity
    for milliseconds in range(0, 3000, 100):
        rig.pipeline.skip(0, image_message(header(milliseconds), np.zeros((4, 4, 3), np.uint8)))
    rig.send(3000)
    assert continuity.stream == 0
    assert rig.cameras[0].statistics.snapshot().drops == {"max_rate": 30}
    rig.send(6000)
    assert continuity.stream == 1, "without them it is one"


def test_a_frame_that_breaks_the_model_is_counted_and_the_next_is_answered(rig: Rig) -> None:
    rig.model.think.set()
    rig.model.see.release()
    rig.send(0, value=255)
    until(lambda: rig.refused)
    assert rig.refused == [("left", "failure")]
    rig.model.see.release()
    rig.send(100)
    until(lambda: rig.outputs[0].stamps == [100_000_000])


def test_nothing_is_looked_at_for_nobody(rig: Rig) -> None:
    rig.outputs[0].listened = False
    rig.send(0)
    until(lambda: rig.cameras[0].statistics.snapshot().skipped == 1)
    assert rig.model.seen == [] and rig.outputs[0].published == []


def test_answers_are_told_under_the_version_of_their_own_goals(rig: Rig) -> None:
    answered_once(rig)
    rig.config = NodeConfig(rig.config.goal_set.replaced([Goal("b")]), rig.config.settings)
    for milliseconds in range(200, 1200, 100):
        rig.model.see.release()
        stamp = rig.send(milliseconds)
        until(lambda: stamp in rig.outputs[0].stamps)  # noqa: B023
    told = [(tracked.version, tracked.groundings[0].goal.text) for _, tracked in rig.outputs[0].published]
    assert set(told) == {(3, "a"), (4, "b")} and told == sorted(told)


def test_stopping_in_the_middle_of_everything_is_quick(rig: Rig) -> None:
    answered_once(rig)
    rig.model.think.clear()
    rig.send(200)
    until(lambda: rig.cameras[0].in_progress is not None)
    start = time.monotonic()
    assert not rig.pipeline.stop(0.2), "the frame in progress is still looked at"
    assert time.monotonic() - start < 5
    rig.model.see.release()
    rig.model.think.set()
    assert rig.pipeline.stop(20)


def test_an_image_of_another_size_has_no_boxes_of_the_former_one(rig: Rig) -> None:
    answered_once(rig)
    rig.send(200)
    until(lambda: rig.cameras[0].in_progress is not None)
    rig.pipeline.put(0, image_message(header(250), np.zeros((240, 320, 3), np.uint8)))
    rig.send(300)  # so that the small one is carried
    told = dict(rig.outputs[0].published)
    assert [told[at].groundings[0].status for at in (200_000_000, 250_000_000)] == ["present", "pending"]


def test_the_first_image_is_due_while_the_clock_stands_at_zero() -> None:
    camera = Camera("", Outputs(), Statistics())  # type: ignore[arg-type]
    assert [camera.due(now, 10.0) for now in (0, 0, 10**8, 10**8 + 1)] == [True, False, False, True]
