"""The camera of a recorded bag: rosbag2 folders and lone .mcap or .db3 files, read without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.io.images import ImageError, compressed_to_rgb, image_to_rgb
from groma_ros.types import Frame

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
NANOSECONDS = 1_000_000_000
_DEPTH_NAMES = ("depth", "disparity")


@dataclass(frozen=True)
class RecordedCamera:
    """An image topic of a bag. type: RAW or COMPRESSED; count: its messages."""

    topic: str
    type: str
    count: int


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """One message of a camera. number: its place on the topic, from 0; time: ns it was recorded at; data: its
    CDR bytes.

    frame: what it shows, or None where it is refused; cause, refusal: why, in a word and in a sentence.
    """

    number: int
    time: int
    data: bytes
    frame: Frame | None
    cause: str = ""
    refusal: str = ""

    @property
    def stamp(self) -> int:
        """Of its header in ns, 0 where it has none that can be read."""
        return self.frame.stamp if self.frame is not None else 0


def find_camera(path: Path, topic: str | None = None) -> RecordedCamera:
    """The camera to read: the topic asked for, else the only one that shows colour images.

    Raises ValueError with a sentence for a bag that cannot be read or is empty, and for a topic that is
    absent, recorded with two types or not an image; also where nothing was asked for and the bag has no
    camera or several.
    """
    types, counts = read_topics(path)
    if topic is None:
        topic = _only_camera(path, types)
    if topic not in types:
        raise ValueError(f"The bag {path} has no topic {topic!r}; it has {_listed(types)}.")
    if len(types[topic]) > 1:
        kinds = " and ".join(sorted(types[topic]))
        raise ValueError(
            f"The bag {path} holds two topics of the name {topic}, of the types {kinds}; record it again "
            "with one."
        )
    (kind,) = types[topic]
    if kind not in (RAW, COMPRESSED):
        raise ValueError(
            f"The topic {topic} of {path} has the type {kind}; a camera has {RAW} or {COMPRESSED}."
        )
    if not counts[topic]:
        raise ValueError(f"The topic {topic} of {path} holds no messages.")
    return RecordedCamera(topic, kind, counts[topic])


def read_shots(
    path: Path, camera: RecordedCamera, wanted: Callable[[int], bool] = lambda number: True
) -> Iterator[RecordedImage]:
    """The messages of a camera whose numbers are wanted, in the order of the recording; the others are not
    decoded. A message that cannot be decoded is refused, in its place; ValueError with a sentence where the
    bag itself breaks off."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with opened(path) as reader:
        links = [link for link in reader.connections if link.topic == camera.topic]
        for number, (link, time, data) in enumerate(reader.messages(links)):
            if wanted(number):
                yield _shot(number, time, data, link.msgtype, store)


def _shot(number: int, time: int, data: bytes, kind: str, store: Any) -> RecordedImage:
    try:
        message = store.deserialize_cdr(data, kind)
    except Exception as error:  # the library raises whatever the damaged bytes lead it to
        sentence = f"Message {number} is not a {kind}: {type(error).__name__} {error}"
        return RecordedImage(number, time, data, None, "damaged", " ".join(sentence.split()))
    try:
        rgb = compressed_to_rgb(message.data, message.format) if kind == COMPRESSED else image_to_rgb(message)
    except ImageError as error:
        return RecordedImage(number, time, data, None, error.cause, str(error))
    stamp = message.header.stamp
    return RecordedImage(
        number, time, data, Frame(rgb, stamp.sec * NANOSECONDS + stamp.nanosec, message.header.frame_id)
    )


def read_topics(path: Path) -> tuple[dict[str, set[str]], dict[str, int]]:
    """Types and message counts by topic. Raises ValueError with a sentence for a bag that cannot be read or
    holds no topics."""
    types: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    with opened(path) as reader:
        for link in reader.connections:
            types.setdefault(link.topic, set()).add(link.msgtype)
            counts[link.topic] = counts.get(link.topic, 0) + link.msgcount
    if not types:
        raise ValueError(f"The bag {path} holds no topics.")
    return types, counts


def _only_camera(path: Path, types: dict[str, set[str]]) -> str:
    cameras = sorted(
        topic for topic, kinds in types.items() if kinds & {RAW, COMPRESSED} and not is_depth(topic)
    )
    if not cameras:
        raise ValueError(
            f"The bag {path} holds no camera, that is no topic of type {RAW} or {COMPRESSED}; it has "
            f"{_listed(types)}."
        )
    if len(cameras) > 1:
        raise ValueError(
            f"The bag {path} holds several cameras; name one of {', '.join(cameras)} with --topic."
        )
    return cameras[0]


def is_depth(topic: str) -> bool:
    """Whether a topic's name says that it holds depth."""
    return any(word in part for part in topic.lower().split("/") for word in _DEPTH_NAMES)


def _listed(types: dict[str, set[str]]) -> str:
    return ", ".join(f"{topic} ({'/'.join(sorted(kinds))})" for topic, kinds in sorted(types.items()))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A reader of a bag. Raises ValueError with a sentence for one that is absent, truncated or no bag."""
    try:
        from rosbags.rosbag2 import Reader
    except ModuleNotFoundError as error:
        raise ValueError(
            "Reading bags needs the Python package rosbags; install it with python -m pip install rosbags."
        ) from error
    if not path.exists():
        raise ValueError(f"The bag {path} does not exist.")
    if path.is_file() and path.suffix not in (".mcap", ".db3"):
        raise ValueError(f"{path} is not a bag: a rosbag2 folder, an .mcap file or a .db3 file.")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise ValueError(
            f"The folder {path} is not a rosbag2 bag: it has no metadata.yaml; `ros2 bag reindex {path}` "
            "makes one."
        )
    try:
        with Reader(path) as reader:
            yield reader
    except (GeneratorExit, KeyboardInterrupt, MemoryError):
        raise
    except OSError as error:
        raise ValueError(f"The bag {path} cannot be read: {error.strerror or error}.") from error
    except (
        Exception
    ) as error:  # the library raises its own, zlib's, lz4's and sqlite's errors for a damaged file
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(
            f"The bag {path} is truncated or damaged ({reason}); `ros2 bag reindex` or `mcap recover` may "
            "save the rest."
        ) from error
