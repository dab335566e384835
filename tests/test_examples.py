"""The examples run unchanged and stay short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from std_msgs.msg import Bool

from groma_ros.client.demo.processes import dds_environment
from groma_ros.grounding.grounder import Grounder
from tests.domains import own_domain
from tests.node.robot import Robot, start_node
from tests.pictures import read_picture, read_rgb

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
FRAME = ROOT / "demo" / "frame.png"
DOMAIN = own_domain()


def run(name: str, *arguments: object, status: int = 0) -> str:
    """What an example prints; it must end with the status."""
    environment = {**os.environ, **dds_environment(), "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rgb() -> NDArray[Any]:
    return read_rgb(FRAME)


def test_they_are_short_and_say_how_to_run_them() -> None:
    shorts = ("one_picture", "folder", "video", "ros_find", "goal_present_node", "bag_regression")
    for name in shorts:
        text = (EXAMPLES / f"{name}.py").read_text()
        assert len(text.splitlines()) <= 60 and f"python examples/{name}.py" in text.split('"""')[1]


def test_one_picture(tmp_path: Path, rgb: NDArray[Any]) -> None:
    out = tmp_path / "answer.png"
    text = run("one_picture.py", FRAME, "the red mug", "the purple cone", "--out", out)
    (box,) = Grounder.load("groma-tiny").ground(rgb, "the red mug")[0].boxes
    assert "the red mug: present" in text and "the purple cone: absent" in text
    assert " ".join(f"{value:7.1f}" for value in box) in text
    assert (read_picture(out).shape[1], out.suffix) == (rgb.shape[1], ".png")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(FRAME.read_bytes())
    (tmp_path / "pictures" / "b.jpg").write_bytes(b"not a picture")
    cv2.imwrite(str(tmp_path / "pictures" / "0.png"), np.zeros((1, 1, 3), np.uint8))
    (tmp_path / "pictures" / "f.gif").touch()
    out = tmp_path / "answers.jsonl"
    text = run("folder.py", tmp_path / "pictures", "the red mug", "--out", out)
    (line,) = map(json.loads, out.read_text().splitlines())
    assert line["answers"][0]["status"] == "present" and "b.jpg: skipped. OpenCV cannot decode it." in text
    assert "0.png: skipped. The image of 1x1 pixels is too small" in text


def test_video(tmp_path: Path, rgb: NDArray[Any]) -> None:
    source, out = tmp_path / "clip.avi", tmp_path / "answer.mp4"
    size = (rgb.shape[1], rgb.shape[0])
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size)
    for _ in range(3):
        writer.write(rgb[:, :, ::-1])
    writer.release()
    assert "3 frames" in run("video.py", source, "the red mug", "--out", out)
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_bag_regression(tmp_path: Path) -> None:
    bag, goals = ROOT / "demo" / "tabletop.mcap", tmp_path / "goals.yaml"
    goals.write_text("goals: [the red mug]\n")
    arguments = (bag, goals, "--expect", tmp_path / "expected", "--out", tmp_path / "out", "--every", 30)
    first = run("bag_regression.py", *arguments)
    assert f"stored in {tmp_path / 'expected'}" in first and "same as expected" not in first
    assert "same as expected" in run("bag_regression.py", *arguments)
    goals.write_text("goals: [the purple cone]\n")
    run("bag_regression.py", *arguments, status=1)  # other goals cannot be compared with


@pytest.fixture(scope="module")
def camera(rgb: NDArray[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A node whose camera shows one picture five times a second."""
    log, stop = tmp_path_factory.mktemp("examples") / "node.log", threading.Event()
    os.environ.update(dds_environment())
    with ExitStack() as stack:
        child = start_node(stack, DOMAIN, log, {"backend": "onnx", "threads": 1})
        robot = stack.enter_context(Robot(DOMAIN))
        robot.meet(child)

        def show() -> None:
            while not stop.wait(0.2):
                robot.images.publish(robot.image(rgb))

        thread = threading.Thread(target=show)
        thread.start()
        yield robot
        stop.set()
        thread.join()


def test_ros_find(camera: Robot, rgb: NDArray[Any]) -> None:
    text = run("ros_find.py", "the red mug", "--timeout", 60)
    (box,) = Grounder.load("groma-tiny").ground(rgb, "the red mug")[0].boxes
    line = next(line for line in text.splitlines() if "score" in line)
    np.testing.assert_allclose([float(word) for word in line.split()[:4]], box, atol=0.6)
    # The next image alone: a busy machine may answer none within seconds.
    assert "'the purple cone' is absent" in run("ros_find.py", "the purple cone", "--timeout", 0, status=1)


def test_goal_present_node(camera: Robot) -> None:
    heard: list[bool] = []

    def hear(message: Any) -> None:
        heard.append(message.data)

    camera.node.create_subscription(Bool, "goal_present", hear, 10)
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, EXAMPLES / "goal_present_node.py"], env=environment)
    try:
        camera.send_goals("the red mug")
        camera.until(lambda: heard and heard[-1], "a goal that is present")
        camera.send_goals("the purple cone")
        camera.until(lambda: not heard[-1], "a goal that is absent")
    finally:
        process.terminate()
        assert process.wait(30) is not None
