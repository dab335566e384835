"""Choose a bag's camera, depth images and camera_info: by type, frame and stamps first, then by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groma_ros.errors import printable
from groma_ros.io.bag_errors import BagError
from groma_ros.io.bags import COMPRESSED, RAW, Bag, RecordedCamera, decode_message, stamp_of
from groma_ros.io.images import ImageError, compressed_to_rgb

INFO = "sensor_msgs/msg/CameraInfo"
_DEPTH_ENCODINGS = ("16UC1", "32FC1")
_DEPTH_WORDS = ("depth", "disparity")
_REGISTERED_WORDS = ("registered", "aligned")
_CAMERA_SAMPLES, _SAMPLES = 10, 40
"""Number of messages sampled from the camera, and from other topics, whose rate may be higher."""
_SAME_STAMP = 20_000_000
"""Maximum difference of stamps that belong together, ns."""


@dataclass(frozen=True)
class DepthTopics:
    """Topics that give a camera's pixels 3D positions."""

    depth: str
    """Topic of depth images registered to the camera's."""
    info: str
    """Topic of its camera_info."""


@dataclass(frozen=True)
class _Sample:
    """Properties of a topic, from its first messages."""

    topic: str
    encoding: str
    """Encoding of a raw image; format of a compressed one; empty for a camera_info."""
    frame_id: str
    size: tuple[int, int] | None
    """Width and height; None if decoding would be needed."""
    stamps: tuple[int, ...]
    """Nanoseconds."""


def find_camera(bag: Bag, topic: str | None = None) -> RecordedCamera:
    """Return the camera to read: the requested topic, else the only one with colour images.

    The raw topic is preferred to its compressed form. Raises BagError for a requested topic that is absent,
    recorded with two types or not an image; without a request, if the bag has no camera or several.
    """
    topic = _only_camera(bag) if topic is None else topic
    kind = bag.check_topic(topic, (RAW, COMPRESSED), "a camera")
    return RecordedCamera(topic, kind, bag.count(topic))


def find_depth(
    bag: Bag, camera: RecordedCamera, depth: str | None = None, info: str | None = None
) -> tuple[DepthTopics | None, str]:
    """Return the topics of a camera's depth images and camera_info, and the reason if there are none ("" if
    there are).

    depth, info: requested topics. Of several depth topics the one in the camera's frame is chosen, then by
    size, by stamps, by "registered" or "aligned" in the name, and by closeness of the name; camera_info
    likewise. Raises BagError for a requested topic that is absent or has another type.
    """
    shown = _sample(bag, camera.topic, camera.type, measure=True)
    if depth is None:
        images = (*_images(bag, RAW), *_images(bag, COMPRESSED))
        depth = _nearest(shown, camera.topic, [item for item in images if _is_depth(item)])
    if info is None:
        infos = (_sample(bag, topic, INFO) for topic in _with_type(bag, INFO))
        info = _nearest(shown, camera.topic, [item for item in infos if item is not None])
    if depth is not None:
        bag.check_topic(depth, (RAW, COMPRESSED), "depth")
    if info is not None:
        bag.check_topic(info, (INFO,), "a camera_info")
    if depth is not None and info is not None:
        return DepthTopics(depth, info), ""
    absent = []
    if depth is None:
        absent.append(f"no image topic of depth ({', '.join(_DEPTH_ENCODINGS)} or compressedDepth)")
    if info is None:
        absent.append(f"no topic of type {INFO}")
    return None, f"No 3D positions are available: the bag has {' and '.join(absent)}."


def find_cameras(bag: Bag) -> list[str]:
    """Topics with colour images, sorted by name; of a raw topic and its compressed form, the raw one."""
    samples = [item for item in (*_images(bag, RAW), *_images(bag, COMPRESSED)) if not _is_depth(item)]
    cameras = sorted(item.topic for item in samples)
    if len(cameras) > 1:
        cameras = [topic for topic in cameras if not _named_depth(topic)] or cameras
    forms = {f"{topic}/compressed" for topic in cameras}
    return [topic for topic in cameras if topic not in forms]


def _only_camera(bag: Bag) -> str:
    cameras = find_cameras(bag)
    if not cameras:
        raise _no_camera(bag)
    if len(cameras) > 1:
        raise BagError(
            f"The bag {bag.path} holds several cameras; name one of {', '.join(map(printable, cameras))} "
            "with --topic."
        )
    return cameras[0]


def _no_camera(bag: Bag) -> BagError:
    """Return the error for a bag without cameras. Raises BagError for an image topic that cannot be used,
    e.g. an empty one."""
    images = sorted(topic for topic, kinds in bag.types.items() if kinds & {RAW, COMPRESSED})
    for topic in images:
        bag.check_topic(topic, (RAW, COMPRESSED), "a camera")
    if not images:
        return BagError(
            f"The bag {bag.path} holds no camera, that is no topic of type {RAW} or {COMPRESSED}; it has "
            f"{bag.listed()}."
        )
    named = ", ".join(map(printable, images))
    are = "image topics are" if len(images) > 1 else "image topic is"
    return BagError(
        f"The bag {bag.path} holds no camera: its {are} taken for depth ({named}); if one is a camera, "
        "name it with --topic."
    )


def _with_type(bag: Bag, kind: str) -> list[str]:
    """Topics with messages of one type, serialized by ROS 2."""
    return sorted(
        topic
        for topic, kinds in bag.types.items()
        if kinds == {kind} and bag.is_ros(topic) and bag.count(topic)
    )


def _images(bag: Bag, kind: str) -> list[_Sample]:
    samples = ((topic, _sample(bag, topic, kind)) for topic in _with_type(bag, kind))
    # If its first messages are all damaged, a topic is judged by its name.
    return [item or _Sample(topic, "", "", None, ()) for topic, item in samples]


def _is_depth(item: _Sample) -> bool:
    if item.encoding in _DEPTH_ENCODINGS or "compressedDepth" in item.encoding:
        return True
    return item.encoding in ("", "mono16") and _named_depth(item.topic)


def _named_depth(topic: str) -> bool:
    return any(word in topic.lower() for word in _DEPTH_WORDS)


def _nearest(camera: _Sample | None, name: str, others: Sequence[_Sample]) -> str | None:
    """Return the topic that belongs to a camera; None if there are none. name: of the camera's topic."""

    def rank(item: _Sample) -> tuple[bool, bool, float, bool, int]:
        return (
            camera is not None and _same_frame(camera.frame_id, item.frame_id),
            camera is not None and camera.size == item.size,
            _common_stamps(camera.stamps, item.stamps) if camera is not None else 0.0,
            any(word in item.topic.lower() for word in _REGISTERED_WORDS),
            _shared_parts(name, item.topic),
        )

    # Equal ranks stay in the order of the names.
    ordered = sorted((item for item in others if item.topic != name), key=lambda item: item.topic)
    return max(ordered, key=rank).topic if ordered else None


def _same_frame(one: str, other: str) -> bool:
    return one.removeprefix("/") == other.removeprefix("/")


def _common_stamps(wanted: Sequence[int], found: Sequence[int]) -> float:
    """Share of the wanted stamps that are found."""
    near = [stamp for stamp in wanted if any(abs(stamp - other) <= _SAME_STAMP for other in found)]
    return len(near) / len(wanted) if wanted else 0.0


def _shared_parts(one: str, other: str) -> int:
    """Number of leading parts that two names have in common, with or without a leading slash."""
    count = 0
    for left, right in zip(one.strip("/").split("/"), other.strip("/").split("/")):
        if left != right:
            break
        count += 1
    return count


def _sample(bag: Bag, topic: str, kind: str, measure: bool = False) -> _Sample | None:
    """Sample the first messages of a topic; None if none can be decoded. measure: for the camera: decode a
    compressed image for its size."""
    first: Any = None
    stamps = []
    for message in bag.first_messages(topic, _CAMERA_SAMPLES if measure else _SAMPLES):
        try:
            decoded = decode_message(message.data, kind)
            stamps.append(stamp_of(decoded.header))
        except ValueError:  # the message or its stamp is invalid
            continue
        first = first or decoded
    if first is None:
        return None
    size = None
    if kind != COMPRESSED:
        size = int(first.width), int(first.height)
    elif measure:
        try:
            height, width = compressed_to_rgb(first.data, first.format).shape[:2]
            size = width, height
        except ImageError:
            size = None
    encoding = {RAW: "encoding", COMPRESSED: "format"}.get(kind, "")
    return _Sample(
        topic, getattr(first, encoding) if encoding else "", first.header.frame_id, size, tuple(stamps)
    )
