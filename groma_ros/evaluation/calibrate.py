"""`groma calibrate`: fit presence and scores of a bundle, in the precision that runs, to scenes whose truth is known."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.evaluation.bag_scenes import bag_scenes, is_bag
from groma_ros.evaluation.observations import Observations, SceneSeed, observe
from groma_ros.evaluation.presence import FOLDS, scene_source
from groma_ros.evaluation.run_options import add_run_arguments, add_scene_arguments, figure, finish, model_choice, plan, rounded
from groma_ros.evaluation.scenes import TrueScene
from groma_ros.evaluation.statistics import brier, calibration_error, fit_line
from groma_ros.grounding.calibration import FITTED, PRECISIONS, Calibration, log_odds
from groma_ros.grounding.grounder import MIN_PRESENCE
from groma_ros.runtime.bundle import Bundle
from groma_ros.simulation.dataset import SceneRecord

FEWEST = 50


@dataclass(frozen=True)
class Fit:
    """One of the two lines. count: statements; before, after: (calibration error, Brier score) of the manifest's line and of lines
    fitted on the other scenes; kept: the manifest's line stays, because the new ones are no better on scenes they were not fitted on."""

    count: int
    before: tuple[float, float]
    after: tuple[float, float]
    kept: bool


def fit_presence(seen: Observations, old: Calibration) -> Calibration:
    """The calibration with presence fitted: Platt's line on the log-odds of not stopping at once, or weights of the signals.

    ValueError where all goals are present or all absent, and where the model's log-odds rank the wrong way.
    """
    if old.answers_none:
        weights, bias = fit_line(np.array([-item["stop"] for item in seen.signals]), seen.present)
        if weights[0] <= 0:
            raise ValueError("The model is surer of goals that are absent than of those that are there; presence cannot be fitted to that.")
        return dataclasses.replace(old, presence_scale=float(weights[0]), presence_bias=bias)
    names = list(old.signals)
    weights, bias = fit_line(np.array([[item[name] for name in names] for item in seen.signals]), seen.present)
    return dataclasses.replace(old, presence_bias=bias, signals=dict(zip(names, map(float, weights), strict=True)))


def fit_scores(seen: Observations, old: Calibration) -> Calibration:
    """The calibration with the score of a box fitted, on the boxes of goals that its presence lets stand; as it is where those are
    all right or all wrong, or where surer boxes are not righter."""
    chances, right = seen.boxes(seen.presence(old) >= MIN_PRESENCE)
    if right.all() or not right.any():
        return old
    weights, bias = fit_line(log_odds(chances), right)
    return dataclasses.replace(old, score_scale=float(weights[0]), score_bias=bias) if weights[0] > 0 else old


def calibrate(seen: Observations, old: Calibration) -> tuple[Calibration, dict[str, Fit]]:
    """The calibration fitted on all scenes, and what was gained, measured on scenes left out of the fit: they are dealt into parts."""
    presence = _judged(seen, old, fit_presence, _presences)
    half = old if presence.kept else fit_presence(seen, old)
    scores = _judged(seen, half, fit_scores, _scores)
    return (half if scores.kept else fit_scores(seen, half)), {"presence": presence, "scores": scores}


Statements = tuple[np.ndarray, np.ndarray]


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
    parts = [seen.scene % FOLDS == fold for fold in range(FOLDS) if (seen.scene % FOLDS == fold).any()]
    before = _joined([state(seen.part(own), old) for own in parts])
    after = _joined([state(seen.part(own), fit(seen.part(~own), old)) for own in parts])
    figures = [(calibration_error(*pair), brier(*pair)) for pair in (before, after)]
    return Fit(len(before[0]), figures[0], figures[1], kept=not _clearly_better(before, after))


def _joined(pairs: list[Statements]) -> Statements:
    return np.concatenate([stated for stated, _ in pairs]), np.concatenate([happened for _, happened in pairs])


def _clearly_better(before: Statements, after: Statements) -> bool:
    """Whether the Brier score of the same statements falls by more than its standard error. Unlike the calibration error it cannot be
    made small by saying the same of everything; and a change within chance would make a model answer otherwise for nothing."""
    gain = (before[0] - before[1]) ** 2 - (after[0] - after[1]) ** 2
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain))) if len(gain) else False


def own_calibration(bundle: Bundle, precision: str, signals: tuple[str, ...] | None) -> Calibration:
    """What the manifest says for a precision. signals: read presence from these, as of a model never taught to say none; before they
    are fitted presence is as good as 1 for every goal, as it is reported where there are no signals."""
    own = Calibration.from_manifest(bundle.calibration, precision)
    if signals is None:
        return own
    return dataclasses.replace(own, answers_none=False, signals=dict.fromkeys(signals, 0.0), presence_bias=float(log_odds(1.0)))


def default_precision(bundle: Bundle) -> str:
    """The precision whose calibration is the manifest's own; others stand beside it."""
    return next(iter((*bundle.precisions, *bundle.gguf_precisions)), "fp32")


def write_calibration(bundle: Bundle, precision: str, calibration: Calibration, fitted: str) -> Bundle:
    """The bundle with the calibration of a precision in its manifest, which is written; fitted: a line that says on what."""
    entry = {**calibration.to_manifest(), FITTED: fitted}
    others = dict(bundle.calibration.get(PRECISIONS, {}))
    if precision == default_precision(bundle):
        others.pop(precision, None)
        manifest = {**entry, PRECISIONS: others} if others else entry
    else:
        # What the default has and this one has not must not shine through.
        neutral = {name: value for name, value in _plain(Calibration()).items() if name in bundle.calibration}
        manifest = {**bundle.calibration, PRECISIONS: {**others, precision: {**neutral, **entry}}}
    changed = dataclasses.replace(bundle, calibration=manifest)
    changed.write_manifest(changed.files)
    return changed


def _plain(calibration: Calibration) -> dict[str, Any]:
    plain = {item.name: getattr(calibration, item.name) for item in dataclasses.fields(calibration)}
    return plain | {"signals": dict(calibration.signals), "null_goals": list(calibration.null_goals)}


def table(document: dict[str, Any]) -> str:
    """The report as lines to read."""
    lines = [
        f"{document['model']} on {document['backend']} ({document['precision']}): {document['goals']} goals, {document['absent']} absent, "
        f"in {document['scenes']} scenes",
        f"{'':<12}statements   error before   after   Brier before    after",
    ]
    for name in ("presence", "scores"):
        row = document[name]
        tail = "   kept as it was: the new line is no better on scenes it was not fitted on" if row["kept"] else ""
        lines.append(
            f"{name:<12}{row['count']:>10}{figure(row['before']):>15}{figure(row['after']):>8}"
            f"{figure(row['brier_before'], 4):>15}{figure(row['brier_after'], 4):>9}{tail}"
        )
    lines.append("calibration  " + ", ".join(f"{name} {value}" for name, value in document["calibration"].items()))
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma calibrate`."""
    parser.add_argument("data", type=Path, nargs="?", metavar="BAG|DIR", help="a bag with a truth file, or a folder of scenes")
    add_run_arguments(parser)
    add_scene_arguments(parser, 400, required=False)
    parser.add_argument("--truth", type=Path, help="truth file of a bag (default: truth.json beside it)")
    parser.add_argument("--topic", help="camera of a bag (default: its only one)")
    parser.add_argument("--every", type=int, default=1, help="use only every so many frames of a bag (default 1)")
    parser.add_argument(
        "--signals", help="read presence from these, as of a model never taught to say none (default: from all such a model gives)"
    )
    parser.add_argument("--dry-run", action="store_true", help="fit and report, but leave the manifest as it is")


def run_calibrate(args: argparse.Namespace) -> int:
    """`groma calibrate` with the options of `add_arguments`; returns the exit status."""
    names = tuple(name for name in args.signals.split(",") if name) if args.signals else None
    choice = model_choice(args)
    bundle = choice.bundle()
    scenes, source = _source(args)
    settings = {"task": "calibrate", **source, "signals": names is not None}
    seen = observe(choice, scenes, plan(args), settings, none_ignored=names is not None)
    if len(seen.kinds) < FEWEST:
        raise ValueError(f"The scenes hold {len(seen.kinds)} goals; a line through fewer than {FEWEST} would say nothing.")
    old = own_calibration(bundle, seen.precision, names)
    if not old.answers_none and not old.signals:
        given = tuple(name for name in seen.signals[0] if name != "stop")
        old = own_calibration(bundle, seen.precision, given)
    new, fits = calibrate(seen, old)
    document = _document(bundle, seen, source, new, fits)
    if not args.dry_run:
        said = {key: Path(value).name if isinstance(value, str) else value for key, value in source.items()}
        where = ", ".join(f"{key} {value}" for key, value in said.items())
        presence, scores = document["presence"], document["scores"]
        fitted = (
            f"{document['goals']} goals ({document['absent']} absent) of {document['scenes']} scenes ({where}) in {seen.precision}; error "
            f"of presence {presence['before']} before, {presence['after']} after, of scores {scores['before']}, {scores['after']}"
        )
        # The manifest's own resize and not the one chosen here.
        write_calibration(Bundle.load(args.model), seen.precision, new, fitted)
        print(f"{args.model / 'manifest.json'}", file=sys.stderr)
    document["written"] = not args.dry_run
    return finish(args, document, table(document))


def _source(args: argparse.Namespace) -> tuple[Sequence[SceneSeed | SceneRecord | TrueScene], dict[str, Any]]:
    if args.data is not None and is_bag(args.data):
        return bag_scenes(args.data, args.truth, args.topic, args.every), {"bag": str(args.data.resolve()), "every": args.every}
    return scene_source(args)


def _document(
    bundle: Bundle, seen: Observations, source: dict[str, Any], new: Calibration, fits: dict[str, Fit]
) -> dict[str, Any]:
    rows = {
        name: {
            "count": fit.count,
            "before": rounded(fit.before[0]),
            "after": rounded(fit.after[0]),
            "brier_before": rounded(fit.before[1]),
            "brier_after": rounded(fit.after[1]),
            "kept": fit.kept,
        }
        for name, fit in fits.items()
    }
    counts = {"scenes": len(np.unique(seen.scene)), "goals": len(seen.kinds), "absent": int((~seen.present).sum())}
    ran = {"model": bundle.name, "backend": seen.backend, "precision": seen.precision}
    return {**ran, **source, **counts, **rows, "calibration": new.to_manifest()}
