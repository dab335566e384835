"""`groma eval presence`: how reliably a model recognises that a goal is absent."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from groma_ros.atomic_write import replacing
from groma_ros.commands.run_options import (
    add_run_arguments,
    add_scene_arguments,
    finish,
    model_choice,
    plan,
    scene_source,
)
from groma_ros.evaluation.observations import observe
from groma_ros.evaluation.presence import cross_fitted, plot, report, table
from groma_ros.grounding.calibration import SIGNALS, Calibration
from groma_ros.grounding.grounder import MIN_PRESENCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma eval presence`."""
    add_run_arguments(parser)
    add_scene_arguments(parser, 400, required=False)
    parser.add_argument(
        "--data", type=Path, help="folder written by `groma scenes`, instead of --seed and --count"
    )
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument(
        "--signals",
        help=f"comma-separated signals to compute presence from ({', '.join(SIGNALS)}), for a model "
        'that was not trained to answer "nothing fits"; they are fitted here',
    )
    parser.add_argument("--plot", type=Path, metavar="SVG", help="file for the reliability diagrams")


def run(args: argparse.Namespace) -> int:
    """Run `groma eval presence` with the options of `add_arguments`; returns the exit status."""
    names = tuple(name for name in (args.signals or "").split(",") if name)
    scenes, source = scene_source(args)
    choice = model_choice(args)
    bundle = choice.bundle()
    seen = observe(
        choice,
        scenes,
        plan(args),
        {"task": "presence", **source, "signals": bool(names)},
        none_ignored=bool(names),
    )
    calibration = Calibration.from_manifest(bundle.calibration, seen.precision)
    least = MIN_PRESENCE if args.min_presence is None else args.min_presence
    if names:
        missing = sorted(set(names) - set(seen.signals[0]))
        if missing:
            raise ValueError(
                f"This model does not give the signal {missing[0]!r}; it gives "
                f"{', '.join(sorted(seen.signals[0]))}."
            )
        presence = cross_fitted(seen, names)
    else:
        presence = seen.presence(calibration)
    found = report(seen, presence, calibration, least)
    document = {
        "model": bundle.name,
        "backend": seen.backend,
        "precision": seen.precision,
        **source,
        "signals": list(names),
        **found,
    }
    if args.plot:
        with replacing(args.plot) as stream:
            stream.write(plot(seen, presence, calibration, least).encode())
        print(args.plot, file=sys.stderr)
    return finish(args, document, table(document))
