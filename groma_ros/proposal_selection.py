"""From proposals to the regions of a scene: threshold, suppression, order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groma_ros.boxes import box_iou, cxcywh_to_xyxy, left_to_right, nms
from groma_ros.timing import stage
from groma_ros.types import FloatArray, IntArray

USER_BOX_SCORE = 1.0


@dataclass(frozen=True)
class SelectionRule:
    """Which proposals become regions: score strictly above the threshold, suppression above `nms_threshold`,
    at most `limit`."""

    score_threshold: float = 0.15
    nms_threshold: float = 0.6
    limit: int = 100


@dataclass(frozen=True, eq=False)
class Selection:
    """The regions of a scene. boxes: float32 Nx4 cxcywh fractions in the order of `<r0>`, `<r1>`, ...;
    scores: float32 N; user: int64 M, the region that stands for each user box (the one of highest IoU);
    candidates: int64 N, which of the proposals, followed by the user boxes and the true boxes, each region
    is.
    """

    boxes: FloatArray
    scores: FloatArray
    user: IntArray
    candidates: IntArray


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
    """Choose and order the regions of one image.

    boxes: Qx4 cxcywh fractions; scores: Q in 0..1; user_boxes: Mx4 cxcywh fractions, which join with score 1
    before suppression, so that they win over the proposals they overlap. When nothing passes the threshold
    the best single box stays. Regions are named from left to right (`geometry.left_to_right` says why);
    `permutation` replaces that order by an injected one of the boxes that survived, best score first, to
    compare with a recorded run. true_boxes: Gx4, in training only: they join with true_score, so that a
    region near every true box exists.
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
