"""The best one-to-one pairing of two sets, written here because scipy alone would double what a robot has to install."""

from __future__ import annotations

import numpy as np

from groma_ros.types import IntArray


def best_pairs(score: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of a score matrix NxM, each row and column at most once, of the highest sum of `score - least`.

    A pair scoring `least` or lower is never made, so the pairing may be partial. Rows ascending. The shortest augmenting path
    form of the Hungarian method (Jonker and Volgenant 1987), O(n^3). Raises ValueError for a score that is not a number.
    """
    score = np.asarray(score, np.float64)
    if not np.isfinite(score).all():
        raise ValueError("A score to pair by is not a finite number.")
    gain = np.clip(score - least, 0, None)
    if not gain.size:
        return []
    turned = gain.shape[0] > gain.shape[1]
    columns = _assign(-(gain.T if turned else gain))
    pairs = [(int(column), row) if turned else (row, int(column)) for row, column in enumerate(columns)]
    return sorted(pair for pair in pairs if gain[pair] > 0)


def _assign(cost: np.ndarray) -> IntArray:
    """The column of each row, N <= M, of the lowest total cost."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1, np.int64)
    for start in range(rows):
        reached = np.full(columns, np.inf)
        before = np.full(columns, -1, np.int64)  # the column from which each was reached, -1 for the start
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
