"""Use cv_bridge, if it is installed, for the common 8-bit encodings of images without padding.

Its Python half ignores `step` (padded rows come out sheared) and raises on the big-endian flag with numpy 2,
also where samples have one byte, and it knows neither NV12 nor NV21 nor I420: those are converted by
`groma_ros.io.images`. Its binary half is tied to one numpy; where that does not load, all encodings are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from groma_ros.io.images import ENCODINGS, ImageMessage, Pixels, image_to_rgb, raw_pixels

BRIDGED = frozenset({"bgr8", "rgba8", "bgra8", "mono8", "rgb8"})
"""Encodings that cv_bridge converts to the same pixels as `image_to_rgb`; tests hold the two together."""


@lru_cache(maxsize=1)
def cv_bridge() -> Any:
    """A CvBridge; None where cv_bridge is not installed or does not load with this numpy and OpenCV."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:  # a binary half built for another numpy raises whatever its import leads to
        return None


def message_to_rgb(message: ImageMessage) -> Pixels:
    """The pixels of a raw image, uint8 HxWx3 rgb. Raises `images.ImageError` as `image_to_rgb` does."""
    bridge = cv_bridge() if message.encoding in BRIDGED else None
    if bridge is None:
        return image_to_rgb(message)
    encoding, _ = raw_pixels(message, ENCODINGS)
    if message.is_bigendian or message.step != message.width * encoding.pixel_bytes:
        return image_to_rgb(message)
    return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, "rgb8"), np.uint8)
