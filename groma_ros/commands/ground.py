"""`groma ground`: goals about one picture, without ROS."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from groma_ros.commands.model_arguments import add_model_arguments, runtime_options

if TYPE_CHECKING:
    from groma_ros.types import Goal, Grounding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma ground`."""
    parser.add_argument("--image", type=Path, required=True, help="a JPEG or PNG picture")
    parser.add_argument(
        "--goal",
        nargs="+",
        action="extend",
        default=[],
        metavar="TEXT",
        help="what to look for; without one the scene is listed",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PICTURE", help="write the picture with the boxes drawn (.png or .jpg)"
    )
    add_model_arguments(parser, device=True)
    parser.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma ground` with the options of `add_arguments`; returns the exit status."""
    from groma_ros.grounding.goals import check_goal
    from groma_ros.grounding.grounder import Grounder
    from groma_ros.io.images import compressed_to_rgb
    from groma_ros.runtime.model_paths import shipped_model
    from groma_ros.types import Frame, Goal

    goals: list[Goal] = [Goal(text) for text in args.goal] or [Goal("", "describe")]
    for goal in goals:
        check_goal(goal)
    if args.out and args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {args.out} must end in .png or .jpg.")
    rgb = compressed_to_rgb(args.image.read_bytes(), args.image.suffix)
    grounder = Grounder.load(
        args.model or shipped_model(), runtime_options(args), min_presence=args.min_presence
    )
    groundings = grounder.ground(Frame(rgb), goals)
    if args.out:
        _write_picture(args.out, rgb, groundings)
    document = {"groundings": [item.to_dict() for item in groundings]}
    print(json.dumps(document, indent=1) if args.json else "\n".join(_line(item) for item in groundings))
    return 0


def _write_picture(path: Path, rgb: object, groundings: list[Grounding]) -> None:
    import cv2
    import numpy as np

    from groma_ros.visualization import draw_groundings

    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_groundings(np.asarray(rgb), groundings)
    if not cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        raise OSError(f"The picture {path} could not be written.")


def _line(grounding: Grounding) -> str:
    boxes = [
        f"  {item.score:.2f}  " + " ".join(f"{value:7.1f}" for value in item.box)
        for item in grounding.detections
    ]
    found = f"{len(boxes)} found" if boxes else "absent"
    head = (
        grounding.text
        or f"{grounding.goal.text}: {found}, presence {grounding.present:.2f}, margin {grounding.margin:.2f}"
    )
    return "\n".join([head, *boxes])
