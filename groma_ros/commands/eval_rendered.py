"""`groma eval scenes`, `robustness`, `precisions` and `depth`: evaluations on rendered scenes with truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groma_ros.commands.model_arguments import FindModel, add_model_arguments, runtime_options
from groma_ros.commands.run_options import Subcommand, add_scene_arguments, check_count, check_source
from groma_ros.evaluation import depth, precisions, robustness, scenes
from groma_ros.evaluation.failure_pictures import Album
from groma_ros.grounding.grounder import Grounder
from groma_ros.progress import shown
from groma_ros.simulation.depth_noise import LEVELS


def _add_scenes_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, required=True, device=True)
    add_scene_arguments(parser, 500, required=False)
    parser.add_argument(
        "--data", type=Path, help="folder written by `groma scenes`, instead of --seed and --count"
    )
    parser.add_argument(
        "--failures",
        type=Path,
        metavar="DIR",
        help="folder for pictures of wrongly answered goals, and a contact sheet",
    )
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def _run_scenes(args: argparse.Namespace) -> int:
    check_source(args)
    grounder = Grounder.load(args.model, runtime_options(args), min_presence=args.min_presence)
    count, found = (
        scenes.folder_scenes(args.data)
        if args.data
        else (args.count, scenes.rendered_scenes(args.seed, args.count, world=args.world))
    )
    if grounder.runtime:
        print(grounder.runtime.reason, file=sys.stderr)
    album = Album(args.failures) if args.failures else None
    report = scenes.evaluate(grounder, shown(found, count, "scene"), album).report(balanced=args.data is None)
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
    print(json.dumps(report, indent=1) if args.json else scenes.table(report))
    return 0


def _add_robustness_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, required=True, device=True)
    add_scene_arguments(parser, 200)
    parser.add_argument(
        "--conditions",
        default=",".join(robustness.CONDITIONS),
        help="comma-separated rows of the table (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def _run_robustness(args: argparse.Namespace) -> int:
    names = [name for name in args.conditions.split(",") if name]
    if wrong := [name for name in names if name not in robustness.CONDITIONS]:
        raise ValueError(
            f"There is no condition {wrong[0]!r}; the conditions are {', '.join(robustness.CONDITIONS)}."
        )
    check_count(args)
    grounder = Grounder.load(args.model, runtime_options(args))
    if grounder.runtime:
        print(grounder.runtime.reason, file=sys.stderr)
    rows = robustness.robustness(grounder, args.seed, args.count, args.world, names)
    document = {"scenes": args.count, "seed": args.seed, "world": args.world, "conditions": rows}
    print(json.dumps(document, indent=1) if args.json else robustness.table(document))
    return 0


def _add_precisions_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", action=FindModel, required=True, metavar="MODEL", help="name or folder of a model"
    )
    add_scene_arguments(parser, 200)
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def _run_precisions(args: argparse.Namespace) -> int:
    check_count(args)
    found = list(shown(scenes.rendered_scenes(args.seed, args.count, world=args.world), args.count, "scene"))
    rows = precisions.compare(args.model, found)
    print(
        json.dumps({"seed": args.seed, "scenes": args.count, "world": args.world, "rows": rows}, indent=1)
        if args.json
        else precisions.table(rows)
    )
    return 0


def _add_depth_arguments(parser: argparse.ArgumentParser) -> None:
    add_scene_arguments(parser, 100, required=False)
    parser.add_argument(
        "--data", type=Path, help="folder written by `groma scenes --depth`, instead of --seed and --count"
    )
    add_model_arguments(parser, device=True)
    parser.add_argument(
        "--noise",
        nargs="+",
        choices=tuple(LEVELS),
        default=list(LEVELS),
        metavar="LEVEL",
        help=f"noise levels, from {', '.join(LEVELS)} (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def _run_depth(args: argparse.Namespace) -> int:
    check_source(args)
    grounder = Grounder.load(args.model, runtime_options(args)) if args.model else None
    count, found = (
        depth.folder_samples(args.data)
        if args.data
        else (args.count, depth.rendered(args.seed, args.count, args.world))
    )
    tallies = depth.evaluate(shown(found, count, "scene"), grounder, args.noise)
    levels = {
        level: {source: tally.report() for source, tally in sources.items()}
        for level, sources in tallies.items()
    }
    source = {"data": str(args.data)} if args.data else {"seed": args.seed, "world": args.world}
    report = {"scenes": count, **source, "levels": levels}
    print(json.dumps(report, indent=1) if args.json else depth.table(report))
    return 0


SCENES = Subcommand(_add_scenes_arguments, _run_scenes)
ROBUSTNESS = Subcommand(_add_robustness_arguments, _run_robustness)
PRECISIONS = Subcommand(_add_precisions_arguments, _run_precisions)
DEPTH = Subcommand(_add_depth_arguments, _run_depth)
