"""Use cv_bridge, if installed, for the common 8-bit encodings of images without padding.

Its Python code ignores `step` (padded rows come out sheared), raises on the big-endian flag with numpy 2 even
for 8-bit samples, and lacks NV12, NV21 and I420; `groma_ros.io.images` converts those. Its binary extension
is built for one numpy; if it fails to load, `groma_ros.io.images` converts every encoding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from groma_ros.io.images import ENCODINGS, ImageMessage, Pixels, image_to_rgb, raw_pixels

BRIDGED = frozenset({"bgr8", "rgba8", "bgra8", "mono8", "rgb8"})
"""Encodings that cv_bridge converts to the same pixels as `image_to_rgb`; tests compare the two."""


@lru_cache(maxsize=1)
def cv_bridge() -> Any:
    """Return a CvBridge; None if cv_bridge is not installed or fails to load with this numpy and OpenCV."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:  # importing an extension built for another numpy can raise anything
        return None


def message_to_rgb(message: ImageMessage) -> Pixels:
    """Convert a raw image to uint8 HxWx3 RGB. Raises `images.ImageError` as `image_to_rgb` does."""
    bridge = cv_bridge() if message.encoding in BRIDGED else None
    if bridge is None:
        return image_to_rgb(message)
    encoding, _ = raw_pixels(message, ENCODINGS)
    if message.is_bigendian or message.step != message.width * encoding.pixel_bytes:
        return image_to_rgb(message)
    return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, "rgb8"), np.uint8)
