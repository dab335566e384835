"""Calibration and ranking metrics of probabilities, and logistic regression to calibrate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.grounding.calibration import sigmoid

BINS = 15
"""Bins of equal width; most papers that report a calibration error use 15."""
_RIDGE = 1e-2
_STEPS = 100


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram."""

    low: float
    high: float
    count: int
    stated: float
    """Mean of the predicted probabilities."""
    happened: float
    """Share of the predictions that came true."""


def reliability(chances: NDArray[Any], truth: NDArray[Any], bins: int = BINS) -> list[Bin]:
    """Compare predicted probabilities (N,) with outcomes (N,), in bins of equal width; empty bins are
    omitted."""
    chances, truth = np.asarray(chances, np.float64), np.asarray(truth, bool)
    place = _places(chances, bins)
    found = []
    for index in range(bins):
        inside = place == index
        if inside.any():
            means = float(chances[inside].mean()), float(truth[inside].mean())
            found.append(Bin(index / bins, (index + 1) / bins, int(inside.sum()), *means))
    return found


def _places(chances: NDArray[Any], bins: int) -> NDArray[Any]:
    """Index of each probability's bin; 1 belongs to the last."""
    return np.minimum((chances * bins).astype(np.int64), bins - 1)


def calibration_error(
    chances: NDArray[Any], truth: NDArray[Any], bins: int = BINS, weights: NDArray[Any] | None = None
) -> float:
    """Expected calibration error: mean over predictions of |stated - happened| of their bin, with these
    weights (N,), by default equal ones. NaN for none.

    Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; Guo et al., ICML
    2017.
    """
    chances, truth = np.asarray(chances, np.float64), np.asarray(truth, np.float64)
    if not len(chances):
        return float("nan")
    kept = _weights(weights, len(chances))
    sums = np.bincount(_places(chances, bins), kept * (chances - truth))
    return float(np.abs(sums).sum() / kept.sum())


def brier(chances: NDArray[Any], truth: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Mean squared difference of predicted probability and outcome, 0 or 1, with these weights (N,), by
    default equal ones. NaN for none."""
    if not len(chances):
        return float("nan")
    squares = (np.asarray(chances, np.float64) - np.asarray(truth, np.float64)) ** 2
    return float(np.average(squares, weights=weights))


def ranking(scores: NDArray[Any], truth: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Area under the ROC curve, with these weights (N,) of the items, by default equal ones; ties count half.
    NaN unless both outcomes occur."""
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return float("nan")
    kept = _weights(weights, len(scores))
    _, place = np.unique(scores, return_inverse=True)
    positives, negatives = np.bincount(place, kept * truth), np.bincount(place, kept * ~truth)
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))


def _weights(weights: NDArray[Any] | None, count: int) -> NDArray[Any]:
    return np.ones(count) if weights is None else np.asarray(weights, np.float64)


def rejected_at_recall(scores: NDArray[Any], truth: NDArray[Any], recall: float) -> tuple[float, float]:
    """Share of false items below the highest threshold that keeps `recall` of the true ones, and that
    threshold.

    An item is kept if its score is at least the threshold. NaN unless both outcomes occur.
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return float("nan"), float("nan")
    kept = np.sort(scores[truth])[::-1]
    threshold = kept[int(np.ceil(recall * len(kept) - 1e-9)) - 1]
    return float((scores[~truth] < threshold).mean()), float(threshold)


def fit_line(
    features: NDArray[Any], truth: NDArray[Any], weights: NDArray[Any] | None = None
) -> tuple[NDArray[Any], float]:
    """Weights (K,) and bias of a logistic regression of truth (N,) on features (N, K), by Newton's method.

    weights: of the examples (N,), by default equal; only their ratios count. Targets are smoothed by the
    number of examples as in Platt, Probabilistic outputs for support vector machines, 1999, which keeps the
    slopes finite for separable examples; a ridge on standardised features does the rest. Raises ValueError if
    only one outcome occurs.
    """
    features, truth = np.asarray(features, np.float64).reshape(len(truth), -1), np.asarray(truth, bool)
    if truth.all() or not truth.any():
        raise ValueError(
            "Only one outcome was seen, so there is nothing to fit; take scenes with present and with "
            "absent goals."
        )
    kept = _weights(weights, len(truth))
    kept = kept / kept.mean()
    positives, negatives = kept[truth].sum(), kept[~truth].sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean, spread = features.mean(0), features.std(0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    inputs = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    ridge = np.diag([_RIDGE] * features.shape[1] + [0.0])
    line: NDArray[Any] = np.zeros(inputs.shape[1])
    line[-1] = np.log(positives / negatives)
    loss = _loss(inputs, target, kept, ridge, line)
    for _ in range(_STEPS):
        chance = sigmoid(inputs @ line)
        slope = inputs.T @ (kept * (chance - target)) + ridge @ line
        curve = (
            inputs.T @ (inputs * (kept * chance * (1 - chance))[:, None]) + ridge + 1e-9 * np.eye(len(line))
        )
        step, size = np.linalg.solve(curve, slope), 1.0
        while size > 1e-6 and (better := _loss(inputs, target, kept, ridge, line - size * step)) > loss:
            size /= 2
        line = line - size * step
        if loss - better < 1e-10:
            break
        loss = better
    slopes = line[:-1] / spread
    return slopes, float(line[-1] - slopes @ mean)


def _loss(
    inputs: NDArray[Any], target: NDArray[Any], kept: NDArray[Any], ridge: NDArray[Any], line: NDArray[Any]
) -> float:
    """Weighted cross-entropy plus ridge penalty."""
    odds = inputs @ line
    return float((kept * (np.logaddexp(0, odds) - target * odds)).sum() + line @ ridge @ line / 2)


def figure(value: float | None, digits: int = 3) -> str:
    """Format a number of a table; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def rounded(value: float) -> float | None:
    """Round to four decimals for a report; None for NaN."""
    return None if value != value else round(float(value), 4)
