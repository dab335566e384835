"""Boxes and their frames of reference. Nothing else in the project knows a coordinate convention.

`xyxy` is (x1, y1, x2, y2) in pixels of the camera image, x right and y down. `cxcywh` is (centre x, centre y,
width, height) as fractions of the image, which is what the network speaks. The network's square input is a
plain stretch of the camera image, so fractions are the same in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from groma_ros.types import FloatArray


def cxcywh_to_xyxy(boxes: FloatArray, width: float = 1.0, height: float = 1.0) -> FloatArray:
    """Fractions (..., 4) cxcywh to xyxy, scaled to an image of width x height pixels."""
    boxes = np.asarray(boxes, np.float32)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], -1) * np.array(
        [width, height, width, height], np.float32
    )


def xyxy_to_cxcywh(boxes: FloatArray, width: float = 1.0, height: float = 1.0) -> FloatArray:
    """Pixels (..., 4) xyxy of an image of width x height to fractions cxcywh."""
    scaled = (np.asarray(boxes, np.float32) / np.array([width, height, width, height], np.float32)).astype(
        np.float32, copy=False
    )
    return np.concatenate([(scaled[..., :2] + scaled[..., 2:]) / 2, scaled[..., 2:] - scaled[..., :2]], -1)


def clip_xyxy(boxes: FloatArray, width: float, height: float) -> FloatArray:
    """Boxes cut to the image."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(np.asarray(boxes, np.float32), 0, limit)


def box_iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of xyxy boxes: (N, 4) and (M, 4) to (N, M); 0 where both boxes are empty."""
    a, b = np.asarray(a, np.float32).reshape(-1, 4), np.asarray(b, np.float32).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(-1)
    area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1)
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float, limit: int) -> NDArray[np.int64]:
    """Greedy non-maximum suppression of xyxy boxes: indices kept, best score first, at most `limit`.

    A box goes when its IoU with a better kept one is strictly above the threshold; equal scores keep their
    input order.
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
    """Order of cxcywh or xyxy-centred boxes by centre x, then centre y; `boxes` is (N, 4) cxcywh.

    This is the order in which regions are named `<r0>`, `<r1>`, ... The published network drew a random order
    per image, so any fixed order is one it knows. Left to right is the one that changes least between frames
    of a moving camera, which keeps answers and caches stable, and it does not depend on near-equal scores.
    """
    return np.lexsort((boxes[:, 1], boxes[:, 0])).astype(np.int64)
