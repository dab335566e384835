"""Calibration metrics against values by hand and their definitions, and fits to known log-odds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from groma_ros.evaluation.statistics import (
    brier,
    calibration_error,
    fit_line,
    ranking,
    rejected_at_recall,
    reliability,
)

STATED = np.array([0.1, 0.1, 0.4, 0.9, 0.9, 0.9])
HAPPENED = np.array([False, True, False, True, True, False])


def test_bins_hold_what_was_stated_and_what_happened() -> None:
    low, middle, high = reliability(STATED, HAPPENED, bins=3)
    assert (low.count, low.stated, low.happened) == (2, pytest.approx(0.1), 0.5)
    assert (middle.count, middle.stated, middle.happened) == (1, pytest.approx(0.4), 0.0)
    assert (high.low, high.high, high.count, high.happened) == (
        pytest.approx(2 / 3),
        1.0,
        3,
        pytest.approx(2 / 3),
    )


def test_calibration_error_by_hand() -> None:
    # Two statements off by 0.4, one by 0.4, three by 0.9 - 2/3.
    assert calibration_error(STATED, HAPPENED, bins=3) == pytest.approx(
        (2 * 0.4 + 0.4 + 3 * (0.9 - 2 / 3)) / 6
    )
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool)))
    # A probability of exactly 1 belongs to the last bin.
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0


def test_brier_by_hand() -> None:
    assert brier(np.array([0.5, 1.0]), np.array([True, False])) == pytest.approx((0.25 + 1) / 2)
    assert np.isnan(brier(np.zeros(0), np.zeros(0, bool)))


def test_ranking_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        scores, truth = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
        assert ranking(scores, truth) == pytest.approx(np.mean(pairs))
    assert np.isnan(ranking(np.ones(3), np.ones(3, bool)))


def test_rejection_at_a_recall_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.75, 0.65, 0.1])
    truth = np.array([True] * 4 + [False] * 3)
    # Three of four present goals are kept at 0.7; two of three absent ones lie below it.
    assert rejected_at_recall(scores, truth, 0.75) == (pytest.approx(2 / 3), 0.7)
    assert rejected_at_recall(scores, truth, 1.0) == (pytest.approx(1 / 3), 0.6)
    assert rejected_at_recall(scores, truth, 0.6)[1] == 0.7
    assert np.isnan(rejected_at_recall(scores, np.ones(7, bool), 0.9)[0])


def test_a_line_is_found_again() -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(0, 2, (20_000, 2)) + [1, -3]
    odds = features @ [0.8, -0.3] + 0.5
    truth = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    weights, bias = fit_line(features, truth)
    np.testing.assert_allclose(weights, [0.8, -0.3], atol=0.04)
    assert bias == pytest.approx(0.5, abs=0.1)
    stated = 1 / (1 + np.exp(-(features @ weights + bias)))
    assert calibration_error(stated, truth) < 0.01 < calibration_error(1 / (1 + np.exp(-2 * odds)), truth)


def test_fit_matches_a_general_purpose_minimiser() -> None:
    rng = np.random.default_rng(6)
    x, truth = rng.normal(0, 3, 200), rng.random(200) < 0.3
    weights, bias = fit_line(x, truth)
    positives, negatives = truth.sum(), (~truth).sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(line: NDArray[Any]) -> float:
        odds = line[0] * (x - x.mean()) / x.std() + line[1]
        return float((np.logaddexp(0, odds) - target * odds).sum() + 0.005 * line[0] ** 2)

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert weights[0] * x.std() == pytest.approx(best[0], abs=1e-4)
    assert bias + weights[0] * x.mean() == pytest.approx(best[1], abs=1e-4)


def test_separable_examples_give_finite_weights() -> None:
    weights, bias = fit_line(np.array([-3.0, -2, 2, 3]), np.array([False, False, True, True]))
    assert 0 < weights[0] < 20 and np.isfinite(bias)
    constant, _ = fit_line(
        np.column_stack([np.ones(4), [-1.0, 1, -1, 1]]), np.array([False, True, False, True])
    )
    assert constant[0] == pytest.approx(0, abs=1e-6)


def test_one_outcome_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Only one outcome was seen"):
        fit_line(np.ones(5), np.ones(5, bool))


def test_a_weight_of_two_counts_like_two_examples() -> None:
    rng = np.random.default_rng(9)
    odds = rng.normal(0.5, 2, 3000)
    truth, counts = rng.random(3000) < 1 / (1 + np.exp(-odds)), np.where(odds > 1, 1, 3)
    stated, often = 1 / (1 + np.exp(-1.7 * odds)), np.repeat(np.arange(3000), counts)
    for measure in (calibration_error, brier, ranking):
        wanted = measure(stated[often], truth[often])
        assert measure(stated, truth, weights=counts * 0.1) == pytest.approx(wanted, rel=1e-9)
        assert measure(stated, truth) != pytest.approx(wanted, rel=1e-3)
    weights, bias = fit_line(odds, truth, counts)
    # The smoothing of targets depends on how many examples there are, not on their weights.
    twice, other = fit_line(odds[often], truth[often])
    assert weights[0] == pytest.approx(twice[0], rel=0.01) and bias == pytest.approx(other, abs=0.02)
    scaled, same = fit_line(odds, truth, counts * 7.0)
    assert (scaled[0], same) == (pytest.approx(weights[0]), pytest.approx(bias))


def test_weighted_figures_by_hand() -> None:
    stated, happened = np.array([0.9, 0.9, 0.2]), np.array([True, False, False])
    weights = np.array([3.0, 1.0, 4.0])
    # One bin states 0.9 and 3 of 4 happened; the other states 0.2 and nothing did.
    assert calibration_error(stated, happened, weights=weights) == pytest.approx((4 * 0.15 + 4 * 0.2) / 8)
    assert brier(stated, happened, weights=weights) == pytest.approx((3 * 0.01 + 0.81 + 4 * 0.04) / 8)
    # The present item ties one absent item of weight 1 and beats one of weight 4.
    assert ranking(stated, happened, weights) == pytest.approx((0.5 + 4) / 5)
