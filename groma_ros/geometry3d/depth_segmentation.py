"""Segment the object that a 2D box frames in a depth window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.geometry3d.plane_ransac import quantiles
from groma_ros.types import FloatArray

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]

_INSIDE = 0.85  # share of pixels inside the box, for a piece that is joined to the object
_BETTER = 0.02  # minimum gain in IoU by adding a piece
FITS = 0.6
"""IoU with the box from which a piece is trusted more than the box."""
_MARGIN = 0.05  # share of the box's sides
_BEHIND = 0.5  # maximum gap in depth to a joined piece, as a share of the longer side in metres
_RANGE = 0.05  # share of a piece's pixels that are left out at either end of its range of depths
_FEW = 12  # components that are measured one by one
_NOTHING = 1e30  # metres, farther than anything
_NEIGHBOURS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def cut_at_jumps(depth: FloatArray, raised: Mask, step: float, slope: float) -> Mask:
    """The raised pixels of HxW depth (float32, metres) without the farther side of every jump between
    neighbours that are both raised. A jump is more than `step` metres and `slope` of the nearer depth.

    Pixels without depth (NaN) may not be raised. The 4-connected components of the mask are surfaces without
    a jump.
    """
    # The nearest of a pixel and its four neighbours; those outside the image do not count.
    nearest = np.asarray(cv2.erode(only(raised, depth, _NOTHING), _NEIGHBOURS), np.float32)
    nearest *= np.float32(1 + slope)
    nearest += np.float32(step)
    return np.asarray(raised & (depth <= nearest))


def select(pieces: Mask, depth: FloatArray, focal: float, box: Box, least: int) -> tuple[Mask, float]:
    """Select the pixels of the object that an xyxy box frames. Returns the mask and the IoU of the box around
    it with the given box.

    pieces: HxW mask whose 4-connected components are pieces of surface; depth: HxW, metres; focal: focal
    length in pixels; least: minimum number of pixels. A detector's box is tight, so the object is the piece
    whose own box agrees best with it. Other pieces inside the box are added if they improve the agreement and
    are about as far away: a wall that is visible through the object also improves it. If the agreement is
    poor, only the part inside the box is taken. The mask is empty if too little is left.
    """
    count, found = cv2.connectedComponents(pieces.view(np.uint8), connectivity=4)
    labels = np.asarray(found)
    inside = np.bincount(labels[_frame(box, pieces.shape)].ravel(), minlength=count)
    candidates = [index for index in range(1, count) if inside[index] >= max(1, least // 4)]
    nothing = np.zeros_like(pieces)
    if not candidates:
        return nothing, 0.0
    area, extents = _measured(pieces, labels, candidates)
    best = max(candidates, key=lambda index: _iou(extents[index], box) * np.sqrt(inside[index] / area[index]))
    chosen, whole = [best], extents[best]
    share = _BEHIND * max(box[2] - box[0], box[3] - box[1]) / focal
    near, far = 0.0, -1.0  # depths of what is chosen, once a piece may be joined
    for index in sorted(candidates, key=lambda index: -inside[index]):
        joined = _union(whole, extents[index])
        if inside[index] < _INSIDE * area[index] or _iou(joined, box) <= _iou(whole, box) + _BETTER:
            continue
        if far < near:
            near, far = _range(depth, labels, best)
        start, end = _range(depth, labels, index)
        if start - far <= share * near and near - end <= share * near:
            chosen.append(index)
            whole = joined
            near, far = min(near, start), max(far, end)
    fit = _iou(whole, box)
    mask: Mask = labels == chosen[0]
    for index in chosen[1:]:
        mask |= labels == index
    if fit < FITS:
        cut = nothing.copy()
        cut[_frame(_grown(box), pieces.shape)] = True
        mask &= cut
    return (mask, fit) if np.count_nonzero(mask) >= least else (nothing, 0.0)


def smoothed(depth: NDArray[np.floating], mask: Mask, size: int) -> NDArray[np.float32]:
    """Average depth over the mask's pixels in size x size neighbourhoods; other pixels are NaN."""

    def total(values: NDArray[np.floating]) -> NDArray[np.float32]:
        flat = np.asarray(values, np.float32)
        return np.asarray(
            cv2.boxFilter(flat, -1, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
        )

    mean = total(only(mask, depth, 0.0)) / np.maximum(total(mask.astype(np.float32)), 1)
    return only(mask, mean, np.nan)


def only(mask: NDArray[np.bool_ | np.uint8], values: NDArray[np.floating], other: float) -> FloatArray:
    """Values where a mask is set, `other` elsewhere, float32: as `np.where`, in a quarter of its time."""
    kept = np.full(values.shape, other, np.float32)
    return np.asarray(cv2.copyTo(np.asarray(values, np.float32), mask.view(np.uint8), kept))


def _frame(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns whose pixel centres lie in the box."""
    x1, y1, x2, y2 = (max(0, int(np.ceil(value - 0.5))) for value in box)
    return slice(y1, min(y2, shape[0])), slice(x1, min(x2, shape[1]))


def _grown(box: Box) -> Box:
    x1, y1, x2, y2 = box
    across, down = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
    return x1 - across, y1 - down, x2 + across, y2 + down


def _measured(
    pieces: Mask, labels: NDArray[Any], candidates: Sequence[int]
) -> tuple[dict[int, int], dict[int, Box]]:
    """Number of pixels, and the box around them, of some connected components."""
    rows: dict[int, list[int]] = {}
    if len(candidates) > _FEW:
        stats = np.asarray(cv2.connectedComponentsWithStats(pieces.view(np.uint8), connectivity=4)[2])
        rows = {index: stats[index].tolist() for index in candidates}
    else:  # the statistics of all components take three times as long as their labels
        for index in candidates:
            mask = (labels == index).view(np.uint8)
            rows[index] = [*cv2.boundingRect(mask), cv2.countNonZero(mask)]
    extents = {
        index: (float(x), float(y), float(x + width), float(y + height))
        for index, (x, y, width, height, _) in rows.items()
    }
    return {index: row[4] for index, row in rows.items()}, extents


def _range(depth: FloatArray, labels: NDArray[Any], index: int) -> tuple[float, float]:
    """Nearest and farthest depth of a connected component, without outliers."""
    values = depth[labels == index][None]
    return float(quantiles(values, _RANGE)[0]), float(quantiles(values, 1 - _RANGE)[0])


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0
