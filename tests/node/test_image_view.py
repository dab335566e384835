"""Images read in place equal deserialized ones; everything else is left to the middleware."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from groma_ros.node.conversions import frame_from_image, image_message, image_size, to_time
from groma_ros.node.image_view import START, read_compressed, read_image
from tests.small import blocks

FIELDS = ("header", "height", "width", "encoding", "is_bigendian", "step")


def message(frame_id: str = "camera", encoding: str = "rgb8", padding: int = 0) -> Image:
    """An image of 48x64 pixels whose rows are padded."""
    found = image_message(Header(stamp=to_time(2**31 * 10**9 - 1), frame_id=frame_id), blocks(3))
    rows = np.pad(np.frombuffer(bytes(found.data), np.uint8).reshape(48, -1), ((0, 0), (0, padding)))
    found.encoding, found.step, found.data = encoding, rows.shape[1], rows.tobytes()
    return found


@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "camera/\u00e9 \u6444"])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "8UC3"])
def test_every_field_is_that_of_the_deserialized_message(frame_id: str, encoding: str) -> None:
    for padding in (0, 5):
        data = serialize_message(message(frame_id, encoding, padding))
        view, wanted = read_image(data), deserialize_message(data, Image)
        assert view is not None
        assert [getattr(view, name) for name in FIELDS] == [getattr(wanted, name) for name in FIELDS]
        assert bytes(view.data) == bytes(wanted.data) == bytes(message(frame_id, encoding, padding).data)


def test_an_empty_image_is_one() -> None:
    view = read_image(serialize_message(Image()))
    assert view is not None and (view.width, view.encoding, len(view.data)) == (0, "", 0)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_frames_of_both_are_equal(encoding: str, padding: int) -> None:
    data = serialize_message(message(encoding=encoding, padding=padding))
    view = read_image(data)
    assert view is not None
    found, wanted = frame_from_image(view), frame_from_image(deserialize_message(data, Image))
    assert np.array_equal(found.rgb, wanted.rgb) and found.stamp == wanted.stamp
    assert found.frame_id == wanted.frame_id == "camera"
    # The pixels of a plain RGB image stay in the message, which nobody may draw on.
    assert found.rgb.flags.writeable == ((encoding, padding) != ("rgb8", 0))


def test_what_is_not_a_whole_plain_image_is_left_to_the_middleware() -> None:
    data = serialize_message(message())
    head = len(data) - 48 * 64 * 3
    assert all(read_image(data[:cut]) is None for cut in [*range(head), len(data) - 1])
    big_endian, other = b"\x00\x00" + data[2:], b"\x00\x0b" + data[2:]
    assert read_image(big_endian) is None and read_image(other) is None
    # frame_id begins after the stamp: its length, and a byte that no text has.
    for place, value in ((START + 8, b"\xff\xff\xff\x7f"), (START + 8, b"\0\0\0\0"), (START + 12, b"\xff")):
        assert read_image(data[:place] + value + data[place + len(value) :]) is None


def compressed(frame_id: str = "camera", ending: str = ".jpg") -> CompressedImage:
    """A compressed image of 64x48 pixels."""
    done, file = cv2.imencode(ending, blocks(3))
    assert done
    header = Header(stamp=to_time(2**31 * 10**9 - 1), frame_id=frame_id)
    return CompressedImage(header=header, format=ending[1:], data=file.tobytes())


@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "camera/\u00e9 \u6444"])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_compressed_image_in_place_is_the_deserialized_one(frame_id: str, ending: str) -> None:
    data = serialize_message(compressed(frame_id, ending))
    view, wanted = read_compressed(data), deserialize_message(data, CompressedImage)
    assert view is not None and (view.header, view.format) == (wanted.header, wanted.format)
    assert bytes(view.data) == bytes(wanted.data)
    assert np.array_equal(frame_from_image(view).rgb, frame_from_image(wanted).rgb)
    assert image_size(view) == image_size(wanted) == (64, 48)
    head = len(data) - len(wanted.data)
    assert all(read_compressed(data[:cut]) is None for cut in [*range(head), len(data) - 1])


def test_sizes_are_told_without_decoding() -> None:
    raw = read_image(serialize_message(message()))
    assert image_size(raw) == image_size(message()) == (64, 48)
    assert image_size(CompressedImage(format="webp", data=b"RIFF")) is None
