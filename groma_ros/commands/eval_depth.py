"""`groma eval depth`: boxes in space on rendered scenes."""

from __future__ import annotations

import argparse
import json

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.commands.run_options import add_scene_arguments
from groma_ros.evaluation.depth import evaluate, rendered, table
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.simulation.depth_noise import LEVELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval depth`."""
    add_scene_arguments(parser, 100)
    add_model_arguments(parser, device=True)
    parser.add_argument(
        "--noise",
        nargs="+",
        choices=tuple(LEVELS),
        default=list(LEVELS),
        metavar="LEVEL",
        help=f"of {', '.join(LEVELS)} (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma eval depth` with the options of `add_arguments`; returns the exit status."""
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")
    grounder = Grounder.load(args.model, runtime_options(args)) if args.model else None
    tallies = evaluate(
        shown(rendered(args.seed, args.count, args.world), args.count, "scene"), grounder, args.noise
    )
    levels = {
        level: {source: tally.report() for source, tally in sources.items()}
        for level, sources in tallies.items()
    }
    report = {"scenes": args.count, "seed": args.seed, "world": args.world, "levels": levels}
    print(json.dumps(report, indent=1) if args.json else table(report))
    return 0
