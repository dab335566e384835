"""`groma eval robustness`: evaluation on altered pictures and words."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groma_ros.commands.run_options import add_scene_arguments
from groma_ros.evaluation.robustness import CONDITIONS, robustness, table
from groma_ros.grounding.grounder import Grounder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval robustness`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of the model bundle")
    add_scene_arguments(parser, 200)
    parser.add_argument(
        "--conditions", default=",".join(CONDITIONS), help="of the table, by name (default: all)"
    )
    parser.add_argument(
        "--backend",
        default="auto",
        help="what runs the model: auto, onnx, tensorrt, llama_cpp or torch (default: auto)",
    )
    parser.add_argument(
        "--precision", default="auto", help="of the model, e.g. fp32 or int8 (default: the model's own)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma eval robustness` with the options of `add_arguments`; returns the exit status."""
    names = [name for name in args.conditions.split(",") if name]
    if wrong := [name for name in names if name not in CONDITIONS]:
        raise ValueError(f"There is no condition {wrong[0]!r}; the conditions are {', '.join(CONDITIONS)}.")
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")
    grounder = Grounder.load(args.model, backend=args.backend, precision=args.precision)
    if grounder.runtime:
        print(grounder.runtime.reason, file=sys.stderr)
    rows = robustness(grounder, args.seed, args.count, args.world, names)
    document = {"scenes": args.count, "seed": args.seed, "world": args.world, "conditions": rows}
    print(json.dumps(document, indent=1) if args.json else table(document))
    return 0
