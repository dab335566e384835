"""Depth image and camera intrinsics of each recorded frame, paired as in the node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from groma_ros.io.bag_topics import INFO, DepthTopics
from groma_ros.io.bags import COMPRESSED, NANOSECONDS, RAW, Bag, decode_message, stamp_of
from groma_ros.io.depth_images import (
    check_registered,
    compressed_to_depth,
    image_to_depth,
    intrinsics_from_info,
)
from groma_ros.io.images import ImageError
from groma_ros.io.rectification import rectification
from groma_ros.io.stamp_buffer import StampBuffer
from groma_ros.types import Frame

TOLERANCE = 0.02
"""Maximum difference of stamps in seconds, as the node's parameter sync_tolerance."""
AHEAD = NANOSECONDS
"""Maximum time in ns by which a depth image may be recorded later than its image."""


class DepthReader:
    """Reads the depth and camera_info topics in parallel with the camera."""

    def __init__(self, bag: Bag, topics: DepthTopics, camera: str = "", rectified: str = "auto") -> None:
        """camera: topic of the images; rectified: whether they are rectified, see `rectification`."""
        self._compressed = COMPRESSED in bag.types[topics.depth]
        self._depth = _Stream(bag, topics.depth, COMPRESSED if self._compressed else RAW)
        self._info = _Stream(bag, topics.info, INFO)
        self._camera, self._rectified = camera, rectified
        self.guess = ""
        """Sentence for the log if K was used without evidence that the images are not rectified."""

    def complete(self, frame: Frame, time: int) -> Frame:
        """Add depth and intrinsics to a frame. time: ns at which it was recorded.

        Raises ImageError with a cause if they are missing or do not match the frame; BagError if the bag
        is damaged.
        """
        depth, info = self._depth.find(frame.stamp, time), self._info.find(frame.stamp, time)
        info = info if info is not None else self._info.latest()
        if depth is None or info is None:
            absent = "camera_info" if info is None else f"depth within {TOLERANCE} s of its stamp"
            raise ImageError("missing", f"The image came without {absent}, so no 3D positions are available.")
        metres = compressed_to_depth(depth.data, depth.format) if self._compressed else image_to_depth(depth)
        choice = rectification(self._rectified, self._camera, info)
        self.guess = self.guess or choice.guess
        intrinsics = intrinsics_from_info(info, choice.rectified)
        height, width = frame.rgb.shape[:2]
        check_registered(
            SimpleNamespace(frame_id=frame.frame_id), width, height, metres, depth.header, intrinsics
        )
        return replace(frame, depth=metres, intrinsics=intrinsics)

    def finish(self) -> None:
        """Read both topics to the end, so that missing messages are reported."""
        self._depth.finish()
        self._info.finish()


class _Message(NamedTuple):
    time: int
    """Nanoseconds at which it was recorded."""
    stamp: int
    """Nanoseconds of its header."""
    size: int
    """Bytes."""
    message: Any


class _Stream:
    """One topic, read only as far as needed."""

    def __init__(self, bag: Bag, topic: str, kind: str) -> None:
        self._buffer = StampBuffer()
        self._messages = _messages(bag, topic, kind)
        self._next = next(self._messages, None)

    def find(self, stamp: int, time: int) -> Any:
        """The message with the stamp nearest to an image's; None if none is near enough.

        stamp: of the image; time: ns at which it was recorded.
        """
        self._buffer.reserve(stamp)
        while self._next is not None and self._next.time <= time + AHEAD:
            self._buffer.put(self._next.stamp, self._next.message, self._next.size)
            self._next = next(self._messages, None)
        return self._buffer.find(stamp, TOLERANCE)

    def latest(self) -> Any:
        return self._buffer.latest()

    def finish(self) -> None:
        for _ in self._messages:
            pass


def _messages(bag: Bag, topic: str, kind: str) -> Iterator[_Message]:
    """Yield the messages of a topic. Those that cannot be decoded are skipped, so that their image has no
    depth."""
    for _, time, data in bag.messages(topic):
        try:
            message = decode_message(data, kind)
            decoded = _Message(time, stamp_of(message.header), len(data), message)
        except ValueError:
            continue
        yield decoded
