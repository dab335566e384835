"""Depth images and camera_info as arrays and intrinsics. No ROS import, so that bags can be read as well."""

from __future__ import annotations

import math
import struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from groma_ros.io.images import Encoding, ImageError, ImageMessage, png_samples, raw_pixels
from groma_ros.types import FloatArray, Intrinsics

MILLIMETRE = np.float32(0.001)
DEPTH_ENCODINGS = {
    "16UC1": Encoding("u2", 1, None),
    "mono16": Encoding("u2", 1, None),  # some drivers' name for the same format
    "32FC1": Encoding("f4", 1, None),
}
"""The two formats of REP-118: unsigned millimetres with 0 for no measurement, float metres with NaN for
none."""

_CONFIG_HEADER = struct.Struct("<iff")
"""Header of compressedDepth: a format number without further meaning, and the coefficients a and b of depth =
a / (sample - b)."""


class CameraInfo(Protocol):
    """Fields of sensor_msgs/CameraInfo from which the pinhole model is read."""

    header: Any
    height: int
    width: int
    k: Any  # 9 values, row-major: camera matrix of the raw image
    p: Any  # 12 values, row-major: projection matrix of the rectified image
    binning_x: int
    binning_y: int
    roi: Any


def image_to_depth(message: ImageMessage) -> FloatArray:
    """Convert a 16UC1 (millimetres) or 32FC1 (metres) image to depth, float32 HxW metres; NaN where nothing
    was measured.

    No measurement is encoded as 0, a negative value, NaN or infinity. Raises ImageError for an inconsistent
    message or another encoding.
    """
    _, samples = raw_pixels(message, DEPTH_ENCODINGS)
    if samples.dtype.kind == "u":
        return _from_millimetres(samples)
    metres = samples.astype(np.float32)
    metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def compressed_to_depth(data: Any, format: str) -> FloatArray:
    """Convert a compressedDepth image of image_transport to depth, float32 HxW metres; NaN where nothing was
    measured.

    format: the message's label, "16UC1; compressedDepth png" (millimetres, also called mono16) or "32FC1;
    compressedDepth png"
    (16-bit inverse depth, coefficients in a 12-byte header before the PNG file). Raises ImageError for
    another format, such as rvl, and for a damaged file.
    """
    encoding, _, compression = (part.strip() for part in format.partition(";"))
    words = compression.split()
    if encoding not in DEPTH_ENCODINGS or "compressedDepth" not in words or words[-1] == "rvl":
        raise ImageError(
            "encoding",
            f"The compressed depth image has the format {format[:60]!r}; 16UC1 and 32FC1 as compressedDepth "
            "png are read (parameter <base topic>.compressedDepth.format of the publisher).",
        )
    content = bytes(data)
    if len(content) < _CONFIG_HEADER.size:
        raise ImageError("truncated", f"The compressed depth image of {len(content)} bytes is truncated.")
    _, a, b = _CONFIG_HEADER.unpack_from(content)
    samples = png_samples(content[_CONFIG_HEADER.size :])
    if encoding != "32FC1":
        return _from_millimetres(samples)
    if not (math.isfinite(a) and math.isfinite(b) and a > 0):
        raise ImageError(
            "damaged", f"The compressed depth image has the coefficients {a} and {b}, which no depth has."
        )
    with np.errstate(divide="ignore", over="ignore"):
        metres = np.float32(a) / (samples.astype(np.float32) - np.float32(b))
    metres[samples == 0] = np.nan
    metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def _from_millimetres(samples: NDArray[Any]) -> FloatArray:
    """Convert unsigned millimetres to float32 metres; NaN for 0, the only value that is no measurement."""
    metres: FloatArray = np.multiply(samples, MILLIMETRE, dtype=np.float32)
    np.copyto(metres, np.nan, where=samples == 0)
    return metres


def intrinsics_from_info(info: CameraInfo, rectified: bool = False) -> Intrinsics:
    """Return the pinhole intrinsics, in pixels, of the images that belong to this camera_info, with binning
    and region of interest applied.

    rectified: the images are rectified, so use P instead of K; see `rectification`. Raises ImageError if the
    camera is not calibrated (the matrix is zero) or the matrix is not a pinhole's.
    """
    name, values = ("P", info.p) if rectified else ("K", info.k)
    matrix = [float(value) for value in values]
    fx, skew, cx, _, fy, cy, *last = (
        value for index, value in enumerate(matrix) if not rectified or index % 4 < 3
    )
    if fx == 0 or fy == 0:
        raise ImageError(
            "uncalibrated",
            f"The camera_info has no calibration ({name} is zero), so depth cannot be placed in space.",
        )
    pinhole = all(map(math.isfinite, (fx, fy, cx, cy))) and fx > 0 and fy > 0 and skew == 0
    if not pinhole or last != [0.0, 0.0, 1.0]:
        raise ImageError("calibration", f"The {name} of the camera_info, {matrix}, is not that of a pinhole.")
    region = info.roi
    # REP-104: a region of interest of zero size is the whole image; binning of 0 is 1.
    across, down = max(1, int(info.binning_x)), max(1, int(info.binning_y))
    width, height = (
        (region.width, region.height) if region.width and region.height else (info.width, info.height)
    )
    left, top = (region.x_offset, region.y_offset) if region.width and region.height else (0, 0)
    return Intrinsics(
        fx / across,
        fy / down,
        (cx - left) / across,
        (cy - top) / down,
        int(width) // across,
        int(height) // down,
    )


def check_registered(
    image: Any, width: int, height: int, depth: FloatArray, depth_header: Any, camera: Intrinsics
) -> None:
    """Raise ImageError unless depth and camera_info match the image pixel by pixel.

    image: the image's header; width, height: its size; depth: HxW; depth_header: its header. A depth image in
    another frame is not registered to this camera, whatever its size.
    """
    size = f"{width}x{height}"
    if (camera.width, camera.height) != (width, height):
        found = f"{camera.width}x{camera.height}"
        raise ImageError(
            "camera_info size",
            f"The camera_info is of {found} pixels and the image of {size}: they are not of one camera.",
        )
    if depth.shape != (height, width):
        found = f"{depth.shape[1]}x{depth.shape[0]}"
        raise ImageError(
            "depth size",
            f"The depth image is of {found} pixels and the image of {size}: register depth to the image.",
        )
    if depth_header.frame_id != image.frame_id:
        frames = f"{depth_header.frame_id[:60]!r} and the image in {image.frame_id[:60]!r}"
        raise ImageError(
            "depth not registered", f"The depth image is in the frame {frames}: register depth to the image."
        )
