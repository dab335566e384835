"""A camera's subscriptions over DDS: requested QoS, explanations of silence, and stored messages."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from groma_ros.io.images import ImageError
from groma_ros.node import subscriptions
from groma_ros.node.conversions import frame_from_image, to_time, with_depth
from groma_ros.node.parameters import Parameters
from groma_ros.node.subscriptions import CameraInputs
from tests.io.test_depth_images import MILLIMETRES, compressed_depth
from tests.node.robot import PATIENCE

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Bench:
    """Inputs of one camera, and a driver's node beside them."""

    def __init__(self, domain: int, *arguments: str) -> None:
        # Two contexts as two processes have: one DDS participant refuses two types of one topic.
        self._contexts = Context(), Context()
        for context in self._contexts:
            rclpy.init(context=context, domain_id=domain)
        self.node, self.driver = (
            Node(name, context=context, cli_args=["--ros-args", *arguments] if arguments else None)
            for name, context in zip(("groma", "driver"), self._contexts)
        )
        self.warnings: list[str] = []
        self.images: list[Any] = []
        self.refused: list[tuple[str, str, str]] = []
        recorder = SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))
        self.node.get_logger = lambda: recorder  # type: ignore[method-assign]
        self._executor = SingleThreadedExecutor(context=self._contexts[0])
        self._executor.add_node(self.node)  # the driver only publishes

    def listen(self, **settings: Any) -> CameraInputs:
        """Open the inputs with these parameters."""
        return CameraInputs(
            self.node,
            "",
            Parameters(**settings),
            self.images.append,
            lambda *refusal: self.refused.append(refusal),
        )

    def until(self, done: Callable[[], Any], send: Callable[[], Any] = lambda: None) -> None:
        """Spin until `done()` holds, sending something again and again."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"did not happen; warnings: {self.warnings}"
            send()
            for _ in range(5):
                self._executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        """Spin for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        for node, context in zip((self.node, self.driver), self._contexts):
            node.destroy_node()
            context.shutdown()


@pytest.fixture
def bench(domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(subscriptions, "WATCH_SECONDS", 0.1)
    monkeypatch.setattr(subscriptions, "SILENT_SECONDS", 0.5)
    bench = Bench(domain)
    yield bench
    bench.close()


def image(stamp: int = 1) -> Image:
    message = Image()
    message.header.stamp = to_time(stamp)
    return message


def test_reliability_follows_the_publishers(bench: Bench) -> None:
    inputs = bench.listen()
    assert inputs.status()["image reliability"] == "best_effort"
    first = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: inputs.status()["image reliability"] == "reliable")
    bench.until(lambda: bench.images, lambda: first.publish(image()))
    second = bench.driver.create_publisher(Image, "image", BEST_EFFORT)
    bench.until(lambda: inputs.status()["image reliability"] == "best_effort")
    count = len(bench.images)
    bench.until(lambda: len(bench.images) > count, lambda: second.publish(image()))
    bench.driver.destroy_publisher(second)
    bench.until(lambda: inputs.status()["image reliability"] == "reliable")
    assert inputs.status()["image topic"] == "/image" and inputs.status()["image publishers"] == 1
    inputs.destroy()


def test_a_second_publisher_of_an_image_topic_is_said_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(subscriptions, "SILENT_SECONDS", 2 * PATIENCE)  # a busy machine is silent meanwhile
    inputs = bench.listen()
    first = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: bench.images, lambda: first.publish(image()))
    assert not bench.warnings
    second = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: bench.warnings)
    count = len(bench.images)
    bench.until(lambda: len(bench.images) > count + 5, lambda: second.publish(image()))
    (warning,) = bench.warnings
    name = bench.driver.get_fully_qualified_name()
    assert warning.startswith(f"2 publishers send images on /image ({name}, {name}): they are answered as")
    inputs.destroy()


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_a_reliability_that_was_set_stays(bench: Bench, reliability: str) -> None:
    inputs = bench.listen(image_reliability=reliability)
    publisher = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: len(bench.images) > 3, lambda: publisher.publish(image()))
    assert inputs.status()["image reliability"] == reliability
    inputs.destroy()


def test_silence_names_other_topics(bench: Bench) -> None:
    bench.driver.create_publisher(Image, "/camera/color/image_raw", 5)
    bench.driver.create_publisher(CompressedImage, "/camera/color/image_raw/compressed", 5)
    bench.until(lambda: "/camera/color/image_raw" in dict(bench.node.get_topic_names_and_types()))
    inputs = bench.listen()
    bench.until(lambda: bench.warnings)
    assert bench.warnings[0].startswith("No image came on /image for ")
    assert (
        "nobody publishes it. Topics of sensor_msgs/msg/Image: /camera/color/image_raw." in bench.warnings[0]
    )
    inputs.destroy()


def test_silence_names_a_quality_of_service_that_does_not_match(bench: Bench) -> None:
    bench.driver.create_publisher(Image, "image", BEST_EFFORT)
    # The name of its node comes after the publisher itself.
    found = bench.node.get_publishers_info_by_topic
    bench.until(lambda: [item.node_name for item in found("/image")] == ["driver"])
    inputs = bench.listen(image_reliability="reliable")
    bench.until(lambda: bench.warnings and inputs.incompatible)
    said = bench.warnings[0]
    assert "/driver offers best_effort" in said and "asks for reliable" in said
    assert "Set image_reliability to best_effort" in said
    assert inputs.status()["incompatible image publishers"] == 1
    inputs.destroy()


def test_silence_names_another_type(bench: Bench) -> None:
    bench.driver.create_publisher(CompressedImage, "image", 5)
    bench.until(lambda: bench.node.get_publishers_info_by_topic("/image"))
    inputs = bench.listen()
    bench.until(lambda: bench.warnings)
    assert (
        "send sensor_msgs/msg/CompressedImage and the node reads sensor_msgs/msg/Image" in bench.warnings[0]
    )
    inputs.destroy()


def test_the_silence_lasts_until_an_image_comes(bench: Bench) -> None:
    inputs = bench.listen()
    assert inputs.silence == ""
    bench.until(lambda: inputs.silence)
    assert inputs.silence.startswith("No image came on /image for ")
    publisher = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: bench.images, lambda: publisher.publish(image()))
    assert inputs.silence == ""
    inputs.destroy()


def test_silence_of_a_matching_publisher_and_of_nobody(bench: Bench) -> None:
    inputs = bench.listen()
    bench.until(lambda: bench.warnings)
    assert "nor another topic of sensor_msgs/msg/Image. Start the camera's driver." in bench.warnings[0]
    inputs.destroy()
    bench.driver.create_publisher(Image, "image", 5)
    bench.until(lambda: bench.node.get_publishers_info_by_topic("/image"))
    bench.warnings.clear()
    inputs = bench.listen()
    bench.until(lambda: bench.warnings)
    assert "a publisher has a matching quality of service, and nothing of it arrived" in bench.warnings[0]
    inputs.destroy()


def test_an_image_topic_of_no_image_type_is_said(bench: Bench) -> None:
    bench.driver.create_publisher(String, "image", 5)
    bench.until(lambda: bench.node.get_publishers_info_by_topic("/image"))
    inputs = bench.listen()
    bench.until(lambda: bench.warnings)
    assert "send std_msgs/msg/String" in bench.warnings[0]
    inputs.destroy()


def test_compressed_depth_is_paired_however_long_the_image_is_looked_at(bench: Bench) -> None:
    inputs = bench.listen(depth_transport="compressedDepth", rectified="true")
    depths = bench.driver.create_publisher(CompressedImage, "depth/compressedDepth", 50)
    infos = bench.driver.create_publisher(CameraInfo, "camera_info", 50)
    step = 1_000_000_000 // 30
    stamps = iter(range(10**9, 10**15, step))

    def send() -> None:
        stamp = to_time(next(stamps))
        depth = CompressedImage(format="16UC1; compressedDepth png", data=compressed_depth(MILLIMETRES))
        info = CameraInfo(
            width=4, height=3, k=[5.0, 0, 2, 0, 5, 1, 0, 0, 1], p=[6.0, 0, 2, 0, 0, 6, 1, 0, 0, 0, 1, 0]
        )
        for message, publisher in ((depth, depths), (info, infos)):
            message.header.stamp = stamp
            publisher.publish(message)

    wanted = 10**9 + 20 * step
    inputs.reserve(wanted)
    bench.until(lambda: inputs.pair(wanted + 4 * 10**9, 0.02, 0.0).depth is not None, send)
    depth, info = inputs.pair(wanted, 0.001, 0.0)
    assert depth is not None and info is not None
    picture = Image(width=4, height=3, encoding="mono8", step=4, data=bytes(12))
    frame = with_depth(frame_from_image(picture), depth, info, inputs.is_rectified(info))
    assert frame.depth is not None and frame.intrinsics is not None
    assert frame.intrinsics.fx == 6.0 and frame.depth[0, 2] == pytest.approx(0.85)
    depth = dataclasses.replace(depth, format="16UC1; compressedDepth rvl")
    with pytest.raises(ImageError, match="rvl"):
        with_depth(frame, depth, info)
    inputs.destroy()


def test_a_guess_of_the_pinhole_is_said_once(bench: Bench) -> None:
    inputs = bench.listen()
    info = CameraInfo(
        width=4, height=3, k=[5.0, 0, 2, 0, 5, 1, 0, 0, 1], p=[6.0, 0, 2, 0, 0, 6, 1, 0, 0, 0, 1, 0]
    )
    assert not inputs.is_rectified(info) and not inputs.is_rectified(info) and not inputs.is_rectified(None)
    assert len(bench.warnings) == 1 and "the topic's name does not say" in bench.warnings[0]
    inputs.destroy()


@pytest.mark.parametrize("reliability", ["best_effort", "reliable"])
def test_a_reliability_from_qos_overrides_stays(domain: int, reliability: str) -> None:
    """Also the one that `auto` starts with, and in the next activation."""
    name = "qos_overrides./image.subscription.reliability"
    bench = Bench(domain, "-p", f"{name}:={reliability}")
    other = RELIABLE if reliability == "best_effort" else BEST_EFFORT
    publisher = bench.driver.create_publisher(Image, "image", other)
    bench.until(lambda: bench.node.count_publishers("image") == 1)
    for _ in range(2):
        inputs = bench.listen()
        bench.spin(0.5)
        assert inputs.status()["image reliability"] == reliability
        inputs.destroy()
    bench.driver.destroy_publisher(publisher)
    bench.close()


def test_a_reliability_that_follows_the_publishers_can_be_set_later(bench: Bench) -> None:
    inputs = bench.listen()
    inputs.destroy()
    inputs = bench.listen(image_reliability="reliable")
    assert inputs.status()["image reliability"] == "reliable"
    inputs.destroy()


def test_lost_images_are_a_warning(bench: Bench) -> None:
    inputs = bench.listen()
    publisher = bench.driver.create_publisher(Image, "image", RELIABLE)
    bench.until(lambda: len(bench.images) > 3, lambda: publisher.publish(image()))
    assert not [text for text in bench.warnings if "lost" in text]
    inputs.lost += 40
    bench.until(lambda: [text for text in bench.warnings if "lost" in text])
    (warning,) = [text for text in bench.warnings if "lost" in text]
    assert warning.startswith("40 of ") and "images on /image were lost on the way" in warning
    inputs.destroy()
