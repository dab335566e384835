"""A running node on the page, over DDS: its answers, its services, its death and its return."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from groma_ros.client.demo.processes import dds_environment
from groma_ros.grounding.grounder import Grounder
from groma_ros.live.node_engine import NodeEngine
from groma_ros.types import Goal
from tests.live.conftest import PICTURE, TINY
from tests.live.page import Serving
from tests.node.robot import Robot, start_node
from tests.pictures import read_rgb

MUG, BALL = "the red mug", "the blue ball"
FOCAL = 500.0
DOMAIN = 101 + os.getpid() % 100

os.environ.update(dds_environment())


@pytest.fixture
def robot() -> Iterator[Robot]:
    """A camera that shows one picture five times a second, all of it at a distance of 1 m."""
    rgb = read_rgb(PICTURE)
    stop = threading.Event()
    height, width = rgb.shape[:2]
    metre = np.full((height, width), 1000, "<u2").tobytes()
    with Robot(DOMAIN) as robot:
        depths = robot.node.create_publisher(Image, "depth", qos_profile_sensor_data)
        infos = robot.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)

        def show() -> None:
            while not stop.wait(0.2):
                image = robot.image(rgb)
                info = CameraInfo(header=image.header, width=width, height=height)
                info.k = [FOCAL, 0.0, width / 2, 0.0, FOCAL, height / 2, 0.0, 0.0, 1.0]
                depth = Image(
                    header=image.header, width=width, height=height, encoding="16UC1", step=2 * width
                )
                depth.data = metre
                for publisher, message in ((infos, info), (depths, depth), (robot.images, image)):
                    publisher.publish(message)

        camera = threading.Thread(target=show)
        camera.start()
        yield robot
        stop.set()
        camera.join()


def cloud(space: tuple[dict[str, Any], bytes]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points Nx3, metres, and their colours uint8 Nx3, of a view in space."""
    count, data = space[0]["points"], space[1]
    points = np.frombuffer(data[: 12 * count], "<f4").reshape(-1, 3)
    return points, np.frombuffer(data[12 * count :], np.uint8).reshape(-1, 3)


def test_a_node_is_shown_dies_and_comes_back(
    robot: Robot, tiny: Grounder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    parameters = {"model": TINY, "backend": "onnx", "threads": 1}
    rgb = read_rgb(PICTURE)
    wanted = tiny.ground(rgb, MUG)[0].boxes[0]
    with ExitStack() as stack:
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

        # The node's depth is listened to while the view in space is open.
        assert robot.node.count_subscribers("depth") == 1
        state = page.until(lambda state: page.space and page.space[0]["points"], "points", space=True)
        assert state["frame"]["depth"] and page.space is not None
        points, colours = cloud(page.space)
        np.testing.assert_allclose(points[:, 2], 1, atol=1e-6)
        across, down = (points[:, :2] * FOCAL + [rgb.shape[1] / 2, rgb.shape[0] / 2]).T.round().astype(int)
        assert np.abs(colours.astype(int) - rgb[down, across]).mean() < 5
        page.until(lambda _: robot.node.count_subscribers("depth") == 1, "the rest of the view in space")

        # Goals go both ways: from the page, and from whoever else sets them.
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

        # Without a page the node's images and regions are left alone.
        def listeners(name: str) -> int:
            return int(robot.node.count_subscribers(f"groma/{name}"))

        assert (listeners("proposals"), listeners("groundings")) == (1, 2)  # the robot listens to answers
        page.close()
        robot.until(lambda: (listeners("proposals"), listeners("groundings")) == (0, 1), "the page's rest")
