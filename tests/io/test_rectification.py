"""Choice of the intrinsics in camera_info that belong to an image."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from groma_ros.io.depth_images import intrinsics_from_info
from groma_ros.io.images import ImageError
from groma_ros.io.rectification import rectification
from groma_ros.types import Intrinsics

K = [500.0, 0, 330, 0, 500, 235, 0, 0, 1]
P = [627.5, 0, 320, -12, 0, 627.5, 240, 0, 0, 0, 1, 0]


def info(k: list[float] = K, p: list[float] = P) -> Any:
    """A camera_info of 640x480 pixels."""
    region = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    return SimpleNamespace(k=k, p=p, width=640, height=480, binning_x=0, binning_y=0, roi=region)


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/image_rect", True),
        ("/camera/image_rect/compressed", True),
        ("/camera/camera/infra1/image_rect_raw", True),
        ("/zed/zed_node/rgb/color/rect/image", True),
        ("/zed/zed_node/rgb/image_rect_color", True),
        ("/stereo/left/image_rectified", True),
        ("/camera/image_raw", False),
        ("/camera/image_raw/compressed", False),
        ("/zed/zed_node/rgb/color/raw/image", False),
        ("/rect/image_raw", False),
        ("/zed/zed_node/rgb/image_unrectified", False),
    ],
)
def test_topic_name_tells_whether_images_are_rectified(topic: str, rectified: bool) -> None:
    found = rectification("auto", topic, info())
    assert (found.rectified, found.guess) == (rectified, "")
    expected = (
        Intrinsics(627.5, 627.5, 320, 240, 640, 480)
        if rectified
        else Intrinsics(500, 500, 330, 235, 640, 480)
    )
    assert intrinsics_from_info(info(), found.rectified) == expected


@pytest.mark.parametrize(
    "topic", ["/camera/image", "/directory/image_color", "/image", "/my_raw_robot/camera/image"]
)
def test_neutral_topic_name_is_a_guess_only_if_k_and_p_differ(topic: str) -> None:
    found = rectification("auto", topic, info())
    assert not found.rectified
    assert (
        topic in found.guess
        and "500.0" in found.guess
        and "627.5" in found.guess
        and "rectified" in found.guess
    )
    same = [500.0, 0, 330, 0, 0, 500, 235, 0, 0, 0, 1, 0]
    assert rectification("auto", topic, info(p=same)).guess == ""


def test_the_setting_overrides_the_name() -> None:
    assert rectification("true", "/camera/image_raw", info()).rectified
    assert not rectification("false", "/camera/image_rect", info()).rectified
    with pytest.raises(ValueError, match="rectified is 'yes'; it must be one of auto, true, false"):
        rectification("yes", "/camera/image_raw", info())


@pytest.mark.parametrize("p", [[0.0] * 12, [], [float("nan")] + [0.0] * 11])
@pytest.mark.parametrize("setting", ["auto", "true"])
def test_without_a_projection_k_holds(p: list[float], setting: str) -> None:
    found = rectification(setting, "/camera/image_rect", info(p=p))
    assert not found.rectified
    assert found.guess.startswith(
        "The images of /camera/image_rect count as rectified, and their camera_info"
    )
    assert rectification("auto", "/camera/image_raw", info(p=p)).guess == ""


def test_a_projection_that_is_no_pinhole_is_refused() -> None:
    with pytest.raises(ImageError, match="The P of the camera_info, .* is not that of a pinhole") as caught:
        intrinsics_from_info(info(p=[627.5, 3, *P[2:]]), rectified=True)
    assert caught.value.cause == "calibration"
