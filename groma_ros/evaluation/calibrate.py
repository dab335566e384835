"""`groma calibrate`: fit presence and box scores of a bundle to scenes with known truth, in the precision
that runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.observations import Observations
from groma_ros.evaluation.presence import FOLDS
from groma_ros.evaluation.statistics import brier, calibration_error, figure, fit_line
from groma_ros.grounding.calibration import FITTED, PRECISIONS, Calibration, log_odds
from groma_ros.grounding.grounder import MIN_PRESENCE
from groma_ros.runtime.bundle import Bundle

FEWEST = 50


@dataclass(frozen=True)
class Fit:
    """Result of fitting presence or scores."""

    count: int
    """Number of predictions."""
    before: tuple[float, float]
    """(calibration error, Brier score) of the manifest's parameters."""
    after: tuple[float, float]
    """(calibration error, Brier score) of parameters fitted with cross-validation."""
    kept: bool
    """Whether the manifest's parameters are kept, because the new ones are no better on held-out scenes."""


def fit_presence(seen: Observations, old: Calibration) -> Calibration:
    """Fit presence: Platt scaling of the log-odds of a non-empty answer, or weights of the signals.

    Raises ValueError if all goals are present or all absent, or if the log-odds rank absent goals above
    present ones.
    """
    if old.answers_none:
        weights, bias = fit_line(np.array([-item["stop"] for item in seen.signals]), seen.present)
        if weights[0] <= 0:
            raise ValueError(
                "The model is surer of goals that are absent than of those that are there; presence cannot "
                "be fitted to that."
            )
        return dataclasses.replace(old, presence_scale=float(weights[0]), presence_bias=bias)
    names = list(old.signals)
    weights, bias = fit_line(
        np.array([[item[name] for name in names] for item in seen.signals]), seen.present
    )
    return dataclasses.replace(
        old, presence_bias=bias, signals=dict(zip(names, map(float, weights), strict=True))
    )


def fit_scores(seen: Observations, old: Calibration) -> Calibration:
    """Fit the score of a box on the boxes of goals reported present.

    Returns `old` unchanged if the boxes are all right or all wrong, or if higher probabilities are not more
    often right.
    """
    chances, right = seen.boxes(seen.presence(old) >= MIN_PRESENCE)
    if right.all() or not right.any():
        return old
    weights, bias = fit_line(log_odds(chances), right)
    return dataclasses.replace(old, score_scale=float(weights[0]), score_bias=bias) if weights[0] > 0 else old


def calibrate(seen: Observations, old: Calibration) -> tuple[Calibration, dict[str, Fit]]:
    """Fit the calibration on all scenes, and measure the gain by cross-validation over scenes."""
    presence = _judged(seen, old, fit_presence, _presences)
    half = old if presence.kept else fit_presence(seen, old)
    scores = _judged(seen, half, fit_scores, _scores)
    return (half if scores.kept else fit_scores(seen, half)), {"presence": presence, "scores": scores}


Statements = tuple[NDArray[Any], NDArray[Any]]


def _presences(seen: Observations, calibration: Calibration) -> Statements:
    return seen.presence(calibration), seen.present


def _scores(seen: Observations, calibration: Calibration) -> Statements:
    chances, right = seen.boxes(seen.presence(calibration) >= MIN_PRESENCE)
    return np.asarray(calibration.score(chances)), right


def _judged(
    seen: Observations,
    old: Calibration,
    fit: Callable[[Observations, Calibration], Calibration],
    state: Callable[[Observations, Calibration], Statements],
) -> Fit:
    """Compare old and fitted parameters by cross-validation."""
    parts = [seen.scene % FOLDS == fold for fold in range(FOLDS) if (seen.scene % FOLDS == fold).any()]
    before = _joined([state(seen.part(own), old) for own in parts])
    after = _joined([state(seen.part(own), fit(seen.part(~own), old)) for own in parts])
    figures = [(calibration_error(*pair), brier(*pair)) for pair in (before, after)]
    return Fit(len(before[0]), figures[0], figures[1], kept=not _clearly_better(before, after))


def _joined(pairs: list[Statements]) -> Statements:
    return np.concatenate([stated for stated, _ in pairs]), np.concatenate(
        [happened for _, happened in pairs]
    )


def _clearly_better(before: Statements, after: Statements) -> bool:
    """Whether the Brier score of the same predictions falls by more than its standard error.

    Unlike the calibration error, the Brier score cannot be lowered by a constant prediction. Changes within
    the standard error are not worth different answers.
    """
    gain = (before[0] - before[1]) ** 2 - (after[0] - after[1]) ** 2
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
    lines = [
        f"{document['model']} on {document['backend']} ({document['precision']}): {document['goals']} "
        f"goals, {document['absent']} absent, "
        f"in {document['scenes']} scenes",
        f"{'':<12}statements   error before   after   Brier before    after",
    ]
    for name in ("presence", "scores"):
        row = document[name]
        tail = "   unchanged: the fit is no better on held-out scenes" if row["kept"] else ""
        lines.append(
            f"{name:<12}{row['count']:>10}{figure(row['before']):>15}{figure(row['after']):>8}"
            f"{figure(row['brier_before'], 4):>15}{figure(row['brier_after'], 4):>9}{tail}"
        )
    lines.append(
        "calibration  " + ", ".join(f"{name} {value}" for name, value in document["calibration"].items())
    )
    return "\n".join(lines)
