"""The depth of a recorded camera: which topics hold it, and the depth image and pinhole of each of the
camera's frames."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

from groma_ros.io.bags import NANOSECONDS, RAW, RecordedCamera, is_depth, opened, read_topics
from groma_ros.io.depth_images import check_registered, image_to_depth, intrinsics_from_info
from groma_ros.io.images import ImageError
from groma_ros.io.stamp_buffer import StampBuffer
from groma_ros.types import Frame

INFO = "sensor_msgs/msg/CameraInfo"
TOLERANCE = 0.02
"""Seconds that stamps may differ, as the node's parameter sync_tolerance."""
AHEAD = NANOSECONDS
"""How much later than its image a depth image may have been recorded, ns."""


@dataclass(frozen=True)
class DepthTopics:
    """depth: images of 16UC1 or 32FC1, registered to the camera's; info: its camera_info."""

    depth: str
    info: str


def find_depth(path: Path, camera: RecordedCamera) -> DepthTopics | None:
    """The depth and camera_info that go with a camera: of several those that share most of its name; None
    where one is missing."""
    types, counts = read_topics(path)

    def nearest(topics: list[str]) -> str | None:
        shared = {topic: len(commonpath([topic, camera.topic])) for topic in sorted(topics) if counts[topic]}
        return max(shared, key=lambda topic: shared[topic]) if shared else None

    depth = nearest(
        [
            topic
            for topic, kinds in types.items()
            if kinds == {RAW} and is_depth(topic) and topic != camera.topic
        ]
    )
    info = nearest([topic for topic, kinds in types.items() if kinds == {INFO} and not is_depth(topic)])
    return DepthTopics(depth, info) if depth and info else None


class DepthReader:
    """Reads the two topics beside the camera, a little ahead of it; a context manager. None of them gives
    frames as they are."""

    def __init__(self, path: Path, topics: DepthTopics | None) -> None:
        self._path, self._topics = path, topics
        self._streams: list[_Stream] = []

    def complete(self, frame: Frame, time: int) -> Frame:
        """A frame with its depth and intrinsics. time: ns it was recorded at. Raises ImageError with a
        sentence and a cause where they did not come or do not belong to it."""
        if not self._streams:
            return frame
        depth, info = (stream.find(frame.stamp, time) for stream in self._streams)
        info = info if info is not None else self._streams[1].latest()
        if depth is None or info is None:
            absent = "camera_info" if info is None else f"depth within {TOLERANCE} s of its stamp"
            raise ImageError(
                "missing", f"The image came without {absent}, so nothing in it has a place in space."
            )
        metres, intrinsics = image_to_depth(depth), intrinsics_from_info(info)
        height, width = frame.rgb.shape[:2]
        check_registered(
            SimpleNamespace(frame_id=frame.frame_id), width, height, metres, depth.header, intrinsics
        )
        return replace(frame, depth=metres, intrinsics=intrinsics)

    def __enter__(self) -> DepthReader:
        if self._topics is not None:
            self._streams = [_Stream(self._path, topic) for topic in (self._topics.depth, self._topics.info)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.close()


class _Stream:
    """One topic, read as far as it is needed."""

    def __init__(self, path: Path, topic: str) -> None:
        self._buffer = StampBuffer()
        self._messages = _messages(path, topic)
        self._next = next(self._messages, None)

    def find(self, stamp: int, time: int) -> Any:
        """The message whose stamp is nearest to an image's, None if none is near enough."""
        while self._next is not None and self._next[0] <= time + AHEAD:
            message = self._next[1]
            self._buffer.put(message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec, message)
            self._next = next(self._messages, None)
        return self._buffer.find(stamp, TOLERANCE)

    def latest(self) -> Any:
        return self._buffer.latest()

    def close(self) -> None:
        self._messages.close()


def _messages(path: Path, topic: str) -> Generator[tuple[int, Any], None, None]:
    """(time, message) of a topic; what cannot be decoded is left out."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with opened(path) as reader:
        for link, time, data in reader.messages([link for link in reader.connections if link.topic == topic]):
            try:
                message = store.deserialize_cdr(data, link.msgtype)
            except (
                Exception
            ):  # the library raises whatever the damaged bytes lead it to; the image then has no depth
                continue
            yield time, message
