"""`groma eval scenes`: evaluation on rendered scenes with truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.commands.run_options import add_scene_arguments
from groma_ros.evaluation.failure_pictures import Album
from groma_ros.evaluation.scenes import evaluate, folder_scenes, rendered_scenes, table
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval scenes`."""
    add_model_arguments(parser, required=True, device=True)
    add_scene_arguments(parser, 500, required=False)
    parser.add_argument(
        "--data", type=Path, help="a folder that `groma scenes` wrote, instead of --seed and --count"
    )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="DIR",
        help="write pictures of goals answered wrong, and a sheet of them",
    )
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma eval scenes` with the options of `add_arguments`; returns the exit status."""
    if (args.seed is None) == (args.data is None):
        raise ValueError(
            "Give either --seed (with --count) to render scenes, or --data with a folder of scenes."
        )
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")
    grounder = Grounder.load(args.model, runtime_options(args), min_presence=args.min_presence)
    count, scenes = (
        folder_scenes(args.data)
        if args.data
        else (args.count, rendered_scenes(args.seed, args.count, world=args.world))
    )
    if grounder.runtime:
        print(grounder.runtime.reason, file=sys.stderr)
    album = Album(args.failures) if args.failures else None
    report = evaluate(grounder, shown(scenes, count, "scene"), album).report(balanced=args.data is None)
    if album is not None and (path := album.close()):
        print(path, file=sys.stderr)
    world = {} if args.data else {"world": args.world}
    report = {
        "scenes": report.pop("scenes"),
        "seed": args.seed,
        **world,
        **report,
        "min_presence": grounder.min_presence,
    }
    print(json.dumps(report, indent=1) if args.json else table(report))
    return 0
