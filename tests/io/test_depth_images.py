"""Depth images by value in every encoding and byte order, camera intrinsics, and rejected messages."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.io.depth_images import (
    check_registered,
    compressed_to_depth,
    image_to_depth,
    intrinsics_from_info,
)
from groma_ros.io.images import ImageError
from groma_ros.types import Intrinsics
from tests.io.test_images import image

MILLIMETRES = np.array([[0, 1, 850, 65535], [1234, 500, 0, 10_000], [300, 301, 302, 303]], np.uint16)
METRES = np.array([[np.nan, 0.5, -1.0, np.inf], [0.0, 1e-3, 12.25, -np.inf], [2, 3, 4, 5]], np.float32)
EXPECTED = {
    "16UC1": np.where(MILLIMETRES > 0, MILLIMETRES / 1000, np.nan).astype(np.float32),
    "32FC1": np.array(
        [[np.nan, 0.5, np.nan, np.nan], [np.nan, 1e-3, 12.25, np.nan], [2, 3, 4, 5]], np.float32
    ),
}
SAMPLES: dict[str, NDArray[Any]] = {"16UC1": MILLIMETRES, "32FC1": METRES}


@pytest.mark.parametrize("padding", [0, 2, 13])
@pytest.mark.parametrize("bigendian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("encoding", SAMPLES)
def test_depth_is_metres_and_nan_where_nothing_was_measured(
    encoding: str, bigendian: bool, padding: int
) -> None:
    depth = image_to_depth(image(encoding, SAMPLES[encoding], padding, bigendian))
    assert depth.dtype == np.float32 and depth.dtype.isnative and depth.flags.c_contiguous
    np.testing.assert_allclose(depth, EXPECTED[encoding], rtol=1e-6)


def test_the_message_is_left_as_it_was() -> None:
    message = image("32FC1", METRES)
    before = bytes(message.data)
    image_to_depth(message)[:] = 7
    assert message.data == before


@pytest.mark.parametrize("encoding", ["rgb8", "64FC1", "", "16SC1"])
def test_other_encodings_are_refused(encoding: str) -> None:
    message = image("16UC1", MILLIMETRES)
    message.encoding = encoding
    with pytest.raises(ImageError, match=r"which is not one of 16UC1, mono16, 32FC1") as caught:
        image_to_depth(message)
    assert caught.value.cause == "encoding"


def compressed_depth(samples: NDArray[Any], a: float = 0.0, b: float = 0.0) -> bytes:
    """What compressed_depth_image_transport sends: its header, then a PNG file."""
    return struct.pack("<iff", 0, a, b) + cv2.imencode(".png", samples)[1].tobytes()


@pytest.mark.parametrize(
    "label",
    [
        "16UC1; compressedDepth png",
        "16UC1; compressedDepth",
        "16UC1; png compressedDepth",
        "mono16; compressedDepth png",
    ],
)
def test_compressed_depth_of_millimetres(label: str) -> None:
    np.testing.assert_allclose(
        compressed_to_depth(compressed_depth(MILLIMETRES), label), EXPECTED["16UC1"], rtol=1e-6
    )


def test_compressed_depth_of_metres_is_inverse_depth_in_sixteen_bits() -> None:
    """With a quantization of 100 at 1 m and a greatest depth of 10 m, as the publisher computes its
    coefficients."""
    a = 100 * (100 + 1)
    b = 1 - a / 10.0
    metres = np.array([[0.5, 1.0, np.nan], [2.0, 5.0, 9.5]], np.float32)
    samples = np.where(np.isnan(metres), 0, np.round(a / metres + b)).astype(np.uint16)
    depth = compressed_to_depth(compressed_depth(samples, a, b), "32FC1; compressedDepth png")
    assert depth.dtype == np.float32 and np.isnan(depth[0, 2])
    # Half a step of inverse depth is z * z / (2 * a) metres.
    np.testing.assert_allclose(depth, metres, atol=9.5**2 / a)
    np.testing.assert_allclose(depth[0, :2], metres[0, :2], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "label", "cause"),
    [
        (compressed_depth(MILLIMETRES), "16UC1; compressedDepth rvl", "encoding"),
        (compressed_depth(MILLIMETRES), "rgb8; jpeg compressed", "encoding"),
        (compressed_depth(MILLIMETRES)[:8], "16UC1; compressedDepth png", "truncated"),
        (compressed_depth(MILLIMETRES)[:-12], "16UC1; compressedDepth png", "truncated"),
        (compressed_depth(MILLIMETRES)[2:], "16UC1; compressedDepth png", "format"),
        (compressed_depth(MILLIMETRES.astype(np.uint8)), "16UC1; compressedDepth png", "encoding"),
        (compressed_depth(MILLIMETRES, float("nan"), 1.0), "32FC1; compressedDepth png", "damaged"),
        (compressed_depth(MILLIMETRES, 0.0, 1.0), "32FC1; compressedDepth png", "damaged"),
    ],
)
def test_other_compressed_depth_is_refused(content: bytes, label: str, cause: str) -> None:
    with pytest.raises(ImageError) as caught:
        compressed_to_depth(content, label)
    assert caught.value.cause == cause


def test_a_cut_depth_image_is_refused() -> None:
    message = image("16UC1", MILLIMETRES)
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match="is truncated: 23 bytes") as caught:
        image_to_depth(message)
    assert caught.value.cause == "length"


def info(k: list[float] | None = None, **changes: Any) -> Any:
    """A camera_info of 640x480 pixels."""
    region = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    values = k or [600.0, 0, 320.5, 0, 610.0, 240.25, 0, 0, 1]
    return SimpleNamespace(
        **dict(k=values, width=640, height=480, binning_x=0, binning_y=0, roi=region) | changes
    )


def test_the_pinhole_is_that_of_k() -> None:
    assert intrinsics_from_info(info()) == Intrinsics(600.0, 610.0, 320.5, 240.25, 640, 480)


def test_binning_and_region_of_interest_are_applied() -> None:
    region = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    assert intrinsics_from_info(info(roi=region)) == Intrinsics(600.0, 610.0, 220.5, 200.25, 400, 300)
    binned = intrinsics_from_info(info(roi=region, binning_x=2, binning_y=2))
    assert binned == Intrinsics(300.0, 305.0, 110.25, 100.125, 200, 150)


@pytest.mark.parametrize(
    ("k", "cause", "sentence"),
    [
        ([0.0] * 9, "uncalibrated", "has no calibration"),
        ([600.0, 0, 320, 0, 600, 240, 0, 0, 0], "calibration", "is not that of a pinhole"),
        ([600.0, 5, 320, 0, 600, 240, 0, 0, 1], "calibration", "is not that of a pinhole"),
        ([float("nan"), 0, 320, 0, 600, 240, 0, 0, 1], "calibration", "is not that of a pinhole"),
        ([-600.0, 0, 320, 0, 600, 240, 0, 0, 1], "calibration", "is not that of a pinhole"),
    ],
)
def test_a_camera_info_that_is_no_pinhole_is_refused(k: list[float], cause: str, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence) as caught:
        intrinsics_from_info(info(k))
    assert caught.value.cause == cause


CAMERA = Intrinsics(600, 600, 320, 240, 640, 480)
DEPTH = np.ones((480, 640), np.float32)
HEADER = SimpleNamespace(frame_id="colour")


def test_what_belongs_together_passes() -> None:
    check_registered(HEADER, 640, 480, DEPTH, SimpleNamespace(frame_id="colour"), CAMERA)


@pytest.mark.parametrize(
    ("changes", "cause", "sentence"),
    [
        (
            {"camera": replace(CAMERA, width=1280)},
            "camera_info size",
            "camera_info is of 1280x480 pixels and the image of 640x480",
        ),
        (
            {"depth": DEPTH[::2, ::2]},
            "depth size",
            "depth image is of 320x240 pixels and the image of 640x480",
        ),
        (
            {"depth_header": SimpleNamespace(frame_id="infra")},
            "depth not registered",
            "in the frame 'infra' and the image in 'colour'",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], cause: str, sentence: str) -> None:
    parts: dict[str, Any] = {
        "image": HEADER,
        "width": 640,
        "height": 480,
        "depth": DEPTH,
        "depth_header": HEADER,
        "camera": CAMERA,
    } | changes
    with pytest.raises(ImageError, match=sentence) as caught:
        check_registered(**parts)
    assert caught.value.cause == cause
