"""The assignment against SciPy's, over many sizes, with ties and forbidden pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from groma_ros.matching import best_pairs


def gain(pairs: list[tuple[int, int]], score: NDArray[Any], least: float) -> float:
    return float(sum(score[pair] - least for pair in pairs))


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.45, 0.9])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_sum_is_scipys_and_nothing_is_paired_twice(least: float, coarse: bool) -> None:
    rng = np.random.default_rng([int(10 * least) + 20, coarse])
    for _ in range(200):
        shape = tuple(rng.integers(1, 9, 2))
        score = rng.random(shape)
        if coarse:
            score = np.round(score * 3) / 3
        pairs = best_pairs(score, least)
        worth = np.clip(score - least, 0, None)
        rows, columns = linear_sum_assignment(worth, maximize=True)
        assert gain(pairs, score, least) == pytest.approx(worth[rows, columns].sum())
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert pairs == sorted(pairs) and all(score[pair] > least for pair in pairs)


def test_large_and_lopsided_matrices() -> None:
    rng = np.random.default_rng(1)
    for shape in [(100, 100), (3, 200), (200, 3)]:
        score = rng.random(shape)
        rows, columns = linear_sum_assignment(score, maximize=True)
        assert gain(best_pairs(score, 0.0), score, 0.0) == pytest.approx(score[rows, columns].sum())


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_nothing_is_paired_with_nothing(shape: tuple[int, int]) -> None:
    assert best_pairs(np.zeros(shape), 0.0) == []


def test_a_lower_sum_is_left_for_a_legal_pair() -> None:
    assert best_pairs(np.array([[0.9, 0.8], [0.8, 0.1]]), 0.5) == [(0, 1), (1, 0)]
    assert best_pairs(np.array([[0.9, 0.6], [0.6, 0.1]]), 0.5) == [(0, 0)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        best_pairs(np.array([[0.5, value]]), 0.0)
