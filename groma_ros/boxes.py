"""Boxes and their coordinate conventions, which are defined only here.

`xyxy` is (x1, y1, x2, y2) in pixels of the camera image, x right and y down. `cxcywh` is (centre x, centre y,
width, height) as fractions of the image, the network's convention. The network's square input is a plain
stretch of the camera image, so fractions are the same in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray


def cxcywh_to_xyxy(boxes: FloatArray, width: float = 1.0, height: float = 1.0) -> FloatArray:
    """Convert boxes (..., 4) from cxcywh fractions to xyxy pixels of a width x height image."""
    boxes = np.asarray(boxes, np.float32)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], -1) * np.array(
        [width, height, width, height], np.float32
    )


def xyxy_to_cxcywh(boxes: FloatArray, width: float = 1.0, height: float = 1.0) -> FloatArray:
    """Convert boxes (..., 4) from xyxy pixels of a width x height image to cxcywh fractions."""
    scaled = (np.asarray(boxes, np.float32) / np.array([width, height, width, height], np.float32)).astype(
        np.float32, copy=False
    )
    return np.concatenate([(scaled[..., :2] + scaled[..., 2:]) / 2, scaled[..., 2:] - scaled[..., :2]], -1)


def clip_xyxy(boxes: FloatArray, width: float, height: float) -> FloatArray:
    """Clip boxes to the image."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(np.asarray(boxes, np.float32), 0, limit)


def box_iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of xyxy boxes: (N, 4) and (M, 4) to (N, M); 0 where both boxes are empty."""
    a, b = np.asarray(a, np.float32).reshape(-1, 4), np.asarray(b, np.float32).reshape(-1, 4)
    left, top, right, bottom = a.T[:, :, None]
    other_left, other_top, other_right, other_bottom = b.T[:, None]
    across = np.minimum(right, other_right) - np.maximum(left, other_left)
    down = np.minimum(bottom, other_bottom) - np.maximum(top, other_top)
    overlap = np.maximum(across, 0) * np.maximum(down, 0)
    area_a = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    area_b = np.maximum(other_right - other_left, 0) * np.maximum(other_bottom - other_top, 0)
    union = area_a + area_b - overlap
    iou: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou


def nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float, limit: int) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of xyxy boxes. Returns the kept indices, best score first, at most
    `limit`.

    A box is dropped when its IoU with a better kept box is strictly above the threshold; boxes of equal score
    keep their input order.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    overlap = box_iou(boxes, boxes)
    kept: list[int] = []
    for index in order:
        if len(kept) == limit:
            break
        if not kept or overlap[index, kept].max() <= iou_threshold:
            kept.append(int(index))
    return np.array(kept, np.int64)


def left_to_right(boxes: FloatArray) -> NDArray[np.int64]:
    """Indices that sort cxcywh boxes (N, 4) by centre x, then by centre y.

    Regions are named `<r0>`, `<r1>`, ... in this order. The published network was trained with a random order
    for each image, so any order works. This one changes least between frames of a moving camera, which keeps
    answers and caches stable, and it does not depend on nearly equal scores.
    """
    order: NDArray[np.int64] = np.lexsort((boxes[:, 1], boxes[:, 0])).astype(np.int64)
    return order
