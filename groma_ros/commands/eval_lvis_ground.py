"""`groma eval lvis-ground`: average recall on LVIS-Ground."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from groma_ros.commands.run_options import (
    add_picture_arguments,
    add_run_arguments,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.lvis_ground import MOST_BOXES, AskClasses, average_recall, read_classes, table
from groma_ros.evaluation.published_figures import LVIS_GROUND, beside
from groma_ros.evaluation.workers import run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval lvis-ground`."""
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="annotations of LVIS-Ground (lvis_test.json) or in the form of COCO",
    )
    add_picture_arguments(parser)
    parser.add_argument(
        "--most",
        type=int,
        default=MOST_BOXES,
        help=f"boxes of an answer, 0 for all (default {MOST_BOXES}: the original)",
    )
    parser.add_argument(
        "--paper", action="store_true", help="the data is LVIS-Ground: put the paper's figures beside"
    )


def run(args: argparse.Namespace) -> int:
    """`groma eval lvis-ground` with the options of `add_arguments`; returns the exit status."""
    data, pictures = read_classes(args.data)
    pictures = pictures[: args.limit]
    choice = dataclasses.replace(model_choice(args), min_presence=0.0)  # every class asked for is there
    work = AskClasses(args.images, args.seed, args.most)
    settings = {"task": "lvis-ground", "data": str(args.data.resolve()), "seed": args.seed, "most": args.most}
    records = run_evaluation(work, pictures, "picture", choice, plan(args), settings)
    images = [picture.image for picture in pictures]
    recall = average_recall(data, images, [item for record in records for item in record["found"]])
    known: Mapping[str, float] = LVIS_GROUND if args.paper else {}
    targets = [
        entry
        for entry in data["annotations"]
        if entry["image_id"] in set(images) and not entry.get("iscrowd", 0)
    ]
    document = {
        "model": choice.bundle().name,
        "resize": choice.bundle().image.resize,
        "seed": args.seed,
        "pictures": len(pictures),
        "targets": len(targets),
        "classes": len({entry["category_id"] for entry in targets}),
        "recall": {name: beside(value, known.get(name)) for name, value in recall.items()},
    }
    return finish(args, document, table(document))
