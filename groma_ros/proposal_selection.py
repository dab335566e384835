"""Select the regions of a scene from proposals: threshold, non-maximum suppression, order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groma_ros.boxes import box_iou, cxcywh_to_xyxy, left_to_right, nms
from groma_ros.timing import stage
from groma_ros.types import FloatArray, IntArray

USER_BOX_SCORE = 1.0


@dataclass(frozen=True)
class SelectionRule:
    """Which proposals become regions."""

    score_threshold: float = 0.15
    """Proposals must score strictly above this."""
    nms_threshold: float = 0.6
    """IoU above which the lower-scoring of two proposals is dropped."""
    limit: int = 100
    """Maximum number of regions."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The regions of a scene, in the order of their names `<r0>`, `<r1>`, ..."""

    boxes: FloatArray
    """float32 Nx4, cxcywh fractions."""
    scores: FloatArray
    """float32 N."""
    user: IntArray
    """int64 M: for each user box, the region with the highest IoU."""
    candidates: IntArray
    """int64 N: index of each region in the concatenation of proposals, user boxes and true boxes."""


@stage("select")
def select_regions(
    boxes: FloatArray,
    scores: FloatArray,
    rule: SelectionRule,
    user_boxes: FloatArray | None = None,
    permutation: IntArray | None = None,
    true_boxes: FloatArray | None = None,
    true_score: float = 0.2,
) -> Selection:
    """Select and order the regions of one image.

    boxes: Qx4 cxcywh fractions; scores: Q in 0..1; user_boxes: Mx4 cxcywh fractions, added with score 1
    before suppression, so they win over proposals they overlap; permutation: replaces the left-to-right order
    (see `boxes.left_to_right`) by an order of the surviving boxes, best score first, to compare with a
    recorded run; true_boxes: Gx4, in training only, added with true_score so that every true box has a region
    nearby.

    If nothing passes the threshold, the best single box is kept. Raises ValueError if there are no proposals
    or permutation has the wrong length.
    """
    user, true = (
        np.asarray([] if b is None else b, np.float32).reshape(-1, 4) for b in (user_boxes, true_boxes)
    )
    boxes = np.concatenate([np.asarray(boxes, np.float32).reshape(-1, 4), user, true])
    joined = np.repeat(np.asarray([USER_BOX_SCORE, true_score], np.float32), [len(user), len(true)])
    scores = np.concatenate([np.asarray(scores, np.float32), joined])
    if not len(boxes):
        raise ValueError("There is no proposal to select from.")
    kept = _survivors(boxes, scores, rule)
    if permutation is not None and len(permutation) != len(kept):
        raise ValueError(f"The injected order has {len(permutation)} entries for {len(kept)} regions.")
    order = left_to_right(boxes[kept]) if permutation is None else np.asarray(permutation)
    kept = kept[order]
    match = box_iou(cxcywh_to_xyxy(user), cxcywh_to_xyxy(boxes[kept])).argmax(1)
    return Selection(boxes[kept], scores[kept], match.astype(np.int64), kept)


def _survivors(boxes: FloatArray, scores: FloatArray, rule: SelectionRule) -> IntArray:
    passed = np.flatnonzero(scores > rule.score_threshold)
    if not len(passed):
        return np.array([int(scores.argmax())], np.int64)
    return passed[nms(cxcywh_to_xyxy(boxes[passed]), scores[passed], rule.nms_threshold, rule.limit)]
