"""Depth images and camera_info as arrays and intrinsics; no ROS import, so that bags can be read with it
too."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from groma_ros.io.images import Encoding, ImageError, ImageMessage, raw_pixels
from groma_ros.types import FloatArray, Intrinsics

MILLIMETRE = np.float32(0.001)
DEPTH_ENCODINGS = {
    "16UC1": Encoding("u2", 1, None),
    "mono16": Encoding("u2", 1, None),  # some drivers' name for the same millimetres
    "32FC1": Encoding("f4", 1, None),
}
"""The two forms of REP-118, by their names: unsigned millimetres with 0 for no measurement, float metres with
NaN for none."""


class StampedImage(ImageMessage, Protocol):
    """sensor_msgs/Image with its header."""

    header: Any


class CameraInfo(Protocol):
    """The fields of sensor_msgs/CameraInfo that the pinhole is read from. d, k and p are named in small
    letters in ROS 2."""

    header: Any
    height: int
    width: int
    k: Any
    binning_x: int
    binning_y: int
    roi: Any


def image_to_depth(message: ImageMessage) -> FloatArray:
    """The depth of a 16UC1 (millimetres) or 32FC1 (metres) image, float32 HxW metres; NaN where nothing was
    measured.

    Nothing was measured where the message holds 0, less than 0, NaN or infinity. Raises ImageError with a
    sentence for a message that contradicts itself or has another encoding.
    """
    _, samples = raw_pixels(message, DEPTH_ENCODINGS)
    metres = samples.astype(np.float32)
    if samples.dtype.kind == "u":
        metres *= MILLIMETRE
    metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def intrinsics_from_info(info: CameraInfo) -> Intrinsics:
    """The pinhole of the images that come with this camera_info, pixels; binning and the region of interest
    are applied.

    Raises ImageError with a sentence where it is not calibrated (K is zero) or K is no pinhole.
    """
    fx, skew, cx, _, fy, cy, *rest = (float(value) for value in info.k)
    if fx == 0 or fy == 0:
        raise ImageError(
            "uncalibrated",
            "The camera_info has no calibration (K is zero), so depth cannot be placed in space.",
        )
    if (
        not all(map(math.isfinite, (fx, fy, cx, cy)))
        or fx < 0
        or fy < 0
        or skew != 0
        or tuple(rest) != (0.0, 0.0, 1.0)
    ):
        raise ImageError(
            "calibration",
            f"The K of the camera_info, {[float(value) for value in info.k]}, is not that of a pinhole.",
        )
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
    """Raise ImageError with a sentence unless depth and camera_info belong to the image, pixel for pixel.

    image: the image's header; width, height: its pixels; depth: HxW; depth_header: its own. A depth image in
    another frame was not registered to this camera, whatever its size.
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
