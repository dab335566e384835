"""Messages of an MCAP file in recording order, with bounded memory.

The library mcap parses the records. Its readers are not used, because they load files without an index
completely, and expand chunks of any size.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, Schema, Statistics

from groma_ros.io.bag_errors import (
    MAX_CHUNK_BYTES,
    BagError,
    BagMessage,
    BagTopic,
    MessageExpander,
    expand,
    expansion_limit,
    size_text,
)

MAGIC = b"\x89MCAP0\r\n"
MAX_PENDING_BYTES = 512 * 2**20
"""Maximum size of messages held to bring overlapping chunks into order, bytes."""
MAX_RECORD_BYTES = 64 * 2**20
"""Maximum size of a record that is not a message, chunk or attachment, bytes."""
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_HEAD = struct.Struct("<BQ")
_CHUNK = struct.Struct("<QQQII")
_MESSAGE = struct.Struct("<HIQQ")


class _Record(NamedTuple):
    """Position of a record."""

    opcode: int
    start: int
    """Offset of the record from the start of the file or chunk, bytes."""
    body: int
    length: int
    """Length of the body."""


@dataclass
class _Chunk:
    """A chunk, or a message outside of chunks."""

    start: int
    """Offset of its record from the start of the file, bytes."""
    time: int
    """Time of its first message, ns."""
    expanded: int
    """Expanded size according to the file, bytes; 0 for a message outside of chunks."""
    channels: set[int] | None = field(default=None)
    """Channels of its messages, if known."""


class McapFile:
    """An open MCAP file. Channels with the same topic and type form one topic."""

    def __init__(self, path: Path, salvage: bool = False, name: Path | None = None) -> None:
        """salvage: read the part before the point where the file breaks off; name: of the bag, for messages.
        Raises BagError for a damaged file, OSError for one that cannot be opened."""
        self.path = name or path
        self.losses: list[str] = []
        """Parts that were left out, one sentence each."""
        self._salvage = salvage
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks: list[_Chunk] = []
        self._counts: Counter[int] = Counter()
        self._announced: dict[int, int] | None = None
        self._stream: BinaryIO = path.open("rb")
        try:
            self._size = self._stream.seek(0, 2)
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> list[BagTopic]:
        """One topic per name and type, counting the messages of all its channels."""
        counts = self._counts if self._announced is None else self._announced
        found: dict[tuple[str, str, str], BagTopic] = {}
        for number, channel in self._channels.items():
            type_ = self._type(channel)
            key = (channel.topic, type_, channel.message_encoding)
            topic = found.setdefault(key, BagTopic(*key, count=0))
            topic.count += counts.get(number, 0)
        return list(found.values())

    def messages(self, names: Collection[str]) -> Iterator[BagMessage]:
        """Yield the messages of these topics by recording time; of two with the same time, the first in the
        file comes first. Raises BagError if the file is damaged."""
        wanted = {number for number, channel in self._channels.items() if channel.topic in names}
        expander = MessageExpander(self.path, self._size)
        pending: list[tuple[int, int, int, int, bytes]] = []
        held = 0
        chunks = [
            chunk
            for chunk in sorted(self._chunks, key=lambda item: (item.time, item.start))
            if chunk.channels is None or chunk.channels & wanted
        ]

        def oldest() -> tuple[BagMessage, int]:
            """The first pending message, and its size before expansion, bytes."""
            time, order, _, number, data = heapq.heappop(pending)
            where = f"the record at byte {chunks[order].start}"
            return BagMessage(self._channels[number].topic, time, expander.expanded(data, where)), len(data)

        for order, chunk in enumerate(chunks):
            while pending and pending[0][0] < chunk.time:
                message, size = oldest()
                held -= size
                yield message
            for place, (number, time, data) in enumerate(self._read(chunk, wanted)):
                heapq.heappush(pending, (time, order, place, number, data))
                held += len(data)
            if held > MAX_PENDING_BYTES:
                raise BagError(
                    f"The chunks of the bag {self.path} overlap in time so far that more than "
                    f"{size_text(MAX_PENDING_BYTES)} would have to be held at once; `mcap sort` writes it "
                    "in order."
                )
        while pending:
            yield oldest()[0]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _open(self) -> None:
        if not self._size:
            raise BagError(f"The bag {self.path} is empty: it has no bytes.")
        self._stream.seek(0)
        if self._stream.read(len(MAGIC)) != MAGIC:
            raise self._damaged(0, "it does not begin as an MCAP file does")
        if not (self._complete() and self._read_summary()):
            self._schemas, self._channels, self._chunks, self._counts = {}, {}, [], Counter()
            self._scan()
        limit = expansion_limit(self._size)
        if sum(chunk.expanded for chunk in self._chunks) > limit:
            raise self._too_large("its chunks expand", limit)

    def _complete(self) -> bool:
        """Whether the file ends with a footer."""
        self._stream.seek(max(0, self._size - _FOOTER_BYTES))
        tail = self._stream.read(_FOOTER_BYTES)
        return tail.endswith(MAGIC) and tail[:9] == _HEAD.pack(Opcode.FOOTER, 20)

    def _read_summary(self) -> bool:
        """Read channels and chunks from the summary. Returns False if it is absent, damaged or incomplete;
        the file must then be scanned from its start."""
        end = self._size - _FOOTER_BYTES
        try:
            start = self._parse(Footer, _Record(Opcode.FOOTER, end, end + 9, 20)).summary_start
            if not len(MAGIC) <= start < end:
                return False
            statistics = None
            for record in self._records(start, end):
                if record.opcode == Opcode.SCHEMA:
                    schema = self._parse(Schema, record)
                    self._schemas[schema.id] = schema
                elif record.opcode == Opcode.CHANNEL:
                    channel = self._parse(Channel, record)
                    self._channels[channel.id] = channel
                elif record.opcode == Opcode.STATISTICS:
                    statistics = self._parse(Statistics, record)
                elif record.opcode == Opcode.CHUNK_INDEX:
                    index = self._parse(ChunkIndex, record)
                    channels = set(index.message_index_offsets) or None
                    self._chunks.append(
                        _Chunk(
                            index.chunk_start_offset,
                            index.message_start_time,
                            index.uncompressed_size,
                            channels,
                        )
                    )
        except BagError:
            return False
        if statistics is None:
            return False
        self._announced = statistics.channel_message_counts
        return (
            0 < statistics.chunk_count == len(self._chunks)
            and statistics.channel_count == len(self._channels)
            and set(self._announced) <= set(self._channels)
        )

    def _scan(self) -> None:
        """Find channels, chunks and messages from the start of the file."""
        expanded, limit = 0, expansion_limit(self._size)
        try:
            for record in self._records(len(MAGIC), self._size - len(MAGIC)):
                if record.opcode == Opcode.FOOTER:
                    return
                if record.opcode == Opcode.MESSAGE:
                    number, _, time, _ = self._unpack(_MESSAGE, record)
                    self._chunks.append(_Chunk(record.start, time, 0, {number}))
                    self._counts[number] += 1
                elif record.opcode == Opcode.CHUNK:
                    time, _, size, _, _ = self._unpack(_CHUNK, record)
                    expanded += size
                    if expanded > limit:
                        raise self._too_large("its chunks expand", limit)
                    chunk = _Chunk(record.start, time, size)
                    found = Counter(number for number, _, _ in self._read(chunk, None))
                    chunk.channels = set(found)
                    self._counts.update(found)
                    self._chunks.append(chunk)
                elif record.opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.STATISTICS):
                    self._note(record.opcode, record, None)
            raise self._damaged(self._size, "it ends without a footer, as a recording that was not finished")
        except BagError as error:
            if not self._salvage or not self._channels:
                raise
            self.losses.append(str(error))

    def _note(self, opcode: int, record: _Record, content: bytes | None) -> None:
        """Store a schema or channel found in the data section."""
        if opcode == Opcode.SCHEMA:
            schema = self._parse(Schema, record, content)
            self._schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = self._parse(Channel, record, content)
            self._channels[channel.id] = channel
        elif opcode == Opcode.STATISTICS:
            self._announced = self._parse(Statistics, record, content).channel_message_counts

    def _read(self, chunk: _Chunk, wanted: Collection[int] | None) -> Iterator[tuple[int, int, bytes]]:
        """Yield (channel, time, data) of a chunk's messages in file order; wanted = None: of all messages,
        without their data, and record all channels."""
        record = self._record(chunk.start, self._size)
        if record.opcode == Opcode.MESSAGE and not chunk.expanded:
            number, _, time, _ = self._unpack(_MESSAGE, record)
            self._stream.seek(record.body + _MESSAGE.size)
            yield number, time, self._stream.read(record.length - _MESSAGE.size)
            return
        content = self._expanded(record, chunk)
        position = 0
        while position < len(content):
            if position + _HEAD.size > len(content):
                raise self._damaged(record.start, "the last record of the chunk there is cut off")
            opcode, length = _HEAD.unpack_from(content, position)
            body = position + _HEAD.size
            position = body + length
            if position > len(content):
                raise self._damaged(record.start, "a record of the chunk there is longer than the chunk")
            if opcode == Opcode.MESSAGE:
                if length < _MESSAGE.size:
                    raise self._damaged(record.start, "a message of the chunk there is cut off")
                number, _, time, _ = _MESSAGE.unpack_from(content, body)
                if wanted is None:
                    yield number, time, b""
                elif number in wanted:
                    yield number, time, content[body + _MESSAGE.size : position]
            elif wanted is None:
                self._note(opcode, _Record(opcode, record.start, body, length), content)

    def _expanded(self, record: _Record, chunk: _Chunk) -> bytes:
        if record.opcode != Opcode.CHUNK:
            raise self._damaged(chunk.start, "the index names a chunk there and there is none")
        _, _, size, crc, name_bytes = self._unpack(_CHUNK, record)
        if size != chunk.expanded:
            raise self._damaged(chunk.start, "the chunk there and the index give it different sizes")
        if size > MAX_CHUNK_BYTES:
            raise BagError(
                f"The bag {self.path} has a chunk at byte {chunk.start} that expands to {size_text(size)}; "
                f"the most that is read is {size_text(MAX_CHUNK_BYTES)}."
            )
        header = _CHUNK.size + name_bytes + 8
        if header > record.length or name_bytes > 100:
            raise self._damaged(chunk.start, "the chunk there is shorter than its header")
        self._stream.seek(record.body + _CHUNK.size)
        compression = self._stream.read(name_bytes).decode(errors="replace")
        (length,) = struct.unpack("<Q", self._stream.read(8))
        if length != record.length - header:
            raise self._damaged(chunk.start, "the chunk there has another length than its record")
        try:
            content = expand(self._stream.read(length), compression, size)
        except ValueError as error:
            raise self._damaged(chunk.start, f"the chunk there cannot be expanded, {error}") from error
        if len(content) != size:
            more = "more" if len(content) > size else "less"
            raise self._damaged(chunk.start, f"the chunk there expands to {more} than its {size} bytes")
        if crc and zlib.crc32(content) != crc:
            raise self._damaged(chunk.start, "the checksum of the chunk there is wrong")
        return content

    def _records(self, start: int, end: int) -> Iterator[_Record]:
        while start < end:
            record = self._record(start, end)
            yield record
            start = record.body + record.length

    def _record(self, start: int, end: int) -> _Record:
        self._stream.seek(start)
        head = self._stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise self._damaged(start, "it breaks off there")
        opcode, length = _HEAD.unpack(head)
        if opcode == 0:
            raise self._damaged(start, "no record begins there")
        if start + _HEAD.size + length > end:
            raise self._damaged(start, f"the record there has {length} bytes and the file ends before them")
        return _Record(opcode, start, start + _HEAD.size, length)

    def _unpack(self, layout: struct.Struct, record: _Record) -> tuple[int, ...]:
        self._stream.seek(record.body)
        if record.length < layout.size:
            raise self._damaged(record.start, "the record there is too short")
        return layout.unpack(self._stream.read(layout.size))

    def _parse(self, kind: type, record: _Record, content: bytes | None = None):  # type: ignore[no-untyped-def]
        """Parse a record. content: of the chunk that contains it."""
        if record.length > MAX_RECORD_BYTES:
            raise self._damaged(
                record.start, f"the record there is longer than {size_text(MAX_RECORD_BYTES)}"
            )
        if content is None:
            self._stream.seek(record.body)
            data = self._stream.read(record.length)
        else:
            data = content[record.body : record.body + record.length]
        try:
            return kind.read(ReadDataStream(BytesIO(data)))  # type: ignore[attr-defined]
        except (McapError, struct.error, ValueError) as error:
            raise self._damaged(record.start, f"the {kind.__name__} record there cannot be read") from error

    def _type(self, channel: Channel) -> str:
        schema = self._schemas.get(channel.schema_id)
        name = schema.name if schema is not None else ""
        package, _, rest = name.partition("/")
        return f"{package}/msg/{rest}" if rest and "/" not in rest else name

    def _damaged(self, position: int, what: str) -> BagError:
        return BagError(
            f"The bag {self.path} is truncated or damaged at byte {position} of {self._size}: {what}; "
            "`mcap recover` saves what can be read."
        )

    def _too_large(self, what: str, limit: int) -> BagError:
        return BagError(
            f"The bag {self.path} of {size_text(self._size)} is refused: {what} to more than "
            f"{size_text(limit)}, the most that is read of a file of its size."
        )
