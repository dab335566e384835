"""A running node on the page, over DDS: its answers, its services, its exit and its restart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from groma_ros.camera_geometry import corners
from groma_ros.client.demo.processes import dds_environment
from groma_ros.geometry3d.box3d import DepthError, place_all
from groma_ros.grounding.grounder import Grounder
from groma_ros.live.engine import Shown
from groma_ros.live.node_engine import NodeEngine
from groma_ros.live.sources import open_source
from groma_ros.msg import GroundingArray
from groma_ros.node.conversions import groundings_message, to_nanoseconds
from groma_ros.node.diagnostics import status_message
from groma_ros.types import Frame, Goal, Grounding
from tests.domains import own_domain
from tests.live.conftest import BAG, TINY
from tests.live.page import PATIENCE, Serving
from tests.node.robot import Robot, start_node

if TYPE_CHECKING:
    from typing_extensions import Self

MUG, BALL = "the red mug", "the blue ball"
DOMAIN = own_domain()

os.environ.update(dds_environment())


@pytest.fixture(scope="module")
def frame() -> Frame:
    """The first frame of the demo bag, with depth; its frame_id says "the demo's"."""
    found = next(item.frame for item in open_source(str(BAG)).frames() if item.frame is not None)
    assert found.depth is not None and found.intrinsics is not None
    return replace(found, frame_id="the demo's")


class Repeating:
    """Does something five times a second in a thread; a context manager."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self.publish()

    def publish(self) -> object:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class DepthCamera(Repeating):
    """Shows one frame with depth five times a second; a context manager."""

    def __init__(self, robot: Robot, frame: Frame, prefix: str = "") -> None:
        """prefix: of its topics, with the slash."""
        super().__init__()
        assert frame.depth is not None and frame.intrinsics is not None
        self._robot, self._frame, self.prefix = robot, frame, prefix
        create = partial(robot.node.create_publisher, qos_profile=qos_profile_sensor_data)
        self._images = create(Image, f"{prefix}image") if prefix else robot.images
        self._depths, self._infos = (
            create(Image, f"{prefix}depth"),
            create(CameraInfo, f"{prefix}camera_info"),
        )
        camera, (height, width) = frame.intrinsics, frame.depth.shape
        self._info = CameraInfo(width=width, height=height)
        self._info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
        self._depth = Image(width=width, height=height, encoding="32FC1", step=4 * width)
        self._depth.data = frame.depth.astype("<f4").tobytes()

    def publish(self) -> Header:
        """Publish camera_info, depth and image of a new stamp; their header."""
        image = self._robot.image(self._frame.rgb, self._frame.frame_id)
        self._info.header = self._depth.header = image.header
        for publisher, message in (
            (self._infos, self._info),
            (self._depths, self._depth),
            (self._images, image),
        ):
            publisher.publish(message)
        return image.header


class StandInNode(Repeating):
    """Publishes for each image of a camera what a node does, but no boxes in space; a context manager."""

    def __init__(self, robot: Robot, camera: DepthCamera, groundings: Sequence[Grounding]) -> None:
        super().__init__()
        self.camera = camera
        """Its camera; the test may put another one here."""
        self._groundings = groundings
        self._reports = robot.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._answers = robot.node.create_publisher(GroundingArray, "groma/groundings", 10)

    def publish(self) -> None:
        """Publish an image, a report and the answer."""
        topics = {
            f"{name} topic": f"/{self.camera.prefix}{name}" for name in ("image", "depth", "camera_info")
        }
        values = {**topics, "goals_version": "7", "sync tolerance": "0.02", "rectified": "auto"}
        status = status_message("groma: grounding", DiagnosticStatus.OK, "answers 1 goals", "", values)
        header = self.camera.publish()
        self._reports.publish(DiagnosticArray(header=header, status=[status]))
        stamp = to_nanoseconds(header.stamp)
        self._answers.publish(groundings_message(header, self._groundings, 7, stamp))


@pytest.fixture
def robot() -> Iterator[Robot]:
    with Robot(DOMAIN) as robot:
        yield robot


def cloud(space: tuple[dict[str, Any], bytes]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points Nx3, metres, and their colours uint8 Nx3, of a view in space."""
    count, data = space[0]["points"], space[1]
    points = np.frombuffer(data[: 12 * count], "<f4").reshape(-1, 3)
    return points, np.frombuffer(data[12 * count :], np.uint8).reshape(-1, 3)


def places(frame: Frame, groundings: Sequence[Grounding]) -> NDArray[Any]:
    """Corners Nx8x3 of the boxes in space of answers to a frame, metres."""

    def refused(error: DepthError) -> None:
        raise error

    return np.array([corners(item.placement.box) for item in place_all(frame, groundings, refused)])


def test_a_node_is_shown_dies_and_comes_back(
    robot: Robot, frame: Frame, tiny: Grounder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    parameters = {"model": TINY, "backend": "onnx", "threads": 1}
    rgb, answers = frame.rgb, tiny.ground(frame, [MUG])
    wanted = answers[0].boxes[0]
    with ExitStack() as stack:
        stack.enter_context(DepthCamera(robot, frame))
        engine = NodeEngine("groma", [Goal(MUG)])
        page = stack.enter_context(stack.enter_context(Serving(engine, tmp_path / "out")).page())
        assert (
            "No node /groma is heard yet"
            in page.until(lambda state: state["source"]["problem"])["source"]["problem"]
        )
        node = start_node(stack, DOMAIN, tmp_path / "node.log", parameters)

        def shows_mug(state: dict[str, Any]) -> bool:
            return bool(state["frame"] and state["goals"] and state["goals"][0]["status"] == "present")

        state = page.until(
            lambda state: shows_mug(state) and not state["source"]["problem"], "the node's answer"
        )
        np.testing.assert_allclose(state["goals"][0]["detections"][0]["box"], wanted, atol=0.5)
        assert page.picture is not None and np.abs(page.picture.astype(int) - rgb).mean() < 5
        assert state["source"]["name"] == "node /groma" and "onnx" in state["source"]["model"]
        assert not state["source"]["recorded"] and "one speed" in page.do("speed", speed=2)["error"]
        state = page.until(lambda state: len(state["regions"]) > 3, "the node's regions")

        answer = page.do("ask", regions=[wanted.tolist()], frame=state["frame"]["number"])
        assert "red mug" in answer.get("text", answer)
        page.do("pause")
        held = page.next()["frame"]["stamp"]
        assert {page.next()["frame"]["stamp"] for _ in range(3)} == {held}
        page.do("resume")

        # Depth and boxes in space are listened to while the 3D view is open, and placed by nobody before.
        def listeners(name: str) -> int:
            return int(robot.node.count_subscribers(name))

        def deep() -> tuple[int, int]:
            return listeners("depth"), listeners("groma/detections_3d")

        assert state["frame"]["depth"]  # the page offers the view
        page.until(lambda _: deep() == (1, 0), "the discovery of the node's subscriptions")
        page.until(lambda state: page.space and page.space[0]["boxes"], "boxes in space", space=True)
        page.until(lambda _: deep() == (2, 1), "the discovery of the page's subscriptions", space=True)
        assert page.space is not None and frame.depth is not None and frame.intrinsics is not None
        points, colours = cloud(page.space)
        k = frame.intrinsics
        across, down = (points[:, :2] / points[:, 2:] * [k.fx, k.fy] + [k.cx, k.cy]).T.round().astype(int)
        assert len(points) > 2000
        np.testing.assert_allclose(points[:, 2], frame.depth[down, across], atol=1e-5)
        assert np.abs(colours.astype(int) - rgb[down, across]).mean() < 5
        (box,) = page.space[0]["boxes"]
        assert box["goal"] == 0
        np.testing.assert_allclose([box["corners"]], places(frame, answers), atol=0.005)
        page.until(lambda _: deep() == (1, 0), "the end of the 3D view")

        # Goals go both ways: from the page, and from other clients.
        assert page.goals(MUG, BALL) == {}
        page.until(lambda state: [goal["status"] for goal in state["goals"]] == ["present"] * 2)
        assert "The node refused" in page.do("goals", goals=[{"text": "x" * 999}])["error"]
        robot.send_goals(BALL)
        page.until(lambda state: [goal["text"] for goal in state["goals"]] == [BALL], "another's goal")

        node.interrupt(signal.SIGKILL)
        page.until(lambda state: "not heard any more" in state["source"]["problem"], "the node's death")
        start_node(stack, DOMAIN, tmp_path / "again.log", parameters)
        page.until(
            lambda state: (
                not state["source"]["problem"]
                and [goal["status"] for goal in state["goals"]] == ["present"]
                and state["goals"][0]["text"] == BALL
            ),
            "the node's return",
        )

        # Without a page there are no subscriptions to the node's images and regions.
        def pages() -> tuple[int, int]:
            return listeners("groma/proposals"), listeners("groma/groundings")

        page.until(lambda _: pages() == (1, 2), "the page's and the robot's subscriptions")
        page.close()
        robot.until(lambda: pages() == (0, 1), "the page's rest")


def test_one_of_several_cameras_is_shown(
    robot: Robot, frame: Frame, tiny: Grounder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    parameters = {"model": TINY, "backend": "onnx", "threads": 1, "cameras": "[left, arm/right]"}
    mirrored = replace(frame, rgb=np.ascontiguousarray(frame.rgb[:, ::-1]), frame_id="a mirror's")
    with ExitStack() as stack:
        for name, seen in (("left/", mirrored), ("arm/right/", frame)):
            stack.enter_context(DepthCamera(robot, seen, name))
        start_node(stack, DOMAIN, tmp_path / "node.log", parameters)
        answers = tiny.ground(frame, [MUG])

        # A camera has to be named, and be there.
        for camera, reason in (("", "has several cameras"), ("top", "has no camera top")):
            engine = NodeEngine("groma", camera=camera)
            with Serving(engine, tmp_path / f"without {camera}") as serving, serving.page() as page:
                state = page.until(lambda state: "--camera" in state["source"]["problem"], reason)
            sentence = f"The node /groma {reason}; name one of left, arm/right with --camera."
            assert state["source"]["problem"] == sentence and state["frame"] is None

        engine = NodeEngine("groma", [Goal(MUG)], camera="/arm/right")
        serving = stack.enter_context(Serving(engine, tmp_path / "out"))
        with serving.page() as page:
            state = page.until(
                lambda state: (
                    not state["source"]["problem"]
                    and state["goals"]
                    and state["goals"][0]["status"] == "present"
                    and page.space
                    and page.space[0]["boxes"]
                ),
                "the camera's answer",
                space=True,
            )
            assert page.picture is not None and np.abs(page.picture.astype(int) - frame.rgb).mean() < 5
            found = state["goals"][0]["detections"][0]["box"]
            np.testing.assert_allclose(found, answers[0].boxes[0], atol=0.5)
            assert page.space is not None
            (box,) = page.space[0]["boxes"]
            np.testing.assert_allclose([box["corners"]], places(frame, answers), atol=0.005)
            assert state["source"]["name"] == "node /groma, camera arm/right"
            assert robot.node.count_subscribers("groma/left/groundings") == 0
            state = page.until(lambda state: "perceive" in state["frame"]["milliseconds"], "the node's times")
            answer = page.do("ask", regions=[found], frame=state["frame"]["number"])
            assert "red mug" in answer.get("text", answer)


def test_the_page_places_what_the_node_does_not(
    robot: Robot, frame: Frame, tiny: Grounder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node publishes its boxes in space last, and those that have not come in time are placed by the
    page."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    answers = tiny.ground(frame, [MUG])
    with ExitStack() as stack:
        stack.enter_context(StandInNode(robot, DepthCamera(robot, frame), answers))
        page = stack.enter_context(stack.enter_context(Serving(NodeEngine("groma"), tmp_path / "out")).page())
        page.until(lambda state: page.space and page.space[0]["boxes"], "boxes in space", space=True)
        assert page.space is not None
        (box,) = page.space[0]["boxes"]
        assert box["goal"] == 0 and [goal["text"] for goal in page.state["goals"]] == [MUG]
        np.testing.assert_allclose([box["corners"]], places(frame, answers), atol=1e-4)


def test_a_node_that_comes_back_at_once_with_another_camera_is_shown(
    robot: Robot, frame: Frame, tiny: Grounder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is silent for less than three seconds does not count as gone, but its topics may have
    changed."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    mirrored = replace(frame, rgb=np.ascontiguousarray(frame.rgb[:, ::-1]))
    first, second = DepthCamera(robot, frame), DepthCamera(robot, mirrored, "second/")

    def shown(seen: Frame) -> bool:
        picture = page.picture
        return picture is not None and bool(np.abs(picture.astype(int) - seen.rgb).mean() < 5)

    with ExitStack() as stack:
        node = stack.enter_context(StandInNode(robot, first, tiny.ground(frame, [MUG])))
        page = stack.enter_context(stack.enter_context(Serving(NodeEngine("groma"), tmp_path / "out")).page())
        page.until(lambda _: shown(frame) and page.space, "the first camera with depth", space=True)
        node.camera = second
        page.until(lambda _: shown(mirrored) and not shown(frame), "the second camera", space=True)
        count = robot.node.count_subscribers
        page.until(
            lambda _: (
                [count(f"{at}{name}") for at in ("", "second/") for name in ("image", "depth")]
                == [0, 0, 1, 1]
            ),
            "the topics of the second camera alone",
            space=True,
        )


def test_a_page_that_is_slow_to_show_does_not_hold_up_the_client(
    robot: Robot, frame: Frame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's thread takes answers and replies in while a frame is written to a slow disk."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    parameters = {"model": TINY, "backend": "onnx", "threads": 1}
    began, over, shown_late = threading.Event(), threading.Event(), threading.Event()

    def show(shown: Shown) -> None:
        began.set()
        over.wait(PATIENCE)
        shown_late.set()

    with ExitStack() as stack:
        stack.enter_context(DepthCamera(robot, frame))
        start_node(stack, DOMAIN, tmp_path / "node.log", parameters)
        engine = NodeEngine("groma", [Goal(MUG)])
        stack.callback(engine.close)
        stack.callback(over.set)
        engine.set_watched(True)
        engine.start(show)
        assert began.wait(2 * PATIENCE)
        for goals in ([Goal(BALL)], [Goal(MUG), Goal(BALL)]):
            engine.set_goals(goals)  # an answer of the node's service, which the client's thread takes
            assert engine.goals == tuple(goals)
        robot.until(lambda: robot.count("goals") == 2, "the goals")
        assert not shown_late.is_set(), "the goals waited for the frame"
