"""The interface every vision runtime implements, and the host steps they share: image to pixels, proposals to regions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import cv2
import numpy as np

from groma_ros.geometry import box_iou, cxcywh_to_xyxy, left_to_right, nms
from groma_ros.types import FloatArray, Frame, IntArray, Scene

Resize = Literal["bilinear", "bicubic", "area"]
RESIZES: tuple[Resize, ...] = ("bilinear", "bicubic", "area")
USER_BOX_SCORE = 1.0


class VisionTokenizer(Protocol):
    """Finds and encodes regions without knowing the goal."""

    def encode(self, frame: Frame) -> Scene:
        """One vision pass over a frame. Raises ValueError with a sentence for an image it cannot take."""
        ...

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """The scene with user boxes (Mx4 xyxy camera pixels) joined to the proposals, through the same selection."""
        ...


@dataclass(frozen=True)
class ImageTransform:
    """How a camera image becomes the network's square: a plain stretch to size x size, then (rgb / 255 - mean) / std.

    resize: `bilinear` (cv2, what the published referring evaluation used), `bicubic` (antialiased as Pillow does it, what the
    published demo used) or `area` (cv2, the mean of the covered pixels; the calmest when an image shrinks).
    """

    size: int
    resize: Resize = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(f"The image resize {self.resize!r} is unknown; use one of {', '.join(RESIZES)}.")

    def __call__(self, rgb: np.ndarray) -> FloatArray:
        """uint8 HxWx3 RGB to float32 3xSxS."""
        square = self._stretch(rgb)
        normal = (square.astype(np.float32) / 255.0 - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def _stretch(self, rgb: np.ndarray) -> np.ndarray:
        if rgb.shape[:2] == (self.size, self.size):
            return rgb
        if self.resize == "bicubic":
            return _bicubic(rgb, self.size)
        method = cv2.INTER_AREA if self.resize == "area" else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(rgb), (self.size, self.size), interpolation=method)


@lru_cache(maxsize=16)
def _bicubic_weights(source: int, target: int) -> FloatArray:
    """Antialiased bicubic (a = -0.5) resampling weights, target x source; the kernel widens when the image shrinks."""
    scale = max(source / target, 1.0)
    centre = (np.arange(target) + 0.5) * source / target
    distance = np.abs((np.arange(source)[None] + 0.5 - centre[:, None]) / scale)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _to_bytes(image: FloatArray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _bicubic(rgb: np.ndarray, size: int) -> np.ndarray:
    """Stretch by separable bicubic resampling, rounded to bytes after each axis as Pillow does."""
    across, down = _bicubic_weights(rgb.shape[1], size), _bicubic_weights(rgb.shape[0], size)
    wide = _to_bytes(np.einsum("hwc,sw->hsc", rgb.astype(np.float32), across, optimize=True))
    return _to_bytes(np.einsum("hsc,th->tsc", wide.astype(np.float32), down, optimize=True))


@dataclass(frozen=True)
class SelectionRule:
    """Which proposals become regions: score strictly above `score_threshold`, suppression above `nms_threshold`, at most `limit`."""

    score_threshold: float = 0.15
    nms_threshold: float = 0.6
    limit: int = 100


@dataclass(frozen=True, eq=False)
class Selection:
    """The regions of a scene. boxes: float32 Nx4 cxcywh fractions in the order of `<r0>`, `<r1>`, ...; scores: float32 N;
    user: int64 M, the region that stands for each user box (the one of highest IoU).
    """

    boxes: FloatArray
    scores: FloatArray
    user: IntArray


def select_regions(
    boxes: FloatArray,
    scores: FloatArray,
    rule: SelectionRule,
    user_boxes: FloatArray | None = None,
    permutation: IntArray | None = None,
) -> Selection:
    """Choose and order the regions of one image.

    boxes: Qx4 cxcywh fractions; scores: Q in 0..1; user_boxes: Mx4 cxcywh fractions, which join with score 1 before
    suppression, so that they win over the proposals they overlap. When nothing passes the threshold the best single box
    stays. Regions are named from left to right (`geometry.left_to_right` says why); `permutation` replaces that order by
    an injected one of the boxes that survived, best score first, to compare with a recorded run.
    """
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    user = np.zeros((0, 4), np.float32) if user_boxes is None else np.asarray(user_boxes, np.float32).reshape(-1, 4)
    boxes = np.concatenate([boxes, user])
    scores = np.concatenate([scores, np.full(len(user), USER_BOX_SCORE, np.float32)])
    if not len(boxes):
        raise ValueError("There is no proposal to select from.")
    kept = _survivors(boxes, scores, rule)
    order = left_to_right(boxes[kept]) if permutation is None or len(kept) == 1 else np.asarray(permutation)
    kept = kept[order]
    match = box_iou(cxcywh_to_xyxy(user), cxcywh_to_xyxy(boxes[kept])).argmax(1)
    return Selection(boxes[kept], scores[kept], match.astype(np.int64))


def _survivors(boxes: FloatArray, scores: FloatArray, rule: SelectionRule) -> IntArray:
    passed = np.flatnonzero(scores > rule.score_threshold)
    if not len(passed):
        return np.array([int(scores.argmax())], np.int64)
    return passed[nms(cxcywh_to_xyxy(boxes[passed]), scores[passed], rule.nms_threshold, rule.limit)]
