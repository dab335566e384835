"""Pictures of a data set: where they lie, and their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def read_rgb(path: Path) -> np.ndarray:
    """A picture as uint8 HxWx3 RGB, as stored (no turning by EXIF). ValueError with a sentence for one that cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"The picture {path} is missing or cannot be decoded.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
