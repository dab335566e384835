"""Read the markers of a JPEG file without decoding its pixels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_START, _END, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
"""A marker with content, or of the start or end: no escaped 0xFF, temporary marker, fill byte or restart."""
MOST_SEGMENTS = 10_000
"""Maximum number of segments before the first scan, and from there on; a colour profile and a depth map take
some hundreds."""
_AFTER_CODED_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends coded data: not an escaped 0xFF, fill byte or restart."""
_RESTART_INTERVAL = 0xDD
_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers between those of the frame headers: Huffman tables, an extension, arithmetic conditioning."""
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_DECODABLE = (0xC0, 0xC1, 0xC2)
"""Decodable frames: baseline, extended and progressive, all with Huffman codes."""
_COEFFICIENTS = 64
_FILLER = b"\x5a\xa5\x3c" * 100


@dataclass(frozen=True)
class JpegFile:
    """A file that reaches its end-of-image marker."""

    width: int
    height: int
    components: int
    progressive: bool
    decodable: bool
    """Whether it is baseline, extended or progressive, with Huffman codes and 8 bits per sample. OpenCV also
    reads arithmetic codes, but silently pads a truncated file of them, so that truncation cannot be detected;
    it does not read the rest (lossless, hierarchical, 12 bits)."""
    scans: int
    end: int
    """Offset of the end of the coded data: the end-of-image marker and its fill bytes."""
    whole: bool
    """Whether the scans contain every component (of a progressive file every bit of every coefficient) and
    all their restart markers; otherwise the file was truncated between two scans or restarts."""

    def with_filler(self, content: bytes) -> bytes:
        """Return the file with filler bytes before its end marker. A decoder skips them unless it still needs
        coded data; then it decodes them, and the pixels change."""
        return content[: self.end] + _FILLER + content[self.end :]


class TooManySegmentsError(ValueError):
    """A JPEG file has more than `MOST_SEGMENTS`, before its first scan or from there on."""


def read_jpeg(content: bytes) -> JpegFile | None:
    """Read the markers of a JPEG file; None if it ends before its end-of-image marker.

    Raises TooManySegmentsError.
    """
    frame, interval, decodable = None, 0, False
    found = list(segments(content))
    for marker, start, after in found:
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
    if len(found) == MOST_SEGMENTS:
        raise TooManySegmentsError
    return None


def jpeg_header_size(begin: bytes) -> tuple[int, int] | None:
    """Read (width, height) from the first bytes of a JPEG file; None if they do not contain its frame
    header."""
    for marker, start, _ in segments(begin):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(begin) >= start + 5:
            height, width = begin[start + 1 : start + 3], begin[start + 3 : start + 5]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
    return None


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment up to the first scan's header, and the start and end of its content.

    As in decoders, fill bytes, bytes outside segments and markers without content are skipped. Stops after
    `MOST_SEGMENTS`, so that a file of empty segments costs little.
    """
    place = 2
    for _ in range(MOST_SEGMENTS):
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
    """Return the headers of all scans, without their lengths, starting at the first scan's marker, and the
    offset at which the last one's coded data ends; None if there is no end-of-image marker. Raises
    TooManySegmentsError."""
    found = []
    for _ in range(MOST_SEGMENTS):
        size = int.from_bytes(content[start + 2 : start + 4], "big")
        if content[start + 1] == _START_OF_SCAN:
            found.append(content[start + 4 : start + 2 + size])
        # Segments between scans (tables, comments) are skipped by their length: they may contain any bytes.
        after = _AFTER_CODED_DATA.search(content, start + 2 + size)
        if after is None:
            return found, None
        start = after.start()
        if content[start + 1] == _END:
            return found, len(content[:start].rstrip(b"\xff"))
    raise TooManySegmentsError


def _restarts(content: bytes, start: int, end: int) -> int:
    """The number of restart markers."""
    return sum(content.count(bytes((0xFF, marker)), start, end) for marker in range(0xD0, 0xD8))


def _intervals(header: bytes, interval: int) -> int:
    """Number of restart intervals in the only scan of a file, 1 if it has no restarts. header: of the frame,
    without its length; interval: blocks (MCUs) per interval."""
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
    """Whether the scans of a progressive file together contain the last bit of every coefficient. components:
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
