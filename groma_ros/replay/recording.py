"""Write answers to an MCAP file with the node's topics, readable by rosbag2 and Foxglove."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
from mcap.writer import CompressionType, Writer
from numpy.typing import NDArray

from groma_ros.geometry3d.approach_pose import JawAxes, target_pose, turn_covariance
from groma_ros.io.message_definitions import typestore
from groma_ros.replay.records import BoxRecord, FrameRecord, GoalRecord, PlaceRecord
from groma_ros.types import Box3D, FloatArray, Frame, Intrinsics

NODE = "/groma"
TOPICS = {"detections": "vision_msgs/msg/Detection2DArray", "groundings": "groma_ros/msg/GroundingArray"}
"""Topics with one message per image."""
LATCHED = {"label_info": "vision_msgs/msg/LabelInfo", "vision_info": "vision_msgs/msg/VisionInfo"}
"""Latched topics, written once."""
PLACED = {"detections_3d": "vision_msgs/msg/Detection3DArray", "target_pose": "geometry_msgs/msg/PoseStamped"}
"""Topics with one message per image with depth; the target only if the first goal has a 3D box."""
IMAGE, CAMERA_INFO = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
GOALS_VERSION = 0
NO_COVARIANCE = np.zeros((6, 6))
_NANOSECONDS = 1_000_000_000
DEPTH_FORMAT = "16UC1; compressedDepth png"
_DEPTH_HEADER = struct.pack("<iff", 0, 0.0, 0.0)
"""Header of compressedDepth before the PNG; its numbers only matter for floating point."""
# QoS profile in rosbag2's format.
_QOS = """- history: keep_last
  depth: {depth}
  reliability: reliable
  durability: {durability}
  deadline: {{sec: 9223372036, nsec: 854775807}}
  lifespan: {{sec: 9223372036, nsec: 854775807}}
  liveliness: automatic
  liveliness_lease_duration: {{sec: 9223372036, nsec: 854775807}}
  avoid_ros_namespace_conventions: false
"""


@dataclass(frozen=True)
class CameraTopics:
    """Topics to which the inputs of a recording are written."""

    image: str
    """JPEG images."""
    depth: str
    """Millimetres as PNG (compressedDepth)."""
    camera_info: str


class RecordingWriter:
    """Writes answers frame by frame and, if topics are given for it, their inputs.

    The same calls produce the same bytes with the same version of the mcap library, whose name is stored in
    the file.
    """

    def __init__(
        self, stream: BinaryIO, with_depth: bool = False, camera: CameraTopics | None = None
    ) -> None:
        """with_depth: also write 3D boxes; camera: topics of images, depth and camera_info, None for none."""
        self._store, self._with_depth = typestore(), with_depth
        self._writer = Writer(stream, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2")
        topics = {**LATCHED, **TOPICS, **(PLACED if with_depth else {})}
        self._kinds = {f"{NODE}/{name}": kind for name, kind in topics.items()}
        self._camera = camera
        if camera is not None:
            self._kinds |= {camera.image: IMAGE, camera.depth: IMAGE, camera.camera_info: CAMERA_INFO}
        self._axes = JawAxes()
        self._channels = {}
        for topic, kind in self._kinds.items():
            definition, _ = self._store.generate_msgdef(kind, ros_version=2)
            schema = self._writer.register_schema(kind, "ros2msg", definition.encode())
            qos = (
                _QOS.format(depth=1, durability="transient_local")
                if kind in LATCHED.values()
                else _QOS.format(depth=10, durability="volatile")
            )
            self._channels[topic] = self._writer.register_channel(
                topic, "cdr", schema, {"offered_qos_profiles": qos}
            )

    def set_goals(self, time: int, goals: Sequence[str], model: str) -> None:
        """Write which goals (texts, in order) the model of this name is asked from a time (ns) on."""
        self._add(time, _labels(time, goals, model))

    def add(self, record: FrameRecord) -> None:
        """Write what the node would have published on a frame, at the recording time of its image; nothing
        for a refused one."""
        if record.refused:
            return
        self._add(record.time, _messages(record))
        if self._with_depth:
            self._add(record.time, _placed(record, self._axes))

    def add_frame(self, time: int, frame: Frame, jpeg: bytes) -> None:
        """Write what a camera would have published at a time (ns). frame: with depth and intrinsics if known;
        jpeg: its image. Requires `camera` topics."""
        assert self._camera is not None
        make = self._store.types
        header = make["std_msgs/msg/Header"](stamp=_time(frame.stamp), frame_id=frame.frame_id)

        def compressed(format: str, data: bytes) -> Any:
            return make[IMAGE](header=header, format=format, data=np.frombuffer(data, np.uint8))

        self._write(self._camera.image, time, compressed("jpeg", jpeg))
        if frame.depth is not None:
            self._write(self._camera.depth, time, compressed(DEPTH_FORMAT, _millimetres(frame.depth)))
        if frame.intrinsics is not None:
            self._write(self._camera.camera_info, time, _camera_info(header, frame.intrinsics))

    def finish(self) -> None:
        """Write the end of the file."""
        self._writer.finish()

    def _add(self, time: int, messages: Mapping[str, Any]) -> None:
        for name, message in messages.items():
            self._write(f"{NODE}/{name}", time, message)

    def _write(self, topic: str, time: int, message: Any) -> None:
        data = bytes(self._store.serialize_cdr(message, self._kinds[topic]))
        self._writer.add_message(self._channels[topic], time, data, time)


def write_recording(
    stream: BinaryIO,
    records: Iterable[FrameRecord],
    goals: Sequence[str],
    model: str,
    with_depth: bool = False,
) -> None:
    """Write the messages the node would have published for each frame, at its recording time; none for
    refused images.

    The latched messages with goals (texts, in order) and model come first. Equal records produce equal bytes
    with the same version of the mcap library, whose name is stored in the file.
    """
    writer = RecordingWriter(stream, with_depth)
    latched = False
    for record in records:
        if not latched:
            writer.set_goals(record.time, goals, model)
            latched = True
        writer.add(record)
    writer.finish()


def _messages(record: FrameRecord) -> Mapping[str, Any]:
    make = typestore().types
    header = make["std_msgs/msg/Header"](stamp=_time(record.stamp), frame_id=record.frame_id)
    answered = _time(record.stamp if record.answered is None else record.answered)
    found = {
        goal.goal: [_detection(header, goal.goal, box) for box in goal.detections] for goal in record.goals
    }
    answers = [
        _grounding(goal, found[goal.goal], [_detection(header, goal.goal, box) for box in goal.alternatives])
        for goal in record.goals
    ]
    return {
        "detections": make[TOPICS["detections"]](
            header=header, detections=[box for boxes in found.values() for box in boxes]
        ),
        "groundings": make[TOPICS["groundings"]](
            header=header, goals_version=GOALS_VERSION, answered=answered, groundings=answers
        ),
    }


def _placed(record: FrameRecord, axes: JawAxes) -> Mapping[str, Any]:
    """3D boxes in the order of goals, best first, and the approach pose of the first."""
    make = typestore().types
    header = make["std_msgs/msg/Header"](stamp=_time(record.stamp), frame_id=record.frame_id)
    placed = [
        _detection_3d(header, goal.goal, box, box.place)
        for goal in record.goals
        for box in goal.detections
        if box.place is not None
    ]
    messages = {"detections_3d": make[PLACED["detections_3d"]](header=header, detections=placed)}
    first = next((box for goal in record.goals[:1] for box in goal.detections if box.place is not None), None)
    if first is not None and (place := first.place) is not None:
        key = (record.frame_id, first.id)
        target = target_pose(_box(place), former=axes.get(key) if first.id else None)
        if first.id:
            axes.keep(key, target)
        messages["target_pose"] = make[PLACED["target_pose"]](
            header=header, pose=_pose(target.position, target.quaternion)
        )
    return messages


def _detection_3d(header: Any, text: str, record: BoxRecord, place: PlaceRecord) -> Any:
    make = typestore().types
    x, y, z = place.size
    pose = _pose(place.centre, place.quaternion)
    size = make["geometry_msgs/msg/Vector3"](x=x, y=y, z=z)
    bounds = make["vision_msgs/msg/BoundingBox3D"](center=pose, size=size)
    return make["vision_msgs/msg/Detection3D"](
        header=header,
        results=[_result(text, record.score, pose, turn_covariance(_box(place)))],
        bbox=bounds,
        id=record.id,
    )


def _pose(position: tuple[float, float, float], quaternion: tuple[float, float, float, float]) -> Any:
    make = typestore().types
    (x, y, z), (a, b, c, w) = position, quaternion
    turn = make["geometry_msgs/msg/Quaternion"](x=a, y=b, z=c, w=w)
    return make["geometry_msgs/msg/Pose"](
        position=make["geometry_msgs/msg/Point"](x=x, y=y, z=z), orientation=turn
    )


def _labels(time: int, goals: Sequence[str], model: str) -> Mapping[str, Any]:
    make = typestore().types
    header = make["std_msgs/msg/Header"](stamp=_time(time), frame_id=f"goals {GOALS_VERSION}")
    classes = [
        make["vision_msgs/msg/VisionClass"](class_id=place, class_name=text)
        for place, text in enumerate(goals)
    ]
    return {
        "label_info": make[LATCHED["label_info"]](header=header, class_map=classes, threshold=0.0),
        "vision_info": make[LATCHED["vision_info"]](
            header=header,
            method=f"Groma, {model}",
            database_location=f"{NODE}/label_info",
            database_version=GOALS_VERSION,
        ),
    }


def _millimetres(depth: FloatArray) -> bytes:
    """Encode depth in metres as compressedDepth of whole millimetres, 0 for no measurement or beyond 65 m."""
    millimetres = np.nan_to_num(1000 * depth, posinf=0, neginf=0)
    samples = np.where(millimetres < 2**16 - 1, np.rint(millimetres), 0).astype(np.uint16)
    # Level 1: three times as fast as the usual 6, and ten per cent larger.
    done, data = cv2.imencode(".png", samples, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise OSError("A depth image could not be encoded as PNG.")
    return _DEPTH_HEADER + bytes(data.tobytes())


def _camera_info(header: Any, camera: Intrinsics) -> Any:
    make = typestore().types
    k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1])
    roi = make["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return make[CAMERA_INFO](
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=np.insert(k, [3, 6, 9], 0.0),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def _time(nanoseconds: int) -> Any:
    return typestore().types["builtin_interfaces/msg/Time"](*divmod(nanoseconds, _NANOSECONDS))


def _grounding(goal: GoalRecord, detections: list[Any], alternatives: list[Any]) -> Any:
    make: Any = typestore().types["groma_ros/msg/Grounding"]
    return make(
        goal=goal.goal,
        kind=goal.kind,
        status=getattr(make, goal.verdict.upper()),
        present=goal.present,
        margin=goal.margin,
        detections=detections,
        alternatives=alternatives,
    )


def _detection(header: Any, text: str, record: BoxRecord) -> Any:
    make = typestore().types
    x1, y1, x2, y2 = record.box
    point = make["vision_msgs/msg/Point2D"](x=(x1 + x2) / 2, y=(y1 + y2) / 2)
    pose = make["vision_msgs/msg/Pose2D"](position=point, theta=0.0)
    box = make["vision_msgs/msg/BoundingBox2D"](center=pose, size_x=x2 - x1, size_y=y2 - y1)
    nowhere = _pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    return make["vision_msgs/msg/Detection2D"](
        header=header, results=[_result(text, record.score, nowhere)], bbox=box, id=record.id
    )


def _box(place: PlaceRecord) -> Box3D:
    return Box3D(place.centre, place.quaternion, place.size)


def _result(text: str, score: float, pose: Any, covariance: NDArray[Any] = NO_COVARIANCE) -> Any:
    make = typestore().types
    hypothesis = make["vision_msgs/msg/ObjectHypothesis"](class_id=text, score=score)
    with_covariance = make["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=covariance.ravel())
    return make["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis=hypothesis, pose=with_covariance)
