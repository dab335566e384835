"""`groma eval robustness`: evaluation on altered pictures and words."""

from __future__ import annotations

import argparse
import json
import sys

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.commands.run_options import add_scene_arguments
from groma_ros.evaluation.robustness import CONDITIONS, robustness, table
from groma_ros.grounding.grounder import Grounder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval robustness`."""
    add_model_arguments(parser, required=True, device=True)
    add_scene_arguments(parser, 200)
    parser.add_argument(
        "--conditions", default=",".join(CONDITIONS), help="of the table, by name (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma eval robustness` with the options of `add_arguments`; returns the exit status."""
    names = [name for name in args.conditions.split(",") if name]
    if wrong := [name for name in names if name not in CONDITIONS]:
        raise ValueError(f"There is no condition {wrong[0]!r}; the conditions are {', '.join(CONDITIONS)}.")
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")
    grounder = Grounder.load(args.model, runtime_options(args))
    if grounder.runtime:
        print(grounder.runtime.reason, file=sys.stderr)
    rows = robustness(grounder, args.seed, args.count, args.world, names)
    document = {"scenes": args.count, "seed": args.seed, "world": args.world, "conditions": rows}
    print(json.dumps(document, indent=1) if args.json else table(document))
    return 0
