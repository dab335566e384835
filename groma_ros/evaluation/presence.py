"""`groma eval presence`: how reliably a model reports that a goal has no target in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.evaluation.observations import Observations
from groma_ros.evaluation.plots import Panel, reliability_svg
from groma_ros.evaluation.statistics import (
    brier,
    calibration_error,
    figure,
    fit_line,
    ranking,
    rejected_at_recall,
    reliability,
    rounded,
)
from groma_ros.grounding.calibration import Calibration
from groma_ros.simulation.goal_generator import GOAL_TYPES

RECALLS = (0.9, 0.95, 0.99)
FOLDS = 5


def report(
    seen: Observations, presence: NDArray[Any], calibration: Calibration, min_presence: float
) -> dict[str, Any]:
    """Metrics of stated presences, float64 (G,). `calibration` gives the scores of boxes."""
    says = presence >= min_presence
    chances, right = seen.boxes(says)
    scores = np.asarray(calibration.score(chances))
    answered = np.where(says, seen.exact, ~seen.present)
    absent, kinds = ~seen.present, np.array(seen.kinds)
    rows = [kind for kind in GOAL_TYPES if kind in seen.kinds] + sorted(set(seen.kinds) - set(GOAL_TYPES))
    return {
        "scenes": len(np.unique(seen.scene)),
        "goals": len(presence),
        "absent": int(absent.sum()),
        "min_presence": min_presence,
        "accuracy": {
            "all": _share(says == seen.present),
            "present": _share(says[seen.present]),
            "absent": _share(~says[absent]),
            "absent_hard": _share(~says[seen.hard]),
        },
        "answers": {**{kind: _share(answered[kinds == kind]) for kind in rows}, "all": _share(answered)},
        "absent_at_recall": {f"{recall:g}": _at(seen, presence, recall) for recall in RECALLS},
        "ranking": rounded(ranking(presence, seen.present)),
        "calibration_error": rounded(calibration_error(presence, seen.present)),
        "brier": rounded(brier(presence, seen.present)),
        "scores": {
            "boxes": len(scores),
            "calibration_error": rounded(calibration_error(scores, right)),
            "brier": rounded(brier(scores, right)),
        },
        "reliability": [asdict(item) for item in reliability(presence, seen.present)],
        "score_reliability": [asdict(item) for item in reliability(scores, right)],
    }


def _share(values: NDArray[Any]) -> float | None:
    return rounded(float(np.mean(values))) if len(values) else None


def _at(seen: Observations, presence: NDArray[Any], recall: float) -> dict[str, float | None]:
    """Rejection rate at the threshold that keeps `recall` of the present goals."""
    rejected, threshold = rejected_at_recall(presence, seen.present, recall)
    hard = presence[seen.hard]
    return {
        "absent": rounded(rejected),
        "absent_hard": _share(hard < threshold),
        "threshold": rounded(threshold),
    }


def cross_fitted(seen: Observations, names: Sequence[str]) -> NDArray[Any]:
    """Presence of every goal from signals alone, by `FOLDS`-fold cross-validation over scenes."""
    features = np.array([[item[name] for name in names] for item in seen.signals])
    presence = np.zeros(len(features))
    for fold in range(FOLDS):
        own = seen.scene % FOLDS == fold
        if own.any():
            weights, bias = fit_line(features[~own], seen.present[~own])
            line = Calibration(
                answers_none=False,
                presence_bias=bias,
                signals=dict(zip(names, map(float, weights), strict=True)),
            )
            presence[own] = seen.part(own).presence(line)
    return presence


def table(document: dict[str, Any]) -> str:
    """Format the report as text."""
    ran = f"{document['model']} on {document['backend']} ({document['precision']})"
    how = (
        f", presence from {', '.join(document['signals'])}, fitted on the other scenes"
        if document["signals"]
        else ""
    )
    lines = [
        f"{ran}{how}: {document['goals']} goals in {document['scenes']} scenes, {document['absent']} of "
        "them absent",
        f"{'calibration error':<26}{figure(document['calibration_error'])}   Brier "
        f"{figure(document['brier'])}",
        f"{'ranking (AUROC)':<26}{figure(document['ranking'])}",
    ]
    names = {
        "all": "said rightly",
        "present": "present, said so",
        "absent": "absent, said so",
        "absent_hard": "absent, both words there",
    }
    lines += [f"{names[key]:<26}{figure(value)}" for key, value in document["accuracy"].items()]
    for recall, row in document["absent_at_recall"].items():
        tail = f"   hard {figure(row['absent_hard'])}   (threshold {figure(row['threshold'])})"
        lines.append(f"{f'absent at recall {recall}':<26}{figure(row['absent'])}{tail}")
    scores = document["scores"]
    lines.append(
        f"{'calibration of scores':<26}{figure(scores['calibration_error'])}   of {scores['boxes']} boxes"
    )
    lines.append(
        "exact answers             "
        + "   ".join(f"{kind} {figure(value)}" for kind, value in document["answers"].items())
    )
    return "\n".join(lines)


def plot(seen: Observations, presence: NDArray[Any], calibration: Calibration, min_presence: float) -> str:
    """Reliability diagrams of presence and of box scores, as SVG."""
    chances, right = seen.boxes(presence >= min_presence)
    scores = np.asarray(calibration.score(chances))
    return reliability_svg(
        [
            Panel(
                f"Presence: error {calibration_error(presence, seen.present):.3f}, {len(presence)} goals",
                reliability(presence, seen.present),
                "stated presence",
                "share truly present",
            ),
            Panel(
                f"Scores: error {calibration_error(scores, right):.3f}, {len(scores)} boxes",
                reliability(scores, right),
                "score of a box",
                "share that are targets",
            ),
        ]
    )
