"""Errors, limits and records that the readers of both storage formats share."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

MAX_CHUNK_BYTES = 256 * 2**20
"""Most bytes that one chunk or one compressed message may expand to."""
MAX_RATIO = 100
"""A bag may expand to this many times the size of its files..."""
MIN_EXPANDED_BYTES = 2**30
"""...but always to this many bytes."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of zstd data; those of a CDR message begin with a zero byte."""


class BagError(ValueError):
    """A bag that cannot be read; the message is a sentence that names the file and what is wrong."""


class BagLoss(BagError):
    """A bag that holds other messages than it announces."""


@dataclass
class BagTopic:
    """A topic of a bag."""

    name: str
    type: str
    """Of its messages, such as sensor_msgs/msg/Image; empty where the file does not say."""
    encoding: str
    """How its messages are serialized; ROS 2 writes cdr."""
    count: int
    """Messages that the bag announces or, where it announces nothing, that its files hold."""


class BagMessage(NamedTuple):
    """One serialized message."""

    topic: str
    time: int
    """Nanoseconds since 1970 at which it was recorded."""
    data: bytes


def expansion_limit(file_bytes: int) -> int:
    """Most bytes that files of this many bytes together may expand to."""
    return max(MIN_EXPANDED_BYTES, MAX_RATIO * file_bytes)


def size_text(count: int) -> str:
    """A number of bytes in the unit that suits it."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def expand(data: bytes, compression: str, limit: int) -> bytes:
    """At most limit + 1 bytes of what compressed data expands to, so that more is seen without being read.

    compression: empty, lz4 or zstd. Raises ValueError with a reason where the data is damaged.
    """
    if not compression:
        return data
    try:
        if compression == "lz4":
            from lz4.frame import LZ4FrameDecompressor

            return bytes(LZ4FrameDecompressor().decompress(data, max_length=limit + 1))
        if compression == "zstd":
            import zstandard

            reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
            parts: list[bytes] = []
            left = limit + 1
            while left > 0 and (part := reader.read(min(left, 1 << 22))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # zstandard.ZstdError, lz4's RuntimeError
        raise ValueError(f"its {compression} data is damaged: {' '.join(str(error).split())}") from error
    raise ValueError(f"its compression {compression[:20]!r} is not lz4 or zstd")
