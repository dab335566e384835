"""Read the markers of a JPEG file without decoding its pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_START, _END, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
"""A marker with content, or of the start or end: no escaped 0xFF, temporary marker, fill byte or restart."""
_MOST_SEGMENTS = 10_000
"""Before the first scan; a colour profile and a depth map take some hundreds."""
_AFTER_CODED_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends coded data: no escaped 0xFF, no fill byte, no restart."""
_RESTART_INTERVAL = 0xDD
_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers between those of the frame headers: Huffman tables, an extension, arithmetic conditioning."""
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_DECODABLE = (0xC0, 0xC1, 0xC2)
"""Frames that are decoded: baseline, extended and progressive, all with Huffman codes."""
_COEFFICIENTS = 64
_FILLER = b"\x5a\xa5\x3c" * 100


@dataclass(frozen=True)
class JpegFile:
    """A file that goes on to its end-of-image marker."""

    width: int
    height: int
    components: int
    progressive: bool
    decodable: bool
    """Whether it is baseline, extended or progressive with Huffman codes and 8 bits a sample. OpenCV reads
    arithmetic codes too, but pads a cut file of them without a sign, so that it cannot be told from a whole
    one; the rest (lossless, hierarchical, 12 bits) it does not read."""
    scans: int
    end: int
    """Byte at which the coded data end: at the end-of-image marker and its fill bytes."""
    whole: bool
    """Whether the scans hold every component (of a progressive file every bit of every coefficient), and all
    their restart markers are there; else the file was cut between two scans, or between two restarts."""

    def with_filler(self, content: bytes) -> bytes:
        """The file with bytes before its end marker that belong to no pixel. A decoder skips them, unless it
        still lacked coded data there: then it decodes them, and the pixels change."""
        return content[: self.end] + _FILLER + content[self.end :]


def read_jpeg(content: bytes) -> JpegFile | None:
    """Read the markers of a JPEG file; None where it ends before its end-of-image marker."""
    frame, interval, decodable = None, 0, False
    for marker, start, after in segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frame = marker in _PROGRESSIVE, content[start:after]
            decodable = marker in _DECODABLE and frame[1][:1] == b"\x08"
        if marker == _RESTART_INTERVAL:
            interval = int.from_bytes(content[start : start + 2], "big")
        if marker == _START_OF_SCAN and frame is not None and len(frame[1]) >= 6:
            scans, end = _scans(content, start - 4)
            if end is None:
                return None
            progressive, header = frame
            components = header[6 : 6 + 3 * header[5] : 3]
            if progressive:
                whole = _is_whole(scans, components)
            else:
                wanted = _intervals(header, interval) - 1 if len(scans) == 1 else 0
                coded = {index for scan in scans if scan for index in scan[1 : 1 + 2 * scan[0] : 2]}
                whole = set(components) <= coded and _restarts(content, after, end) >= wanted
            return JpegFile(
                int.from_bytes(header[3:5], "big"),
                int.from_bytes(header[1:3], "big"),
                header[5],
                progressive,
                decodable,
                len(scans),
                end,
                whole,
            )
    return None


def jpeg_header_size(begin: bytes) -> tuple[int, int] | None:
    """(width, height) from the first bytes of a JPEG file; None where its frame header is not among them."""
    for marker, start, _ in segments(begin):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(begin) >= start + 5:
            height, width = begin[start + 1 : start + 3], begin[start + 3 : start + 5]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
    return None


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment up to the first scan's header, and where its content starts and ends.

    As decoders do, fill bytes, bytes that belong to no segment and markers without content are skipped.
    Nothing is yielded after `_MOST_SEGMENTS`, so that a file of empty segments costs little.
    """
    place = 2
    for _ in range(_MOST_SEGMENTS):
        found = _SEGMENT.search(content, place)
        if found is None or found.start() + 4 > len(content):
            return
        place, marker = found.start(), content[found.start() + 1]
        if marker in (_START, _END):
            return
        after = place + 2 + max(int.from_bytes(content[place + 2 : place + 4], "big"), 2)
        yield marker, place + 4, after
        if marker == _START_OF_SCAN:
            return
        place = after


def _scans(content: bytes, start: int) -> tuple[list[bytes], int | None]:
    """The headers of all scans, without their lengths, from the first scan's marker on; and the byte at which
    the last one's coded data end, None where there is no end-of-image marker."""
    found = []
    while True:
        size = int.from_bytes(content[start + 2 : start + 4], "big")
        if content[start + 1] == _START_OF_SCAN:
            found.append(content[start + 4 : start + 2 + size])
        # Segments between scans (tables, comments) are skipped by their length: they may hold any bytes.
        after = _AFTER_CODED_DATA.search(content, start + 2 + size)
        if after is None:
            return found, None
        start = after.start()
        if content[start + 1] == _END:
            while content[start - 1] == 0xFF:
                start -= 1
            return found, start


def _restarts(content: bytes, start: int, end: int) -> int:
    """The number of restart markers."""
    return sum(content.count(bytes((0xFF, marker)), start, end) for marker in range(0xD0, 0xD8))


def _intervals(header: bytes, interval: int) -> int:
    """How many restart intervals the only scan of a file has, 1 where it has none. header: of the frame,
    without its length; interval: blocks (MCUs) in one."""
    factors = header[7 : 6 + 3 * header[5] : 3]
    if not interval or not factors:
        return 1
    single = len(factors) == 1
    across = 8 * (1 if single else max(factor >> 4 for factor in factors))
    down = 8 * (1 if single else max(factor & 0x0F for factor in factors))
    height, width = int.from_bytes(header[1:3], "big"), int.from_bytes(header[3:5], "big")
    if not across or not down:
        return 1
    return -(-(-(-width // across) * -(-height // down)) // interval)


def _is_whole(scans: list[bytes], components: bytes) -> bool:
    """Whether the scans of a progressive file together hold the last bit of every coefficient. components:
    their ids."""
    missing = {(component, place) for component in components for place in range(_COEFFICIENTS)}
    for header in scans:
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return False
        first, last, lowest = header[1 + 2 * count], header[2 + 2 * count], header[3 + 2 * count] & 0x0F
        if lowest == 0:
            ids = header[1 : 1 + 2 * count : 2]
            missing -= {(component, place) for component in ids for place in range(first, last + 1)}
    return not missing
