"""`groma eval grec`: generalised referring expressions (gRefCOCO)."""

from __future__ import annotations

import argparse
from pathlib import Path

from groma_ros.commands.run_options import (
    add_picture_arguments,
    add_run_arguments,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.expression_sets import GroundExpressions, answered
from groma_ros.evaluation.grec import read_grefs, report, table
from groma_ros.evaluation.workers import run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval grec`."""
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="grefs(unc).json with instances.json beside it, or their folder",
    )
    add_picture_arguments(parser, drawn=False)
    parser.add_argument(
        "--split", default="", help="only these splits, e.g. val,testA (default: all but train)"
    )
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument(
        "--batch", type=int, default=32, help="expressions of a picture that are asked at once (default 32)"
    )


def run(args: argparse.Namespace) -> int:
    """`groma eval grec` with the options of `add_arguments`; returns the exit status."""
    if args.batch < 1:
        raise ValueError(f"--batch is {args.batch}; at least one expression is asked at once.")
    pictures = read_grefs(args.data, tuple(part for part in args.split.split(",") if part))[: args.limit]
    choice = model_choice(args)
    settings = {"task": "grec", "data": str(args.data.resolve()), "split": args.split}
    work = GroundExpressions(args.images, "auto", args.batch)
    records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
    document = {
        "model": choice.bundle().name,
        "resize": choice.bundle().image.resize,
        "pictures": len(pictures),
        **report(answered(pictures, records)),
    }
    return finish(args, document, table(document))
