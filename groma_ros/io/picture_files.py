"""Read picture files upright, by their stored orientation, or in the orientation of their annotations.

Camera messages are not read here: their boxes stay in pixels of the sensor's image (see `io.images`).
"""

from __future__ import annotations

import glob
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from groma_ros.file_checks import kind_of
from groma_ros.io.images import ImageError, Pixels, compressed_to_rgb, header_size
from groma_ros.io.jpeg_files import segments

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of the files that are read from a folder."""
OTHER_ENDINGS = (".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm")
"""Suffixes of picture files that are not read."""
MAX_FILE_BYTES = 200_000_000
_HEADER_BYTES = 65_536
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_STANDARD_INPUT = "-"


def find_pictures(names: Sequence[str]) -> list[str]:
    """Return the pictures named by files, folders, globs and "-" (standard input), in order, each once.

    Raises ValueError for a folder or glob without pictures. Files that do not exist are left to the reader.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        if name != _STANDARD_INPUT and path.is_dir():
            inside = sorted(str(item) for item in path.iterdir() if item.suffix.lower() in ENDINGS)
            if not inside:
                raise ValueError(f"The folder {name} holds no pictures ({', '.join(ENDINGS)}).")
            found += inside
        elif not path.exists() and glob.has_magic(name):
            matching = sorted(item for item in glob.glob(name, recursive=True) if Path(item).is_file())
            if not matching:
                raise ValueError(f"No file matches {name}.")
            found += matching
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def other_pictures(names: Sequence[str]) -> list[str]:
    """Return the files of folders that are pictures by their suffix but of a type that `find_pictures` leaves
    out."""
    folders = [Path(name) for name in dict.fromkeys(names) if name != _STANDARD_INPUT and Path(name).is_dir()]
    return [
        str(item)
        for folder in folders
        for item in sorted(folder.iterdir())
        if item.suffix.lower() in OTHER_ENDINGS
    ]


def read_picture(name: str) -> tuple[Pixels, int]:
    """Read a file as uint8 HxWx3 RGB, upright, and return the applied orientation (EXIF, 1 to 8; 1 changes
    nothing). name: a path, or "-" for standard input.

    Raises OSError for a file that cannot be read, ImageError for one that is not a complete picture.
    """
    if name == _STANDARD_INPUT:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        with Path(name).open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(
            f"The picture {name} has more than {MAX_FILE_BYTES // 1_000_000} MB, the most that is read."
        )
    refuse_other_kind(name, data)
    turned = orientation(data)
    return upright(compressed_to_rgb(data, Path(name).suffix), turned), turned


def read_annotated(path: Path, size: tuple[int, int] | None = None) -> Pixels:
    """Read a picture in the orientation of its annotations, uint8 HxWx3 RGB.

    size: (width, height) in the annotations. Most annotations refer to the pixels as stored; if only the
    upright picture has that size, it is used. Raises ValueError for a picture that is missing, damaged,
    truncated or of another size.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"The picture {path} is missing or cannot be read ({error.strerror}).") from error
    pixels = _decoded(path, data)
    if size is None or _size(pixels) == size:
        return pixels
    turned = upright(pixels, orientation(data))
    if _size(turned) != size:
        width, height = _size(pixels)
        raise ValueError(
            f"The picture {path} has {width}x{height} pixels and its annotations say {size[0]}x{size[1]}, so "
            "their boxes are not of this picture; take the pictures that were annotated, or scale the boxes."
        )
    return turned


def may_have_size(path: Path, size: tuple[int, int]) -> bool:
    """Whether `read_annotated` may find that a picture has this (width, height), judging by its header; True
    if the header is not JPEG's or PNG's, or longer than 64 kB. Raises OSError if the file cannot be read."""
    with path.open("rb") as stream:
        found = header_size(stream.read(_HEADER_BYTES))
    if found is None or found == size:
        return True
    return found == size[::-1] and orientation(path.read_bytes()) in _SIDEWAYS


def refuse_other_kind(name: str, data: bytes) -> None:
    """Raise ValueError for a file that is something else: a Git LFS pointer, a web page."""
    if data and (kind := kind_of(data)) is not None:
        raise ValueError(f"The picture {name} is {kind}.")


def _decoded(path: Path, data: bytes) -> Pixels:
    refuse_other_kind(str(path), data)
    if data.startswith((b"\xff\xd8", b"\x89PNG")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        try:
            return compressed_to_rgb(data)
        except ImageError as error:
            raise ValueError(f"The picture {path} cannot be used. {error}") from error
    try:
        content = np.frombuffer(data, np.uint8)
        found = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    except cv2.error:
        found = None
    if found is None:
        raise ValueError(f"The picture {path} cannot be decoded; JPEG, PNG and WebP files are read.")
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def upright(pixels: Pixels, turned: int) -> Pixels:
    """Rotate or mirror pixels according to the orientation 1 to 8."""
    if turned in _SIDEWAYS:
        pixels = np.swapaxes(pixels, 0, 1)
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turned in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def orientation(data: bytes) -> int:
    """Read the EXIF orientation of a JPEG, PNG or WebP file, 1 if there is none or it cannot be read."""
    block = _exif(data)
    if block.startswith(b"Exif\x00\x00"):
        block = block[6:]
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * min(count, 1000), 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, place)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", block, place + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # a truncated block
        return 1
    return 1


def _exif(data: bytes) -> bytes:
    """Return the EXIF block of a file, empty if it has none."""
    if data.startswith(b"\xff\xd8"):
        blocks = (data[start:end] for marker, start, end in segments(data) if marker == 0xE1)
        return next((block for block in blocks if block.startswith(b"Exif\x00\x00")), b"")
    if data.startswith(b"\x89PNG"):
        return _chunk(data, 8, b"eXIf", ">I4s", trailer=4)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _chunk(data, 12, b"EXIF", "<4sI", trailer=0)
    return b""


def _chunk(data: bytes, place: int, wanted: bytes, head: str, trailer: int) -> bytes:
    """Return the content of the first chunk of a name. head: layout of size and name; trailer: bytes after a
    chunk."""
    while place + 8 <= len(data):
        first, second = struct.unpack_from(head, data, place)
        size, name = (first, second) if isinstance(first, int) else (second, first)
        if name == wanted:
            return data[place + 8 : place + 8 + size]
        place += 8 + size + trailer + (size % 2 if trailer == 0 else 0)
    return b""
