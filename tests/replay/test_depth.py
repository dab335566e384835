"""Depth in a replay: choice of topics, matching to frames, and 3D boxes on the demo bag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groma_ros.io.bag_topics import INFO, DepthTopics, find_camera, find_depth
from groma_ros.io.bags import RAW, open_bag, recorded_images
from groma_ros.io.images import ImageError
from groma_ros.replay.depth import DepthReader
from groma_ros.replay.plan import DETECTIONS, ModelSettings, ReplayPlan, Task
from groma_ros.replay.records import read_records
from groma_ros.replay.run import replay
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Goal
from tests.io.test_bags import DEMO, TYPES, image, write
from tests.replay.conftest import TENTH


def depth_image(stamp: int, metres: float, width: int = 64, frame_id: str = "camera") -> Any:
    """A wall at a distance, in millimetres."""
    message = image(stamp, np.zeros((48, width, 3), np.uint8))
    message.encoding, message.step = "16UC1", 2 * width
    message.data = np.full((48, width), round(1000 * metres), np.uint16).view(np.uint8).ravel()
    message.header.frame_id = frame_id
    return message


def info(stamp: int) -> Any:
    header = image(stamp, np.zeros((1, 1, 3), np.uint8)).header
    region = TYPES["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    k = np.array([100.0, 0, 32, 0, 100, 24, 0, 0, 1])
    return TYPES[INFO](
        header=header,
        height=48,
        width=64,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def test_each_frame_gets_its_own_depth(tmp_path: Path) -> None:
    """Recorded before its image, after it and much later; none; of another frame; of another size;
    damaged."""
    rgb = np.zeros((48, 64, 3), np.uint8)
    stamps = [TENTH * place for place in range(1, 8)]
    messages = [("/front/image", RAW, stamp, image(stamp, rgb)) for stamp in stamps]
    late = {stamps[0]: -1_000, stamps[1]: 5_000_000, stamps[2]: 600_000_000}
    messages += [
        ("/front/depth", RAW, stamp + late[stamp], depth_image(stamp, 1.0 + place))
        for place, stamp in enumerate(late)
    ]
    messages += [
        ("/front/depth", RAW, stamps[4], depth_image(stamps[4], 5.0, frame_id="other")),
        ("/front/depth", RAW, stamps[5], depth_image(stamps[5], 6.0, width=32)),
        ("/front/depth", RAW, stamps[6], b"\0\1\0\0junk"),
        ("/rear/depth", RAW, stamps[0], depth_image(stamps[0], 9.0)),
        ("/front/camera_info", INFO, stamps[0], info(stamps[0])),
    ]
    path = write(tmp_path / "bag", sorted(messages, key=lambda entry: entry[2]), StoragePlugin.MCAP)
    found: list[float | str] = []
    with open_bag(path) as bag:
        camera = find_camera(bag)
        topics, without = find_depth(bag, camera)
        assert (topics, without) == (DepthTopics("/front/depth", "/front/camera_info"), "")
        assert topics is not None
        reader = DepthReader(bag, topics)
        for shot in recorded_images(bag, camera):
            assert shot.frame is not None
            try:
                frame = reader.complete(shot.frame, shot.time)
                assert (
                    frame.depth is not None and frame.intrinsics is not None and frame.intrinsics.fx == 100.0
                )
                found.append(round(float(frame.depth[20, 30]), 4))
            except ImageError as error:
                found.append(error.cause)
    assert found == [1.0, 2.0, 3.0, "missing", "depth not registered", "depth size", "missing"]


def test_a_camera_without_depth(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bag", [("/image", RAW, 1, image(1, np.zeros((48, 64, 3), np.uint8)))], StoragePlugin.MCAP
    )
    with open_bag(path) as bag:
        topics, without = find_depth(bag, find_camera(bag))
    assert topics is None and "the bag has no image topic of depth" in without


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bag, whose depth comes with every second image; one image in fifteen."""
    folder = tmp_path_factory.mktemp("depth")
    plan = ReplayPlan(
        (Goal("the ball"), Goal("green object"), Goal("red cone")),
        ModelSettings(shipped_model(), RuntimeOptions(backend="onnx", threads=1)),
        every=15,
    )
    replay(Task("demo", DEMO, folder), plan, plan.engine.load())
    return folder


def test_places_in_space_on_the_demo_s_bag(out: Path) -> None:
    """A place is seen in the middle of its box, as large as the things of that table are, and the same from
    each side."""
    records = read_records(out / DETECTIONS)
    assert [record.depth for record in records] == ["", "missing", "", "missing"]
    balls = []
    for record in records:
        for goal in record.goals:
            for box in goal.detections:
                assert (box.place is None) == (record.depth == "missing")
                if box.place is not None and goal.goal == "the ball":
                    balls.append(box.place)
                    assert 0.4 < box.place.centre[2] < 3.0
                    assert box.place.size == pytest.approx((0.069, 0.069, 0.069), abs=0.014), (
                        "the ball of the truth is 6.9 cm wide"
                    )
    assert len(balls) == 2
