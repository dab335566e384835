"""Errors, limits, records and expansion shared by the readers of both storage formats."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAX_CHUNK_BYTES = 256 * 2**20
"""Maximum expanded size of one chunk or one compressed message, bytes."""
MAX_RATIO = 100
"""Maximum ratio of a bag's expanded size to the size of its files..."""
MIN_EXPANDED_BYTES = 2**30
"""...but this many bytes are always allowed."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of zstd data; CDR messages start with a zero byte."""


class BagError(ValueError):
    """A bag that cannot be read; the message names the file and says what is wrong."""


class BagLoss(BagError):
    """A bag whose messages differ from what it announces."""


@dataclass
class BagTopic:
    """A topic of a bag."""

    name: str
    type: str
    """Type of its messages, e.g. sensor_msgs/msg/Image; empty if the file does not say."""
    encoding: str
    """Serialization format of its messages; ROS 2 writes cdr."""
    count: int
    """Number of messages announced by the bag or, if it announces none, held by its files."""


class BagMessage(NamedTuple):
    """One serialized message."""

    topic: str
    time: int
    """Recording time, nanoseconds since 1970."""
    data: bytes


def expansion_limit(file_bytes: int) -> int:
    """Maximum total expanded size for files of this many bytes."""
    return max(MIN_EXPANDED_BYTES, MAX_RATIO * file_bytes)


def size_text(count: int) -> str:
    """Format a number of bytes with a suitable unit."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def expand(data: bytes, compression: str, limit: int) -> bytes:
    """Expand compressed data, up to limit + 1 bytes, so that the caller can detect a larger size without
    reading all of it.

    compression: empty, lz4 or zstd. Raises ValueError with a reason if the data is damaged.
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


class MessageExpander:
    """Expands the messages of one reading of a file that were compressed one by one, whether or not the file
    says so."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        """path: of the bag, for messages; file_bytes: size of the file."""
        self._path = path
        self._file_bytes = file_bytes
        self._expanded = 0

    def expanded(self, data: bytes, place: str) -> bytes:
        """Return a message expanded, or unchanged if it is not compressed.

        place: of the message in the file, for messages. Raises BagError for damaged data, a message that is
        too large, and messages that are too large together.
        """
        if data.startswith(ZSTD_MAGIC):
            data = self._message(data, place)
        self._expanded += len(data)
        limit = expansion_limit(self._file_bytes)
        if self._expanded > limit:
            raise BagError(
                f"The bag {self._path} of {size_text(self._file_bytes)} is refused: its messages expand to "
                f"more than {size_text(limit)}, the most that is read of a file of its size."
            )
        return data

    def _message(self, data: bytes, place: str) -> bytes:
        try:
            content = expand(data, "zstd", MAX_CHUNK_BYTES)
        except ValueError as error:
            raise BagError(f"The bag {self._path} is damaged in {place}: {error}.") from error
        if len(content) > MAX_CHUNK_BYTES:
            limit = size_text(MAX_CHUNK_BYTES)
            raise BagError(
                f"The message in {place} of the bag {self._path} expands to more than {limit}; the most that "
                f"is read is {limit}."
            )
        return content
