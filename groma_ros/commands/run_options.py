"""Options common to the evaluations, and the objects they are converted to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import replacing
from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.evaluation.observations import SceneSeed
from groma_ros.evaluation.scenes import TrueScene
from groma_ros.evaluation.workers import EvaluationPlan, ModelChoice
from groma_ros.simulation.dataset import load_dataset, scene_seeds
from groma_ros.simulation.scene_records import SceneRecord
from groma_ros.simulation.worlds import DEFAULT_WORLD, MIXED, WORLDS

REPORT, TABLE = "report.json", "table.txt"


@dataclass(frozen=True)
class Subcommand:
    """A subcommand of `groma` in a module with several subcommands."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Returns the exit status."""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for model, processes, devices and records."""
    add_model_arguments(parser, required=True)
    parser.add_argument(
        "--devices",
        default="",
        help="comma-separated devices assigned to the processes in turn, e.g. cuda:0,cuda:1 (default: "
        "the backend's choice)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of processes (default 1)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for records, report and table, from which an interrupted run resumes",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def add_scene_arguments(parser: argparse.ArgumentParser, count: int, required: bool = True) -> None:
    """Add the options for rendered scenes. count: the default; required: whether --seed must be given."""
    parser.add_argument(
        "--seed", type=int, required=required, help="data seed of the rendered scenes, as in `groma scenes`"
    )
    parser.add_argument(
        "--count", type=int, default=count, help=f"number of rendered scenes (default {count})"
    )
    parser.add_argument(
        "--world",
        choices=(MIXED, *WORLDS),
        default=DEFAULT_WORLD,
        help=f"world of rendered scenes (default {DEFAULT_WORLD})",
    )


def add_picture_arguments(
    parser: argparse.ArgumentParser, drawn: bool = True, resize: str = "published"
) -> None:
    """Add the options for the pictures of a published data set and their resize. drawn: wordings are drawn at
    random."""
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the annotated pictures",
    )
    parser.add_argument(
        "--resize",
        default=resize,
        help="resize of pictures: own, bilinear, bicubic or area; with the original's weights also "
        "published (bilinear, as in its evaluations) or demo (bicubic, as in its chat), which are "
        f"the bundle's own for other weights (default: {resize})",
    )
    parser.add_argument("--limit", type=int, help="use only the first N pictures")
    if drawn:
        parser.add_argument(
            "--seed", type=int, default=0, help="seed for drawing the template's wordings (default 0)"
        )


def check_count(args: argparse.Namespace) -> None:
    """Raise ValueError for --count below 1."""
    if args.count < 1:
        raise ValueError(f"--count is {args.count}; at least one scene is needed.")


def check_source(args: argparse.Namespace) -> None:
    """Raise ValueError unless exactly one of --seed and a folder is given, or for --count below 1."""
    if (args.seed is None) == (args.data is None):
        raise ValueError("Give either --seed (with --count) to render scenes, or a folder of scenes.")
    check_count(args)


def scene_source(
    args: argparse.Namespace,
) -> tuple[Sequence[SceneSeed | SceneRecord | TrueScene], dict[str, Any]]:
    """Return the scenes given by --seed and --count or by a folder, and the settings that identify them.

    Raises ValueError as `check_source` does.
    """
    check_source(args)
    if args.data is not None:
        return load_dataset(args.data), {"data": str(args.data.resolve())}
    scenes = [SceneSeed(seed, args.world) for seed in scene_seeds(args.seed, args.count)]
    return scenes, {"seed": args.seed, "count": args.count, "world": args.world}


def model_choice(args: argparse.Namespace) -> ModelChoice:
    """Return the model that the options name."""
    resize = getattr(args, "resize", "own")
    return ModelChoice(args.model, runtime_options(args), getattr(args, "min_presence", None), resize)


def plan(args: argparse.Namespace) -> EvaluationPlan:
    """Return the processes, devices and folder that the options name."""
    return EvaluationPlan(args.jobs, tuple(name for name in args.devices.split(",") if name), args.out)


def described(choice: ModelChoice, pictures: int, seed: int | None = None) -> dict[str, Any]:
    """Return the head of a report: model, resize, seed of the wordings if any, number of pictures."""
    bundle = choice.bundle()
    drawn = {} if seed is None else {"seed": seed}
    return {"model": bundle.name, "resize": bundle.image.resize, **drawn, "pictures": pictures}


def finish(args: argparse.Namespace, report: dict[str, Any], table: str) -> int:
    """Print the report, as JSON or as a table, and store both in --out. Returns the exit status."""
    document = json.dumps(report, indent=1)
    if args.out:
        for name, text in ((REPORT, document), (TABLE, table)):
            with replacing(args.out / name) as stream:
                stream.write(text.encode() + b"\n")
        print(f"{args.out / REPORT}", file=sys.stderr)
    print(document if args.json else table)
    return 0
