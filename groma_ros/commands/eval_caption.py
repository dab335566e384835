"""`groma eval caption`: descriptions of regions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from groma_ros.atomic_write import replacing
from groma_ros.commands.run_options import (
    add_picture_arguments,
    add_run_arguments,
    finish,
    model_choice,
    plan,
)
from groma_ros.evaluation.caption import CAPTIONS, KINDS, Describe, read_regions, report, table
from groma_ros.evaluation.workers import run_evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma eval caption`."""
    add_run_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="COCO-style file whose annotations have captions, as vg_test.json",
    )
    add_picture_arguments(parser)
    parser.add_argument(
        "--dataset",
        choices=sorted(KINDS),
        help="the data is this: its queries, and the paper's figure beside",
    )


def run(args: argparse.Namespace) -> int:
    """`groma eval caption` with the options of `add_arguments`; returns the exit status."""
    pictures = read_regions(args.data)[: args.limit]
    choice = model_choice(args)
    kind = KINDS.get(args.dataset, "describe")
    settings = {"task": "caption", "data": str(args.data.resolve()), "kind": kind, "seed": args.seed}
    records = run_evaluation(
        Describe(args.images, kind, args.seed), pictures, "picture", choice, plan(args), settings
    )
    texts = [text for record in records for text in record["texts"]]
    regions = [region for picture in pictures for region in picture.regions]
    asked = {
        "model": choice.bundle().name,
        "resize": choice.bundle().image.resize,
        "seed": args.seed,
        "pictures": len(pictures),
    }
    document = {**asked, **report(args.dataset or "", texts, [region.references for region in regions])}
    if args.out:
        results = [
            {"image_id": region.image, "caption": text} for region, text in zip(regions, texts, strict=True)
        ]
        with replacing(args.out / CAPTIONS) as stream:
            stream.write(json.dumps(results).encode())
    return finish(args, document, table(document))
