"""JPEG files as cameras write them, in the forms that a decoder accepts: their pixels, no false refusal."""

from __future__ import annotations

import time
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.io.images import ImageError, compressed_to_rgb
from groma_ros.io.jpeg_files import MOST_SEGMENTS, TooManySegmentsError, read_jpeg, segments
from groma_ros.io.picture_files import orientation

HUFFMAN_TABLES, FIRST_APPLICATION, COMMENT = 0xC4, 0xE0, 0xFE
EXIF_SIX = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
SAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def encoded(colours: int = 3, *options: int) -> bytes:
    """A smooth picture of 61x45 pixels."""
    noise = np.random.default_rng(3).integers(0, 256, (45, 61, colours), np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (9, 9), 3), options)[1].tobytes()


def decoded(content: bytes) -> NDArray[Any]:
    """What OpenCV makes of it, rgb."""
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]


def without(content: bytes, *markers: int) -> bytes:
    """The file without its segments of these kinds."""
    found = list(segments(content))
    kept = [content[start - 4 : end] for marker, start, end in found if marker not in markers]
    return b"".join([content[:2], *kept, content[found[-1][2] :]])


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2, "big") + data


@pytest.mark.parametrize("restart", [0, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frames_of_usb_cameras_without_huffman_tables(sampling: str, restart: int) -> None:
    """MJPEG leaves out the tables of the standard, which a decoder then takes."""
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling], cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    content = encoded(3, *options)
    frame = without(content, HUFFMAN_TABLES, FIRST_APPLICATION)
    frame = frame[:2] + segment(FIRST_APPLICATION, b"AVI1" + bytes(10)) + frame[2:]
    assert (
        HUFFMAN_TABLES not in {marker for marker, _, _ in segments(frame)} and len(frame) < len(content) - 400
    )
    np.testing.assert_array_equal(compressed_to_rgb(frame, "jpeg"), decoded(content))
    begin = list(segments(frame))[-1][2]
    with pytest.raises(ImageError, match="truncated"):
        compressed_to_rgb(frame[: (begin + len(frame)) // 2].rstrip(b"\xff") + b"\xff\xd9", "jpeg")


@pytest.mark.parametrize("tables", [True, False])
def test_grey_frames(tables: bool) -> None:
    content = encoded(1)
    frame = content if tables else without(content, HUFFMAN_TABLES)
    np.testing.assert_array_equal(compressed_to_rgb(frame), decoded(content))


@pytest.mark.parametrize("place", [1, 4, 8])
@pytest.mark.parametrize(
    "more",
    [
        b"\xff\xff\xff",  # fill bytes
        b"\0\0\x12",  # bytes of no segment
        b"\xff\x01",  # a temporary marker
        b"\xff\xd3",  # a restart
        segment(0xEB, encoded()),  # a preview with markers of its own
        segment(COMMENT, b"\xff\xd9\xff\xda"),
    ],
)
def test_what_stands_between_segments_is_skipped(more: bytes, place: int) -> None:
    content = encoded()
    found = list(segments(content))
    assert [end + 4 for _, _, end in found[:-1]] == [start for _, start, _ in found[1:]]
    at = found[place][1] - 4
    frame = content[:at] + more + content[at:]
    jpeg = read_jpeg(frame)
    assert jpeg is not None and (jpeg.width, jpeg.height, jpeg.components, jpeg.whole) == (61, 45, 3, True)
    np.testing.assert_array_equal(compressed_to_rgb(frame), decoded(content))
    np.testing.assert_array_equal(decoded(frame), decoded(content))


@pytest.mark.parametrize("more", [bytes(500), b"\xff" * 40, encoded(1), b"\r\n--boundary"])
def test_what_follows_the_end_is_skipped(more: bytes) -> None:
    content = encoded()
    np.testing.assert_array_equal(compressed_to_rgb(content + more), decoded(content))


@pytest.mark.parametrize("before", [b"", b"\xff\xff", b"\0", segment(FIRST_APPLICATION, b"JFIF\0")])
def test_the_orientation_is_found_where_a_decoder_finds_it(before: bytes) -> None:
    content = encoded()
    assert orientation(content[:2] + before + segment(0xE1, EXIF_SIX) + content[2:]) == 6
    late = content[:-2] + segment(0xE1, EXIF_SIX) + content[-2:]  # behind the picture: of another one
    assert orientation(late) == 1


def test_segments_never_run_backwards() -> None:
    """Whatever the lengths say."""
    rng = np.random.default_rng(5)
    for _ in range(300):
        content = b"\xff\xd8" + bytes(rng.choice([0, 1, 2, 0xC0, 0xDA, 0xE1, 0xFF], 60).astype(np.uint8))
        places = [place for _, start, end in segments(content) for place in (start, end)]
        assert all(first < second + 1 for first, second in pairwise(places))


@pytest.mark.parametrize(
    ("unit", "is_long"),
    [
        (b"\xff", False),
        (b"\xff\0", False),
        (b"\xff\xe1\0\0", True),
        (b"\xff\xe1\0\1", True),
        (b"\xff\xc0\0\2", True),
        (b"\0", False),
    ],
)
def test_a_large_file_without_a_picture_costs_little(unit: bytes, is_long: bool) -> None:
    """A loop over its bytes took ten seconds for each 20 MB."""
    content = b"\xff\xd8" + unit * (20_000_000 // len(unit))
    start = time.process_time()
    with pytest.raises(TooManySegmentsError) if is_long else nullcontext():
        assert read_jpeg(content) is None
    assert orientation(content) == 1
    assert time.process_time() - start < 4


@pytest.mark.parametrize(
    "unit", [b"\xff", b"\xff\0", b"\xff\xd1", segment(COMMENT, b""), segment(0xDA, b"\1\1\0\0\x3f\0")]
)
def test_a_large_file_with_a_picture_costs_little(unit: bytes) -> None:
    """A loop over its segments took seven seconds for each 20 MB."""
    content = encoded()
    large = content[:-2] + unit * (20_000_000 // len(unit)) + content[-2:]
    start = time.process_time()
    if len(unit) < 4:
        jpeg = read_jpeg(large)
        assert jpeg is not None and (jpeg.width, jpeg.height, jpeg.whole) == (61, 45, True)
        assert jpeg.end == (len(content) - 2 if unit == b"\xff" else len(large) - 2)
    else:
        with pytest.raises(TooManySegmentsError):
            read_jpeg(large)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("behind", [False, True])
def test_a_file_of_very_many_segments_is_not_called_truncated(behind: bool) -> None:
    content, empty = encoded(), segment(COMMENT, b"")
    at = len(content) - 2 if behind else 2
    few, many = (content[:at] + empty * count + content[at:] for count in (9_900, MOST_SEGMENTS + 1))
    np.testing.assert_array_equal(compressed_to_rgb(few), decoded(content))
    with pytest.raises(ImageError, match=r"has more than 10000 segments, the most that are read\.") as caught:
        compressed_to_rgb(many)
    assert caught.value.cause == "size"
