"""`groma train`: train a small Groma."""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

STAGES = "detection,alignment,language"
"""All stages, as `--stages` takes them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma train`."""
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file of the run, e.g. config/train_tiny.yaml"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        help="folder of scenes, checkpoints and logs (default: runs)",
    )
    parser.add_argument("--bundle", type=Path, help="folder for the finished bundle")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoints in --out")
    parser.add_argument(
        "--stages", default=STAGES, help=f"stages to run, in order, separated by commas (default: {STAGES})"
    )
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        help="a COCO-style or RefCOCO-style file; may be repeated",
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        action="append",
        default=[],
        help="COCO-style or RefCOCO-style file for evaluation only",
    )
    parser.add_argument(
        "--images", type=Path, help="folder of the pictures (default: the folder of each file)"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="name or folder of a model with the initial weights",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run `groma train`; returns the exit status."""
    from groma_ros.folder_lock import folder_lock
    from groma_ros.training.run import TrainingRun, train

    given = vars(arguments)
    lists = {
        "data": tuple(arguments.data),
        "held_out": tuple(arguments.held_out),
        "stages": tuple(arguments.stages.split(",")),
    }
    planned = TrainingRun(**{**{name: given[name] for name in TrainingRun.__dataclass_fields__}, **lists})
    # The processes of torchrun share the folder; the first of them holds it against other runs.
    first = os.environ.get("RANK", "0") == "0"
    with folder_lock(arguments.out) if first else nullcontext():
        train(planned)
    return 0
