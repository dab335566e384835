"""cv_bridge and our own conversion give the same pixels, and each is used where it is correct."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Image

from groma_ros.io.images import ImageError, image_to_rgb
from groma_ros.node import bridge
from groma_ros.node.bridge import BRIDGED, cv_bridge, message_to_rgb
from tests.io.test_images import CASES, image


def message(encoding: str, padding: int = 0) -> Image:
    found = image(encoding, CASES[encoding][0], padding)
    values = {
        name: getattr(found, name) for name in ("height", "width", "encoding", "is_bigendian", "step", "data")
    }
    return Image(**values)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The encodings passed to cv_bridge."""
    asked: list[str] = []
    real = cv_bridge()
    assert real is not None

    def convert(message: Any, wanted: str) -> Any:
        asked.append(message.encoding)
        return real.imgmsg_to_cv2(message, wanted)

    monkeypatch.setattr(bridge, "cv_bridge", lambda: SimpleNamespace(imgmsg_to_cv2=convert))
    return asked


@pytest.mark.parametrize("encoding", sorted(BRIDGED))
def test_it_gives_the_same_pixels(encoding: str, calls: list[str]) -> None:
    rgb = message_to_rgb(message(encoding))
    assert calls == [encoding] and rgb.flags.c_contiguous and rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, image_to_rgb(message(encoding)))
    np.testing.assert_array_equal(rgb, CASES[encoding][1])


def test_it_is_not_asked_where_it_is_wrong(calls: list[str]) -> None:
    np.testing.assert_array_equal(message_to_rgb(message("bgr8", padding=5)), CASES["bgr8"][1])
    np.testing.assert_array_equal(message_to_rgb(message("rgb16")), CASES["rgb16"][1])
    assert calls == []


@pytest.mark.parametrize("encoding", sorted(BRIDGED))
def test_bytes_have_no_order(encoding: str, calls: list[str]) -> None:
    """Drivers of big-endian cameras set the flag for 8-bit images too; cv_bridge fails on it with numpy 2."""
    flagged = message(encoding)
    flagged.is_bigendian = 1
    np.testing.assert_array_equal(message_to_rgb(flagged), CASES[encoding][1])
    assert calls == []


def test_a_message_that_contradicts_itself_is_refused_first(calls: list[str]) -> None:
    wrong = message("bgr8")
    wrong.data = bytes(wrong.data)[:-1]
    with pytest.raises(ImageError, match="truncated"):
        message_to_rgb(wrong)
    assert calls == []


def test_without_it_all_is_converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "cv_bridge", lambda: None)
    np.testing.assert_array_equal(message_to_rgb(message("bgr8")), CASES["bgr8"][1])
