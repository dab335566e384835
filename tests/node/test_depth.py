"""3D over DDS: depth and camera_info in; 3D boxes, a pose and markers out, compared with the truth and the
same geometry here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from groma_ros.boxes import box_iou
from groma_ros.client.demo.processes import Child
from groma_ros.evaluation.depth import camera_frame
from groma_ros.geometry3d.approach_pose import target_pose
from groma_ros.geometry3d.box3d import place
from groma_ros.node.conversions import box_corners
from groma_ros.node.pipeline import NEWER, RATE, STOPPED
from groma_ros.simulation.scenes import SceneObject, SceneRenderer, SceneSample
from groma_ros.types import Frame
from tests.node.robot import Robot, start_node
from tests.node.services.test_ground import TINY, Caller

FRAME_ID = "camera_optical_frame"


@pytest.fixture(scope="module")
def scene() -> SceneSample:
    with SceneRenderer(640, 480) as renderer:
        return renderer.render(7_700_003)


@pytest.fixture(scope="module")
def frame(scene: SceneSample) -> Frame:
    """The scene as the node gets it: depth in whole millimetres."""
    return camera_frame(scene, (np.rint(scene.depth * 1000) / np.float32(1000)).astype(np.float32))


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    log = tmp_path_factory.mktemp("depth") / "log.txt"
    parameters = {
        "model": TINY,
        "backend": "onnx",
        "threads": 1,
        "answer_wait": 30.0,  # no output without boxes, however busy the machine is
        "depth_wait": 2.0,
        "target_standoff": 0.1,
    }
    with ExitStack() as stack:
        yield start_node(stack, domain, log, parameters)


class Camera:
    """A depth camera, and a subscriber of the 3D outputs."""

    def __init__(self, robot: Robot, frame: Frame) -> None:
        self.robot, self.frame = robot, frame
        node = robot.node
        self.depths = node.create_publisher(Image, "depth", qos_profile_sensor_data)
        self.infos = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self.boxes: list[Detection3DArray] = []
        self.poses: list[PoseStamped] = []
        self.markers: list[MarkerArray] = []
        topics = {
            "detections_3d": (Detection3DArray, self.boxes),
            "target_pose": (PoseStamped, self.poses),
            "debug/markers": (MarkerArray, self.markers),
        }
        self.subscriptions = [
            node.create_subscription(kind, f"groma/{name}", kept.append, 10)
            for name, (kind, kept) in topics.items()
        ]
        ends = [node.count_publishers, node.count_subscribers]
        robot.until(
            lambda: all(count(f"/groma/{name}") for name in topics for count in ends), "the 3D topics"
        )
        robot.until(
            lambda: self.depths.get_subscription_count() and self.infos.get_subscription_count(),
            "the node's depth inputs",
        )
        robot.spin(0.5)

    def info(self, header: Header, **changes: Any) -> CameraInfo:
        k = self.frame.intrinsics
        assert k is not None
        message = CameraInfo(
            header=header, width=k.width, height=k.height, distortion_model="plumb_bob", d=[0.0] * 5
        )
        message.k = [k.fx, 0.0, k.cx, 0.0, k.fy, k.cy, 0.0, 0.0, 1.0]
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def depth(
        self,
        header: Header,
        metres: NDArray[Any] | None = None,
        encoding: str = "16UC1",
        bigendian: bool = False,
    ) -> Image:
        """A depth image with every row padded by six bytes."""
        metres = self.frame.depth if metres is None else metres
        assert metres is not None
        values = (
            np.rint(metres * 1000).astype(">u2" if bigendian else "<u2")
            if encoding == "16UC1"
            else metres.astype("<f4")
        )
        height, width = values.shape
        rows = np.pad(values.view(np.uint8).reshape(height, -1), ((0, 0), (0, 6)), constant_values=0xAB)
        message = Image(
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=int(bigendian),
            step=rows.shape[1],
        )
        message.data = rows.tobytes()
        return message

    def send(
        self, depth: Image | None = None, info: CameraInfo | None = None, header: Header | None = None
    ) -> Image:
        """Publish depth, camera_info and then the image; returns the image."""
        image = self.robot.image(self.frame.rgb, FRAME_ID)
        image.header = header or image.header
        for publisher, message in ((self.infos, info), (self.depths, depth)):
            if message is not None:
                publisher.publish(message)
        self.robot.images.publish(image)
        return image

    def see(self, **form: Any) -> tuple[Header, Detection3DArray]:
        """A whole frame, sent until its boxes come; depth in a form as in `depth`."""
        for _ in range(6):
            header = self.robot.header(FRAME_ID)
            self.send(self.depth(header, **form), self.info(header), header)
            try:
                self.robot.until(lambda: self.at(self.boxes, header), "boxes in space", 15)  # noqa: B023
                return header, self.at(self.boxes, header)[0]
            except AssertionError:
                continue
        raise AssertionError(f"no boxes in space came; diagnostics: {self.robot.diagnostics}")

    @staticmethod
    def at(messages: list[Any], header: Header) -> list[Any]:
        return [message for message in messages if message.header == header]


@pytest.fixture
def camera(robot: Robot, node: Child, frame: Frame) -> Camera:
    robot.meet(node)
    return Camera(robot, frame)


def named(scene: SceneSample) -> list[SceneObject]:
    """Objects that are the only ones of their colour and kind."""
    names = [(item.colour, item.kind) for item in scene.objects]
    return [item for item in scene.objects if names.count((item.colour, item.kind)) == 1]


def numbers(message: Any) -> tuple[float, ...]:
    return tuple(getattr(message, name) for name in ("x", "y", "z", "w") if hasattr(message, name))


def test_depth_alone_gives_no_place_before_any_camera_info_came(
    camera: Camera, node: Child, scene: SceneSample
) -> None:
    """The first test of this module: the newest camera_info counts from then on."""
    item, robot = named(scene)[0], camera.robot
    robot.send_goals(f"the {item.colour} {item.kind}")
    before, header = robot.count("refused depth: missing"), robot.header(FRAME_ID)
    robot.repeat(
        lambda: camera.send(camera.depth(header), None, header),
        lambda: camera.at(robot.detections, header),
        "boxes",
    )
    robot.until(lambda: robot.count("refused depth: missing") > before, "the count")
    assert (
        camera.at(robot.detections, header)[0].detections
        and not camera.at(camera.boxes, header)
        and not camera.at(camera.poses, header)
    )
    assert "An image came without camera_info, so no 3D positions are available." in node.output()
    assert camera.see()[1].detections


def test_words_become_boxes_in_space_and_a_pose(camera: Camera, scene: SceneSample, frame: Frame) -> None:
    things = named(scene)
    assert len(things) >= 3
    camera.robot.send_goals("\n".join(f"the {item.colour} {item.kind}" for item in things))
    header, message = camera.see()
    flat = next(item for item in camera.robot.detections if item.header == header)
    assert message.header == header and len(message.detections) == len(flat.detections) >= 3
    right = 0
    for solid, box in zip(message.detections, flat.detections, strict=True):
        assert (
            solid.header == header
            and solid.id == box.id
            and solid.results[0].hypothesis == box.results[0].hypothesis
        )
        expected = place(frame, box_corners(box.bbox)).box
        assert numbers(solid.bbox.center.position) == pytest.approx(expected.centre, abs=1e-3)
        assert numbers(solid.bbox.size) == pytest.approx(expected.size, abs=2e-3)
        assert abs(np.dot(numbers(solid.bbox.center.orientation), expected.quaternion)) > 0.999
        truth = next(
            item
            for item in things
            if f"the {item.colour} {item.kind}" == solid.results[0].hypothesis.class_id
        )
        if (
            box_iou(np.array([box_corners(box.bbox)], np.float32), np.array([truth.box], np.float32))[0, 0]
            > 0.5
        ):
            assert truth.box_3d is not None
            assert (
                np.linalg.norm(np.subtract(numbers(solid.bbox.center.position), truth.box_3d.centre)) < 0.02
            )
            assert numbers(solid.bbox.size) == pytest.approx(truth.box_3d.size, rel=0.15)
            right += 1
    assert right >= 2

    def markers() -> list[Any]:
        return [item.markers for item in camera.markers if item.markers[0].header == header]

    camera.robot.until(lambda: camera.at(camera.poses, header) and markers(), "the target and markers")
    first = next(
        box
        for box in flat.detections
        if box.results[0].hypothesis.class_id == f"the {things[0].colour} {things[0].kind}"
    )
    pose = target_pose(place(frame, box_corners(first.bbox)).box, "above", 0.1)
    target = camera.at(camera.poses, header)[0]
    assert numbers(target.pose.position) == pytest.approx(pose.position, abs=1e-3)
    assert abs(np.dot(numbers(target.pose.orientation), pose.quaternion)) > 0.999
    shown = markers()[0]
    assert shown[0].action == Marker.DELETEALL
    assert (
        sum(item.ns == "boxes" for item in shown) == len(message.detections)
        and sum(item.ns == "target" for item in shown) == 2
    )


@pytest.mark.parametrize("form", [{"encoding": "32FC1"}, {"bigendian": True}], ids=["metres", "big-endian"])
def test_every_form_of_depth_gives_the_same(camera: Camera, scene: SceneSample, form: dict[str, Any]) -> None:
    item = named(scene)[0]
    camera.robot.send_goals(f"the {item.colour} {item.kind}")
    plain, other = camera.see()[1].detections, camera.see(**form)[1].detections
    assert len(plain) == len(other) == 1
    assert numbers(other[0].bbox.center.position) == pytest.approx(
        numbers(plain[0].bbox.center.position), abs=1e-4
    )
    assert numbers(other[0].bbox.size) == pytest.approx(numbers(plain[0].bbox.size), abs=1e-3)


def test_every_key_of_diagnostics_is_in_the_documentation(camera: Camera, node: Child) -> None:
    """This node is one that has all of them: a model that knows what is usual, goals, and depth."""
    camera.robot.send_goals("the red mug")
    camera.see()
    rows = documented_keys()
    rows.pop("refused KIND: CAUSE")  # of messages that were refused and images that were dropped, if any
    causes = backticked(rows.pop("dropped CAUSE"))
    assert causes == {NEWER, RATE, STOPPED}
    seen: set[str] = set()

    def complete() -> bool:
        seen.update(camera.robot.diagnostics)
        return {general(key) for key in seen} >= set(rows)

    camera.robot.until(complete, f"the keys {sorted(rows)}")
    optional = {"dropped CAUSE", "refused KIND: CAUSE"}
    assert {general(key) for key in seen} - optional == set(rows)
    stages = {key.removeprefix("median ms ") for key in seen if key.startswith("median ms ")}
    assert stages == backticked(rows["median ms STAGE"])


def documented_keys() -> dict[str, str]:
    """The keys of /diagnostics in docs/node.md, each with what is said of it."""
    text = (TINY.parents[1] / "docs" / "node.md").read_text()
    table = text.partition("## /diagnostics")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {key: meaning for keys, meaning in rows for key in backticked(keys)}


def backticked(text: str) -> set[str]:
    return set(re.findall("`([^`]+)`", text))


def general(key: str) -> str:
    """The key of the table that a key of /diagnostics stands under."""
    for pattern, name in (
        ("median ms .+", "median ms STAGE"),
        ("dropped .+", "dropped CAUSE"),
        (r"refused \w+: .+", "refused KIND: CAUSE"),
    ):
        if re.fullmatch(pattern, key):
            return name
    return key


def test_what_does_not_belong_to_the_image_is_refused_counted_and_said_nothing_of(
    camera: Camera, scene: SceneSample
) -> None:
    item, robot = named(scene)[0], camera.robot
    robot.send_goals(f"the {item.colour} {item.kind}")
    camera.see()
    assert camera.frame.depth is not None
    half = camera.frame.depth[::2, ::2].copy()
    nothing = np.zeros_like(camera.frame.depth)

    def wrong(cause: str, header: Header) -> tuple[Image | None, CameraInfo]:
        elsewhere = Header(stamp=header.stamp, frame_id="infra")
        cut = camera.depth(header)
        cut.data = cut.data[:-7]
        return {
            "depth size": (camera.depth(header, half), camera.info(header)),
            "depth not registered": (camera.depth(elsewhere), camera.info(header)),
            "camera_info size": (camera.depth(header), camera.info(header, width=1280)),
            "uncalibrated": (camera.depth(header), camera.info(header, k=[0.0] * 9)),
            "length": (cut, camera.info(header)),
            "holes": (camera.depth(header, nothing), camera.info(header)),
        }[cause]

    for cause in (
        "depth size",
        "depth not registered",
        "camera_info size",
        "uncalibrated",
        "length",
        "holes",
    ):
        before, header = robot.count(f"refused depth: {cause}"), robot.header(FRAME_ID)
        send = partial(camera.send, *wrong(cause, header), header)
        robot.repeat(send, lambda: robot.count(f"refused depth: {cause}") > before, f"the refusal ({cause})")  # noqa: B023
        assert [box for message in camera.at(camera.boxes, header) for box in message.detections] == []
        assert camera.at(camera.poses, header) == []
    assert len(camera.see()[1].detections) == 1


def test_an_image_of_another_size_than_its_camera_info_is_answered_in_2d_and_counted(
    camera: Camera, scene: SceneSample
) -> None:
    item, robot = named(scene)[0], camera.robot
    robot.send_goals(f"the {item.colour} {item.kind}")
    whole = robot.ask(robot.image(camera.frame.rgb, FRAME_ID))[0].detections
    assert camera.frame.depth is not None and len(whole) == 1
    small, depth = robot.image(camera.frame.rgb[::2, ::2], FRAME_ID), camera.frame.depth[::2, ::2].copy()
    before = robot.count("refused depth: camera_info size")

    def send() -> None:
        camera.infos.publish(camera.info(small.header))
        camera.depths.publish(camera.depth(small.header, depth))
        robot.images.publish(small)

    robot.repeat(send, lambda: camera.at(robot.detections, small.header), "boxes in the small image")
    robot.until(lambda: robot.count("refused depth: camera_info size") > before, "the refusal")
    assert not camera.at(camera.boxes, small.header) and not camera.at(camera.poses, small.header)
    (half,) = camera.at(robot.detections, small.header)[0].detections
    found, wanted = (
        np.array([box_corners(half.bbox)], np.float32),
        np.array([box_corners(whole[0].bbox)], np.float32) / np.float32(2),
    )
    assert box_iou(found, wanted)[0, 0] > 0.7


def test_an_image_without_depth_is_answered_in_2d_and_counted(camera: Camera, scene: SceneSample) -> None:
    item, robot = named(scene)[0], camera.robot
    robot.send_goals(f"the {item.colour} {item.kind}")
    before = robot.count("refused depth: missing")
    header = robot.header(FRAME_ID)
    robot.repeat(
        lambda: camera.send(header=header),
        lambda: camera.at(robot.detections, header),
        "the boxes in the image",
    )
    robot.until(lambda: robot.count("refused depth: missing") > before, "the count")
    assert camera.at(camera.boxes, header) == []


def test_the_action_ends_with_boxes_in_space_and_a_pose(
    camera: Camera, scene: SceneSample, frame: Frame
) -> None:
    item, caller = named(scene)[0], Caller(camera.robot)
    future = caller.send(f"the {item.colour} {item.kind}", 60.0).get_result_async()

    def done() -> bool:
        if not future.done():
            header = camera.robot.header(FRAME_ID)
            camera.send(camera.depth(header), camera.info(header), header)
            camera.robot.spin(0.3)
        return bool(future.done())

    camera.robot.until(done, "the result")
    status, result = future.result().status, future.result().result
    assert status == GoalStatus.STATUS_SUCCEEDED, result.message
    (solid,), (box,) = result.detections_3d, result.grounding.detections
    expected = place(frame, box_corners(box.bbox)).box
    assert numbers(solid.bbox.center.position) == pytest.approx(expected.centre, abs=1e-3)
    assert result.target_pose.header == result.header
    assert numbers(result.target_pose.pose.position) == pytest.approx(
        target_pose(expected, "above", 0.1).position, abs=1e-3
    )
    caller.client.destroy()
