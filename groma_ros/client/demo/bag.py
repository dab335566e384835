"""Read and write MCAP bags; messages stay serialized (CDR bytes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.writer import Writer

_SEPARATOR = "\n" + "=" * 80 + "\n"
_PRIMITIVES = {"double": "float64", "float": "float32", "boolean": "bool", "octet": "byte"}


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str
    type: str
    """For example "sensor_msgs/msg/Image"."""
    definition: str
    """The .msg text, followed by the texts of the message types it uses, with separators."""


@dataclass(frozen=True, eq=False)
class Record:
    """A recorded message."""

    topic: str
    time: int
    """Time of recording, ns."""
    data: bytes
    """CDR bytes."""


@dataclass(frozen=True, eq=False)
class Bag:
    """A whole bag in memory, records in the order of their time."""

    topics: dict[str, Topic]
    records: tuple[Record, ...]

    def topics_of(self, type: str) -> list[str]:
        """Names of the topics of a type."""
        return [topic.name for topic in self.topics.values() if topic.type == type]


def read_bag(path: Path) -> Bag:
    """Read a bag. Raises ValueError for a file that is missing or not a readable MCAP file."""
    if not path.is_file():
        raise ValueError(f"The bag {path} does not exist.")
    topics: dict[str, Topic] = {}
    records = []
    try:
        with path.open("rb") as stream:
            for schema, channel, message in make_reader(stream).iter_messages():
                if schema is None or channel.message_encoding != "cdr":
                    raise ValueError(f"The bag {path} holds {channel.topic}, which is not a ROS 2 topic.")
                topics.setdefault(channel.topic, Topic(channel.topic, schema.name, schema.data.decode()))
                records.append(Record(channel.topic, message.log_time, message.data))
    except McapError as error:
        raise ValueError(f"The bag {path} cannot be read: {type(error).__name__} {error}") from error
    return Bag(topics, tuple(records))


def write_bag(path: Path, topics: Iterable[Topic], records: Sequence[Record]) -> None:
    """Write a bag, records in the order of their time."""
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start(profile="ros2")
        channels = {}
        for topic in topics:
            schema = writer.register_schema(topic.type, "ros2msg", topic.definition.encode())
            channels[topic.name] = writer.register_channel(topic.name, "cdr", schema)
        for record in sorted(records, key=lambda item: item.time):
            writer.add_message(channels[record.topic], record.time, record.data, record.time)
        writer.finish()


def message_class(type: str) -> Any:
    """The Python class of "package/msg/Name". Raises ImportError naming the missing package."""
    package, _, name = type.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"The message {type} is not installed: install the package {package}.") from error


def topic_of(name: str, message: Any) -> Topic:
    """Return a topic of a generated message class, with a definition generated from the class."""
    package, type_name = message.__module__.split(".")[0], message.__name__
    parts: dict[str, str] = {}
    _define(f"{package}/{type_name}", parts)
    main = parts.pop(f"{package}/{type_name}")
    used = [f"MSG: {used}\n{text}" for used, text in parts.items()]
    return Topic(name, f"{package}/msg/{type_name}", _SEPARATOR.join([main, *used]))


def _define(type: str, parts: dict[str, str]) -> None:
    """Add the .msg text of "package/Name" and of everything it uses."""
    package, name = type.split("/")
    fields = message_class(f"{package}/msg/{name}").get_fields_and_field_types()
    parts[type] = ""
    lines = []
    for field, declared in fields.items():
        base, suffix = _split(declared)
        lines.append(f"{_PRIMITIVES.get(base, base)}{suffix} {field}")
        if "/" in base and base not in parts:
            _define(base, parts)
    parts[type] = "\n".join(lines)


def _split(declared: str) -> tuple[str, str]:
    """Split "sequence<double>" or "float[36]" into the element type and its suffix in a .msg file."""
    if declared.startswith("sequence<"):
        base, _, limit = declared[len("sequence<") : -1].partition(", ")
        return base, f"[<={limit}]" if limit else "[]"
    base, bracket, size = declared.partition("[")
    return base, bracket + size
