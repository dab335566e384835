"""Read serialized sensor_msgs/Image and CompressedImage messages in place; deserializing one copies its
content several times, also if it is then dropped."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

LITTLE_ENDIAN_CDR = b"\x00\x01"
"""CDR header written by rclpy's middlewares on little-endian machines."""
START = 4
"""Bytes of the CDR header; alignment counts from here."""


@dataclass(frozen=True, eq=False)
class ImageView:
    """The fields of a sensor_msgs/Image."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview
    """Pixels inside the serialized message; valid as long as this object exists."""


@dataclass(frozen=True, eq=False)
class CompressedView:
    """The fields of a sensor_msgs/CompressedImage."""

    header: Header
    format: str
    data: memoryview
    """The file inside the serialized message; valid as long as this object exists."""


class _Reader:
    """Reads aligned values in sequence. Raises struct.error or ValueError past the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, START

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        self._at += -(self._at - START) % size
        (value,) = struct.unpack_from("<" + form, self._data, self._at)
        self._at += size
        return int(value)

    def block(self, size: int) -> memoryview:
        found = memoryview(self._data)[self._at : self._at + size]
        if len(found) != size:
            raise ValueError("cut")
        self._at += size
        return found

    def header(self) -> Header:
        stamp = Time(sec=self.number("i"), nanosec=self.number("I"))
        return Header(stamp=stamp, frame_id=self.text())

    def text(self) -> str:
        found = bytes(self.block(self.number("I")))
        if found[-1:] != b"\0" or b"\0" in found[:-1]:
            raise ValueError("not a text")
        return found[:-1].decode()


def read_image(data: bytes) -> ImageView | None:
    """Read a serialized image. Returns None for bytes in any other form, which are left to the middleware's
    own deserialization."""
    if data[:2] != LITTLE_ENDIAN_CDR:
        return None
    reader = _Reader(data)
    try:
        header = reader.header()
        height, width = reader.number("I"), reader.number("I")
        encoding, is_bigendian = reader.text(), reader.number("B")
        step = reader.number("I")
        return ImageView(
            header, height, width, encoding, is_bigendian, step, reader.block(reader.number("I"))
        )
    except (struct.error, ValueError):  # includes UnicodeDecodeError
        return None


def read_compressed(data: bytes) -> CompressedView | None:
    """Read a serialized compressed image, as `read_image` does."""
    if data[:2] != LITTLE_ENDIAN_CDR:
        return None
    reader = _Reader(data)
    try:
        return CompressedView(reader.header(), reader.text(), reader.block(reader.number("I")))
    except (struct.error, ValueError):
        return None
