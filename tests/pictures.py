"""Pictures of the tests as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Read a picture as OpenCV does: HxWx3 in the order BGR, or what `flags` asks for."""
    pixels = cv2.imread(str(path), flags)
    assert pixels is not None, f"{path} is not a picture"
    return pixels


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a picture as uint8 HxWx3 in the order RGB."""
    return np.ascontiguousarray(read_picture(path)[..., ::-1], np.uint8)
