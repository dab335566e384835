"""Recorded bags: rosbag2 folders and single .mcap or .db3 files, read without ROS.

`open_bag` returns a bag whose messages are read by topic; `recorded_images` decodes those of a camera.
rosbags decodes single messages; `bag_mcap` and `bag_sqlite` read the files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from groma_ros.errors import printable
from groma_ros.io.bag_errors import BagError, BagLoss, BagMessage, BagTopic
from groma_ros.io.bag_files import find_files, readable_copy, storage_suffix
from groma_ros.io.bag_mcap import McapFile
from groma_ros.io.bag_sqlite import SqliteFile
from groma_ros.io.images import ImageError, compressed_to_rgb, image_to_rgb
from groma_ros.types import Frame

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
NANOSECONDS = 1_000_000_000
MAX_SECONDS = 2**31
"""ROS 2 stores seconds in 32 signed bits; times end in 2038."""


@dataclass(frozen=True)
class RecordedCamera:
    """An image topic of a bag."""

    topic: str
    type: str
    """RAW or COMPRESSED."""
    count: int
    """Number of messages announced by the bag."""


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """One message of a camera."""

    number: int
    """Index on the topic."""
    time: int
    """Recording time, nanoseconds since 1970."""
    data: bytes
    """CDR bytes."""
    frame: Frame | None
    """None if the message is refused."""
    cause: str = ""
    """One-word cause of the refusal."""
    refusal: str = ""
    """Reason of the refusal, a sentence."""

    @property
    def stamp(self) -> int:
        """Stamp of its header in ns, 0 if it has no readable one."""
        return self.frame.stamp if self.frame is not None else 0


class Bag:
    """An open bag, created by `open_bag`."""

    def __init__(self, path: Path, allow_loss: bool, stack: ExitStack) -> None:
        """stack: closes the files and deletes the copies. Raises BagError for a bag that cannot be read."""
        files = find_files(path, allow_loss)
        self.path = path
        self.losses: list[str] = list(files.losses)
        """Announced messages that the bag does not hold, one sentence each; grows while it is read."""
        self.notes: list[str] = files.notes
        """Harmless oddities, one sentence each."""
        self._allow_loss = allow_loss
        self._announced = files.announced or {}
        self._files = [_open_file(file, allow_loss, stack) for file in files.paths]
        self._topics: dict[str, list[BagTopic]] = {}
        for file in self._files:
            self.losses += file.losses
            for topic in file.topics:
                kinds = self._topics.setdefault(topic.name, [])
                known = next((kind for kind in kinds if kind.type == topic.type), None)
                if known is None:
                    kinds.append(topic)
                else:
                    known.count += topic.count
        if not self._topics:
            raise BagError(f"The bag {self.path} holds no topics.")
        for name, count in self._announced.items():
            if count and name not in self._topics:
                self.notes.append(
                    f"The bag {self.path} announces {count} messages on {printable(name)}, a topic that its "
                    "files do not have."
                )

    @property
    def types(self) -> dict[str, set[str]]:
        """Message types by topic; several if topics of one name have different types."""
        return {name: {kind.type for kind in kinds} for name, kinds in self._topics.items()}

    def count(self, topic: str) -> int:
        """Number of messages on a topic, according to the files; 0 for an unknown topic."""
        return sum(kind.count for kind in self._topics.get(topic, ()))

    def is_ros(self, topic: str) -> bool:
        """Whether the messages of a topic are in ROS 2's serialization."""
        return all(kind.encoding == "cdr" for kind in self._topics[topic])

    def encodings(self, topic: str) -> str:
        """Serialization formats of a topic's messages, for error messages."""
        return " and ".join(sorted({kind.encoding or "unknown" for kind in self._topics[topic]}))

    def listed(self) -> str:
        """List topics and types, for error messages."""
        return ", ".join(
            f"{printable(name)} ({'/'.join(sorted(printable(kind) or 'unknown' for kind in kinds))})"
            for name, kinds in sorted(self.types.items())
        )

    def check_topic(self, topic: str, types: Collection[str], role: str) -> str:
        """Return the type of a requested topic.

        types: allowed types; role: what the topic is requested as, e.g. "a camera". Raises BagError for a
        topic that is absent, empty, has two types or another type, or is not ROS 2's.
        """
        name = printable(topic)
        if topic not in self._topics:
            raise BagError(f"The bag {self.path} has no topic {topic!r}; it has {self.listed()}.")
        kinds = sorted(self.types[topic])
        if len(kinds) > 1:
            raise BagError(
                f"The bag {self.path} holds two topics of the name {name}, of the types "
                f"{' and '.join(map(printable, kinds))}; record it again with one."
            )
        if not self.is_ros(topic):
            raise BagError(
                f"The messages of the topic {name} of {self.path} are serialized as "
                f"{printable(self.encodings(topic))}; ROS 2 writes cdr, and only that is read."
            )
        if kinds[0] not in types:
            raise BagError(
                f"The topic {name} of {self.path} has the type {printable(kinds[0]) or 'unknown'}; {role} "
                f"has {' or '.join(types)}."
            )
        self._compare(topic, self._announced_of(topic), self.count(topic))
        if not self.count(topic):
            raise BagError(f"The topic {name} of {self.path} holds no messages.")
        return kinds[0]

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic in recording order, file by file.

        Raises BagError if a file is damaged or a time is not a valid ROS 2 time; at the end BagLoss if the
        messages read differ from those announced, unless that is allowed and noted.
        """
        read = 0
        for message in self._stored(topic):
            if not 0 <= message.time < MAX_SECONDS * NANOSECONDS:
                raise BagError(
                    f"The bag {self.path} says that message {read} of {printable(topic)} was recorded "
                    f"{message.time / NANOSECONDS:.6g} s after 1970; ROS 2 has times from 0 to "
                    f"{MAX_SECONDS} s (the year 2038)."
                )
            read += 1
            yield message
        self._compare(topic, self.count(topic), read)

    def _announced_of(self, topic: str) -> int | None:
        """Messages on a topic according to metadata.yaml, 0 for an unlisted topic; None if metadata.yaml has
        no counts."""
        return self._announced.get(topic, 0) if self._announced else None

    def first_messages(self, topic: str, most: int) -> list[BagMessage]:
        """Return the first messages of a topic, as many as can be read, without comparing counts."""
        found: list[BagMessage] = []
        with suppress(BagError):
            found.extend(islice(self._stored(topic), most))
        return found

    def _stored(self, topic: str) -> Iterator[BagMessage]:
        return chain.from_iterable(file.messages([topic]) for file in self._files)

    def _compare(self, topic: str, announced: int | None, found: int) -> None:
        """Raise BagLoss, or note the loss if allowed, unless as many messages exist as announced."""
        if announced is None or announced == found:
            return
        sentence = (
            f"The bag {self.path} announces {announced} messages on {printable(topic)} and holds {found}"
        )
        if not self._allow_loss:
            raise BagLoss(
                f"{sentence}; `ros2 bag reindex` makes its metadata anew, --allow-loss replays what is there."
            )
        if f"{sentence}." not in self.losses:
            self.losses.append(f"{sentence}.")


@contextmanager
def open_bag(path: Path, allow_loss: bool = False) -> Iterator[Bag]:
    """Open a bag inside the block.

    allow_loss: note in its `losses` what it announces but does not hold, and read the rest. Raises BagError
    for a bag that is absent, damaged or not a bag.
    """
    with ExitStack() as stack:
        try:
            bag = Bag(path, allow_loss, stack)
        except OSError as error:
            raise BagError(f"The bag {path} cannot be read: {error.strerror or error}.") from error
        yield bag


def recorded_images(
    bag: Bag, camera: RecordedCamera, wanted: Callable[[int], bool] = lambda number: True
) -> Iterator[RecordedImage]:
    """Yield the wanted messages of a camera (by index), in recording order; others are not decoded.

    A message that cannot be decoded is yielded as refused. Raises as `Bag.messages`.
    """
    for number, (_, time, data) in enumerate(bag.messages(camera.topic)):
        if wanted(number):
            yield _recorded_image(number, time, data, camera.type)


def decode_message(data: bytes, type_: str) -> Any:
    """Decode a message of a common type from CDR bytes. Raises ValueError with a reason if that fails."""
    store = _typestore()
    try:
        return store.deserialize_cdr(data, type_)
    except Exception as error:  # damaged bytes can make rosbags raise anything
        raise ValueError(" ".join(f"{type(error).__name__} {error}".split())) from error


def stamp_of(header: Any) -> int:
    """Stamp of a header in ns. Raises ImageError for an invalid ROS 2 time."""
    seconds, nanoseconds = header.stamp.sec, header.stamp.nanosec
    if seconds < 0 or nanoseconds >= NANOSECONDS:
        raise ImageError(
            "stamp",
            f"The header has the stamp {seconds} s and {nanoseconds} ns; seconds are at least 0, nanoseconds "
            f"less than {NANOSECONDS}.",
        )
    return int(seconds * NANOSECONDS + nanoseconds)


def _recorded_image(number: int, time: int, data: bytes, kind: str) -> RecordedImage:
    try:
        message = decode_message(data, kind)
    except ValueError as error:
        return RecordedImage(
            number, time, data, None, "damaged", f"Message {number} is not a {kind}: {error}"
        )
    try:
        rgb = compressed_to_rgb(message.data, message.format) if kind == COMPRESSED else image_to_rgb(message)
        frame = Frame(rgb, stamp_of(message.header), message.header.frame_id)
    except ImageError as error:
        return RecordedImage(number, time, data, None, error.cause, str(error))
    return RecordedImage(number, time, data, frame)


def _open_file(path: Path, allow_loss: bool, stack: ExitStack) -> McapFile | SqliteFile:
    def make_folder() -> Path:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="groma-bag-")))

    copy = readable_copy(path, make_folder)
    file: McapFile | SqliteFile
    if storage_suffix(path) == ".mcap":
        file = McapFile(copy or path, allow_loss, path)
    else:
        file = SqliteFile(copy or path, copy is not None, path)
    stack.callback(file.close)
    return file


@cache
def _typestore() -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        raise BagError(
            "Reading bags needs the Python package rosbags; install it with python -m pip install rosbags."
        ) from error
    return get_typestore(Stores.ROS2_JAZZY)
