"""Which boxes found are which true boxes, and how good a ranking is."""

from __future__ import annotations

import numpy as np

from groma_ros.geometry import box_iou
from groma_ros.types import FloatArray, IntArray


def match_boxes(found: FloatArray, truth: FloatArray, threshold: float = 0.5) -> IntArray:
    """For each of N found xyxy boxes the index of its true box, -1 for none, int64.

    One to one at IoU of at least the threshold, as many pairs as possible; the pairs of highest IoU are tried first.
    """
    overlap = box_iou(found, truth)
    owner = np.full(len(truth), -1, np.int64)

    def place(index: int, tried: set[int]) -> bool:
        for target in np.argsort(-overlap[index], kind="stable"):
            if overlap[index, target] < threshold:
                return False
            if target not in tried:
                tried.add(int(target))
                if owner[target] < 0 or place(int(owner[target]), tried):
                    owner[target] = index
                    return True
        return False

    if overlap.size:
        for index in np.argsort(-overlap.max(1), kind="stable"):
            place(int(index), set())
    match = np.full(len(found), -1, np.int64)
    for target, index in enumerate(owner):
        if index >= 0:
            match[index] = target
    return match


def exact_set(found: FloatArray, targets: FloatArray, threshold: float = 0.5) -> bool:
    """Whether every target is found at the threshold and nothing else is: both are xyxy boxes, (N, 4) and (M, 4)."""
    found, targets = np.asarray(found, np.float32).reshape(-1, 4), np.asarray(targets, np.float32).reshape(-1, 4)
    return len(found) == len(targets) and bool((match_boxes(found, targets, threshold) >= 0).all())


def average_precision(scores: np.ndarray, correct: np.ndarray, positives: int) -> float:
    """Area under precision over recall (no interpolation) of candidates ranked by score, equal scores as one step.

    scores: float N; correct: bool N; positives: how many right answers exist, those that are no candidate included. NaN for none.
    """
    if positives == 0:
        return float("nan")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], np.cumsum(np.asarray(correct, np.float64)[order])
    last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
    hits, places = hits[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0.0) * hits / places).sum() / positives)
