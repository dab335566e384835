"""`groma eval rec`: referring expressions of RefCOCO, RefCOCO+, RefCOCOg."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from groma_ros.commands.run_options import (
    add_picture_arguments,
    add_run_arguments,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.referring import AskExpressions, read_referring, report, table
from groma_ros.evaluation.workers import run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval rec`."""
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder or refs file of REFER, or one file as refcoco_val.json",
    )
    add_picture_arguments(parser)
    parser.add_argument(
        "--split", default="", help="only these splits, e.g. val,testA (default: all but train)"
    )
    parser.add_argument("--dataset", help="refcoco, refcoco+ or refcocog, where the file does not say it")
    parser.add_argument(
        "--batch", type=int, default=32, help="expressions of a picture that are asked at once (default 32)"
    )


def run(args: argparse.Namespace) -> int:
    """`groma eval rec` with the options of `add_arguments`; returns the exit status."""
    name, pictures = read_referring(args.data, tuple(part for part in args.split.split(",") if part))
    pictures = pictures[: args.limit]
    choice = dataclasses.replace(model_choice(args), min_presence=0.0)  # every expression means something
    work = AskExpressions(args.images, args.seed, args.batch)
    settings = {"task": "rec", "data": str(args.data.resolve()), "split": args.split, "seed": args.seed}
    records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
    asked = {
        "model": choice.bundle().name,
        "resize": choice.bundle().image.resize,
        "seed": args.seed,
        "pictures": len(pictures),
    }
    document = {**asked, **report(args.dataset or name, records)}
    return finish(args, document, table(document))
