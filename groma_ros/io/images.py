"""Convert sensor_msgs/Image and CompressedImage to RGB arrays. No ROS import, so that bags can be read as
well.

Tests compare the pixels with cv_bridge's for every encoding it converts. This module also handles what
cv_bridge gets wrong (padded rows, big-endian samples with numpy 2) and does not know (NV12, NV21, I420).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.io.jpeg_files import (
    MOST_SEGMENTS,
    JpegFile,
    TooManySegmentsError,
    jpeg_header_size,
    read_jpeg,
)

Pixels = NDArray[np.uint8]

MAX_PIXELS = 64_000_000
"""Maximum number of pixels of an image: 192 MB at 3 bytes per pixel, far more than camera messages have."""


MAX_SCANNED_PIXELS = 400_000_000
"""Maximum of pixels times scans of a progressive JPEG, which takes some seconds; encoders make about ten
scans."""


class ImageError(ValueError):
    """A refused image: the message is a sentence for the log, `cause` one word by which diagnostics count
    it."""

    def __init__(self, cause: str, sentence: str) -> None:
        super().__init__(sentence)
        self.cause = cause


class ImageMessage(Protocol):
    """Fields of sensor_msgs/Image from which pixels are read."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class Encoding:
    """Memory layout of an encoding."""

    type: str
    """numpy type code of a channel."""
    channels: int
    """Channels per pixel."""
    to_rgb: int | None
    """Conversion code of OpenCV, or None."""

    @property
    def pixel_bytes(self) -> int:
        """Bytes per pixel."""
        return self.channels * np.dtype(self.type).itemsize


_PNG = b"\x89PNG\r\n\x1a\n"
# OpenCV names a Bayer pattern by the second row, second and third column; ROS by the first pixels, row by
# row.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
ENCODINGS: dict[str, Encoding] = {
    "rgb8": Encoding("u1", 3, None),
    "bgr8": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "rgb16": Encoding("u2", 3, None),
    "bgr16": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "rgba16": Encoding("u2", 4, cv2.COLOR_RGBA2RGB),
    "bgra16": Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    "mono16": Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "16UC1": Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "32FC1": Encoding("f4", 1, cv2.COLOR_GRAY2RGB),
    "yuv422": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    **{f"bayer_{pattern}8": Encoding("u1", 1, code) for pattern, code in _BAYER.items()},
    **{f"bayer_{pattern}16": Encoding("u2", 1, code) for pattern, code in _BAYER.items()},
}
_YUV420 = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "nv24": cv2.COLOR_YUV2RGB_NV12,  # after halving its chroma
    "yuv420": cv2.COLOR_YUV2RGB_I420,
    "yuv420p": cv2.COLOR_YUV2RGB_I420,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
"""Encodings with a luma plane followed by chroma planes, in lower case (drivers write YUV420 and NV12 too),
and their cv2 codes."""
_SUBSAMPLED = ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")
_YUV422_CAPITALS = {name.upper(): ENCODINGS[name] for name in _SUBSAMPLED}
"""As some drivers write them."""


def image_to_rgb(message: ImageMessage) -> Pixels:
    """Convert a raw image to uint8 HxWx3 RGB; a view of the message's data if it is rgb8 without padding.

    16-bit images keep their high byte (full scale stays full scale); 32FC1 is read as 0..1, NaN as black.
    Raises ImageError for an inconsistent message or an unknown encoding.
    """
    if message.encoding.lower() in _YUV420:
        return _yuv420_to_rgb(message)
    encodings = _YUV422_CAPITALS if message.encoding in _YUV422_CAPITALS else ENCODINGS
    if message.encoding not in encodings:
        raise _unknown(message.encoding, (*ENCODINGS, *_YUV420))
    encoding, pixels = raw_pixels(message, encodings)
    pixels = _eight_bits(pixels)
    if encoding.to_rgb is not None:
        pixels = np.asarray(_cv2(cv2.cvtColor, pixels, encoding.to_rgb), np.uint8)
    return np.ascontiguousarray(pixels)


def raw_pixels(message: ImageMessage, encodings: Mapping[str, Encoding]) -> tuple[Encoding, NDArray[Any]]:
    """Return the encoding of a raw image and its samples as stored, (H, W[, C]), without padding and without
    copying.

    Raises ImageError for an inconsistent message or an encoding that is not one of `encodings`.
    """
    encoding = encodings.get(message.encoding)
    if encoding is None:
        raise _unknown(message.encoding, encodings)
    _check_size(message.width, message.height)
    _check_layout(message, encoding)
    return encoding, _strided(message, encoding)


def compressed_to_rgb(data: Any, format: str = "") -> Pixels:
    """Convert a JPEG, PNG or WebP file in memory to uint8 HxWx3 RGB.

    format: the message's label; if it starts with a Bayer encoding ("bayer_rggb8; jpeg compressed"), the file
    holds the mosaic. Raises ImageError for another format, a depth image, and a damaged or truncated file.
    The stored orientation (EXIF) is not applied: boxes refer to pixels of the sensor's image, as camera_info
    does.
    """
    if "compressedDepth" in format:
        raise ImageError(
            "encoding",
            f"The compressed image has the format {format!r}, which is depth and not a colour image.",
        )
    content = bytes(data)
    if not content:
        raise ImageError("empty", "The compressed image is empty (no bytes).")
    mosaic = ENCODINGS.get(format.partition(";")[0].strip()) if format.startswith("bayer_") else None
    if mosaic is not None and mosaic.to_rgb is not None:
        pixels = _eight_bits(_decoded(content, format, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH))
        return np.asarray(_cv2(cv2.cvtColor, pixels, mosaic.to_rgb), np.uint8)
    pixels = _decoded(content, format, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def png_samples(content: bytes) -> NDArray[Any]:
    """Decode a single-channel 16-bit PNG file, HxW. Raises ImageError for anything else."""
    if not content.startswith(_PNG):
        raise ImageError("format", f"The compressed depth image of {len(content)} bytes holds no PNG file.")
    pixels = _decoded(content, "png", cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise ImageError(
            "encoding", "The PNG file of the compressed depth image does not hold one channel of 16 bits."
        )
    return pixels


def _decoded(content: bytes, format: str, mode: int) -> NDArray[Any]:
    """Decode a file in memory, after checking its size."""
    note, jpeg = "", None
    if content.startswith(b"\xff\xd8"):
        jpeg = _read_jpeg(content)
        size = jpeg.width, jpeg.height
    elif content.startswith(_PNG):
        size = _png_size(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        size, note = _webp_size(content), ", or this OpenCV was built without WebP"
    else:
        raise ImageError(
            "format",
            f"The compressed image (format {format[:40]!r}) is neither a JPEG nor a PNG nor a WebP file.",
        )
    _check_size(*size)
    mode |= cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _cv2(cv2.imdecode, np.frombuffer(content, np.uint8), mode)
    if pixels is None or (pixels.shape[1], pixels.shape[0]) != size:
        raise ImageError(
            "damaged",
            f"The compressed image of {len(content)} bytes cannot be decoded: its content is damaged{note}.",
        )
    if jpeg is not None:
        _check_whole(content, jpeg, pixels, mode)
    return np.asarray(pixels)


def header_size(begin: bytes) -> tuple[int, int] | None:
    """Read (width, height) of the stored pixels from the first bytes of a JPEG or PNG file; None if they do
    not contain it. For scanning many files: decoding checks whether a file is complete."""
    if begin.startswith(b"\xff\xd8"):
        return jpeg_header_size(begin)
    if begin.startswith(_PNG) and len(begin) >= 24:
        return _png_header_size(begin)
    return None


def _yuv420_to_rgb(message: ImageMessage) -> Pixels:
    """Convert luma rows of `step` bytes followed by chroma: interleaved U and V (NV12, NV24) or V and U
    (NV21) in rows of the same length, or two planes with rows of half the length (I420, YV12)."""
    kind, width, height = message.encoding.lower(), message.width, message.height
    name = f"The {message.encoding} image of {width}x{height} pixels"
    _check_size(width, height)
    if width % 2 or height % 2:
        raise ImageError("encoding", f"{name} has an odd width or height, which its encoding cannot have.")
    data = np.frombuffer(message.data, np.uint8)
    # Some drivers include the chroma bytes in the step: 1.5 or 3 bytes per pixel.
    whole = 3 if kind == "nv24" else 1.5
    step = width if message.step == whole * width and data.size == message.step * height else message.step
    expected = int(whole * step * height)
    if step < width:
        raise ImageError("step", f"{name} has a step of {step} bytes, and one row needs {width}.")
    if data.size != expected or step % 2:
        kind_of_fault = "truncated" if data.size < expected else "too long"
        raise ImageError(
            "length",
            f"{name} is {kind_of_fault}: {data.size} bytes where its rows and chroma are {expected}.",
        )
    halves: NDArray[Any]
    luma = data[: step * height].reshape(height, step)[:, :width]
    chroma = data[step * height :]
    if kind == "nv24":
        pairs = chroma.reshape(height, 2 * step)[::2, : 2 * width].reshape(height // 2, width, 2)
        halves = np.ascontiguousarray(pairs[:, ::2]).reshape(height // 2, width)
    elif kind in ("nv12", "nv21"):
        halves = chroma.reshape(height // 2, step)[:, :width]
    else:
        halves = np.ascontiguousarray(chroma.reshape(height, step // 2)[:, : width // 2]).reshape(-1, width)
    planes = np.ascontiguousarray(np.concatenate([luma, halves]))
    return np.asarray(_cv2(cv2.cvtColor, planes, _YUV420[kind]), np.uint8)


def _unknown(encoding: str, known: Iterable[str]) -> ImageError:
    sentence = f"The image has the encoding {encoding[:40]!r}, which is not one of {', '.join(known)}."
    return ImageError("encoding", sentence)


def _check_size(width: int, height: int) -> None:
    if width == 0 or height == 0:
        raise ImageError("empty", f"The image is empty ({width}x{height} pixels).")
    if width * height > MAX_PIXELS:
        raise ImageError(
            "size", f"The image of {width}x{height} pixels is larger than the limit of {MAX_PIXELS} pixels."
        )


def _check_layout(message: ImageMessage, encoding: Encoding) -> None:
    row, size = message.width * encoding.pixel_bytes, len(message.data)
    name = f"The {message.encoding} image of {message.width}x{message.height} pixels"
    if message.step < row:
        raise ImageError("step", f"{name} has a step of {message.step} bytes, and one row needs {row}.")
    if size != message.height * message.step:
        kind = "truncated" if size < message.height * message.step else "too long"
        raise ImageError(
            "length",
            f"{name} is {kind}: {size} bytes where height x step is {message.height * message.step}.",
        )
    # Padding rounds a row up to an alignment; a row two to four times as long is another encoding under this
    # name.
    if row >= 256 and message.step in (2 * row, 3 * row, 4 * row):
        found = message.step // message.width
        expected = f"where its encoding has {encoding.pixel_bytes}"
        raise ImageError("encoding", f"{name} holds {found} bytes a pixel {expected}: it is mislabelled.")
    if message.encoding.lower() in _SUBSAMPLED and message.width % 2:
        raise ImageError(
            "encoding",
            f"{name} has an odd width, which its encoding (two pixels share their colour) cannot have.",
        )


def _strided(message: ImageMessage, encoding: Encoding) -> NDArray[Any]:
    """Return the message's bytes as (H, W[, C]), skipping padding by strides, without copying."""
    dtype = np.dtype((">" if message.is_bigendian else "<") + encoding.type)
    shape = (message.height, message.width, encoding.channels)
    strides = (message.step, encoding.pixel_bytes, dtype.itemsize)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, np.frombuffer(message.data, np.uint8), 0, strides)
    return pixels[:, :, 0] if encoding.channels == 1 else pixels


def _eight_bits(pixels: NDArray[Any]) -> Pixels:
    if pixels.dtype.kind == "f":
        return (np.clip(np.nan_to_num(pixels, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels if pixels.dtype.itemsize == 1 else (pixels >> 8).astype(np.uint8)


def _cv2(function: Any, *arguments: Any) -> Any:
    """Call a function of cv2 and convert its errors to ImageError."""
    try:
        return function(*arguments)
    except cv2.error as error:
        raise ImageError(
            "damaged", f"The image cannot be converted: {str(error).strip().splitlines()[-1]}"
        ) from error


def _read_jpeg(content: bytes) -> JpegFile:
    """Read the markers. Raises ImageError for a truncated file, and for one that takes too long to read or
    decode."""
    try:
        found = read_jpeg(content)
    except TooManySegmentsError:
        raise ImageError(
            "size",
            f"The JPEG image of {len(content)} bytes has more than {MOST_SEGMENTS} segments, the most that "
            "are read.",
        ) from None
    if found is None:
        raise ImageError(
            "truncated",
            f"The JPEG image of {len(content)} bytes is truncated: its end-of-image marker is missing.",
        )
    if not found.decodable:
        raise ImageError(
            "format",
            "The JPEG image is of a kind that is not read (arithmetic codes, lossless, hierarchical or more "
            "than 8 bits a sample); save it as a baseline or progressive JPEG, as jpegtran -optimize does.",
        )
    pixels = found.width * found.height
    # A progressive JPEG draws the whole picture in each scan, and a scan may have only a few bytes.
    if found.scans > 1 and found.scans * pixels > MAX_SCANNED_PIXELS:
        raise ImageError(
            "size",
            f"The JPEG image of {found.width}x{found.height} pixels has {found.scans} scans; all together "
            f"may draw at most {MAX_SCANNED_PIXELS} pixels.",
        )
    return found


def _check_whole(content: bytes, jpeg: JpegFile, pixels: NDArray[Any], mode: int) -> None:
    """Raise ImageError for a JPEG file that was truncated and then closed with an end marker.

    The decoder silently paints missing parts grey. So if the last pixel is that grey, and for files with many
    scans or another colour space, the file is decoded a second time, with filler bytes that belong to no
    pixel.
    """
    grey = bool(np.all(pixels[-1, -1] == 128))
    whole = jpeg.whole
    if whole and (grey or jpeg.progressive or jpeg.components == 4):
        again = _cv2(cv2.imdecode, np.frombuffer(jpeg.with_filler(content), np.uint8), mode)
        whole = again is not None and np.array_equal(again, pixels)
    if not whole:
        raise ImageError(
            "truncated",
            f"The JPEG image of {len(content)} bytes is truncated: its coded data end before its last pixel.",
        )


def _png_size(content: bytes) -> tuple[int, int]:
    """Read (width, height) from the header chunk. Raises ImageError unless the file ends with its end
    chunk."""
    if b"IEND" not in content[-64:] or len(content) < 33:
        raise ImageError(
            "truncated", f"The PNG image of {len(content)} bytes is truncated: its end chunk is missing."
        )
    return _png_header_size(content)


def _png_header_size(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Read (width, height) from the first chunk: lossy, lossless or extended. Raises ImageError for a file
    that is shorter than its header says."""
    chunk = content[12:16]
    if len(content) < 30 or len(content) < 8 + int.from_bytes(content[4:8], "little"):
        raise ImageError("truncated", f"The WebP image of {len(content)} bytes is truncated.")
    if chunk == b"VP8 ":
        return (
            int.from_bytes(content[26:28], "little") & 0x3FFF,
            int.from_bytes(content[28:30], "little") & 0x3FFF,
        )
    if chunk == b"VP8L":
        packed = int.from_bytes(content[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    raise ImageError("format", f"The WebP image of {len(content)} bytes begins with an unknown chunk.")
