"""`groma scenes`: render scenes with ground truth and goals."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from groma_ros.simulation import other_worlds
from groma_ros.simulation.dataset import Settings, write_dataset
from groma_ros.simulation.published_forms import FORMS, write_form
from groma_ros.simulation.worlds import DEFAULT_WORLD, MIXED, WORLDS

_VALUES = (
    "count",
    "out",
    "world",
    "jobs",
    "width",
    "height",
    "aspect",
    "supersample",
    "goals_per_kind",
    "form",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma scenes`."""
    parser.add_argument(
        "--seed", type=int, required=True, help="data seed; different seeds give different scenes"
    )
    parser.add_argument("--count", type=int, required=True, help="number of scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write or to continue")
    help_ = f"where the scenes are set (default {DEFAULT_WORLD})"
    parser.add_argument(
        "--world", choices=(MIXED, *WORLDS, *other_worlds.WORLDS), default=DEFAULT_WORLD, help=help_
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument("--width", type=int, default=640, help="width in pixels (default 640)")
    parser.add_argument("--height", type=int, default=480, help="height in pixels (default 480)")
    parser.add_argument(
        "--aspect", help="stretch pictures of a camera with this aspect (a number or random) to the size"
    )
    parser.add_argument(
        "--supersample",
        type=int,
        default=1,
        help="factor by which pictures are drawn larger and averaged down (default 1)",
    )
    parser.add_argument(
        "--goals-per-kind", type=int, default=1, help="goals of each kind per scene (default 1)"
    )
    parser.add_argument("--depth", action="store_true", help="also write depth as 16-bit PNG in millimetres")
    parser.add_argument(
        "--form",
        choices=FORMS,
        help="also write the goals in a published format: grec for groma eval grec, saco for eval concepts",
    )


def run(args: argparse.Namespace) -> int:
    """Run `groma scenes` with the options of `add_arguments`; returns the exit status."""
    if args.world in other_worlds.WORLDS and not other_worlds.is_installed(args.world):
        return other_worlds.run_elsewhere("groma_ros.commands.scenes", command_line(args))
    settings = Settings(
        args.seed,
        args.width,
        args.height,
        args.aspect,
        args.supersample,
        args.goals_per_kind,
        args.depth,
        args.world,
    )
    path = write_dataset(args.out, args.count, settings, args.jobs)
    print(path)
    if args.form:
        print(write_form(path, args.form))
    return 0


def command_line(args: argparse.Namespace) -> list[str]:
    """Return the command-line options of `add_arguments` that yield these arguments."""
    words = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(args).items()
        if name in _VALUES and value
    ]
    return [*words, f"--seed={args.seed}", *(["--depth"] if args.depth else [])]


def main() -> int:
    """Run `groma scenes` alone, for the environment of another simulator, which lacks the packages of other
    commands."""
    parser = argparse.ArgumentParser(prog="groma scenes", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except (ValueError, RuntimeError, OSError) as error:
        print(f"groma scenes: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
