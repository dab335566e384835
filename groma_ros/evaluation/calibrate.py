"""`groma calibrate`: fit presence and box scores of a bundle to scenes with known truth, in the precision
that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.observations import Observations
from groma_ros.evaluation.presence import FOLDS
from groma_ros.evaluation.statistics import brier, calibration_error, figure, fit_line, ranking, rounded
from groma_ros.grounding.calibration import FITTED, PRECISIONS, Calibration, log_odds
from groma_ros.grounding.grounder import MIN_PRESENCE
from groma_ros.runtime.bundle import Bundle

FEWEST = 50


@dataclass(frozen=True)
class Quality:
    """How good predictions are; NaN where there is nothing to measure."""

    error: float
    """Expected calibration error."""
    brier: float
    ranking: float
    """Area under the ROC curve."""
    true: float
    """Share of what is true that is stated with at least `MIN_PRESENCE`."""
    false: float
    """Share of what is false that is stated with less."""

    def document(self) -> dict[str, float | None]:
        """The figures rounded, None for NaN."""
        return {item.name: rounded(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True)
class Fit:
    """Result of fitting presence or scores; parameters fitted are judged by cross-validation."""

    count: int
    """Number of predictions."""
    before: Quality
    """Of the manifest's parameters."""
    after: Quality
    """Of parameters fitted on the other scenes."""
    sources: tuple[tuple[Quality, Quality], ...]
    """(before, after) of each source of data."""
    kept: bool
    """Whether the manifest's parameters are kept, because the new ones are no better on held-out scenes."""


def equal_weights(source: NDArray[Any]) -> NDArray[Any]:
    """Weights (N,) with which all sources of N items weigh the same, whatever their size; 1 on average.

    source: int (N,), the source of each item.
    """
    _, place, counts = np.unique(source, return_inverse=True, return_counts=True)
    weights: NDArray[Any] = (len(source) / max(len(counts), 1) / counts)[place]
    return weights


def fit_presence(seen: Observations, old: Calibration) -> Calibration:
    """Fit presence: Platt scaling of the log-odds of a non-empty answer, or weights of the signals. All
    sources weigh the same.

    Raises ValueError if all goals are present or all absent, or if the log-odds rank absent goals above
    present ones.
    """
    balance = equal_weights(seen.source)
    if old.answers_none:
        odds = np.array([-item["stop"] for item in seen.signals])
        weights, bias = fit_line(odds, seen.present, balance)
        if weights[0] <= 0:
            raise ValueError(
                "The model is surer of goals that are absent than of those that are there; presence cannot "
                "be fitted to that."
            )
        return dataclasses.replace(old, presence_scale=float(weights[0]), presence_bias=bias)
    names = list(old.signals)
    features = np.array([[item[name] for name in names] for item in seen.signals])
    weights, bias = fit_line(features, seen.present, balance)
    return dataclasses.replace(
        old, presence_bias=bias, signals=dict(zip(names, map(float, weights), strict=True))
    )


def fit_scores(seen: Observations, old: Calibration) -> Calibration:
    """Fit the score of a box on the boxes of goals reported present. All sources weigh the same.

    Returns `old` unchanged if the boxes are all right or all wrong, or if higher probabilities are not more
    often right.
    """
    stands = seen.presence(old) >= MIN_PRESENCE
    chances, right = seen.boxes(stands)
    if right.all() or not right.any():
        return old
    weights, bias = fit_line(log_odds(chances), right, equal_weights(seen.box_source(stands)))
    return dataclasses.replace(old, score_scale=float(weights[0]), score_bias=bias) if weights[0] > 0 else old


def calibrate(seen: Observations, old: Calibration) -> tuple[Calibration, dict[str, Fit]]:
    """Fit the calibration on all scenes, and measure the gain by cross-validation over scenes."""
    presence = _judged(seen, old, fit_presence, _presences)
    half = old if presence.kept else fit_presence(seen, old)
    scores = _judged(seen, half, fit_scores, _scores)
    return (half if scores.kept else fit_scores(seen, half)), {"presence": presence, "scores": scores}


@dataclass(frozen=True)
class _Statements:
    """Predicted probabilities, what happened, and the sources, each (N,)."""

    stated: NDArray[Any]
    happened: NDArray[Any]
    source: NDArray[Any]

    def quality(self, source: int | None = None) -> Quality:
        """Measure the statements of one source, or of all with the same weight."""
        own = np.full(len(self.source), True) if source is None else self.source == source
        stated, happened, weights = self.stated[own], self.happened[own], equal_weights(self.source[own])
        right = (stated >= MIN_PRESENCE) == happened

        def share(chosen: NDArray[Any]) -> float:
            return float(np.average(right[chosen], weights=weights[chosen])) if chosen.any() else float("nan")

        return Quality(
            calibration_error(stated, happened, weights=weights),
            brier(stated, happened, weights),
            ranking(stated, happened, weights),
            share(happened),
            share(~happened),
        )


def _presences(seen: Observations, calibration: Calibration) -> _Statements:
    return _Statements(seen.presence(calibration), seen.present, seen.source)


def _scores(seen: Observations, calibration: Calibration) -> _Statements:
    stands = seen.presence(calibration) >= MIN_PRESENCE
    chances, right = seen.boxes(stands)
    return _Statements(np.asarray(calibration.score(chances)), right, seen.box_source(stands))


def _judged(
    seen: Observations,
    old: Calibration,
    fit: Callable[[Observations, Calibration], Calibration],
    state: Callable[[Observations, Calibration], _Statements],
) -> Fit:
    """Compare old and fitted parameters by cross-validation."""
    parts = [seen.scene % FOLDS == fold for fold in range(FOLDS) if (seen.scene % FOLDS == fold).any()]
    before = _joined([state(seen.part(own), old) for own in parts])
    after = _joined([state(seen.part(own), fit(seen.part(~own), old)) for own in parts])
    sources = tuple((before.quality(item), after.quality(item)) for item in range(seen.source.max() + 1))
    better = _clearly_better(before, after)
    return Fit(len(before.stated), before.quality(), after.quality(), sources, kept=not better)


def _joined(parts: list[_Statements]) -> _Statements:
    return _Statements(
        *(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(_Statements))
    )


def _clearly_better(before: _Statements, after: _Statements) -> bool:
    """Whether the Brier score of the same predictions falls by more than its standard error.

    Unlike the calibration error, the Brier score cannot be lowered by a constant prediction. Changes within
    the standard error are not worth different answers.
    """
    gain = (before.stated - before.happened) ** 2 - (after.stated - after.happened) ** 2
    gain = gain * equal_weights(before.source)
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain))) if len(gain) else False


def own_calibration(bundle: Bundle, precision: str, signals: tuple[str, ...] | None) -> Calibration:
    """Calibration of the manifest for a precision.

    signals: read presence from these signals, as for a model that was not trained to answer "none". Before
    they are fitted, presence is close to 1 for every goal, as without signals.
    """
    own = Calibration.from_manifest(bundle.calibration, precision)
    if signals is None:
        return own
    return dataclasses.replace(
        own, answers_none=False, signals=dict.fromkeys(signals, 0.0), presence_bias=float(log_odds(1.0))
    )


def default_precision(bundle: Bundle) -> str:
    """Precision whose calibration is at the top level of the manifest; those of others are nested."""
    return next(iter((*bundle.precisions, *bundle.gguf_precisions)), "fp32")


def write_calibration(bundle: Bundle, precision: str, calibration: Calibration, fitted: str) -> Bundle:
    """Write the calibration of a precision to the manifest and return the changed bundle. fitted: one line
    that names the data it was fitted on."""
    entry = {**calibration.to_manifest(), FITTED: fitted}
    others = dict(bundle.calibration.get(PRECISIONS, {}))
    if precision == default_precision(bundle):
        others.pop(precision, None)
        manifest = {**entry, PRECISIONS: others} if others else entry
    else:
        # Fields of the default that this calibration does not set must not be inherited.
        neutral = {name: value for name, value in _plain(Calibration()).items() if name in bundle.calibration}
        manifest = {**bundle.calibration, PRECISIONS: {**others, precision: {**neutral, **entry}}}
    changed = dataclasses.replace(bundle, calibration=manifest)
    changed.write_manifest(changed.files)
    return changed


def _plain(calibration: Calibration) -> dict[str, Any]:
    plain = {item.name: getattr(calibration, item.name) for item in dataclasses.fields(calibration)}
    return plain | {"signals": dict(calibration.signals), "null_goals": list(calibration.null_goals)}


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    wide = max(12, *(len(source["name"]) + 1 for source in document["sources"]))
    lines = [
        f"{document['model']} on {document['backend']} ({document['precision']}): {document['goals']} "
        f"goals, {document['absent']} absent, "
        f"in {document['scenes']} scenes",
        f"{'':<{wide}}statements   error before   after   Brier before    after",
    ]
    for name in ("presence", "scores"):
        row = document[name]
        before, after = row["before"], row["after"]
        tail = "   unchanged: the fit is no better on held-out scenes" if row["kept"] else ""
        lines.append(
            f"{name:<{wide}}{row['count']:>10}{figure(before['error']):>15}{figure(after['error']):>8}"
            f"{figure(before['brier'], 4):>15}{figure(after['brier'], 4):>9}{tail}"
        )
    lines.append(
        f"{'presence':<{wide}}     goals  absent   ranking   error before   after   present, said so   "
        "absent, said so"
    )
    whole = {**document, "name": "all", "presence": document["presence"]}
    for source in (*document["sources"], whole) if len(document["sources"]) > 1 else (whole,):
        before, after = source["presence"]["before"], source["presence"]["after"]
        present, absent = (f"{figure(before[key])} -> {figure(after[key])}" for key in ("true", "false"))
        lines.append(
            f"{source['name']:<{wide}}{source['goals']:>10}{source['absent']:>8}"
            f"{figure(before['ranking']):>10}{figure(before['error']):>15}{figure(after['error']):>8}"
            f"{present:>19}{absent:>18}"
        )
    lines.append(
        "calibration  " + ", ".join(f"{name} {value}" for name, value in document["calibration"].items())
    )
    return "\n".join(lines)
