"""`groma calibrate`: fit presence and box scores to scenes with ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.commands.run_options import (
    add_run_arguments,
    add_scene_arguments,
    finish,
    model_choice,
    plan,
    scene_source,
)
from groma_ros.evaluation.bag_scenes import bag_scenes, is_bag
from groma_ros.evaluation.calibrate import FEWEST, Fit, calibrate, own_calibration, table, write_calibration
from groma_ros.evaluation.observations import Observations, SceneSeed, observe
from groma_ros.evaluation.scenes import TrueScene
from groma_ros.evaluation.statistics import rounded
from groma_ros.folder_lock import folder_lock
from groma_ros.grounding.calibration import Calibration
from groma_ros.runtime.bundle import Bundle
from groma_ros.simulation.dataset import SceneRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma calibrate`."""
    parser.add_argument(
        "data", type=Path, nargs="?", metavar="BAG|DIR", help="a bag with a truth file, or a folder of scenes"
    )
    add_run_arguments(parser)
    add_scene_arguments(parser, 400, required=False)
    parser.add_argument("--truth", type=Path, help="truth file of a bag (default: truth.json beside it)")
    parser.add_argument("--topic", help="camera topic of a bag (default: its only camera)")
    parser.add_argument("--every", type=int, default=1, help="use every N-th frame of a bag (default: 1)")
    parser.add_argument(
        "--signals",
        help="comma-separated signals to compute presence from, for a model that was not trained to "
        'answer "nothing fits" (default for such a model: all)',
    )
    parser.add_argument("--dry-run", action="store_true", help="fit and report without changing the manifest")


def run(args: argparse.Namespace) -> int:
    """Run `groma calibrate` with the options of `add_arguments`; returns the exit status."""
    if args.dry_run:
        return _fit(args)
    with folder_lock(args.model):
        return _fit(args)


def _fit(args: argparse.Namespace) -> int:
    names = tuple(name for name in args.signals.split(",") if name) if args.signals else None
    choice = model_choice(args)
    bundle = choice.bundle()
    scenes, source = _source(args)
    settings = {"task": "calibrate", **source, "signals": names is not None}
    seen = observe(choice, scenes, plan(args), settings, none_ignored=names is not None)
    if len(seen.kinds) < FEWEST:
        raise ValueError(
            f"The scenes hold {len(seen.kinds)} goals; a line through fewer than {FEWEST} would say nothing."
        )
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
            f"{document['goals']} goals ({document['absent']} absent) of {document['scenes']} scenes "
            f"({where}) in {seen.precision}; error "
            f"of presence {presence['before']} before, {presence['after']} after, of scores "
            f"{scores['before']}, {scores['after']}"
        )
        # Keep the manifest's own resize, not the one chosen here.
        write_calibration(Bundle.load(args.model), seen.precision, new, fitted)
        print(f"{args.model / 'manifest.json'}", file=sys.stderr)
    document["written"] = not args.dry_run
    return finish(args, document, table(document))


def _source(args: argparse.Namespace) -> tuple[Sequence[SceneSeed | SceneRecord | TrueScene], dict[str, Any]]:
    if args.data is not None and is_bag(args.data):
        return bag_scenes(args.data, args.truth, args.topic, args.every), {
            "bag": str(args.data.resolve()),
            "every": args.every,
        }
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
    counts = {
        "scenes": len(np.unique(seen.scene)),
        "goals": len(seen.kinds),
        "absent": int((~seen.present).sum()),
    }
    ran = {"model": bundle.name, "backend": seen.backend, "precision": seen.precision}
    return {**ran, **source, **counts, **rows, "calibration": new.to_manifest()}
