"""RoIAlign as two small matrices against the sampled definition, negative extents included."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groma_ros.model.roi_align import roi_align


def _sampled(
    image: NDArray[Any], x1: float, y1: float, x2: float, y2: float, bins: int, samples: int
) -> NDArray[Any]:
    """RoIAlign by its definition, one sample at a time (groma_spec 5.3)."""
    channels, height, width = image.shape
    out = np.zeros((channels, bins, bins))
    step_x, step_y = (x2 - x1) / bins, (y2 - y1) / bins
    for p in range(bins):
        for q in range(bins):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + p * step_y + (i + 0.5) * step_y / samples
                    x = x1 + q * step_x + (j + 0.5) * step_x / samples
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = max(y, 0.0), max(x, 0.0)
                    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
                    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
                    fy = 0.0 if low_y >= height - 1 else y - low_y
                    fx = 0.0 if low_x >= width - 1 else x - low_x
                    top = image[:, low_y, low_x] * (1 - fx) + image[:, low_y, high_x] * fx
                    bottom = image[:, high_y, low_x] * (1 - fx) + image[:, high_y, high_x] * fx
                    out[:, p, q] += (top * (1 - fy) + bottom * fy) / samples**2
    return out


def test_roi_align_equals_its_definition_also_outside_and_backwards() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 9, 12)).astype(np.float32)
    corners = rng.uniform(-6, 18, (40, 4)).astype(np.float32)  # x1, y1, x2, y2 in any order
    assert (corners[:, 2] < corners[:, 0]).sum() > 5, "the draw must hold negative extents"
    start, end = torch.from_numpy(corners[None, :, :2]), torch.from_numpy(corners[None, :, 2:])
    pooled = roi_align(torch.from_numpy(image[None]), start, end, 5, 2)[0].numpy()
    for index, (x1, y1, x2, y2) in enumerate(corners):
        np.testing.assert_allclose(pooled[index], _sampled(image, x1, y1, x2, y2, 5, 2), atol=2e-5)
