"""`groma eval precisions`: precisions of one model compared."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from groma_ros.commands.run_options import add_scene_arguments
from groma_ros.evaluation.precisions import compare, table
from groma_ros.evaluation.scenes import rendered_scenes
from groma_ros.progress import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval precisions`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of the model bundle")
    add_scene_arguments(parser, 200)
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma eval precisions` with the options of `add_arguments`; returns the exit status."""
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")
    scenes = list(shown(rendered_scenes(args.seed, args.count, world=args.world), args.count, "scene"))
    rows = compare(args.model, scenes)
    print(
        json.dumps({"seed": args.seed, "scenes": args.count, "world": args.world, "rows": rows}, indent=1)
        if args.json
        else table(rows)
    )
    return 0
