"""One-to-one matching of boxes and scores. Implemented here because scipy would double the size of a robot's
installation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.types import FloatArray, IntArray

_CLEAR = 1e-9
"""Difference of two scores that rounding does not explain."""


def match_boxes(found: FloatArray, truth: FloatArray, threshold: float = 0.5) -> IntArray:
    """Match N found xyxy boxes to true ones; returns the index of each one's true box, or -1, as int64.

    Matches are one to one at an IoU of at least the threshold, as many as possible; pairs with a high IoU are
    preferred.
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


def found_for(truth: FloatArray, found: FloatArray) -> list[tuple[int, float]]:
    """For each of T true xyxy boxes, the index of the box found for it and their IoU; -1 and 0 if there is
    none. Any overlap counts."""
    overlap = box_iou(found, truth)
    pairs = [(-1, 0.0)] * len(truth)
    for box, target in enumerate(match_boxes(found, truth, threshold=1e-6)):
        if target >= 0:
            pairs[int(target)] = (box, float(overlap[box, target]))
    return pairs


def exact_set(found: FloatArray, targets: FloatArray, threshold: float = 0.5) -> bool:
    """True if every target is matched at the threshold and no other box was found. Boxes are xyxy, (N, 4) and
    (M, 4)."""
    found, targets = (
        np.asarray(found, np.float32).reshape(-1, 4),
        np.asarray(targets, np.float32).reshape(-1, 4),
    )
    return len(found) == len(targets) and bool((match_boxes(found, targets, threshold) >= 0).all())


def average_precision(scores: NDArray[Any], correct: NDArray[Any], positives: int) -> float:
    """Area under the precision-recall curve, without interpolation; candidates of equal score count as one
    step.

    scores: float N; correct: bool N; positives: number of right answers, including those that are no
    candidate. Returns NaN if positives is 0.
    """
    if positives == 0:
        return float("nan")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], np.cumsum(np.asarray(correct, np.float64)[order])
    last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
    hits, places = hits[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0.0) * hits / places).sum() / positives)


def best_pairs(score: NDArray[Any], least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of a score matrix NxM that maximise the sum of `score - least`, each row and column
    used at most once; rows ascending.

    Pairs scoring `least` or lower are never formed, so the assignment may be partial. Shortest augmenting
    path form of the Hungarian method (Jonker and Volgenant 1987), O(n^3). Raises ValueError if a score is not
    finite.
    """
    score = np.asarray(score, np.float64)
    if not np.isfinite(score).all():
        raise ValueError("A score to pair by is not a finite number.")
    gain = np.clip(score - least, 0, None)
    if not gain.size:
        return []
    if (pairs := _uncontested(gain)) is not None:
        return pairs
    turned = gain.shape[0] > gain.shape[1]
    columns = _assign(-(gain.T if turned else gain))
    pairs = [(int(column), row) if turned else (row, int(column)) for row, column in enumerate(columns)]
    return sorted(pair for pair in pairs if gain[pair] > 0)


def _uncontested(gain: NDArray[Any]) -> list[tuple[int, int]] | None:
    """The best pairs if every row gets the column it gains most by, as in most images of a stream; None if
    two rows want the same column, or a row gains equally by two."""
    rows = np.arange(len(gain))
    best = gain.argmax(1)
    most = gain[rows, best]
    others = gain.copy()
    others[rows, best] = 0
    wanting = most > 0
    wanted = best[wanting].tolist()
    if len(set(wanted)) < len(wanted) or (wanting & (most - others.max(1) < _CLEAR)).any():
        return None
    return list(zip(rows[wanting].tolist(), wanted, strict=True))


def _assign(cost: NDArray[Any]) -> IntArray:
    """The column of each row, N <= M, with the lowest total cost."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1, np.int64)
    for start in range(rows):
        reached = np.full(columns, np.inf)
        before = np.full(columns, -1, np.int64)  # previous column on the path; -1: the start row
        done = np.zeros(columns, bool)
        row, column, distance = start, -1, 0.0
        while True:
            open_ = ~done
            path = distance + cost[row] - row_price[row] - column_price
            better = open_ & (path < reached)
            reached[better], before[better] = path[better], column
            column = int(np.where(open_, reached, np.inf).argmin())
            distance = float(reached[column])
            if owner[column] < 0:
                break
            done[column] = True
            row = int(owner[column])
        row_price[start] += distance
        row_price[owner[done]] += distance - reached[done]
        column_price[done] += reached[done] - distance
        while column >= 0:
            previous = int(before[column])
            owner[column] = owner[previous] if previous >= 0 else start
            column = previous
    result = np.full(rows, -1, np.int64)
    result[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return result
